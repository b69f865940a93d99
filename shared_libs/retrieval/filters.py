"""
Filters: a tiny typed language, read once, compiled per store with parameters only.

A filter is a mapping of metadata keys to what they have to be; all of them have to hold. A value stands for itself, a
list for one of several; `{"from": a, "to": b}` is a range whose ends belong to it, `{"not": …}` the opposite.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from shared_libs.atomic.errors import MisuseError
from shared_libs.retrieval.types import Scalar

MAX_VALUES = 1_000
"""How many values one list of a filter may have."""

_MOST = 2**63
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_ALLOWED = "allowed are a text, a number, true or false, a list of them, {from, to}, {not: …}"


class Condition(NamedTuple):
    """One key and what it has to be; a document without the key never fits, not even a negated one."""

    key: str
    kind: Literal["in", "range", "chunk"]
    values: Collection[Any]
    negated: bool = False

    def holds(self, metadata: Mapping[str, Scalar], chunk: str = "") -> bool:
        """Whether a chunk and its metadata fit: what a store that cannot compile filters falls back on."""
        if self.kind == "chunk":
            return chunk in self.values
        if self.key not in metadata:
            return False
        value = metadata[self.key]
        if self.kind == "in":
            fits = any(_same(value, wanted) for wanted in self.values)
        else:
            low, high = self.values
            fits = all(_comparable(value, end) for end in (low, high) if end is not None) and not (
                (low is not None and value < low) or (high is not None and value > high)
            )
        return fits is not self.negated


Where = tuple[Condition, ...]


def among(chunks: Iterable[str]) -> Condition:
    """Return the condition that a chunk is one of these, by its id."""
    return Condition("", "chunk", frozenset(chunks))


def read_filter(where: Mapping[str, Any] | None) -> Where:
    """
    Check a filter.

    Raises:
        MisuseError: it is none; the text names the key and what is allowed.

    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise MisuseError(f"a filter is a mapping of metadata keys, not a {type(where).__name__}")
    return tuple(_condition(key, wanted) for key, wanted in where.items())


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Scalar]:
    """
    Check a document's metadata.

    Raises:
        MisuseError: a key is no name, or a value no text, number or boolean.

    """
    for key, value in metadata.items():
        _checked_key(key)
        _check_value(f"metadata {key!r}", value, "a text, a number, true or false")
    return dict(metadata)


def _condition(key: str, wanted: Any, *, negated: bool = False) -> Condition:
    _checked_key(key)
    if isinstance(wanted, Mapping):
        if wanted.keys() == {"not"} and not negated:
            return _condition(key, wanted["not"], negated=True)
        if wanted and wanted.keys() <= {"from", "to"}:
            ends = (wanted.get("from"), wanted.get("to"))
            given = [end for end in ends if end is not None]
            if given and all(isinstance(end, str | int | float) and not isinstance(end, bool) for end in given):
                for end in given:
                    _check_value(f"filter {key!r}", end, _ALLOWED)
                if len(given) == 2 and not _comparable(*given):
                    raise MisuseError(f"filter {key!r}: the two ends of a range are of one kind")
                return Condition(key, "range", ends, negated)
        raise MisuseError(f"filter {key!r}: {_ALLOWED}")
    values = tuple(wanted) if isinstance(wanted, list | tuple | set | frozenset) else (wanted,)
    if len(values) > MAX_VALUES:
        raise MisuseError(f"filter {key!r}: at most {MAX_VALUES} values, not {len(values)}")
    for value in values:
        _check_value(f"filter {key!r}", value, _ALLOWED)
    return Condition(key, "in", values, negated)


def _checked_key(key: Any) -> None:
    if not isinstance(key, str) or not _KEY.match(key):
        raise MisuseError(f"a metadata key is up to 64 letters, digits and '_', not {key!r:.80}")


def _check_value(what: str, value: Any, allowed: str) -> None:
    """Refuse what not every store can keep, and none can compare."""
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value)):
            raise MisuseError(f"{what}: a text without the character 0 and without halves of characters")
    elif not isinstance(value, int | float):
        raise MisuseError(f"{what}: {allowed}, not a {type(value).__name__}")
    elif not abs(value) < _MOST:  # nor is a number that is none
        raise MisuseError(f"{what}: a number between -2**63 and 2**63")


def _same(value: Scalar, wanted: Scalar) -> bool:
    return value == wanted and isinstance(value, bool) is isinstance(wanted, bool)


def _comparable(value: Any, end: Any) -> bool:
    if isinstance(value, bool) or isinstance(end, bool):
        return False
    return isinstance(value, str) is isinstance(end, str)
