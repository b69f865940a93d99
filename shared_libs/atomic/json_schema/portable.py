"""
A tool's schema as every provider takes it: what a model is told. What is checked is the schema as it was given.

A provider refuses a request for one schema it does not like, with every other tool in it. They check against draft
2020-12, and besides: OpenAI wants `items` of an array and `properties` of an object, OpenAI and Anthropic no `anyOf`,
`oneOf` or `allOf` at the top, Anthropic names of `[A-Za-z0-9_.-]{1,64}`, Gemini no `required` without its property.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared_libs.atomic.json_schema.values import key_of

MAX_DEPTH = 100
_MAX_REFERENCES = 10
"""References one behind the other that are followed at the top."""

_MAX_COMBINED, _MAX_PARTS = 12, 2_000
"""How deep schemas are combined at the top, and of how many parts, that are looked at."""

MAX_TOLD = 1_000
"""Characters in which a model is told what cannot stand at the top of a schema."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")
_NOT_AT_THE_TOP = ("anyOf", "oneOf", "allOf", "not", "enum", "const")
_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ONE_SCHEMA = ("items", "not", "contains", "if", "then", "else", "propertyNames")
_OPEN = ("additionalProperties", "unevaluatedProperties", "unevaluatedItems")
"""Schemas for which true and false are taken everywhere."""

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("title", "description", "$comment", "$id", "$schema", "$anchor", "format", "pattern"), str),
    **dict.fromkeys(("deprecated", "readOnly", "writeOnly"), bool),
    "examples": list,
}
"""Of what type the words are that say nothing of a value, or that are not checked; another type is an error there."""


def portable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's arguments as every provider takes it; one that is so already as it is."""
    told = _node(_top(dict(schema)), MAX_DEPTH)
    return schema if isinstance(schema, dict) and _same(told, schema) else told


