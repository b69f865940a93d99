"""Embeddings: texts cut into requests that servers take; their answers, and scores, checked number by number."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import LLMError, MalformedResponse
from shared_libs.atomic.llms.faults import error_event, no_answer
from shared_libs.atomic.llms.payload import decode_strictly

if TYPE_CHECKING:
    import numpy as np

    from shared_libs.atomic.llms.base import BaseLLMWrapper

AT_ONCE = 4
"""How many requests of one call are on their way at once."""

_QUOTED_CHARS = 40

Row = tuple[Any, Any]
"""An embedding as it came, and its index or None."""


class _Answer(msgspec.Struct):
    data: list[Any] | None = None
    embeddings: Any = None
    error: Any = None


_Body = _Answer | list[Any]
"""The embeddings alone are what llama.cpp gives outside of /v1, and text-embeddings-inference of its own."""
_decoder: msgspec.json.Decoder[_Answer | list[Any]] = msgspec.json.Decoder(_Body)


async def in_parts(
    texts: Sequence[str], at_most: Callable[[], int | None], embed: Callable[[Sequence[str]], Awaitable[np.ndarray]]
) -> np.ndarray:
    """
    Embed texts in as many requests as it takes, a few at a time; the rows are in the order of the texts.

    Args:
        texts: what is embedded.
        at_most: how many texts one request may have; it may get fewer when a server says so.
        embed: makes one request.

    Raises:
        LLMError: one of the requests failed; the others are cancelled.

    """
    most = at_most() or len(texts)
    if len(texts) <= most:
        try:
            return await embed(texts)
        except LLMError:
            if (at_most() or most) >= len(texts):
                raise
        return await in_parts(texts, at_most, embed)
    import numpy as np

    first = await in_parts(texts[:most], at_most, embed)  # alone: it may teach how many there may be
    rest = texts[most:]
    most = min(most, at_most() or most)
    gate = asyncio.Semaphore(AT_ONCE)

    async def part(start: int) -> np.ndarray:
        async with gate:
            return await in_parts(rest[start : start + most], at_most, embed)

    tasks = [asyncio.create_task(part(start)) for start in range(0, len(rest), most)]
    try:
        return np.concatenate([first, *await asyncio.gather(*tasks)])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def only(model: BaseLLMWrapper, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a request: of a model's own only its `dimensions`, for the others are a chat's."""
    return {name: value for name, value in model.options.items() if name == "dimensions"} | dict(options)


def checked_embeddings(vectors: Any, texts: Sequence[str]) -> np.ndarray:
    """
    Check what a wrapper gave for texts: whoever writes one may give lists, or what is no matrix at all.

    Raises:
        MalformedResponse: it is not one row of finite numbers a text, all of one length.

    """
    import numpy as np

    if isinstance(vectors, Mapping | str | bytes) or not isinstance(vectors, Iterable):
        raise MalformedResponse(f"a {type(vectors).__name__} came where embeddings belong", retryable=False)
    rows = vectors if isinstance(vectors, np.ndarray) else list(vectors)
    if len(rows) != len(texts):
        raise MalformedResponse(f"{len(rows)} embeddings came for {len(texts)} texts", retryable=False)
    if isinstance(rows, np.ndarray) and rows.dtype == np.float32 and rows.ndim == 2 and np.isfinite(rows).all():
        return rows
    return _matrix(list(rows), texts)


