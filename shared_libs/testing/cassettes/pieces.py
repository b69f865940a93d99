"""The pieces of a streamed answer, as one line that can be read: kind, length and moment of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.types import LLMChunk, ToolCall
from shared_libs.testing.cassettes.data import Came

_PIECE = re.compile(r"(?P<kind>text|thinking|call)(?: (?P<length>\d+))?(?: @(?P<at>\d+(?:\.\d+)?))?")


class Piece(NamedTuple):
    """A chunk of a stream, and the seconds from the request to it."""

    at_s: float
    chunk: LLMChunk


def written(pieces: Sequence[Piece]) -> str:
    """
    Write pieces as `text 5 @0.41, text 6, call @0.6`; their texts stand elsewhere.

    One that comes when the last one came has no time of its own.
    """
    shown = []
    for before, (at_s, chunk) in pairwise([Piece(-1.0, LLMChunk("text")), *pieces]):
        word = "call" if chunk.kind == "tool_call" else f"{chunk.kind} {len(chunk.text)}"
        shown.append(word if at_s == before.at_s else f"{word} @{at_s}")
    return ", ".join(shown)


def read(came: Came, calls: Iterable[ToolCall]) -> Iterator[Piece]:
    """
    Cut an answer into the pieces in which it came.

    What the lengths do not cover comes with the last piece of its kind, so that an edited text needs no new ones.

    Raises:
        MisuseError: `pieces` cannot be read.

    """
    part = came.streamed
    texts = {
        "text": came.text if part is None else part.text,
        "thinking": "".join(block.text for block in came.thinking) if part is None else part.thinking,
    }
    left, at_s = list(calls), 0.0
    found = [_read_one(word) for word in (came.pieces or "").split(",") if word.strip()]
    last = {kind: index for index, (kind, _, _) in enumerate(found)}
    for index, (kind, length, at) in enumerate(found):
        at_s = at_s if at is None else at
        if kind == "call":
            taken, left = (left, []) if index == last[kind] else (left[:1], left[1:])
            for call in taken:
                yield Piece(at_s, LLMChunk("tool_call", tool_call=call))
            continue
        cut = len(texts[kind]) if index == last[kind] else length
        yield Piece(at_s, LLMChunk("text" if kind == "text" else "thinking", texts[kind][:cut]))
        texts[kind] = texts[kind][cut:]


def _read_one(word: str) -> tuple[str, int, float | None]:
    match = _PIECE.fullmatch(" ".join(word.split()))
    if match is None:
        raise MisuseError(f"{word.strip()!r} is no piece of a stream; a piece is like `text 5 @0.41` or `call @0.6`")
    return match["kind"], int(match["length"] or 0), None if match["at"] is None else float(match["at"])
