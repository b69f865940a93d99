"""
The parameters of tools as servers take them: what all of them insist on, and the plain form for those that know less.

A tool of somebody else's server has whatever schema its author wrote, and one that a model's server refuses costs every
request, with all other tools. What is left out here is told in words; what a model gives is checked by the tool itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shared_libs.atomic.json_schema import portable, portable_names
from shared_libs.atomic.types import ToolCall, ToolSpec

Schema = dict[str, Any]

_CHOICES = ("anyOf", "oneOf")
_PLAIN = frozenset({"type", "description", "enum", "properties", "required", "items"})
_SILENT = frozenset(
    {
        "title",
        "default",
        "$schema",
        "$id",
        "$comment",
        "examples",
        "additionalProperties",
        "nullable",
        "$defs",
        "definitions",
    }
)
"""What says nothing that a model must know."""
_MAX_DEPTH = 12
_MAX_NODES = 2_000
"""How much of a schema is written out: one that refers to itself has no end."""
_MAX_TOLD = 300
"""Characters of what is left out that are told in words."""


def plain_parameters(schema: Schema) -> Schema:
    """The same in the words that every server knows: nothing but types, descriptions, texts to choose from."""
    return _Shaper(schema).plain(portable(schema))


def plain_tools(tools: Iterable[ToolSpec]) -> tuple[ToolSpec, ...]:
    """Tools whose parameters are plain."""
    return tuple([msgspec.structs.replace(tool, parameters=plain_parameters(tool.parameters)) for tool in tools])


def named_tools(tools: Iterable[ToolSpec]) -> tuple[ToolSpec, ...]:
    """Tools whose parameters have names that every server takes, as those of our own tools have."""
    return tuple([msgspec.structs.replace(tool, parameters=_named(tool)[0]) for tool in tools])


def short_tools(tools: Iterable[ToolSpec], most: int) -> tuple[ToolSpec, ...]:
    """Tools whose descriptions have so many characters at most; what is cut is shown to be."""
    return tuple(
        [
            msgspec.structs.replace(tool, description=f"{tool.description[: most - 3].rstrip()}...")
            if len(tool.description) > most
            else tool
            for tool in tools
        ]
    )


def restored(call: ToolCall, tools: Iterable[ToolSpec]) -> ToolCall:
    """A call with the names that its tool's parameters really have, where they were told under others."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    known = None if tool is None else tool.parameters.get("properties")
    if tool is None or (isinstance(known, dict) and call.arguments.keys() <= known.keys()):
        return call
    real = _named(tool)[1]
    arguments = {real.get(name, name): value for name, value in call.arguments.items()}
    return msgspec.structs.replace(call, arguments=arguments)


def _named(tool: ToolSpec) -> tuple[Schema, dict[str, str]]:
    return portable_names(portable(tool.parameters))


def longest_description(request: dict[str, Any]) -> int:
    """How many characters the longest description of a request's tools has."""
    told = (tool.get("description") or tool.get("function", {}).get("description") for tool in request.get("tools", ()))
    return max((len(one) for one in told if isinstance(one, str)), default=0)


def told_parameters(request: dict[str, Any]) -> Iterator[Schema]:
    """The parameters of the tools of a request, in whichever API."""
    for tool in request.get("tools", ()):
        found = tool.get("input_schema") or tool.get("parameters") or tool.get("function", {}).get("parameters")
        if isinstance(found, dict):
            yield found


class _Shaper:
    """Rewrites a schema, with what it refers to written out, in work that is bounded whatever it refers to."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MAX_NODES

    def plain(self, node: Any, depth: int = 0) -> Schema:
        """A schema of types, descriptions and texts to choose from; of alternatives the first, and the rest told."""
        if self._is_too_much(node, depth):
            return {"type": "string"}
        for word in ("$ref", "allOf", *_CHOICES):
            if word in node:
                return self.plain(self._without(word, node), depth + 1)
        kind = next((one for one in _types(node) if one != "null"), _kind_of(node))
        made: Schema = {"type": kind}
        if "description" in node:
            made["description"] = node["description"]
        left_out = {key: value for key, value in node.items() if key not in _PLAIN | _SILENT}
        values = [left_out.pop("const")] if "const" in node else _listed(node.get("enum"))
        if values and kind == "string" and all(isinstance(value, str) and value for value in values):
            made["enum"] = values
        elif values:
            left_out["enum"] = values
        if kind == "object":
            found = node.get("properties")
            inner = found if isinstance(found, dict) else {}
            made["properties"] = {name: self.plain(one, depth + 1) for name, one in inner.items()}
            if required := [name for name in _names(node.get("required")) if name in inner]:
                made["required"] = required
        elif kind == "array":
            made["items"] = self.plain(node.get("items", {}), depth + 1)
        return _telling(made, left_out)

    def _without(self, word: str, node: Schema) -> Schema:
        """The node without a word that puts it together from others."""
        beside = {key: value for key, value in node.items() if key != word}
        inner = [self._resolved(node)] if word == "$ref" else _listed(node[word])
        said = [one for one in inner if isinstance(one, dict) and _types(one) != ["null"]]
        if word in _CHOICES:
            values = [[one["const"]] if "const" in one else _listed(one.get("enum")) for one in said]
            if all(values):
                return {"enum": [value for some in values for value in some], **beside}
            if len(said) > 1:
                beside = _telling(beside, {word: said[1:]})
            said = said[:1]
        return {key: value for one in (*said, beside) for key, value in one.items()}

    def _is_too_much(self, node: Any, depth: int) -> bool:
        self._left -= 1
        return not isinstance(node, dict) or depth > _MAX_DEPTH or self._left < 0

    def _resolved(self, node: Schema) -> Any:
        """What a reference within the schema points to."""
        target: Any = self._root
        for step in str(node["$ref"]).removeprefix("#/").split("/"):
            target = target.get(step) if isinstance(target, dict) else None
        return target


def _kind_of(node: Schema) -> str:
    """The type of what does not say it."""
    if "properties" in node:
        return "object"
    if "items" in node:
        return "array"
    value = node.get("const", next(iter(_listed(node.get("enum"))), ""))
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"))
    return next((kind for python, kind in kinds if isinstance(value, python)), "string")


def _telling(node: Schema, left_out: Schema) -> Schema:
    """The schema with what it does not say any more in its description."""
    told = json.dumps(left_out, ensure_ascii=False) if left_out else ""
    if not told or len(told) > _MAX_TOLD:
        return node
    return node | {"description": f"{node.get('description', '')} {told}".strip()}


def _types(node: Schema) -> list[Any]:
    types = node.get("type", [])
    return types if isinstance(types, list) else [types]


def _names(value: Any) -> list[str]:
    return [name for name in _listed(value) if isinstance(name, str)]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
