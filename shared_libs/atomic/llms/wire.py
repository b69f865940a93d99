"""
HTTP for all providers: JSON bytes out; JSON bytes, or the payloads of a stream's complete events, back.

Loaded on a provider's first request, so that nothing pays for aiohttp before.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary, ref

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from shared_libs.atomic.errors import LLMConnectionError, LLMError, LLMTimeout, MalformedResponse, StreamInterrupted
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.faults import redacted, refusal
from shared_libs.atomic.llms.framing import AnyFraming, Framing
from shared_libs.atomic.propagation import trace_headers
from shared_libs.atomic.threads import Threads

CONNECT_TIMEOUT_S = 5.0
"""For name, connection and TLS together; the rest of an attempt's time is the onion's."""

KEEPALIVE_S = 60.0
"""How long an idle connection is kept: longer than the tools between two calls of a model usually take."""

MAX_REPLY_BYTES = 256 * 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024

_THIS_MACHINE = {"127.0.0.1", "::1", "localhost"}
_SECRET_HEADERS = {"authorization", "x-api-key", "api-key"}

Session = tuple[aiohttp.ClientSession, str | None]
"""A session, and the proxy its requests go through."""

Pools = WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Session, AsyncGenerator[None, None]]]
"""The session of each event loop, and what keeps it open."""


class Wire:
    """
    The connections to one server, pooled per event loop and opened on first use.

    A pool is closed by `aclose`, and at the latest with its event loop. Nothing here retries, follows a redirect, or
    has a time limit but for connecting.

    Args:
        base_url: the address that paths are appended to.
        headers: sent with every request; the values of those that authenticate, and those in the query of `base_url`,
            are kept out of every error text.

    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._base = URL(base_url)
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
        self.secrets = (
            *(value.rpartition(" ")[2] for name, value in headers.items() if name.lower() in _SECRET_HEADERS and value),
            # a gateway that quotes the line of the request quotes the query as it was sent
            *(value for _, value in parse_qsl(self._base.query_string)),
            *(part.partition("=")[2] for part in self._base.raw_query_string.split("&") if "=" in part),
        )
        self._targets: dict[str, tuple[URL, str]] = {}
        self._pools: Pools = WeakKeyDictionary()

    async def post(self, path: str, body: bytes) -> bytes:
        """
        Send a request and return the body of a successful answer.

        Raises:
            LLMError: there was no answer, or it was a refusal.

        """
        response, where = await self._send(path, body)
        try:
            return await _read_body(response, where)
        finally:
            response.close()

    @asynccontextmanager
    async def stream(self, path: str, body: bytes, framing: Framing | None = None) -> AsyncIterator[EventStream]:
        """
        Send a request and read its answer as it comes, framed as its first byte tells unless told otherwise.

        Raises:
            LLMError: there was no answer, or it was a refusal. Iterating raises `StreamInterrupted` when it breaks off.

        """
        response, where = await self._send(path, body)
        try:
            yield EventStream(_reader(response, where), framing or AnyFraming())
        finally:
            response.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool[1].aclose()

    async def _send(self, path: str, body: bytes) -> tuple[aiohttp.ClientResponse, str]:
        """Send a request; return the answer, its body still to be read, and the address for error texts."""
        session, proxy = await self._session()
        url, where = self._target(path)
        traced = trace_headers()
        headers = {**self._headers, **traced} if traced else self._headers
        try:
            response = await session.post(url, headers=headers, data=body, proxy=proxy, allow_redirects=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error, where) from error
        if response.status < 300:
            return response, where
        try:
            raise refusal(response.status, response.headers, await _read_refusal(response), self.secrets, where)
        finally:
            response.close()

    async def _session(self) -> Session:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            for closed in [known for known in self._pools if known.is_closed()]:
                self._pools.pop(closed, None)
            session = _open_session()
            keeper = _keep_open(session, ref(self._pools))
            await anext(keeper)
            pool = self._pools[loop] = ((session, _proxy_for(self._base)), keeper)
        return pool[0]

    def _target(self, path: str) -> tuple[URL, str]:
        target = self._targets.get(path)
        if target is None:
            url = self._base.with_path(self._base.path.rstrip("/") + path, keep_query=True)
            target = self._targets[path] = (url, str(url.with_query(None)))
        return target

    def _unreachable(self, error: Exception, where: str) -> LLMError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return LLMTimeout(f"no connection to {where} within {CONNECT_TIMEOUT_S:g} s")
        # nobody mends a certificate within a call
        retryable = not isinstance(error, aiohttp.ClientConnectorCertificateError)
        why = redacted(_why(error), self.secrets)
        return LLMConnectionError(f"no answer from {where}: {why}", retryable=retryable)


