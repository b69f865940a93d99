"""
The keywords of JSON Schema, each a small check of one value.

The rules are those of draft 2020-12 and, where they differ, of the drafts before it (`items` as a list,
`additionalItems`, `dependencies`, the boolean `exclusiveMinimum` of draft 4). Unknown words say nothing of
whether a value is valid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from shared_libs.atomic.json_schema.pattern import Pattern
from shared_libs.atomic.json_schema.values import FORMATS, MAX_PROBLEMS, TYPES, key_of, shown

Path = tuple[Any, ...]

_A_PROBLEM = 5
"""What it costs to put a problem into words, in visits."""


class TooMuchWork(Exception):
    """The check of a value was given up."""


class Enough(Exception):
    """As many problems have been found as anybody asks for."""


class Visit:
    """One check of one value: the work it may still do, what it found, and what was looked at of the current value."""

    __slots__ = ("_most", "fuel", "problems", "seen")

    def __init__(self, fuel: int) -> None:
        self.fuel = fuel
        self.problems: list[tuple[Path, str]] = []
        self.seen: set[Any] | None = None  # for `unevaluated…`: names and indices of the current value
        self._most = MAX_PROBLEMS

    def spend(self, work: int = 1) -> None:
        """Book work before it is done; raises `TooMuchWork`."""
        self.fuel -= work
        if self.fuel < 0:
            raise TooMuchWork

    def wrong(self, path: Path, why: str) -> None:
        """Note a problem; raises `Enough`."""
        self.spend(_A_PROBLEM)
        self.problems.append((path, why))
        if len(self.problems) >= self._most:
            raise Enough

    def into(self, node: Node, value: Any, path: Path) -> None:
        """Check a part of the current value."""
        seen, self.seen = self.seen, None
        node.check(value, path, self)
        self.seen = seen

    def fits(self, node: Node, value: Any, path: Path) -> bool:
        """Whether the current value fits; what is wrong is not told, and then nothing of it counts as seen."""
        before, seen, most = self.problems, self.seen, self._most
        self.problems, self.seen, self._most = [], None if seen is None else set(), 1
        try:
            node.check(value, path, self)
        except Enough:
            return False
        else:
            if seen is not None and self.seen:
                seen |= self.seen
            return True
        finally:
            self.problems, self.seen, self._most = before, seen, most


class Check(Protocol):
    """One keyword's check."""

    def __call__(self, value: Any, path: Path, visit: Visit, /) -> None:
        """Note what is wrong with a value that stands at a path."""


class Node:
    """One schema: its checks, in order."""

    __slots__ = ("checks", "last")

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.last: list[Check] = []  # `unevaluated…`, which asks what the others have looked at

    def check(self, value: Any, path: Path, visit: Visit) -> None:
        """Check a value that stands at a path."""
        visit.spend(1 + len(self.checks))
        if not self.last:
            for check in self.checks:
                check(value, path, visit)
            return
        outer, visit.seen = visit.seen, set()
        for check in (*self.checks, *self.last):
            check(value, path, visit)
        if outer is not None:
            outer |= visit.seen
        visit.seen = outer


class Around(Protocol):
    """What a keyword needs of the schema that it stands in."""

    schema: Mapping[str, Any]

    def node(self, schema: Any, *place: str) -> Node:
        """Make the node of a schema inside it."""

    def nodes(self, given: Any, word: str) -> list[Node]:
        """Make the nodes of a list of schemas."""

    def named(self, given: Any, word: str) -> dict[str, Node]:
        """Make the nodes of schemas under names."""

    def refuse(self, word: str, given: Any, due: str) -> Exception:
        """Make the error that a keyword's value is none."""


Rule = Callable[[Any, Around], Check | None]


def _type(given: Any, around: Around) -> Check:
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
    if not names or not all(isinstance(name, str) and name in TYPES for name in names):
        raise around.refuse("type", given, f"one of {', '.join(TYPES)}, or a list of them")
    return _of_type(names)