def checked_scores(scores: Any, count: int) -> list[float]:
    """
    Check what a wrapper gave for texts that it reranked.

    Raises:
        MalformedResponse: it is not one finite number a text.

    """
    try:
        read = [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedResponse(f"what came is no list of scores: {error}", retryable=False) from None
    if len(read) != count or not all(map(math.isfinite, read)):
        told = f"{len(read)} scores came for {count} texts, {sum(map(math.isfinite, read))} of them of use"
        raise MalformedResponse(told, retryable=False)
    return read


def read_embeddings(body: bytes, texts: Sequence[str], secrets: Iterable[str]) -> np.ndarray:
    """
    Read the answer of a server to a request for embeddings: float32, a row for each text.

    Each is a list of numbers, or base64 of little-endian float32. Without an index they stand in the order of the
    texts; one that lacks an index where others have theirs has the place that is left.

    Raises:
        MalformedResponse: it has not one embedding a text, of the same length, of finite numbers; names the text.
        LLMError: it is a refusal.

    """
    found = _read(body)
    answer = _Answer(found) if isinstance(found, list) else found
    if answer.error:
        raise error_event(body, secrets)
    if answer.data is None and answer.embeddings is None:
        raise no_answer(body, secrets, "embeddings")
    rows = [_row_of(item) for item in answer.data or _lists_in(answer.embeddings)]
    if len(rows) != len(texts):
        raise MalformedResponse(f"{len(rows)} embeddings came for {len(texts)} texts")
    return _matrix(_in_order(rows), texts)


def _row_of(item: Any) -> Row:
    if not isinstance(item, dict):
        return item, None
    index = item.get("index")
    return item.get("embedding"), int(index) if isinstance(index, str) and index.isdecimal() else index


def _lists_in(embeddings: Any) -> list[Any]:
    """The embeddings; Cohere has them under the type of their numbers."""
    found = embeddings.get("float") if isinstance(embeddings, dict) else embeddings
    return found if isinstance(found, list) else []


def _read(body: bytes) -> _Answer | list[Any]:
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError:
        try:
            found = json.loads(body)  # which knows NaN, as some servers write it
        except (ValueError, RecursionError):
            return decode_strictly(_decoder, body)
    try:
        read: _Answer | list[Any] = msgspec.convert(found, _Body)
    except msgspec.ValidationError as error:
        raise MalformedResponse(f"the answer is not what the protocol says: {error}") from None
    return read


def _in_order(rows: list[Row]) -> list[Any]:
    """The embeddings in the order of the texts."""
    if all(index is None for _, index in rows):
        return [vector for vector, _ in rows]
    placed: list[Any] = [None] * len(rows)
    free = dict.fromkeys(range(len(rows)))
    for vector, index in rows:
        if index is None:
            continue
        if isinstance(index, bool) or not isinstance(index, int | float) or index not in free:
            raise MalformedResponse(
                f"an embedding has the index {index!r:.20}; each of 0 to {len(rows) - 1} comes once"
            )
        placed[int(index)] = vector
        del free[int(index)]
    for place, vector in zip(list(free), [vector for vector, index in rows if index is None], strict=True):
        placed[place] = vector
    return placed


def _matrix(vectors: list[Any], texts: Sequence[str]) -> np.ndarray:
    import numpy as np

    rows: list[np.ndarray] = []
    for number, vector in enumerate(vectors):
        row = _row(vector, number, texts)
        if rows and len(row) != len(rows[0]):
            raise _wrong(number, texts, f"has {len(row)} numbers, and the first has {len(rows[0])}")
        rows.append(row)
    matrix: np.ndarray = np.stack(rows)
    finite = np.isfinite(matrix)
    if not finite.all():
        number, place = np.argwhere(~finite)[0]
        raise _wrong(int(number), texts, f"holds no number at place {place} (null, NaN or infinite)")
    return matrix


def _row(vector: Any, number: int, texts: Sequence[str]) -> np.ndarray:
    import numpy as np

    if isinstance(vector, list) and len(vector) == 1 and isinstance(vector[0], list):
        vector = vector[0]  # a matrix of one row, as llama.cpp gives where it does not pool
    if isinstance(vector, dict):
        vector = vector.get("float")
    try:
        if isinstance(vector, str):
            row = np.frombuffer(base64.b64decode(vector, validate=True), "<f4")
        else:
            with np.errstate(over="ignore"):  # what is too large is infinite, and told
                row = np.array(vector, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise _wrong(number, texts, f"is no list of numbers: {error}") from None
    if row.ndim != 1 or not len(row):
        raise _wrong(number, texts, f"is no list of numbers: its shape is {row.shape}")
    return row


def _wrong(number: int, texts: Sequence[str], why: str) -> MalformedResponse:
    """The error for one text; another try gives the same numbers."""
    text = texts[number]
    quoted = text if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS]}..."
    return MalformedResponse(f"the embedding of text {number} ({quoted!r}) {why}", retryable=False)
