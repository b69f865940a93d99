"""The keywords that look at a value as a whole: its type, its size, what it is equal to."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from shared_libs.atomic.json_schema.pattern import Pattern
from shared_libs.atomic.json_schema.values import FORMATS, TYPES, key_of, shown
from shared_libs.atomic.json_schema.visit import Around, Check, Path, Rule, Visit


def type_of(given: Any, around: Around) -> Check:
    """Make the check of `type`."""
    kinds = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        raise around.refuse("type", given, f"one of {', '.join(TYPES)}, or a list of them")
    return _of_type(kinds)


@functools.lru_cache(maxsize=256)
def _of_type(names: tuple[str, ...]) -> Check:
    tests = [TYPES[name] for name in names]

    def check(value: Any, path: Path, visit: Visit) -> None:
        if not any(test(value) for test in tests):
            visit.wrong(path, f"{shown(value)} is not of type {', '.join(map(repr, names))}")

    return check


def enum(given: Any, around: Around) -> Check:
    """Make the check of `enum`."""
    if not isinstance(given, list):
        raise around.refuse("enum", given, "a list of values")
    keys = {key_of(item) for item in given}

    def check(value: Any, path: Path, visit: Visit) -> None:
        if _key(value, visit) not in keys:
            visit.wrong(path, f"{shown(value)} is not one of {shown(given)}")

    return check


def const(given: Any, around: Around) -> Check:
    """Make the check of `const`."""
    key = key_of(given)

    def check(value: Any, path: Path, visit: Visit) -> None:
        if _key(value, visit) != key:
            visit.wrong(path, f"{shown(given)} was expected, got {shown(value)}")

    return check


def _key(value: Any, visit: Visit) -> Any:
    visit.spend(_size(value, visit.fuel))
    return key_of(value)


def _size(value: Any, most: int) -> int:
    """How many values there are in a value; counted only so far."""
    count, todo = 0, [value]
    while todo and count <= most:
        item = todo.pop()
        count += 1
        if isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, dict):
            todo.extend(item.values())
    return count


def limit(word: str, wrong: Callable[[Any, Any], bool], words: str) -> Rule:
    """A bound of numbers."""

    def rule(given: Any, around: Around) -> Check | None:
        if isinstance(given, bool) and word.startswith("exclusive"):
            return None  # draft 4: a switch of `minimum` and `maximum`
        if not TYPES["number"](given):
            raise around.refuse(word, given, "a number")
        switch = f"exclusive{word[0].upper()}{word[1:]}"
        exclusive = around.schema.get(switch) is True

        def check(value: Any, path: Path, visit: Visit) -> None:
            if TYPES["number"](value) and (wrong(value, given) or (exclusive and value == given)):
                visit.wrong(path, f"{shown(value)} is {words} {shown(given)}")

        return check

    return rule


def multiple_of(given: Any, around: Around) -> Check:
    """Make the check of `multipleOf`."""
    if not TYPES["number"](given) or given <= 0:
        raise around.refuse("multipleOf", given, "a number greater than 0")

    def check(value: Any, path: Path, visit: Visit) -> None:
        if TYPES["number"](value) and not _is_multiple(value, given):
            visit.wrong(path, f"{shown(value)} is not a multiple of {shown(given)}")

    return check


def _is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    try:
        times = value / of
    except OverflowError:
        return True  # too large to be told
    return not math.isfinite(times) or abs(times - round(times)) < 1e-9


def count(word: str, kind: type, wrong: Callable[[int, int], bool], words: str) -> Rule:
    """A bound of lengths."""

    def rule(given: Any, around: Around) -> Check:
        if not TYPES["integer"](given) or given < 0:
            raise around.refuse(word, given, "a whole number")

        def check(value: Any, path: Path, visit: Visit) -> None:
            if isinstance(value, kind) and wrong(len(value), given):  # type: ignore[arg-type]
                visit.wrong(path, f"{shown(value)} {words} {given:g}")

        return check

    return rule


def pattern_of(given: Any, around: Around) -> Check:
    """Make the check of `pattern`."""
    if not isinstance(given, str):
        raise around.refuse("pattern", given, "a text")
    pattern = Pattern(given)

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, str):
            visit.spend(pattern.cost(value))
            if pattern.found_in(value) is False:
                visit.wrong(path, f"{shown(value)} does not match {shown(given)}")

    return check


def format_of(given: Any, around: Around) -> Check | None:
    """Make the check of `format`."""
    fits = FORMATS.get(given) if isinstance(given, str) else None
    if fits is None:
        return None

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, str) and not (len(value) < 1_000 and fits(value)):
            visit.wrong(path, f"{shown(value)} is not a {given!r}")

    return check


def required(given: Any, around: Around) -> Check | None:
    """Make the check of `required`."""
    if isinstance(given, bool):
        return None  # draft 3, and what is written by hand
    due = names(given, "required", around)

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, dict):
            for name in due:
                if name not in value:
                    visit.wrong(path, f"{name!r} is a required property")

    return check


def names(given: Any, word: str, around: Around) -> tuple[str, ...]:
    """Read a list of names."""
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise around.refuse(word, given, "a list of names")
    return tuple(given)


def unique_items(given: Any, around: Around) -> Check | None:
    """Make the check of `uniqueItems`."""

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, list):
            visit.spend(_size(value, visit.fuel))
            if len({key_of(item) for item in value}) < len(value):
                visit.wrong(path, f"{shown(value)} has non-unique elements")

    return check if given is True else None
