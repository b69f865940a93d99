"""Bodies of requests: JSON whose size, depth and number of values are bounded before anything is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import msgspec

from shared_libs.service.problems import Problem

MAX_VALUES = 500_000
"""Commas and opening brackets of a body: a bound on how many objects its JSON becomes, and so on the time it takes."""

BOM = b"\xef\xbb\xbf"
"""What some systems begin their files with, that are sent as they are; RFC 8259 lets a reader pass over it."""

MAX_DEPTH = 200
"""Lists and objects inside each other: what is told and recorded of a request is gone through level by level."""

OFF_LOOP_BYTES = 256 * 1024
"""Larger bodies are decoded and read in a thread."""

_Read = TypeVar("_Read")
_Given = TypeVarTuple("_Given")


class Bodies:
    """
    Reads bodies as JSON, the large ones off the loop and one after the other.

    Decoding one holds the interpreter from its beginning to its end. Of several at once each would take its turn before
    the loop gets one, and all would be ready to go on in the same turn of the loop.
    """

    def __init__(self) -> None:
        self._large = asyncio.Lock()

    async def decoded(self, body: bytes) -> Any:
        """
        Read a body.

        Raises:
            Problem: it is empty, no JSON, nested too deeply, or has too many values.

        """
        return await self.apart(len(body), _decode, body)

    async def apart(self, size: int, read: Callable[[*_Given], _Read], *given: *_Given) -> _Read:
        """Do what takes time in proportion to a body of that size, off the loop where it is a large one."""
        if size <= OFF_LOOP_BYTES:
            return read(*given)
        async with self._large:
            return await asyncio.to_thread(read, *given)


def _decode(body: bytes) -> Any:
    if not body.strip():
        raise Problem("invalid_request", "the body is empty; send a JSON object")
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Problem("body_too_large", f"the JSON has more than {MAX_VALUES:,} values")
    try:
        data = msgspec.json.decode(body.removeprefix(BOM))
        deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper(data, MAX_DEPTH)
    except RecursionError:
        deep = True
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("invalid_request", f"the body is not valid JSON: {error}") from None
    if deep:
        raise Problem("invalid_request", "the JSON is nested too deeply")
    return data


def _is_deeper(data: Any, most: int) -> bool:
    level = [data]
    for _ in range(most):
        inside = [one.values() if type(one) is dict else one for one in level if type(one) in (dict, list)]
        level = [one for each in inside for one in each]
        if not level:
            return False
    return True