@functools.lru_cache(maxsize=256)
def _of_type(names: tuple[str, ...]) -> Check:
    tests = [TYPES[name] for name in names]

    def check(value: Any, path: Path, visit: Visit) -> None:
        if not any(test(value) for test in tests):
            visit.wrong(path, f"{shown(value)} is not of type {', '.join(map(repr, names))}")

    return check


def _enum(given: Any, around: Around) -> Check:
    if not isinstance(given, list):
        raise around.refuse("enum", given, "a list of values")
    keys = {key_of(item) for item in given}

    def check(value: Any, path: Path, visit: Visit) -> None:
        if _key(value, visit) not in keys:
            visit.wrong(path, f"{shown(value)} is not one of {shown(given)}")

    return check


def _const(given: Any, around: Around) -> Check:
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


def _limit(word: str, wrong: Callable[[Any, Any], bool], words: str) -> Rule:
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


def _multiple_of(given: Any, around: Around) -> Check:
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


def _count(word: str, kind: type, wrong: Callable[[int, int], bool], words: str) -> Rule:
    def rule(given: Any, around: Around) -> Check:
        if not TYPES["integer"](given) or given < 0:
            raise around.refuse(word, given, "a whole number")

        def check(value: Any, path: Path, visit: Visit) -> None:
            if isinstance(value, kind) and wrong(len(value), given):  # type: ignore[arg-type]
                visit.wrong(path, f"{shown(value)} {words} {given:g}")

        return check

    return rule


def _pattern(given: Any, around: Around) -> Check:
    if not isinstance(given, str):
        raise around.refuse("pattern", given, "a text")
    pattern = Pattern(given)

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, str):
            visit.spend(pattern.cost(value))
            if pattern.found_in(value) is False:
                visit.wrong(path, f"{shown(value)} does not match {shown(given)}")

    return check


def _format(given: Any, around: Around) -> Check | None:
    fits = FORMATS.get(given) if isinstance(given, str) else None
    if fits is None:
        return None

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, str) and not (len(value) < 1_000 and fits(value)):
            visit.wrong(path, f"{shown(value)} is not a {given!r}")

    return check


def _required(given: Any, around: Around) -> Check | None:
    if isinstance(given, bool):
        return None  # draft 3, and what is written by hand
    names = _names(given, "required", around)

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, dict):
            for name in names:
                if name not in value:
                    visit.wrong(path, f"{name!r} is a required property")

    return check


def _names(given: Any, word: str, around: Around) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise around.refuse(word, given, "a list of names")
    return tuple(given)


def _dependencies(given: Any, around: Around) -> Check:
    if not isinstance(given, Mapping):
        raise around.refuse("dependencies", given, "an object")
    lists = {name: _names(due, "dependencies", around) for name, due in given.items() if isinstance(due, list)}
    nodes = {name: around.node(due, "dependencies", name) for name, due in given.items() if not isinstance(due, list)}

    def check(value: Any, path: Path, visit: Visit) -> None:
        if not isinstance(value, dict):
            return
        for name, due in lists.items():
            missing = [other for other in due if other not in value] if name in value else ()
            for other in missing:
                visit.wrong(path, f"{other!r} is a dependency of {name!r}")
        for name, node in nodes.items():
            if name in value:
                node.check(value, path, visit)

    return check


def _properties(given: Any, around: Around) -> Check:
    nodes = around.named(given, "properties")

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, dict):
            for name in nodes if len(nodes) < len(value) else value:
                if name in value and name in nodes:
                    visit.into(nodes[name], value[name], (*path, name))
                    if visit.seen is not None:
                        visit.seen.add(name)

    return check


def _pattern_properties(given: Any, around: Around) -> Check:
    nodes = {Pattern(text): node for text, node in around.named(given, "patternProperties").items()}

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, dict):
            for name in value:
                for pattern, node in nodes.items():
                    visit.spend(pattern.cost(name))
                    if pattern.found_in(name):
                        visit.into(node, value[name], (*path, name))
                        if visit.seen is not None:
                            visit.seen.add(name)

    return check