async def _keep_open(session: aiohttp.ClientSession, pools: ref[Pools]) -> AsyncGenerator[None, None]:
    """
    Hold a session open until closed.

    An asynchronous generator, because an event loop closes those before it closes itself: a session that nobody closed
    ends with its loop, without a warning and without an open socket. The session holds its loop, so its pool must not
    hold it any longer; and this must not hold the pools, or only the collector would free a wire that nobody closed.
    """
    try:
        yield
    finally:
        if (known := pools()) is not None:
            known.pop(asyncio.get_running_loop(), None)
        await session.close()


def _open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, resolver=_Resolver()),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "User-Agent"),
    )


def _proxy_for(url: URL) -> str | None:
    """
    The proxy the environment names (`HTTPS_PROXY`, `NO_PROXY`, ...), looked up once; none leads to this machine itself.

    aiohttp's own `trust_env` looks it up, and reads `~/.netrc`, in a thread each, for every single request.
    """
    direct = url.host in _THIS_MACHINE or proxy_bypass(url.host or "")
    found = None if direct else getproxies().get(url.scheme)
    return f"http://{found}" if found and "://" not in found else found


class _Resolver(AbstractResolver):
    """
    Looks names up in daemon threads.

    A lookup that hangs in asyncio's default executor would keep the process from ending.
    """

    def __init__(self) -> None:
        self._threads = Threads("dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        arguments = {"host": host, "port": port, "family": family, "type": socket.SOCK_STREAM}
        found = await self._threads.submit(socket.getaddrinfo, arguments).result()
        return [
            ResolveResult(
                hostname=host, host=address[0], port=address[1], family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.close()


async def _read_body(response: aiohttp.ClientResponse, where: str) -> bytes:
    read, pieces, size = response.content.readany, [], 0
    try:
        while data := await read():
            pieces.append(data)
            size += len(data)
            if size > MAX_REPLY_BYTES:
                raise MalformedResponse(f"the answer of {where} is longer than {MAX_REPLY_BYTES} bytes")
    except (aiohttp.ClientError, OSError) as error:
        raise LLMConnectionError(f"{where} broke off in the middle of its answer: {_why(error)}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _read_refusal(response: aiohttp.ClientResponse) -> bytes:
    """As much of a refusal as there is: its status alone says enough."""
    body = b""
    try:
        while len(body) < MAX_REFUSAL_BYTES and (data := await response.content.readany()):
            body += data
    except (aiohttp.ClientError, OSError):
        pass
    return body


def _reader(response: aiohttp.ClientResponse, where: str) -> Callable[[], Awaitable[bytes]]:
    readany = response.content.readany

    async def read() -> bytes:
        try:
            return await readany()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamInterrupted(f"{where} broke off in the middle of its stream: {_why(error)}") from error

    return read


def _why(error: Any) -> str:
    """What a transport error says, without the layers around it."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} cannot be resolved ({error.os_error.strerror})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its TLS certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS failed ({error.os_error.strerror})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({os.strerror(error.os_error.errno) if error.os_error.errno else error.os_error})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was closed before its end"
    return str(error) or type(error).__name__
