"""The server: uvicorn with bounds on what it waits for, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import importing
from shared_libs.service.app import create_app
from shared_libs.service.edge import MAX_HEAD, is_loopback
from shared_libs.service.endpoint import ABORT, GONE
from shared_libs.service.settings import Settings

with importing("uvicorn", "the service"):
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE_S = 75
"""Seconds an idle connection stays open: longer than a load balancer's 60, which must be the one to close it."""


LAST_SHARE = 0.1
"""The share of the time to drain in which what has not ended is answered with what there is."""


_UPGRADE = re.compile(rb"\r\nupgrade(?=:)", re.IGNORECASE)

_MOST_OF_HEAD = 4 * MAX_HEAD
"""Bytes of headers that have no end yet; of fewer the end is waited for, so that the refusal is one of its route."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """
    HTTP/1.1 with bounds on how long headers may take and be, and a way to break a connection off.

    One timer a connection: it runs while headers are due, or the rest of a body that nobody wants any more, and not
    during a request. An offer to speak another protocol is passed over: Java's client, among others, makes one with
    every request, and a parser that sees it takes the body for that protocol.
    """

    header_timeout_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first headers."""
        super().connection_made(transport)
        self._headers_due: asyncio.TimerHandle | None = None
        self._on_gone: Callable[[], None] | None = None
        self._body_due = False
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first of a further request begin to be waited for."""
        if self._headers_due is None and self._is_idle():
            self._expect_headers()
        if self._headers_due is None or self._body_due:
            super().data_received(data)
            return
        self._head_bytes += len(data)
        if b"pgrade" in data or b"PGRADE" in data:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nx-upgrade", head) + end + rest
        super().data_received(data)
        if self._head_bytes > _MOST_OF_HEAD:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes behind a body as its trailer is none, whatever it is called."""
        if not self._body_due:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take a request."""
        self._stop_waiting()
        self._body_due, self._head_bytes = True, 0
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}, GONE: {"tell": self._tell_when_gone}}
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._body_due = False
        if self._is_idle():
            self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_waiting()
        super().connection_lost(exc)
        if self._on_gone is not None:
            self._on_gone()

    def _tell_when_gone(self, on_gone: Callable[[], None] | None) -> None:
        """Call this when the client has gone; one at a time, and None: nobody any more."""
        self._on_gone = on_gone
        if on_gone is not None:
            self.flow.resume_reading()  # an end is read as all else is
            if self.transport.is_closing():
                on_gone()

    def _is_idle(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def _expect_headers(self) -> None:
        self._head_bytes = 0
        self._headers_due = self.loop.call_later(self.header_timeout_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


class Server(uvicorn.Server):
    """
    A server that goes on taking connections for a while after the signal to stop.

    `on_start` gets the addresses when it listens, `on_note` that it stops.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        on_start: Callable[[list[str]], None],
        on_note: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._on_start, self._on_note = on_start, on_note
        self._hurry = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell where."""
        await super().startup(sockets)
        if self.started:
            found = [bound.getsockname() for server in self.servers for bound in server.sockets]
            self._on_start([f"http://{_in_url(host)}:{port}" for host, port, *_ in found])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; a second one ends the notice, and Ctrl-C needs none: no balancer sends it."""
        if self.should_exit or sig == signal.SIGINT:
            self._hurry.set()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Be unready at once, stop taking connections after the notice, and let what is under way end.

        A run that has not ended by then is answered with what it has, before its connection is closed.
        """
        service = self.config.app.state.service  # type: ignore[union-attr]
        service.draining = True
        self._on_note(f"stops: what is under way has {self._settings.drain_s:g} s to end")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.notice_s):
                await self._hurry.wait()
        left_s = self.config.timeout_graceful_shutdown or 1
        service.drained_by = Deadline.after(left_s)
        answering = asyncio.create_task(service.finish(service.drained_by.earlier_by(left_s * LAST_SHARE)))
        try:
            await super().shutdown(sockets)
        finally:
            answering.cancel()


def make_server(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[list[str]], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Server:
    """
    Make a server that is ready to `run`, or to `serve` on a loop of the caller's.

    Raises:
        MisuseError: it would be reachable by others without a key.

    """
    if settings.is_open and not is_loopback(host):
        raise MisuseError(
            f"--host {host} is reachable by others, and no keys are kept: make one with "
            "`factory keys new`, or listen on 127.0.0.1"
        )
    app = create_app(settings, on_note=on_note)
    protocol = type("Protocol", (Protocol,), {"header_timeout_s": settings.header_timeout_s})
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol,
        ws="none",
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s - settings.notice_s)),
    )
    return Server(config, settings, on_start, on_note)


def serve(settings: Settings, **options: Any) -> bool:
    """
    Serve until a signal comes; returns whether it had begun. Takes the arguments of `make_server`.

    Raises:
        MisuseError: it would be reachable by others without a key.

    """
    server = make_server(settings, **options)
    # what comes before it heeds signals stops it, too; and as it ends it raises again what it has heeded
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run()
    return server.started


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