def _additional_properties(given: Any, around: Around) -> Check:
    node = around.node(given, "additionalProperties")
    known = frozenset(around.schema.get("properties") or ())
    patterns = [Pattern(text) for text in around.schema.get("patternProperties") or ()]

    def check(value: Any, path: Path, visit: Visit) -> None:
        if not isinstance(value, dict):
            return
        extra = []
        for name in value:
            visit.spend(1 + sum(pattern.cost(name) for pattern in patterns))
            # a pattern that cannot be checked may allow any name
            if name not in known and not any(pattern.found_in(name) is not False for pattern in patterns):
                extra.append(name)
        _all_extra(node, given, extra, value, path, visit)

    return check


def _all_extra(node: Node, given: Any, extra: list[Any], value: Any, path: Path, visit: Visit) -> None:
    if visit.seen is not None:
        visit.seen.update(extra)
    if given is False and extra:
        names = ", ".join(shown(name) for name in extra[:10])
        were = "was" if len(extra) == 1 else "were"
        visit.wrong(path, f"Additional properties are not allowed ({names} {were} unexpected)")
    elif given is not False:
        for name in extra:
            visit.into(node, value[name], (*path, name))


def _property_names(given: Any, around: Around) -> Check:
    node = around.node(given, "propertyNames")

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, dict):
            for name in value:
                visit.into(node, name, path)

    return check


def _items(given: Any, around: Around) -> Check:
    if isinstance(given, list):
        return _tuple(around.nodes(given, "items"))
    node = around.node(given, "items")
    prefix = around.schema.get("prefixItems")
    return _rest(node, len(prefix) if isinstance(prefix, list) else 0)


def _additional_items(given: Any, around: Around) -> Check | None:
    first = around.schema.get("items")
    return _rest(around.node(given, "additionalItems"), len(first)) if isinstance(first, list) else None


def _tuple(nodes: list[Node]) -> Check:
    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, list):
            for index, (item, node) in enumerate(zip(value, nodes, strict=False)):
                visit.into(node, item, (*path, index))
                if visit.seen is not None:
                    visit.seen.add(index)

    return check


def _rest(node: Node, start: int) -> Check:
    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, list):
            for index in range(start, len(value)):
                visit.into(node, value[index], (*path, index))
            if visit.seen is not None:
                visit.seen.update(range(start, len(value)))

    return check


def _contains(given: Any, around: Around) -> Check:
    node = around.node(given, "contains")
    least, most = around.schema.get("minContains", 1), around.schema.get("maxContains", math.inf)
    for word, bound in (("minContains", least), ("maxContains", most)):
        if not TYPES["number"](bound):
            raise around.refuse(word, bound, "a whole number")

    def check(value: Any, path: Path, visit: Visit) -> None:
        if not isinstance(value, list):
            return
        seen, visit.seen = visit.seen, None
        found = [index for index, item in enumerate(value) if visit.fits(node, item, path)]
        visit.seen = seen
        if seen is not None:
            seen.update(found)
        if len(found) < least:
            visit.wrong(path, f"{shown(value)} does not contain enough items that match the `contains` schema")
        elif len(found) > most:
            visit.wrong(path, f"{shown(value)} contains too many items that match the `contains` schema")

    return check


def _unique_items(given: Any, around: Around) -> Check | None:
    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, list):
            visit.spend(_size(value, visit.fuel))
            if len({key_of(item) for item in value}) < len(value):
                visit.wrong(path, f"{shown(value)} has non-unique elements")

    return check if given is True else None


def _all_of(given: Any, around: Around) -> Check:
    nodes = around.nodes(given, "allOf")

    def check(value: Any, path: Path, visit: Visit) -> None:
        for node in nodes:
            node.check(value, path, visit)

    return check


def _any_of(given: Any, around: Around) -> Check:
    nodes = around.nodes(given, "anyOf")

    def check(value: Any, path: Path, visit: Visit) -> None:
        # all of them where it matters what they have looked at
        every = visit.seen is not None
        fits = [True for node in nodes if visit.fits(node, value, path)] if every else _first(nodes, value, path, visit)
        if not fits:
            visit.wrong(path, f"{shown(value)} is not valid under any of the given schemas")

    return check


