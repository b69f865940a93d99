"""
Where the `http` tool may go: the owner's list of hosts, and which addresses a name may stand for.

A URL is read once, by the parser the client itself uses, so both see the same host. A name is resolved once, and the
connection is made to an address that was checked: a name that stands for another address a moment later gains nothing.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from shared_libs.atomic.errors import MisuseError, ToolError

DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_TOLD = 30
"""How many entries of a list the model is told."""

_Address = IPv4Address | IPv6Address

_REFUSED = {
    "a private address": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "a loopback address": ("127.0.0.0/8", "::1/128"),
    "a link-local address": ("169.254.0.0/16", "fe80::/10"),
    "a shared address of a carrier": ("100.64.0.0/10",),
    "a multicast address": ("224.0.0.0/4", "ff00::/8"),
    "no address of a host": ("0.0.0.0/8", "240.0.0.0/4", "::/128"),
    "an address for protocols, tests or documents": (
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    ),
    "a tunnel's address": ("2001::/23", "2002::/16"),  # Teredo and 6to4 carry any IPv4 address inside
}
"""The special-purpose addresses (IANA's two registries), in the words the model is told."""

_METADATA = "the address of a cloud's metadata service"
_SERVICES = {
    *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.42.42"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42"),
}
"""What hands out credentials to whoever asks; never allowed, by no list."""

_NETWORKS = [(ip_network(network), words) for words, networks in _REFUSED.items() for network in networks]
_GLOBAL_V6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")
"""The middle of an address that carries a private IPv4 address through a site (RFC 5214, 6.1)."""

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")
_ENTRY = re.compile(r"((?P<scheme>https?)://)?(?P<host>\[[^\]]+\]|[^/?#@\s:\[\]]+)(:(?P<port>\d{1,5}))?/?")


class _Entry(NamedTuple):
    """One host of the list; None stands for "http and https", and for the usual port of the scheme."""

    host: str
    scheme: str | None
    port: int | None

    @property
    def exact(self) -> bool:
        return "*" not in self.host

    def covers(self, scheme: str, port: int) -> bool:
        return self.scheme in (None, scheme) and port == (self.port or DEFAULT_PORTS[scheme])

    def names(self, host: str) -> bool:
        return self.host in ("*", host) or (self.host.startswith("*.") and host.endswith(self.host[1:]))

    def stands_for(self, address: _Address) -> bool:
        return self.host == str(address) or (self.host == "localhost" and str(address) in ("127.0.0.1", "::1"))


class AllowList:
    """
    The hosts a tool may reach.

    An entry is `[scheme://]host[:port]`; the host is a name, an address, `*.example.com` (every name below it) or `*`
    (every public host). An address that is not public is reached only when the entry is that very address (or
    `localhost`), or a name without a wildcard whose address is an entry too.

    Raises:
        MisuseError: an entry is none, or names what is never allowed.

    """

    def __init__(self, entries: Sequence[str]) -> None:
        if isinstance(entries, str) or not entries:
            raise MisuseError("allow: give a list of hosts, such as [api.example.com, '*.example.org']")
        self._entries = [_entry(text) for text in entries]
        told = ["any public host on its usual port" if text == "*" else text for text in entries]
        more = [f"{len(told) - MAX_TOLD} more"] if len(told) > MAX_TOLD else []
        self.words = ", ".join(told[:MAX_TOLD] + more)

    @property
    def any_host(self) -> bool:
        """Whether every public host is on the list."""
        return any(entry.host == "*" for entry in self._entries)

    def checked(self, address: str | URL) -> URL:
        """
        Read a URL, and return it if its scheme, host and port are allowed.

        Raises:
            ToolError: it is none, or not allowed; the text says what is.

        """
        url = _parsed(address)
        host, port, scheme = url.raw_host or "", url.port or 0, url.scheme
        literal = _literal(host)
        if not any(entry.covers(scheme, port) and entry.names(host) for entry in self._entries):
            where = host if port == DEFAULT_PORTS[scheme] else f"{host} on port {port}"
            raise ToolError(f"{scheme}://{where} is not allowed; allowed: {self.words}")
        if literal is not None:
            self.check_addresses(url, [host])
        return url

    def check_addresses(self, url: URL, addresses: Sequence[str]) -> None:
        """
        Check every address the host of a URL stands for.

        Raises:
            ToolError: one of them is not public, and the list does not name it.

        """
        host, port, scheme = url.raw_host or "", url.port or 0, url.scheme
        fitting = [entry for entry in self._entries if entry.covers(scheme, port)]
        named = any(entry.exact and entry.names(host) for entry in fitting)
        for text in addresses:
            address = ip_address(text)
            words = not_public(address)
            if words is None or (named and any(entry.stands_for(address) for entry in fitting)):
                continue
            subject = f"{host} is" if host == text else f"the name {host} stands for"
            raise ToolError(f"{subject} {words}; only public addresses are allowed here")

    def written_with_http(self, url: URL) -> bool:
        """Whether the owner wrote `http://` before the host of this URL: it may be asked without encryption."""
        host, port = url.raw_host or "", url.port or 0
        return any(
            entry.scheme == "http" and entry.covers("http", port) and entry.names(host) for entry in self._entries
        )


