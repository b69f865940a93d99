"""A real HTTP server on loopback that answers with the bytes it is told, cut, stalled or broken where it is told."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Then = Literal["keep", "close", "reset", "hang"]


@dataclass
class Play:
    """
    The raw bytes of one answer, piece by piece with a pause after each, and what becomes of the connection then.

    A number among the pieces is a pause of its own, in seconds.
    """

    pieces: Sequence[bytes | float]
    then: Then = "keep"
    pause_s: float = 0.0

    def cut(self, at: int, then: Then = "close") -> Play:
        """The same answer, broken off after `at` bytes."""
        return Play([b"".join(self.pieces)[:at]], then)

    def unfinished(self, then: Then = "hang") -> Play:
        """The same answer without its last piece."""
        return Play(self.pieces[:-1], then)

    def in_pieces_of(self, size: int) -> Play:
        raw = b"".join(self.pieces)
        return Play([raw[start : start + size] for start in range(0, len(raw), size)], self.then)

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


def reply(body: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Play:
    """An answer in one piece; anything but bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    lines = [f"HTTP/1.1 {status} Told", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Play([("\r\n".join(lines) + "\r\n\r\n").encode() + content])


def stream(payloads: Iterable[bytes], kind: str = "text/event-stream", *, chunked: bool = True) -> Play:
    """An answer as it comes: chunked, or ended by the end of the connection."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
    if not chunked:
        return Play([f"{head}Connection: close\r\n\r\n".encode(), *payloads], "close")
    framed = [b"%x\r\n%s\r\n" % (len(payload), payload) for payload in payloads]
    return Play([f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *framed, b"0\r\n\r\n"])


def sse(*events: Any) -> list[bytes]:
    """Each event as server-sent data; a text is sent as it is."""
    return [
        b"data: "
        + (event.encode() if isinstance(event, str) else json.dumps(event, ensure_ascii=False).encode())
        + b"\n\n"
        for event in events
    ]


@dataclass
class Seen:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class WireServer:
    """
    Plays one answer a request: those of a list in order, or what a function of the request gives.

    A request too many is answered with status 599.
    """

    plays: Sequence[Play] | Callable[[Seen], Play]
    port: int = 0
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Condition()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self.open):
            writer.transport.abort()
        await self.until(lambda: not self.open)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition on the server's fields holds."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(holds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        try:
            while request := await _read_request(reader):
                self.requests.append(request)
                await self._notify()
                play = self._next(request)
                for piece in play.pieces:
                    if isinstance(piece, bytes):
                        writer.write(piece)
                        await writer.drain()
                    await asyncio.sleep(play.pause_s if isinstance(piece, bytes) else piece)
                if play.then == "hang":
                    await reader.read()
                if play.then == "reset":
                    _reset(writer)
                if play.then != "keep":
                    return
        except OSError:
            pass
        finally:
            writer.transport.close()
            self.open.discard(writer)
            await self._notify()

    def _next(self, request: Seen) -> Play:
        if callable(self.plays):
            return self.plays(request)
        number = len(self.requests)
        return self.plays[number - 1] if number <= len(self.plays) else reply({"error": "a request too many"}, 599)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset: what is on the way is lost."""
    plug = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return None
    first, *lines = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(first.split()[1], headers, json.loads(body) if body else None)
