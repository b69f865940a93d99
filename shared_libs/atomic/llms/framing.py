"""
How a body that comes bit by bit is cut into events. Bytes in, bytes out; nothing here waits.

What a body is shows at its first byte: the content type is advice that servers get wrong.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from shared_libs.atomic.errors import MalformedResponse
from shared_libs.atomic.llms.payload import page_title

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The longest event of a stream that is still waited for."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_DONE = b"[DONE]"
_SIGNS_OF_LIFE = frozenset({b"ping", b"heartbeat", b"keepalive", b"keep-alive", b"open", b"connected", b"start"})
"""Names of events that only show that the server is alive; what they hold may be no JSON."""
_NOTHING = frozenset({b"", b"null", b"[]", b"[start]", *_SIGNS_OF_LIFE})
"""Their data."""
_LONGEST_NOTHING = 16
_PAGE_BYTES = 16 * 1024


class Framing(Protocol):
    """Cuts a byte stream into the payloads of complete events."""

    @property
    def whole(self) -> bytes | None:
        """The body, where it turned out to be one JSON document and no stream; known at its end."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return what is complete."""

    def end(self) -> list[bytes]:
        """Take the end of the body, and return what it completes."""


class _Lines:
    """Complete lines of a byte stream cut anywhere; they end in LF, CRLF or CR."""

    __slots__ = ("_after_cr", "_pieces", "_size", "_started")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r") if data else self._after_cr
        if data.find(b"\n") < 0 and data.find(b"\r") < 0:
            self._keep(data)
            return []
        lines = b"".join((*self._pieces, data)).splitlines()
        rest = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        self._pieces, self._size = [], 0
        self._keep(rest)
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def skip(self) -> bool:
        """Leave out whole lines that were read in another way; says whether what comes next begins a line."""
        if self._pieces or self._after_cr:
            return False
        self._started = True
        return True

    def end(self) -> bytes:
        """The last line, which nothing ended."""
        rest = b"".join(self._pieces)
        return rest if self._started else rest.removeprefix(_BOM)

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise MalformedResponse(f"a line of the stream is longer than {MAX_EVENT_BYTES} bytes")
        if data:
            self._pieces.append(data)


class ServerSentEvents:
    """
    The `data` of server-sent events (WHATWG HTML, section 9.2), and what servers make of them.

    Events that only one line end parts are told apart where each is a whole JSON document. What is named an error, by
    an `event:` or as an `error:` line (llama.cpp), comes out as `{"error": ...}`. The end of the body ends an event
    that is whole; what else follows the last blank line never comes out.
    """

    __slots__ = ("_data", "_lines", "_name", "_size")

    whole: bytes | None = None

    def __init__(self) -> None:
        self._lines = _Lines()
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the data of the events that are complete."""
        if not self._data and not self._name and (plain := _plain_events(data)) and self._lines.skip():
            return plain
        payloads: list[bytes] = []
        for line in self._lines.feed(data):
            self._take(line, payloads)
        return payloads

    def end(self) -> list[bytes]:
        """Take the end of the body, and return the data of the event it completes, if that is whole."""
        payloads: list[bytes] = []
        if rest := self._lines.end():
            self._take(rest, payloads)
        if _is_whole(b"\n".join(self._data)):
            self._flush(payloads)
        return payloads

    def _take(self, line: bytes, payloads: list[bytes]) -> None:
        if line.startswith(b"data:"):
            data = line[6:] if line[5:6] == b" " else line[5:]
            if data.startswith(b"data:"):
                data = data[5:].lstrip()  # a proxy has framed what was framed
            if self._data and data.startswith((b"{", _DONE)) and _is_whole(b"\n".join(self._data)):
                self._flush(payloads)
            self._add(data)
        elif not line:
            if self._data:
                self._flush(payloads)
            self._name = b""
        elif line.startswith(b"event:"):
            if self._data and _is_whole(b"\n".join(self._data)):
                self._flush(payloads)
            self._name = line[6:].strip()
        elif line.startswith(b"error:"):
            payloads.append(_as_error(line[6:].strip()))
        elif line.startswith(b"{") and not self._data and _is_whole(line):
            payloads.append(line)

    def _flush(self, payloads: list[bytes]) -> None:
        payload = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data, self._size = [], 0
        lives = self._name in _SIGNS_OF_LIFE and not payload.startswith(b"{")
        if not lives and (len(payload) > _LONGEST_NOTHING or payload.strip().lower() not in _NOTHING):
            payloads.append(_as_error(payload) if self._name == b"error" else payload)
        self._name = b""

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise MalformedResponse(f"an event of the stream is longer than {MAX_EVENT_BYTES} bytes")
        self._data.append(data)


class JsonLines:
    """One JSON value a line, as Ollama streams (NDJSON); the end of the body ends a last one that is whole."""

    __slots__ = ("_lines",)

    whole: bytes | None = None

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the lines that are complete."""
        return [line for line in self._lines.feed(data) if line.strip()]

    def end(self) -> list[bytes]:
        """Take the end of the body, and return the line it completes, if that is whole."""
        rest = self._lines.end()
        return [rest] if _is_whole(rest) else []


