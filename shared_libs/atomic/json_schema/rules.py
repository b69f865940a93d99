"""
The keywords of JSON Schema, each a small check of one value.

The rules are those of draft 2020-12 and, where they differ, of the drafts before it (`items` as a list,
`additionalItems`, `dependencies`, the boolean `exclusiveMinimum` of draft 4). Unknown words say nothing of
whether a value is valid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from shared_libs.atomic.json_schema import simple
from shared_libs.atomic.json_schema.pattern import Pattern
from shared_libs.atomic.json_schema.values import TYPES, shown
from shared_libs.atomic.json_schema.visit import Around, Check, Node, Path, Rule, Visit


def _dependencies(given: Any, around: Around) -> Check:
    if not isinstance(given, Mapping):
        raise around.refuse("dependencies", given, "an object")
    lists = {name: simple.names(due, "dependencies", around) for name, due in given.items() if isinstance(due, list)}
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
        every = visit.thorough or visit.seen is not None
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
    "type": simple.type_of,
    "enum": simple.enum,
    "const": simple.const,
    "minimum": simple.limit("minimum", lambda value, bound: value < bound, "less than the minimum of"),
    "maximum": simple.limit("maximum", lambda value, bound: value > bound, "greater than the maximum of"),
    "exclusiveMinimum": simple.limit("exclusiveMinimum", lambda value, bound: value <= bound, "not greater than"),
    "exclusiveMaximum": simple.limit("exclusiveMaximum", lambda value, bound: value >= bound, "not less than"),
    "multipleOf": simple.multiple_of,
    "minLength": simple.count("minLength", str, lambda size, bound: size < bound, "is too short, at least"),
    "maxLength": simple.count("maxLength", str, lambda size, bound: size > bound, "is too long, at most"),
    "minItems": simple.count("minItems", list, lambda size, bound: size < bound, "has too few items, at least"),
    "maxItems": simple.count("maxItems", list, lambda size, bound: size > bound, "has too many items, at most"),
    "minProperties": simple.count(
        "minProperties", dict, lambda size, bound: size < bound, "has too few properties, at least"
    ),
    "maxProperties": simple.count(
        "maxProperties", dict, lambda size, bound: size > bound, "has too many properties, at most"
    ),
    "pattern": simple.pattern_of,
    "format": simple.format_of,
    "required": simple.required,
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
    "uniqueItems": simple.unique_items,
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
