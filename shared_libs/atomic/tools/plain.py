"""
Any Python value as JSON, in bounded work: what a model can read of what a tool returned.

What has a table or a text of its own keeps it (an index, rows, a name; `kinds` has how); what has none is its `repr`
without memory addresses, so that equal results read the same.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from shared_libs.atomic.errors import in_words
from shared_libs.atomic.tools.kinds import (
    KINDS,
    MAX_TEXT,
    is_described,
    is_record,
    key_of,
    names_of,
    public_of,
    read_cursor,
    record_of,
    text_of,
)
from shared_libs.atomic.whole import whole_text

AT_HAND = frozenset((str, int, float, bool, type(None)))
"""What a result is as it stands: nothing of it has to be waited for, read or made into something else."""

MAX_VALUES = 20_000
"""Values of one result, those inside others counted with them; more are left out, with a note."""

MAX_DEPTH = 60
MAX_TEXTS = 8 * MAX_TEXT
"""Characters of all its texts together: a text that stands there a thousand times is written as often."""


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: text, numbers, lists, and objects with text as keys."""
    return _Plain().of(value, MAX_DEPTH)


def read_here(value: Any, most: int = MAX_VALUES) -> Any:
    """
    Return what a cursor or a query of a database has still to give, as rows, and its records; anything else as it is.

    To be called where it was made: SQLite's cursors belong to their thread, a query of Django or peewee is made by
    being read, and a record of SQLAlchemy reads again what a commit let go. What a dict holds is read too.
    """
    if type(value) in AT_HAND:
        return value
    if type(value) is dict and len(value) <= _FEW:
        return {key: read_here(item, most) for key, item in value.items() if item is not value}
    if any(all(hasattr(type(value), name) for name in names) for names in _QUERIES):
        value = list(itertools.islice(value, most))
    if isinstance(value, list) and value and is_record(value[0]):
        return [record_of(item) if is_record(item) else item for item in value[:most]]
    return record_of(value) if is_record(value) else read_cursor(value, most)


_QUERIES = (
    ("values_list", "iterator", "__iter__"),
    ("tuples", "namedtuples", "__iter__"),
    ("yield_per", "with_entities"),
)
"""What the queries of Django, peewee and SQLAlchemy can do."""

_FEW = 20


class _Plain:
    """One conversion: how much may still be looked at, and what is being looked at."""

    __slots__ = ("_inside", "_left", "_room")

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self._room = MAX_TEXTS
        self._inside: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        kind = type(value)
        if kind is str:
            return self._written(value)
        if kind is int:
            return value if -(2**63) <= value < 2**64 else _large(value)
        if kind is float:
            return value if math.isfinite(value) else None
        if id(value) in self._inside:
            return msgspec.Raw(b"{...}" if isinstance(value, Mapping) else b"[...]")  # as Python writes it
        if not depth or self._left < 0:
            return "[more, not shown]"
        self._inside.add(id(value))
        try:
            return self._converted(value, depth - 1)
        except Exception as error:  # noqa: BLE001 - how a foreign value is read is foreign code
            told = f"[a {kind.__name__} that cannot be read: {in_words(error):.200}]"
            return text_of(value, told) if is_described(kind) else told
        finally:
            self._inside.discard(id(value))

    def _converted(self, value: Any, depth: int) -> Any:
        names = names_of(value) if isinstance(value, tuple) else None
        if isinstance(names, tuple):
            return self._object(zip(names, value, strict=False), len(value), depth)
        if isinstance(value, Mapping):
            return self._object(value.items(), len(value), depth)
        if isinstance(value, list | tuple):
            return self._array(value, len(value), depth)
        for fits, convert in KINDS:
            if fits(value):
                made = convert(value, max(self._left, 1))
                return self._written(text_of(value, "")) if type(made) is type(value) else self.of(made, depth)
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            return self._array(value, None, depth)
        if isinstance(value, Collection) and not isinstance(value, type):
            return self._array(value, len(value), depth)
        if isinstance(value, Iterable) and not is_described(type(value)):
            return self._array(value, None, depth)
        if (public := public_of(value)) is not None:
            return self._object(public.items(), len(public), depth)
        return self._written(text_of(value, ""))

    def _written(self, text: str) -> str:
        most = min(MAX_TEXT, self._room)
        self._room -= min(len(text), most)
        if not self._room:
            self._left = 0  # to read on would be work without use
        return whole_text(text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)")

    def _object(self, items: Iterable[tuple[Any, Any]], size: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in items:
            if self._left <= 0:
                found["…"] = f"{size - len(found):,} more, not shown"
                break
            if item is msgspec.UNSET:
                continue
            name = whole_text(key_of(key))
            while name in found:
                name += "'"
            found[name] = self.of(item, depth)
        return found

    def _array(self, items: Iterable[Any], size: int | None, depth: int) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if self._left <= 0:
                found.append("… more, not shown" if size is None else f"… {size - len(found):,} more, not shown")
                break
            found.append(self.of(item, depth))
        return found


def _large(value: int) -> Any:
    try:
        return msgspec.Raw(str(value).encode())
    except ValueError:  # thousands of digits
        return f"[a whole number of {value.bit_length()} bits]"
