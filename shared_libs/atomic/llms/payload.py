"""What travels: JSON bodies, and the framing of streamed ones. Bytes in, bytes out; nothing here waits."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import msgspec

from shared_libs.atomic.errors import BadRequest, MalformedResponse
from shared_libs.atomic.types import TOOL_NAME

T = TypeVar("T")

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The longest event of a stream that is still waited for."""

_MAX_NAME_CHARS = 64
_NINE = 9
_NOT_PORTABLE = re.compile(r"[^a-zA-Z0-9_-]")
_PORTABLE = re.compile(r"[\w-]+", re.ASCII)
_BOM = b"\xef\xbb\xbf"
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


def encode(request: dict[str, Any]) -> bytes:
    """
    Write a request as JSON.

    Raises:
        BadRequest: it holds what JSON cannot say, such as half a surrogate pair.

    """
    try:
        return msgspec.json.encode(request)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"the request cannot be written as JSON: {error}") from error


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """
    Read an answer, or one event of it.

    Raises:
        MalformedResponse: it is not what the decoder knows. The text says why and quotes nothing but a page's title.

    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedResponse(f"the answer is not what the protocol says: {_what(body, error)}") from None


def page_title(body: bytes) -> str | None:
    """The title of an HTML page ("" without one), or None where it is no HTML page."""
    start = body[:2048].lstrip().lower()
    if not start.startswith((b"<!doctype html", b"<html", b"<head", b"<title")):
        return None
    found = _TITLE.search(body[:16384])
    return " ".join(found[1].decode("utf-8", "replace").split())[:200] if found else ""


def _what(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "it is empty"
    title = page_title(body)
    if title is not None:
        return f"it is an HTML page ({title or 'without a title'})"
    return str(error)


class Framing(Protocol):
    """Cuts a byte stream into the payloads of complete events."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return what is complete."""


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
        if b"\n" not in data and b"\r" not in data:
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

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise MalformedResponse(f"a line of the stream is longer than {MAX_EVENT_BYTES} bytes")
        if data:
            self._pieces.append(data)


class ServerSentEvents:
    """
    The `data` of server-sent events (WHATWG HTML, section 9.2).

    What follows the last blank line is no complete event and never comes out.
    """

    __slots__ = ("_data", "_lines", "_size")

    def __init__(self) -> None:
        self._lines = _Lines()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the data of the events that are complete."""
        payloads = []
        for line in self._lines.feed(data):
            if line.startswith(b"data:"):
                self._add(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                payload = b"\n".join(self._data)
                self._data, self._size = [], 0
                if payload:
                    payloads.append(payload)
        return payloads

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise MalformedResponse(f"an event of the stream is longer than {MAX_EVENT_BYTES} bytes")
        self._data.append(data)


class JsonLines:
    """One JSON value a line, as Ollama streams (NDJSON); the last line needs its end as well."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the lines that are complete."""
        return [line for line in self._lines.feed(data) if line.strip()]


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


def inline_image(url: str) -> tuple[str, str] | None:
    """The media type and the base64 text of a `data:` URL, or None for another address."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or not comma:
        return None
    return head[len("data:") : -len(";base64")] or "image/png", data


def portable_id(id: str, longest: int) -> str:
    """
    A tool call's id as every provider takes it: letters, digits, `_` and `-`, at most `longest` of them.

    An id that fits stays what it is; another is replaced by one derived from it, so that call and result still match.
    """
    if id and len(id) <= longest and _PORTABLE.fullmatch(id):
        return id
    return "call_" + sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def portable_name(name: str) -> str:
    """
    A tool's name as every provider takes it: letters, digits, `_` and `-`, at most 64 of them.

    Models invent names such as `functions.search`, and a history that holds one would be refused for ever.
    """
    if TOOL_NAME.fullmatch(name):
        return name
    return _NOT_PORTABLE.sub("_", name)[:_MAX_NAME_CHARS] or "unnamed"


def portable_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's parameters as every provider takes them: a schema of an object that says which properties it has."""
    if "properties" in schema and "type" in schema:
        return schema
    return {"type": "object", "properties": {}, **schema}


def id_of_nine(id: str) -> str:
    """A tool call's id as Mistral takes it: nine letters and digits; derived from one that is not."""
    if len(id) == _NINE and id.isascii() and id.isalnum():
        return id
    return sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:_NINE]
