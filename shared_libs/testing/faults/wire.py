"""An answer as bytes: what is sent piece by piece, the pauses between, and what becomes of the connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

Then = Literal["keep", "close", "reset", "hang"]
Step = bytes | float

LAST_CHUNK = b"0\r\n\r\n"


class Play(msgspec.Struct, frozen=True):
    """
    What is done in answer to one request.

    `steps` are bytes to send and pauses in seconds. `then` says what becomes of the connection: it is kept for the next
    request, closed, reset, or left open in silence until the client gives up.
    """

    steps: tuple[Step, ...] = ()
    then: Then = "keep"

    @property
    def body(self) -> bytes:
        """All that follows the head."""
        return b"".join(step for step in self.steps[1:] if isinstance(step, bytes))

    def broken_off(self, after_bytes: int | None, then: Then) -> Play:
        """The same up to `after_bytes` of what follows the head; None: the middle."""
        body = self.body
        return Play((self.steps[0], body[: len(body) // 2 if after_bytes is None else after_bytes]), then)

    def dripping(self, pause_s: float) -> Play:
        """The same, one byte after the other; the head comes at once."""
        body = self.body
        return Play((self.steps[0], *(step for at in range(len(body)) for step in (pause_s, body[at : at + 1]))))


def head(status: int, kind: str, length: int | None, headers: Mapping[str, str] | None = None) -> bytes:
    """The head of an answer; without a length it comes chunked."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", f"Content-Type: {kind}"]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def document(
    body: bytes, status: int = 200, kind: str = "application/json", headers: Mapping[str, str] | None = None
) -> Play:
    """An answer in one piece, of the length it says."""
    return Play((head(status, kind, len(body), headers), body))


def chunked(pieces: Iterable[bytes], kind: str, *, ended: bool = True) -> Play:
    """An answer that comes chunk by chunk; one that is not ended is broken off before the last, empty chunk."""
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    steps = (head(200, kind, None), *framed)
    return Play((*steps, LAST_CHUNK)) if ended else Play(steps, "close")


_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    529: "Overloaded",
}
