"""The proxy on the way to a server, as the environment names it (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, ...)."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from shared_libs.atomic.errors import LLMConnectionError

_THIS_MACHINE = {"127.0.0.1", "::1", "localhost"}
_SPOKEN = {"http", "https"}


class Proxy(NamedTuple):
    """A proxy, its password included, and the variable that names it; as text without the password."""

    url: URL
    variable: str

    def __str__(self) -> str:
        return f"the proxy {self.url.with_user(None)} ({self.variable})"


def proxy_for(url: URL) -> Proxy | None:
    """
    The proxy for an address; none leads to this machine itself, nor to what `NO_PROXY` names (networks too).

    aiohttp's own `trust_env` looks it up, and reads `~/.netrc`, in a thread each, for every single request.

    Raises:
        LLMConnectionError: what the environment names is no address, or a proxy of a kind that is not spoken.

    """
    host, named = url.host or "", getproxies()
    scheme = next((scheme for scheme in (url.scheme, "all") if named.get(scheme)), None)
    if scheme is None or host in _THIS_MACHINE or proxy_bypass(host) or _in_network(host, named.get("no", "")):
        return None
    variable, address = f"{scheme.upper()}_PROXY", named[scheme]
    try:
        found = Proxy(URL(address if "://" in address else f"http://{address}"), variable)
        usable = bool(found.url.host and found.url.port)
    except ValueError:
        usable = False
    allowed = "; it has to be such as http://proxy.example.com:3128, or unset, or NO_PROXY names the host"
    if not usable:
        raise LLMConnectionError(f"{variable} is no address of a proxy{allowed}", retryable=False)
    if found.url.scheme not in _SPOKEN:
        raise LLMConnectionError(
            f"{found} is a {found.url.scheme} proxy, which is not spoken{allowed}", retryable=False
        )
    return found


def _in_network(host: str, no_proxy: str) -> bool:
    """Whether an address of a machine lies in one of the networks (10.0.0.0/8); Python's own look knows names only."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for each in no_proxy.split(",") if (network := _network(each.strip())))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