def portable_names(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a schema whose properties have names that every provider takes, and the given names of those renamed."""
    properties = schema.get("properties", {})
    if all(map(_NAME.fullmatch, properties)) or '"#/properties/' in json.dumps(schema, default=str):
        return schema, {}
    names: dict[str, str] = {}
    tried: dict[str, int] = {}
    for name in properties:
        plain = told = name if _NAME.fullmatch(name) else _NOT_IN_NAMES.sub("_", name)[:50] or "_"
        while told != name and (told in properties or told in names):
            tried[plain] = tried.get(plain, 1) + 1
            told = f"{plain}_{tried[plain]}"
        names[told] = name
    back = {name: told for told, name in names.items()}
    renamed = {**schema, "properties": {told: properties[name] for told, name in names.items()}}
    if "required" in schema:
        renamed["required"] = [back.get(name, name) for name in schema["required"]]
    return renamed, {told: name for told, name in names.items() if told != name}


def top_of(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a schema with what its top refers to, and the properties of all that it is put together from."""
    parts = _Parts(dict(schema))
    return parts.whole(dict(schema)), parts.of(dict(schema))[0]


def _top(schema: dict[str, Any]) -> dict[str, Any]:
    """The top of a schema as an object with properties; what it says by combining others, in words."""
    parts = _Parts(schema)
    schema = {**parts.whole(schema), "type": "object"}
    beside = {word: schema.pop(word) for word in _NOT_AT_THE_TOP if word in schema}
    schema.pop("$ref", None)  # it leads nowhere, or in a circle
    properties, required = parts.of({**schema, **beside})
    schema["properties"] = properties
    if not beside:
        return schema
    words = f"The arguments also have to fit {json.dumps(beside, ensure_ascii=False, default=str)}"
    if len(words) > MAX_TOLD:
        words = f"{words[:MAX_TOLD]}…"
    before = schema.get("description")
    if required:
        schema["required"] = required
    return {**schema, "description": f"{before}\n{words}" if isinstance(before, str) and before else words}


class _Parts:
    """What a schema is put together from, in work that is bounded whatever refers to what."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._left = _MAX_PARTS

    def whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema with what it refers to, as far as that leads anywhere."""
        for _ in range(_MAX_REFERENCES):
            reference = schema.get("$ref")
            if not isinstance(reference, str) or not isinstance(found := _local(self._root, reference), dict):
                break
            schema = {**found, **{word: given for word, given in schema.items() if word != "$ref"}}
        return schema

    def of(self, schema: Any, depth: int = _MAX_COMBINED) -> tuple[dict[str, Any], list[str]]:
        """The properties of a schema and of all it is put together from, and those that are always required."""
        self._left -= 1
        if not isinstance(schema, dict) or not depth or self._left < 0:
            return {}, []
        schema = self.whole(schema)
        own = schema.get("properties")
        properties, required = dict(own) if isinstance(own, dict) else {}, list(_names(schema.get("required")))
        for word in ("allOf", "anyOf", "oneOf"):
            given = schema.get(word)
            branches = [self.of(one, depth - 1) for one in given] if isinstance(given, list) else []
            said: dict[str, list[Any]] = {}
            for name, one in ((name, one) for inner, _ in branches for name, one in inner.items()):
                said.setdefault(name, []).append(one)
            for name, ways in said.items():
                same = all(_same(one, ways[0]) for one in ways)
                properties.setdefault(name, ways[0] if same else {"anyOf": ways})
            due = Counter(name for _, names in branches for name in names)
            required += [name for name, times in due.items() if word == "allOf" or times == len(branches)]
        return properties, list(dict.fromkeys(required))


def _local(schema: Any, reference: str) -> Any:
    """What a reference within the schema points at; None where it is none."""
    if not reference.startswith("#/"):
        return None
    for part in reference[2:].split("/"):
        schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return schema


def _node(given: Any, depth: int) -> Any:
    if isinstance(given, bool):
        return {} if given else {"not": {}}
    if not isinstance(given, dict) or not depth:
        return given
    if given.get("items") is False:
        given = {**given, "items": {}, "maxItems": 0}
    node: dict[str, Any] = {}
    for word, value in given.items():
        if word in _OF_SCHEMAS and isinstance(value, dict):
            node[word] = {name: _node(inner, depth - 1) for name, inner in value.items()}
        elif (word in _ONE_SCHEMA and isinstance(value, dict | bool)) or (word in _OPEN and isinstance(value, dict)):
            node[word] = _node(value, depth - 1)
        elif word in (*_LISTS, "items") and isinstance(value, list):
            node[word] = [_node(inner, depth - 1) for inner in value]
        elif isinstance(value, _KINDS.get(word, object)):
            node[word] = value
    _as_of_2020(node)
    _required(node, given)
    kinds = node.get("type")
    if (kinds == "array" or (isinstance(kinds, list) and "array" in kinds)) and "items" not in node:
        node["items"] = {}
    return node


def _as_of_2020(node: dict[str, Any]) -> None:
    """Write in the words of draft 2020-12 what the drafts before it say otherwise."""
    for word, other in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(word), bool) and node.pop(word) and other in node:
            node[word] = node.pop(other)
    if isinstance(node.get("items"), list):
        first, more = node.pop("items"), node.pop("additionalItems", {})
        node |= {"prefixItems": first} if first else {}
        node["items"] = more if isinstance(more, dict) else {}
        if more is False:
            node["maxItems"] = len(first)
    for word in ("enum", "type"):
        if isinstance(node.get(word), list):
            node[word] = _once(node[word])
            if not node[word]:
                del node[word]
    for word in _LISTS:
        if node.get(word) == []:
            del node[word]


def _required(node: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Names, each once and with its property; draft 3 wrote `required: true` into the property."""
    properties = node.get("properties")
    due = list(_names(node.pop("required", None)))
    if isinstance(properties, dict):
        inner = given["properties"]
        due += [name for name, one in inner.items() if isinstance(one, dict) and one.get("required") is True]
        for name in due:
            properties.setdefault(name, {})
    if due or isinstance(given.get("required"), list):
        node["required"] = _once(due)


def _names(given: Any) -> Iterator[str]:
    yield from (name for name in given if isinstance(name, str)) if isinstance(given, list) else ()


def _once(values: Iterable[Any]) -> list[Any]:
    return list({key_of(value): value for value in values}.values())


def _same(one: Any, other: Any) -> bool:
    """Whether two schemas are alike; true is not 1 here."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[word]) for word, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
