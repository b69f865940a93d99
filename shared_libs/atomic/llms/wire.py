"""
HTTP for all providers: JSON bytes out; JSON bytes, or the payloads of a stream's complete events, back.

Loaded on a provider's first request, so that nothing pays for aiohttp before.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary, ref

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from shared_libs.atomic.errors import LLMConnectionError, LLMError, LLMTimeout, MalformedResponse, StreamInterrupted
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.faults import redacted, refusal
from shared_libs.atomic.llms.framing import AnyFraming, Framing
from shared_libs.atomic.llms.proxy import proxy_for
from shared_libs.atomic.propagation import PATIENCE, patience_s, trace_headers
from shared_libs.atomic.threads import Threads

CONNECT_TIMEOUT_S = 5.0
"""For name, connection and TLS together; the rest of an attempt's time is the onion's."""

KEEPALIVE_S = 60.0
"""How long an idle connection is kept: longer than the tools between two calls of a model usually take."""

STALE_S = 1.0
"""
Seconds within which a kept connection that breaks was closed before it heard of the request; it is asked again at once.

Servers keep idle ones for a few seconds (uvicorn and so vLLM: 5, Node: 5), load balancers for a minute, and close them
without asking: what is sent in that moment reaches nobody, which says nothing of the model.
"""

MAX_HEADER_BYTES = 64 * 1024
"""The longest header of an answer: policies that proxies add are longer than aiohttp's 8 kB."""
MAX_REPLY_BYTES = 256 * 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024

MAX_REDIRECTS = 3
_SENT_AGAIN = (307, 308)
"""The redirects that keep the method and the body; behind another the request would be a GET."""

_PROXY_ASKS = 407
_PASSING = {408, 429}
"""What a proxy refuses now, and may allow later, as all from 500 on."""
_OF_THE_BODY = {"content-length", "transfer-encoding"}
_SECRET_HEADERS = {"authorization", "x-api-key", "api-key"}
_PATIENCE = f"{PATIENCE}: %.3f\r\n".encode()

Pools = WeakKeyDictionary[asyncio.AbstractEventLoop, tuple["_Pool", AsyncGenerator[None, None]]]
"""The connections of each event loop, and what keeps them open."""


