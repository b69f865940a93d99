"""JSON bodies: written, read, and described where they cannot be read."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any, TypeVar, cast

import msgspec

from shared_libs.atomic.errors import BadRequest, MalformedResponse
from shared_libs.atomic.llms.lenient import Unfit, fitted, parsed
from shared_libs.atomic.types import TOOL_NAME

T = TypeVar("T")

_MAX_NAME_CHARS = 64
_NINE = 9
_NOT_PORTABLE = re.compile(r"[^a-zA-Z0-9_-]")
_PORTABLE = re.compile(r"[\w-]+", re.ASCII)
_NOT_BETWEEN = re.compile(r"[^\s,]")
_TITLES = tuple(
    re.compile(rb"<%b[^>]{0,200}>(.{0,500}?)</%b" % (tag, tag), re.IGNORECASE | re.DOTALL)
    for tag in (b"title", b"h1", b"pre")
)
"""Where a page says what it is; HAProxy's have no title, and Express's say "Error" there."""


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

    A field of another kind than it is declared to be is as if it had not come; it does not lose the others.

    Raises:
        MalformedResponse: it is not what the decoder knows. The text says why and quotes nothing but a page's title.

    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            return cast("T", fitted(parsed(body), decoder.type))
        except (Unfit, ValueError, RecursionError):
            raise MalformedResponse(f"the answer is not what the protocol says: {_what(body, error)}") from None


def values_in(body: bytes) -> list[bytes]:
    """The JSON values that stand one behind the other, or in one list, where one belongs; nothing where it is one."""
    text, decoder, at = body.decode("utf-8", "replace").lstrip("\ufeff"), json.JSONDecoder(), 0
    found: list[Any] = []
    try:
        while (begins := _NOT_BETWEEN.search(text, at)) is not None:
            value, at = decoder.raw_decode(text, begins.start())
            found.append(value)
    except (ValueError, RecursionError):
        return []
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    return [msgspec.json.encode(value) for value in found] if len(found) > 1 else []


def decode_strictly(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """
    Read an answer of which nothing may be missing, such as the numbers of a vector.

    Raises:
        MalformedResponse: it is not what the decoder knows.

    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedResponse(f"the answer is not what the protocol says: {_what(body, error)}") from None


def page_title(body: bytes) -> str | None:
    """The title of an HTML page, or its first heading where that says more ("" without); None where it is no page."""
    start = body[:2048].lstrip().lower()
    if not start.startswith((b"<!doctype html", b"<html", b"<head", b"<title")):
        return None
    found = (title.search(body[:16384]) for title in _TITLES)
    told = (" ".join(one[1].decode("utf-8", "replace").split())[:200] for one in found if one is not None)
    return next((words for words in told if words not in {"", "Error"}), "")


def _what(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "it is empty"
    title = page_title(body)
    if title is not None:
        return f"it is an HTML page ({title or 'without a title'})"
    return str(error)


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


def id_of_nine(id: str) -> str:
    """A tool call's id as Mistral takes it: nine letters and digits; derived from one that is not."""
    if len(id) == _NINE and id.isascii() and id.isalnum():
        return id
    return sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:_NINE]