class Pinned(AbstractResolver):
    """What the client resolves names with: only what was checked, never the network."""

    def __init__(self) -> None:
        self.addresses: dict[str, Sequence[str]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses that were checked."""
        return [
            ResolveResult(
                hostname=host,
                host=text,
                port=port,
                family=socket.AF_INET6 if ":" in text else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for text in self.addresses[host]
        ]

    async def close(self) -> None:
        """Nothing is open."""


def not_public(address: _Address) -> str | None:
    """Say what an address is that is not a public one; None for a public one."""
    if str(address) in _SERVICES:
        return _METADATA
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "a link-local address"
        inner = address.ipv4_mapped or (IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None)
        if inner is not None:
            return not_public(inner)
        if any(str(carried) in _SERVICES for carried in _carried(address)):
            return _METADATA
        if address.packed[8:12] in _ISATAP:
            return "a tunnel's address"
    for network, words in _NETWORKS:
        if address.version == network.version and address in network:
            return words
    return "no public address" if address.version == 6 and address not in _GLOBAL_V6 else None


def _carried(address: IPv6Address) -> list[IPv4Address]:
    """Give what a network that translates to IPv4 by a prefix of its own would make of an address (RFC 6052, 2.2)."""
    whole = address.packed
    without_u = whole[:8] + whole[9:]  # the octet that is always zero, and skipped
    return [IPv4Address(without_u[at : at + 4]) for at in (4, 5, 6, 7, 8)] + [IPv4Address(whole[12:])]


def _entry(text: str) -> _Entry:
    parts = _ENTRY.fullmatch(text.strip().lower())
    if parts is None:
        raise MisuseError(f"allow: {text!r} is no host; write [scheme://]host[:port], IPv6 in brackets")
    host, port = parts["host"].strip("[]"), int(parts["port"]) if parts["port"] else None
    if port is not None and not 0 < port < 65536:
        raise MisuseError(f"allow: {text!r} has no port; ports are 1 to 65535")
    if host != "*":
        star, host = ("*.", host[2:]) if host.startswith("*.") else ("", host)
        try:
            host = star + (URL.build(scheme="http", host=host).raw_host or "")
            address = _literal(host.removeprefix("*."))
        except (ValueError, ToolError) as error:
            raise MisuseError(f"allow: {text!r} is no host; write a name, an address, *.example.com or *") from error
        if address is not None and star:
            raise MisuseError(f"allow: {text!r} has a wildcard before an address; write the address")
        if address is not None and not_public(address) == _METADATA:
            raise MisuseError(f"allow: {text!r} is {_METADATA}; an agent never gets it")
        host = str(address) if address is not None else host
    return _Entry(host, parts["scheme"], port)


def _parsed(address: str | URL) -> URL:
    shown = repr(str(address)[:200])
    if re.search(r"[\x00-\x20\x7f\\]", str(address)):
        raise ToolError(f"{shown} is no URL: it holds a space, a backslash or a control character")
    try:
        url = URL(address) if isinstance(address, str) else address
        host, port = url.raw_host, url.port
    except ValueError as error:
        raise ToolError(f"{shown} is no URL: {error}") from error
    if url.scheme not in DEFAULT_PORTS:
        raise ToolError(f"{shown} is no http URL; write http://… or https://…")
    if url.raw_user is not None or url.raw_password is not None or "@" in url.raw_authority:
        raise ToolError("a URL with a user name or password is not allowed; leave out what stands before the @")
    if not host or not port:
        raise ToolError(f"{shown} has no host or no port")
    return url.with_fragment(None)


def _literal(host: str) -> _Address | None:
    """
    Return the address a host spells, None for a name.

    `0x7f.1`, `2130706433` and `0177.0.0.1` are names to some parsers and 127.0.0.1 to others, so they are nothing here.
    """
    if ":" in host or re.fullmatch(r"\d+(\.\d+){3}", host):
        try:
            address = ip_address(host)
        except ValueError as error:
            raise ToolError(f"{host!r} is no address; write it as 192.0.2.1 or [2001:db8::1]") from error
        return address
    if _NUMBER.fullmatch(host):
        raise ToolError(f"{host!r} is no host: an address is written as four decimal numbers")
    if not _NAME.fullmatch(host):
        raise ToolError(f"{host!r:.200} is no host name")
    return None