class Wire:
    """
    The connections to one server, pooled per event loop and opened on first use.

    A pool is closed by `aclose`, and at the latest with its event loop. Nothing here retries, or has a time limit but
    for connecting. A 307 or 308 is followed within the server (same scheme, host and port), a few times: the key goes
    nowhere else.

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
            *(part.partition("=")[2] if "=" in part else part for part in self._base.raw_query_string.split("&")),
        )
        self._pools: Pools = WeakKeyDictionary()

    async def post(self, path: str, body: bytes) -> bytes:
        """
        Send a request and return the body of a successful answer.

        Raises:
            LLMError: there was no answer, or it was a refusal.

        """
        answer = await self._send(path, body)
        try:
            return await _read_body(answer)
        finally:
            answer.connection.release()

    def stream(self, path: str, body: bytes, framing: Framing | None = None) -> _Streamed:
        """
        Send a request and read its answer as it comes, framed as its first byte tells unless told otherwise.

        Raises:
            LLMError: there was no answer, or it was a refusal. Iterating raises `StreamInterrupted` when it breaks off.

        """
        return _Streamed(self._send(path, body), framing or AnyFraming())

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool[1].aclose()

    async def _send(self, path: str, body: bytes) -> _Answer:
        """Send a request; return the answer, its body still to be read."""
        known = self._pools.get(asyncio.get_running_loop())
        pool = await self._open_pool() if known is None else known[0]
        way = pool.way
        target = pool.targets.get(path) or pool.target(path)
        left = MAX_REDIRECTS
        while True:
            try:
                answer = await pool.send(target, body)
            except TimeoutError:
                raise LLMTimeout(f"no connection to {target.where}{way} within {CONNECT_TIMEOUT_S:g} s") from None
            except aiohttp.ClientHttpProxyError as error:
                raise _kept_out(error.status, target.where + way) from None  # its own text has the password
            except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
                raise self._unreachable(error, target.where + way) from error
            if answer.status < 300:
                return answer
            try:
                said = await _read_refusal(answer)
            finally:
                answer.connection.release()
            if answer.status == _PROXY_ASKS:
                raise _kept_out(answer.status, target.where + way)
            moved = pool.moved(target, answer) if left else None
            if moved is None:
                raise refusal(answer.status, answer.headers, said, self.secrets, answer.where)
            moved.where = redacted(moved.where, self.secrets)
            target, left = moved, left - 1

    async def _open_pool(self) -> _Pool:
        for closed in [loop for loop in self._pools if loop.is_closed()]:
            self._pools.pop(closed, None)
        pool = _Pool(self._base, self._headers)
        keeper = _keep_open(pool, ref(self._pools))
        await anext(keeper)
        self._pools[asyncio.get_running_loop()] = (pool, keeper)
        return pool

    def _unreachable(self, error: Exception, where: str) -> LLMError:
        # nobody mends a certificate within a call
        retryable = not isinstance(error, aiohttp.ClientConnectorCertificateError)
        why = redacted(_why(error), self.secrets)
        return LLMConnectionError(f"no answer from {where}: {why}", retryable=retryable)


def _kept_out(status: int, where: str) -> LLMError:
    """The error for what a proxy has said of itself; only the refusals of an hour are asked again."""
    asks = "; it wants a user and a password, as in http://user:password@host:port" if status == _PROXY_ASKS else ""
    passing = status in _PASSING or status >= 500
    return LLMConnectionError(f"no answer from {where}: the proxy refused with HTTP {status}{asks}", retryable=passing)


class _Answer(NamedTuple):
    """The head of an answer, and where its body is read. To release its connection keeps it where all was read."""

    connection: Connection
    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader
    where: str


class _Streamed(AbstractAsyncContextManager[EventStream]):
    """A request under way, as the stream of its answer's events; a class, because it is on the path of every call."""

    def __init__(self, answer: Coroutine[Any, Any, _Answer], framing: Framing) -> None:
        self._sent = answer
        self._framing = framing

    async def __aenter__(self) -> EventStream:
        self._answer = await self._sent
        return EventStream(_reader(self._answer), self._framing)

    async def __aexit__(self, *_: object) -> None:
        self._answer.connection.release()