def _first(nodes: Iterable[Node], value: Any, path: Path, visit: Visit) -> bool:
    return any(visit.fits(node, value, path) for node in nodes)


def _one_of(given: Any, around: Around) -> Check:
    nodes = around.nodes(given, "oneOf")

    def check(value: Any, path: Path, visit: Visit) -> None:
        fitting = sum(visit.fits(node, value, path) for node in nodes)
        if fitting == 0:
            visit.wrong(path, f"{shown(value)} is not valid under any of the given schemas")
        elif fitting > 1:
            visit.wrong(path, f"{shown(value)} is valid under {fitting} of the given schemas, and not under one")

    return check


def _not(given: Any, around: Around) -> Check:
    node = around.node(given, "not")

    def check(value: Any, path: Path, visit: Visit) -> None:
        seen, visit.seen = visit.seen, None
        if visit.fits(node, value, path):
            visit.wrong(path, f"{shown(value)} should not be valid under {shown(given)}")
        visit.seen = seen

    return check


def _if(given: Any, around: Around) -> Check:
    node = around.node(given, "if")
    branches = {
        word == "then": around.node(around.schema[word], word) for word in ("then", "else") if word in around.schema
    }

    def check(value: Any, path: Path, visit: Visit) -> None:
        branch = branches.get(visit.fits(node, value, path))
        if branch is not None:
            branch.check(value, path, visit)

    return check


def _unevaluated_properties(given: Any, around: Around) -> Check:
    node = around.node(given, "unevaluatedProperties")

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, dict):
            seen = visit.seen or ()
            visit.spend(len(value))
            _all_extra(node, given, [name for name in value if name not in seen], value, path, visit)

    return check


def _unevaluated_items(given: Any, around: Around) -> Check:
    node = around.node(given, "unevaluatedItems")

    def check(value: Any, path: Path, visit: Visit) -> None:
        if isinstance(value, list):
            seen = visit.seen or ()
            visit.spend(len(value))
            for index in [index for index in range(len(value)) if index not in seen]:
                visit.into(node, value[index], (*path, index))
            if visit.seen is not None:
                visit.seen.update(range(len(value)))

    return check


RULES: Mapping[str, Rule] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _limit("minimum", lambda value, bound: value < bound, "less than the minimum of"),
    "maximum": _limit("maximum", lambda value, bound: value > bound, "greater than the maximum of"),
    "exclusiveMinimum": _limit("exclusiveMinimum", lambda value, bound: value <= bound, "not greater than"),
    "exclusiveMaximum": _limit("exclusiveMaximum", lambda value, bound: value >= bound, "not less than"),
    "multipleOf": _multiple_of,
    "minLength": _count("minLength", str, lambda size, bound: size < bound, "is shorter than"),
    "maxLength": _count("maxLength", str, lambda size, bound: size > bound, "is longer than"),
    "minItems": _count("minItems", list, lambda size, bound: size < bound, "has fewer items than"),
    "maxItems": _count("maxItems", list, lambda size, bound: size > bound, "has more items than"),
    "minProperties": _count("minProperties", dict, lambda size, bound: size < bound, "has fewer properties than"),
    "maxProperties": _count("maxProperties", dict, lambda size, bound: size > bound, "has more properties than"),
    "pattern": _pattern,
    "format": _format,
    "required": _required,
    "dependentRequired": _dependencies,
    "dependentSchemas": _dependencies,
    "dependencies": _dependencies,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "prefixItems": lambda given, around: _tuple(around.nodes(given, "prefixItems")),
    "items": _items,
    "additionalItems": _additional_items,
    "contains": _contains,
    "uniqueItems": _unique_items,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "unevaluatedProperties": _unevaluated_properties,
    "unevaluatedItems": _unevaluated_items,
}

LAST = ("unevaluatedProperties", "unevaluatedItems")
"""Those that ask what the other keywords have looked at."""
