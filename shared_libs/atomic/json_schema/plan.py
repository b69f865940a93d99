"""A schema read once: every schema in it a `Node`, its references resolved, all within bounds of size and depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from shared_libs.atomic.json_schema.rules import LAST, RULES
from shared_libs.atomic.json_schema.values import shown
from shared_libs.atomic.json_schema.visit import Node, Path, Visit

MAX_NODES = 5_000
"""Schemas in one schema, the values of its `enum`s counted with them."""

MAX_DEPTH = 100
"""How deep one schema may stand in another."""

_HOLDERS = ("$defs", "definitions")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")
_NOTES = frozenset(
    ("$id", "$schema", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly")
)
_OLD_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07")
_METASCHEMA = "json-schema.org/"


class SchemaProblem(Exception):
    """What is wrong with a schema, and where in it."""


def unspoken(schema: Mapping[str, Any]) -> list[str]:
    """Return the words of a schema that says nothing but such words as no JSON Schema has: its author meant more."""
    odd = [word for word in schema if word not in _NOTES]
    return [] if any(word in RULES or word in _REFERENCES for word in odd) else odd


class Plan:
    """
    A schema as nodes; `root` checks a value.

    Raises:
        SchemaProblem: it is no JSON Schema, is too large, or a reference in it leads nowhere.

    """

    def __init__(self, schema: Any) -> None:
        self._whole = schema
        said = schema.get("$schema") if isinstance(schema, Mapping) else None
        self.alone = isinstance(said, str) and any(draft in said for draft in _OLD_DRAFTS)
        """Whether nothing beside a `$ref` counts, as in the drafts up to 7."""
        self._left = MAX_NODES
        self._known: dict[tuple[int, str], Node] = {}
        self._resources: dict[str, Any] = {"": schema}
        self._anchors: dict[tuple[str, str], Node] = {}
        self._references: list[tuple[Node, str, str, Path]] = []
        self.root = self.node(schema, (), "")
        while self._references:
            node, base, reference, place = self._references.pop()
            node.checks.append(self._target(base, reference, place).check)

    def node(self, schema: Any, place: Path, base: str) -> Node:
        """Make the node of a schema that stands at a place, under a base URI."""
        if isinstance(schema, bool):
            return _anything_or_nothing(allowed=schema)
        if not isinstance(schema, Mapping):
            raise SchemaProblem(f"{_at(place)}: {shown(schema)} is no schema: neither an object nor true or false")
        identity = schema.get("$id", schema.get("id") if not place or self.alone else None)
        if isinstance(identity, str) and not ("$ref" in schema and self.alone):
            base = _joined(base, identity)
            self._resources.setdefault(base, schema)
        known = self._known.get((id(schema), base))
        if known is not None:
            return known
        if len(place) > 2 * MAX_DEPTH:
            raise SchemaProblem(f"it is nested more than {MAX_DEPTH} deep")
        enum = schema.get("enum")
        self._left -= 1 + (len(enum) if isinstance(enum, list) else 0)
        if self._left < 0:
            raise SchemaProblem(f"it has more than {MAX_NODES:,} schemas and enum values in it")
        node = self._known[id(schema), base] = Node()
        _Around(self, schema, place, base).fill(node)
        return node

    def anchored(self, base: str, name: str, node: Node) -> None:
        """Remember a node by its anchor."""
        self._anchors.setdefault((base, name), node)

    def refers(self, node: Node, base: str, reference: Any, place: Path) -> None:
        """Remember a reference; where it leads is known when all has been read."""
        if not isinstance(reference, str):
            raise SchemaProblem(f"{_at(place)}: {shown(reference)} is no reference")
        self._references.append((node, base, reference, place))

    def _target(self, base: str, reference: str, place: Path) -> Node:
        uri, _, fragment = reference.partition("#")
        uri = (_joined(base, uri) if uri else base).rstrip("#")
        resource = self._resources.get(uri)
        fragment = unquote(fragment)
        if resource is None:
            if _METASCHEMA in uri:
                return _anything_or_nothing(allowed=True)  # a schema as a value; whether it is one, its reader finds
            raise SchemaProblem(f"{_at(place)}: the reference {shown(reference)} leads out of the schema")
        if fragment and not fragment.startswith("/"):
            anchored = self._anchors.get((uri, fragment))
            if anchored is None:
                raise SchemaProblem(f"{_at(place)}: the reference {shown(reference)} leads nowhere")
            return anchored
        found, way = resource, fragment.split("/")[1:]
        for step in way:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and len(key) < 10 and int(key) < len(found):
                found = found[int(key)]
            else:
                raise SchemaProblem(f"{_at(place)}: the reference {shown(reference)} leads nowhere")
            inner = found.get("$id") if isinstance(found, Mapping) else None
            if isinstance(inner, str) and step is not way[-1]:
                uri = _joined(uri, inner)
        return self.node(found, tuple(way), uri)


class _Around:
    """One schema while its node is made: what its keywords ask for."""

    __slots__ = ("_base", "_place", "_plan", "schema")

    def __init__(self, plan: Plan, schema: Mapping[str, Any], place: Path, base: str) -> None:
        self.schema = schema
        self._plan = plan
        self._place = place
        self._base = base

    def fill(self, node: Node) -> None:
        alone = self._plan.alone and "$ref" in self.schema
        for word, given in self.schema.items():
            rule = RULES.get(word)
            if rule is None:
                self._structure(word, given, node)
            elif not alone and (check := rule(given, self)) is not None:
                (node.last if word in LAST else node.checks).append(check)

    def _structure(self, word: str, given: Any, node: Node) -> None:
        """Read what checks nothing by itself: names, definitions, references."""
        if word in _HOLDERS:
            self.named(given, word)
        elif word in _REFERENCES:
            self._plan.refers(node, self._base, given, (*self._place, word))
        elif word in _ANCHORS and isinstance(given, str):
            self._plan.anchored(self._base, given, node)

    def node(self, schema: Any, *place: str) -> Node:
        return self._plan.node(schema, (*self._place, *place), self._base)

    def nodes(self, given: Any, word: str) -> list[Node]:
        if not isinstance(given, list) or not given:
            raise self.refuse(word, given, "a list of schemas")
        return [self.node(schema, word, str(index)) for index, schema in enumerate(given)]

    def named(self, given: Any, word: str) -> dict[str, Node]:
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise self.refuse(word, given, "an object of schemas under their names")
        return {name: self.node(schema, word, str(name)) for name, schema in given.items()}

    def refuse(self, word: str, given: Any, due: str) -> SchemaProblem:
        return SchemaProblem(f"{_at((*self._place, word))}: {shown(given)} is not {due}")


def _anything_or_nothing(*, allowed: bool) -> Node:
    node = Node()
    if not allowed:

        def nothing(value: Any, path: Path, visit: Visit) -> None:
            visit.wrong(path, f"{shown(value)} is not allowed here")

        node.checks.append(nothing)
    return node


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference).rstrip("#")
    except ValueError:
        return reference


def _at(place: Path) -> str:
    words = "/".join(str(part)[:40] for part in place[-6:])
    return f"at …/{words}" if len(place) > 6 else f"at #/{words}"