class _Request(aiohttp.ClientRequest):
    """What aiohttp's connector wants to know of where it connects; the same for every request of a path."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """What a connection must have in common with others to be used for this."""
        return super().connection_key


class _Target:
    """Where requests of one path go; `head` is what each of them begins with, known once a connection was made."""

    __slots__ = ("head", "request", "where")

    def __init__(self, request: aiohttp.ClientRequest, where: str) -> None:
        self.request = request
        self.where = where
        self.head = b""


class _Pool:
    """
    The connections to one server on one event loop.

    Names, proxies, TLS, what is kept alive and the reading of HTTP are aiohttp's; its session is not used. That makes
    a request, a response, a timer, cookies and redirects anew for each call, and takes three times the CPU of all else,
    while here all requests of a path have one head.
    """

    def __init__(self, base: URL, headers: Mapping[str, str]) -> None:
        self._base = base
        self._headers = headers
        self._proxy = proxy_for(base)
        self.way = "" if self._proxy is None else f" through {self._proxy}"
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, resolver=_Resolver())
        self._timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S)
        self.targets: dict[str, _Target] = {}

    def target(self, path: str) -> _Target:
        """Describe where requests of a path go."""
        url = self._base.with_path(self._base.path.rstrip("/") + path, keep_query=True)
        target = self.targets[path] = self._at(url)
        return target

    def moved(self, target: _Target, answer: _Answer) -> _Target | None:
        """Where the same request is to be sent instead, if the answer names a place at this server."""
        if answer.status not in _SENT_AGAIN:
            return None
        try:
            url = target.request.url.join(URL(answer.headers["location"]))
            return self._at(url.with_user(None)) if url.origin() == self._base.origin() else None
        except (KeyError, ValueError):
            return None

    def _at(self, url: URL) -> _Target:
        loop, proxy = asyncio.get_running_loop(), None if self._proxy is None else self._proxy.url
        request = _Request(
            "POST", url, headers=self._headers, skip_auto_headers=("Accept", "User-Agent"), loop=loop, proxy=proxy
        )
        return _Target(request, str(url.with_query(None)))

    async def send(self, target: _Target, body: bytes) -> _Answer:
        """Send a request, and wait for the head of its answer."""
        connection = await self._connector.connect(target.request, [], self._timeout)
        kept = connection.protocol is not None and connection.protocol._parser is not None  # noqa: SLF001
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        try:
            return await self._sent(connection, target, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not kept or clock() - sent_at > STALE_S:
                raise
            said = f"no answer from {target.where}: its server had just closed this connection, which was kept open"
            raise LLMConnectionError(said, retry_after_s=0.0) from error

    async def _sent(self, connection: Connection, target: _Target, body: bytes) -> _Answer:
        try:
            if not target.head:
                target.head = _head(target.request)
            traced = trace_headers(target.where)
            head = target.head + _lines(traced.items()) if traced else target.head
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None
            assert transport is not None  # nothing was waited for since
            if protocol._parser is None:  # noqa: SLF001 - the parser goes on with the next answer of a connection
                protocol.set_response_params(
                    read_until_eof=True,
                    max_line_size=MAX_HEADER_BYTES,
                    max_field_size=MAX_HEADER_BYTES,
                    max_headers=1000,
                )
            if (left_s := patience_s()) is not None:
                head += _PATIENCE % left_s
            transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
            message, content = await protocol.read()
            while message.code < 200 and message.code != 101:  # only says that it goes on
                message, content = await protocol.read()
        except BaseException:
            connection.close()
            raise
        return _Answer(connection, message.code, message.headers, content, target.where)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connector.close()


def _head(request: aiohttp.ClientRequest) -> bytes:
    """The head of every request of a path but its length; what its proxy wants was added by the first connection."""
    through_proxy = request.proxy is not None and not request.is_ssl()
    target = str(request.url) if through_proxy else request.url.raw_path_qs
    given = [(name, value) for name, value in request.headers.items() if name.lower() not in _OF_THE_BODY]
    return f"POST {target} HTTP/1.1\r\n".encode() + _lines(given)


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("a header of the request has a line break in it")
    return "".join([f"{line}\r\n" for line in lines]).encode()


async def _keep_open(pool: _Pool, pools: ref[Pools]) -> AsyncGenerator[None, None]:
    """
    Hold a pool open until closed.

    An asynchronous generator, because an event loop closes those before it closes itself: a pool that nobody closed
    ends with its loop, without a warning and without an open socket. It holds its loop, so the wire must not hold it
    any longer; and this must not hold the wire's pools, or only the collector would free one that nobody closed.
    """
    try:
        yield
    finally:
        if (known := pools()) is not None:
            known.pop(asyncio.get_running_loop(), None)
        await pool.aclose()


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


async def _read_body(answer: _Answer) -> bytes:
    content, pieces, size = answer.content, [], 0
    try:
        while not content.at_eof():
            data = await content.readany()
            pieces.append(data)
            size += len(data)
            if size > MAX_REPLY_BYTES:
                raise MalformedResponse(f"the answer of {answer.where} is longer than {MAX_REPLY_BYTES} bytes")
    except (aiohttp.ClientError, OSError) as error:
        raise LLMConnectionError(f"{answer.where} broke off in the middle of its answer: {_why(error)}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _read_refusal(answer: _Answer) -> bytes:
    """As much of a refusal as there is: its status alone says enough."""
    body = b""
    try:
        while len(body) < MAX_REFUSAL_BYTES and (data := await answer.content.readany()):
            body += data
    except (aiohttp.ClientError, OSError):
        pass
    return body


def _reader(answer: _Answer) -> Callable[[], Coroutine[Any, Any, bytes]]:
    readany = answer.content.readany

    async def read() -> bytes:
        try:
            return await readany()
        except (aiohttp.ClientError, OSError) as error:
            raise StreamInterrupted(f"{answer.where} broke off in the middle of its stream: {_why(error)}") from error

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
        number, said = error.os_error.errno, str(error.os_error) or type(error.os_error).__name__
        return f"cannot connect ({os.strerror(number) if number else said})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was closed before its end"
    if isinstance(error, HttpProcessingError):
        return f"what came is no HTTP ({error.message.splitlines()[0]})" if error.message else "what came is no HTTP"
    return str(error) or type(error).__name__
