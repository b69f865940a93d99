"""
YAML as plain data, with the place of every key and value.

Only data is read: no tags, no merge keys, no second document, and scalars as in the core schema of YAML 1.2 (so `yes`
and `on` are text, there are no dates, no sexagesimals and no octal surprises). Aliases are unfolded up to a bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from shared_libs.factory.problems import Mark, Path, Problems, printable

MAX_DEPTH = 64
MAX_NODES = 20_000
"""How many values a definition may have, unfolded aliases included."""
_MAX_DIGITS = 40

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN")
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


class Reader:
    """Builds the data from the parser's events, which come one by one: a bomb is seen before it is built."""

    def __init__(self, events: Iterator[Any], name: str) -> None:
        self._events = events
        self._keys: dict[Path, Mark] = {}
        self._values: dict[Path, Mark] = {}
        self._order: list[Path] = []
        self._anchors: dict[str, tuple[Any, Path, list[Path]] | None] = {}
        self.problems = Problems(name, self._keys, self._values)

    def document(self) -> Any:
        """
        Return the data of the one document.

        Raises:
            ConfigError: reading on would cost more than any definition is worth.

        """
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            self.problems.add((), "the file is empty", mark=Mark(1, 1))
            return None
        data = self.rest_of_document()
        if isinstance(second := next(self._events), yaml.DocumentStartEvent):
            self.problems.add(
                (), "a second document begins; a file holds one agent", mark=mark_of(second.start_mark), blame=False
            )
        return data

    def rest_of_document(self) -> Any:
        """Return the data of a document that has begun."""
        data = self._value(next(self._events), ())
        next(self._events)  # the end of the document
        return data

    def _value(self, event: Any, path: Path) -> Any:
        mark = mark_of(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._unfolded(event, path, mark)
        self._note(path, mark)
        first = len(self._order)
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._list(path)
        else:
            value = self._dict(path)
        if event.tag:
            self.problems.add(path, f"the tag {_tag(event)} is not allowed; write plain values", mark=mark)
            value = None
        if event.anchor:
            self._anchors[event.anchor] = (value, path, self._order[first:])
        return value

    def _note(self, path: Path, mark: Mark, seen_at: Mark | None = None) -> None:
        self._values[path] = mark
        self._order.append(path)
        if len(path) > MAX_DEPTH:
            self._stop(path, f"is nested deeper than {MAX_DEPTH} levels", seen_at or mark)
        if len(self._order) > MAX_NODES:
            self._stop((), f"holds more than {MAX_NODES:,} values, unfolded aliases included", seen_at or mark)

    def _stop(self, path: Path, text: str, mark: Mark) -> None:
        self.problems.add(path[:8], text, mark=mark)
        self.problems.raise_if_any()

    def _unfolded(self, event: Any, path: Path, mark: Mark) -> Any:
        self._note(path, mark)
        if event.anchor not in self._anchors:
            self.problems.add(path, f"the alias *{printable(event.anchor)} has no anchor before it", mark=mark)
            return None
        anchor = self._anchors[event.anchor]
        if anchor is None:
            self.problems.add(path, f"the alias *{printable(event.anchor)} stands inside its own anchor", mark=mark)
            return None
        value, home, inside = anchor
        for inner in inside:
            copy = path + inner[len(home) :]
            self._note(copy, self._values[inner], mark)
            if inner in self._keys:
                self._keys[copy] = self._keys[inner]
        return value

    def _list(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _dict(self, path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, mark = self._key(event, path), mark_of(event.start_mark)
            inner = (*path, key if key is not None else "?")
            if key is None or key in items:
                self._rest_of(next(self._events), len(inner))
                if key is not None:
                    text = f"the key stands twice, first on line {self._keys[inner].line}"
                    self.problems.add(inner, text, mark=mark, blame=False)
                continue
            self._keys[inner] = mark
            items[key] = self._value(next(self._events), inner)
        return items

    def _key(self, event: Any, path: Path) -> str | None:
        """Read a key; None (and a problem) when it is not text."""
        if not isinstance(event, yaml.ScalarEvent):
            what = "an alias, a list or a mapping cannot be a key; write text"
            if not isinstance(event, yaml.AliasEvent):
                self._rest_of(event, len(path))
        elif event.tag:
            what = f"the tag {_tag(event)} is not allowed; write plain keys"
        elif event.value == "<<" and event.style is None:
            what = "merge keys (<<) are not allowed; write the keys out"
        else:
            try:
                key = _plain(event)
            except ValueError as error:
                what = f"the key {error}"
            else:
                if isinstance(key, str):
                    return key
                what = f"the key {printable(event.value) or '(empty)'} is not text; quote it"
        merges = isinstance(event, yaml.ScalarEvent) and event.value == "<<"  # what it brings is not missing
        self.problems.add(path, what, mark=mark_of(event.start_mark), blame=merges)
        return None

    def _rest_of(self, event: Any, depth: int) -> None:
        """Read over a node that is not wanted."""
        open_nodes = 0
        while True:
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes += 1
                if depth + open_nodes > MAX_DEPTH:
                    self._stop((), f"is nested deeper than {MAX_DEPTH} levels", mark_of(event.start_mark))
            elif isinstance(event, yaml.CollectionEndEvent):
                open_nodes -= 1
            if not open_nodes:
                return
            event = next(self._events)

    def _scalar(self, event: Any, path: Path) -> Any:
        try:
            return _plain(event)
        except ValueError as error:
            self.problems.add(path, str(error), mark=mark_of(event.start_mark))
            return None


def _tag(event: Any) -> str:
    return printable(event.tag.replace("tag:yaml.org,2002:", "!!"))


def _plain(event: Any) -> Any:
    text: str = event.value
    if event.style is not None:
        if odd := NO_TEXT.search(text):
            raise ValueError(f"holds U+{ord(odd[0]):04X}, which is no character; remove it")
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"the number {printable(text, 12)} has {len(text)} digits; quote it if it is text")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
        raise ValueError(f"{printable(text, 12)} is not a finite number")
    return float(text) if _FLOAT.fullmatch(text) else text


def mark_of(mark: Any) -> Mark:
    """Return a place as the parser counts it, counted from 1."""
    return Mark(mark.line + 1, mark.column + 1)
