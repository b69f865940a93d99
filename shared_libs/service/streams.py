"""
Server-sent events: a writer that never falls silent, never waits for ever for its reader, and never ends unfinished.

One timer per stream looks after both: a comment is sent when nothing else was for `keep_alive_s`, and the connection is
cut when a write has waited `SEND_TIMEOUT_S` for a reader that does not read. A piece costs no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from shared_libs.service.edge import Send

SEND_TIMEOUT_S = 30.0
"""How long a reader may take no byte."""

_COMMENT = b": still here\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

_LINE = {"type": "string"}
STREAM_DOC: dict[str, Any] = {
    "text/event-stream": {
        "itemSchema": {
            "type": "object",
            "required": ["data"],
            "properties": {"data": _LINE, "event": _LINE, "id": _LINE},
        }
    }
}
"""What the OpenAPI document says of a stream; each event is an item, as FastAPI has it, too."""

encode = msgspec.json.Encoder(enc_hook=repr).encode


def sse(data: Any, *, event: str = "", id: int | str | None = None) -> bytes:
    """Write one event; `data` is encoded as JSON unless it is bytes without a line break already."""
    body = data if isinstance(data, bytes) else encode(data)
    head = b"" if id is None else b"id: %s\n" % str(id).encode()
    if event:
        head += b"event: %s\n" % event.encode()
    return b"%sdata: %s\n\n" % (head, body)


class EventStream:
    """
    The answer to one request as a stream of events.

    Nothing is sent before the first piece or the first silence, so that what fails before is an answer of its own.

    Args:
        send: the ASGI `send` of the request.
        keep_alive_s: after how many silent seconds a comment is sent.
        cut: called when the reader does not read; ends the request.

    """

    def __init__(self, send: Send, *, keep_alive_s: float, cut: Callable[[], object]) -> None:
        self._send = send
        self._keep_alive_s = keep_alive_s
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._wrote_at = self._loop.time()
        self._waits_since: float | None = None
        self._comment: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(keep_alive_s, self._look)
        self.started = False
        self.closed = False

    async def write(self, *pieces: bytes) -> None:
        """Send pieces as one."""
        if self._comment is not None:
            await self._comment
        await self._write(pieces)

    async def close(self, *pieces: bytes) -> None:
        """Send the last pieces and the end."""
        if self.closed:
            return
        await self.write(*pieces)
        self._end()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def abandon(self) -> None:
        """Stop looking after a stream whose request is over."""
        self._end()

    def _end(self) -> None:
        self.closed = True
        self._timer.cancel()

    async def _write(self, pieces: Sequence[bytes]) -> None:
        self._waits_since = self._loop.time()
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        if pieces:
            await self._send({"type": "http.response.body", "body": b"".join(pieces), "more_body": True})
        self._wrote_at = self._loop.time()
        self._waits_since = None

    def _look(self) -> None:
        now = self._loop.time()
        if self._waits_since is not None:
            left_s = self._waits_since + SEND_TIMEOUT_S - now
            if left_s <= 0:
                self._end()
                self._cut()
                return
        else:
            left_s = self._wrote_at + self._keep_alive_s - now
            if left_s <= 0:
                self._comment = self._loop.create_task(self._write([_COMMENT]))
                self._comment.add_done_callback(self._commented)
                left_s = self._keep_alive_s
        self._timer = self._loop.call_later(max(0.01, min(left_s, self._keep_alive_s)), self._look)

    def _commented(self, task: asyncio.Task[None]) -> None:
        self._comment = None
        if not task.cancelled():
            task.exception()  # a client that has gone is noticed elsewhere