class _Document:
    """A JSON document where a stream was asked for; or one a line, which shows when the second one begins."""

    __slots__ = ("_lines", "_pieces", "_size", "whole")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._lines: JsonLines | None = None
        self.whole: bytes | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._lines is not None:
            return self._lines.feed(data)
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise MalformedResponse(f"the answer is longer than {MAX_EVENT_BYTES} bytes")
        self._pieces.append(data)
        if data.find(b"\n") < 0:
            return []
        body = b"".join(self._pieces)
        self._pieces = [body]
        first, _, rest = body.partition(b"\n")
        if rest.lstrip().startswith(b"{") and _is_whole(first):
            self._lines = JsonLines()
            return self._lines.feed(body)
        return []

    def end(self) -> list[bytes]:
        if self._lines is not None:
            return self._lines.end()
        self.whole = b"".join(self._pieces)
        return []


class _Page:
    """A web page where an answer was asked for."""

    __slots__ = ("_start",)

    whole: bytes | None = None

    def __init__(self) -> None:
        self._start = b""

    def feed(self, data: bytes) -> list[bytes]:
        if len(self._start) < _PAGE_BYTES:
            self._start += data
        return []

    def end(self) -> list[bytes]:
        title = page_title(self._start)
        what = "no event of a stream" if title is None else f"an HTML page ({title or 'without a title'}) and no stream"
        raise MalformedResponse(f"the answer is {what}")


class AnyFraming:
    """
    The framing that a body's first byte tells.

    Args:
        lines: how a stream of bare JSON values is read where that is the protocol, as Ollama's is; elsewhere such a
            body is one document until it shows that it is several.

    """

    __slots__ = ("_head", "_of_json", "_real")

    def __init__(self, *, lines: bool = False) -> None:
        self._head = b""
        self._of_json: type[JsonLines | _Document] = JsonLines if lines else _Document
        self._real: Framing | None = None

    @property
    def whole(self) -> bytes | None:
        """The body, where it turned out to be one JSON document and no stream; known at its end."""
        return None if self._real is None else self._real.whole

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the payloads of the events that are complete."""
        if self._real is None:
            self._head += data
            start = self._head.lstrip(_SPACE).removeprefix(_BOM).lstrip(_SPACE)
            if not start or _BOM.startswith(start) or (len(start) < len(_DONE) and _DONE.startswith(start)):
                return []  # a list and the end marker begin alike
            data, self._head = self._head, b""
            if start[:1] in {b"{", b"["} and not _DONE.startswith(start[: len(_DONE)]):
                self._real, data = self._of_json(), start
            else:
                self._real = _Page() if start[:1] == b"<" else ServerSentEvents()
        return self._real.feed(data)

    def end(self) -> list[bytes]:
        """Take the end of the body, and return what it completes."""
        return [] if self._real is None else self._real.end()


class Doubles:
    """
    Whether every event of a stream came twice, one right after the other.

    Two equal pieces of a text in a row are no double, and cannot be told from one; a whole stream in pairs is.
    """

    __slots__ = ("_different", "_doubled", "_last")

    def __init__(self) -> None:
        self._last = b""
        self._different = 0
        self._doubled = 0

    def see(self, payload: bytes) -> None:
        """Take the next event."""
        if payload == self._last:
            self._last = b""
            self._doubled += 1
        else:
            self._last = payload
            self._different += 1

    @property
    def all(self) -> bool:
        """Whether the stream so far was nothing but doubles."""
        return 1 < self._different == self._doubled


def streamed_events(body: bytes) -> list[bytes]:
    """The payloads of a stream that came in one piece, or none where the body is no stream."""
    if not body.lstrip(_SPACE).removeprefix(_BOM).startswith((b"data:", b"event:", b":", b"error:", b"id:", b"retry:")):
        return []
    events = ServerSentEvents()
    return [*events.feed(body), *events.end()]


def _plain_events(data: bytes) -> list[bytes]:
    """
    The data of events as nearly all come, whole and each with one line of it; none where any of them comes otherwise.

    A pattern looks at each byte, and took a tenth of a stream's CPU; what cuts and compares looks at many at once.
    """
    if not data.endswith(b"\n\n") or data.find(b"\r") >= 0:
        return []
    payloads: list[bytes] = []
    is_new = True
    for line in data[:-1].split(b"\n"):
        if not line:
            is_new = True
        elif is_new and (line[:7] == b"data: {" or line == b"data: [DONE]"):
            payloads.append(line[6:])
            is_new = False
        elif not is_new or line[:7] != b"event: " or line[:12] == b"event: error":
            return []
    return payloads


def _is_whole(payload: bytes) -> bool:
    """Whether an event is complete as it stands: a JSON object, or the end marker."""
    if not payload.startswith(b"{") or not payload.rstrip().endswith(b"}"):
        return payload.strip() == _DONE
    try:
        _object.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _as_error(payload: bytes) -> bytes:
    """What is named an error as an object that says so itself."""
    said: Any
    try:
        said = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = payload.decode("utf-8", "replace")
    if payload == _DONE or (isinstance(said, dict) and said.get("error")):
        return payload
    return msgspec.json.encode({"error": said})
