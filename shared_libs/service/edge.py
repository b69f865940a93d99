"""The outermost layer: an id for every request, bounds on what comes in, and the headers that every answer has."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

from shared_libs.observability.otel_context import continued_from
from shared_libs.service.problems import Problem

_chance = random.Random()  # noqa: S311 - names things, and opens nothing

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
"""What may stand in a `Host` (RFC 9112, section 3.2): no path, no user, no list."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

MAX_HEAD = 64 * 1024
"""Bytes of a request's headers."""


class Exchange:
    """
    One request and its answer, as all layers see it.

    `began_at` is the loop's time at which it came; `waited_s` what of it was spent waiting for a turn, a model or a
    tool. `out` are headers of the answer, whoever makes it. `refused` is why the headers alone refuse the request; it
    is raised where the request is let in (`check`), and so told in its client's dialect.
    """

    __slots__ = ("_began", "began_at", "out", "refused", "request_id", "waited_s")

    def __init__(self, began_at: float) -> None:
        self.request_id = ""
        self.refused: Problem | None = None
        self.began_at = began_at
        self._began = perf_counter()  # some loops' clocks count whole milliseconds
        self.waited_s = 0.0
        self.out: list[tuple[bytes, bytes]] = []

    def tell(self, name: str, value: str) -> None:
        """Put a header on the answer."""
        self.out.append((name.encode("latin-1"), value.encode("latin-1", "replace")))

    def check(self) -> None:
        """Refuse what the headers alone refuse; raises the `Problem`."""
        if self.refused is not None:
            raise self.refused

    def overhead_ms(self) -> float:
        """Return what of the time so far was ours, in milliseconds."""
        return max(0.0, perf_counter() - self._began - self.waited_s) * 1e3


class Edge:
    """
    Wraps the application: no request without an id, no body without an end, no answer without its headers.

    Args:
        app: what is wrapped.
        max_body: bytes of a body; they are counted, whatever `content-length` says.
        body_timeout_s: seconds a body may take to come.
        traced: whether a request goes on with the trace that its `traceparent` names.

    """

    def __init__(self, app: ASGIApp, *, max_body: int, body_timeout_s: float, traced: bool = False) -> None:
        self._app = app
        self._max_body = max_body
        self._body_timeout_s = body_timeout_s
        self._traced = traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self.serve(self._app, scope, receive, send)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request by an application that stands behind this edge."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(loop.time())
        self._read_head(exchange, scope)
        scope["factory.exchange"] = exchange

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                overhead_ms, total_ms = exchange.overhead_ms(), (loop.time() - exchange.began_at) * 1000
                told = [
                    (b"x-request-id", exchange.request_id.encode()),
                    (b"x-factory-overhead-ms", b"%.2f" % overhead_ms),
                    (b"openai-processing-ms", b"%d" % total_ms),
                    (b"server-timing", b"total;dur=%.0f, overhead;dur=%.2f" % (total_ms, overhead_ms)),
                ]
                message["headers"] = [*message.get("headers", ()), *told, *exchange.out]
            await send(message)

        with self._trace(scope):
            await app(scope, self._bounded(receive, loop), send_with_headers)

    def _trace(self, scope: Scope) -> AbstractContextManager[None]:
        if not self._traced:
            return nullcontext()
        return continued_from({str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"]})

    def _read_head(self, exchange: Exchange, scope: Scope) -> None:
        """Take the caller's id where it is one, so that it is found in both logs; refuse what no body can mend."""
        size = hosts = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1 if _HOST.fullmatch(value) else 2
            if name == b"x-request-id":
                if not exchange.request_id and _SANE_ID.fullmatch(value):
                    exchange.request_id = str(value, "ascii")
            elif name == b"content-length":  # who says that it is too large need not send it first
                if value.isdigit() and int(value[:20]) > self._max_body:
                    exchange.refused = too_large(self._max_body)
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                told = str(value[:40], "latin-1")
                exchange.refused = Problem("unsupported_media_type", f"a body is sent as it is, not as {told!r}")
        if hosts > 1 or (not hosts and scope.get("http_version") == "1.1"):
            exchange.refused = Problem(
                "invalid_request", "a request names one Host, and no more than that", param="host"
            )
        if size > MAX_HEAD:
            exchange.refused = Problem("headers_too_large", f"headers have at most {MAX_HEAD:,} bytes")
        exchange.request_id = exchange.request_id or f"req_{fresh_id()}"

    def _bounded(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> Receive:
        give_up_at = loop.time() + self._body_timeout_s
        size = 0
        whole = False

        async def receive_bounded() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(give_up_at):
                    message = await receive()
            except TimeoutError:
                raise Problem("body_timeout", f"the body did not come within {self._body_timeout_s:g} s") from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > self._max_body:
                raise too_large(self._max_body)
            return message

        return receive_bounded


def too_large(max_body: int) -> Problem:
    """Refuse a body."""
    return Problem("body_too_large", f"a body has at most {max_body:,} bytes", facts={"max_body": max_body})


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which no other reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fresh_id() -> str:
    """Return a name that nothing else has: 32 hexadecimal digits. It can be guessed, and so must not open anything."""
    return f"{_chance.getrandbits(128):032x}"
