"""OpenAI's strict subset of JSON Schema: within it the model's grammar cannot leave the schema."""

from __future__ import annotations

from typing import Any

_KEYWORDS = frozenset(
    {
        *("type", "title", "description", "enum", "const", "anyOf", "$ref", "$defs", "definitions"),
        *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("pattern", "format", "minLength", "maxLength"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
"""What strict mode knows (OpenAI's guide to structured outputs, "Supported schemas")."""

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_BESIDE_A_REF = frozenset({"$ref", "$defs", "definitions", "title", "description"})
_SAYS_WHAT_IT_IS = frozenset({"type", "enum", "const", "anyOf"})


class _Loose(Exception):
    """A schema has something that strict mode cannot say."""


def strict_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """
    Return the schema as strict mode takes it, or None where that would change what it means.

    Objects that leave open what else they hold are closed. What is optional stays optional, so a schema with an
    optional property has no strict form; nor has one with a free mapping or with keywords that strict mode refuses.
    """
    try:
        strict = _strict(schema, schema, ())
    except _Loose:
        return None
    return strict if strict.get("type") == "object" else None


def _strict(node: Any, root: dict[str, Any], resolving: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(node, dict) or node.keys() - _KEYWORDS or node.get("format", "date") not in _FORMATS:
        raise _Loose
    if "$ref" in node:
        return _strict_reference(node, root, resolving)
    if not node.keys() & _SAYS_WHAT_IT_IS:
        raise _Loose
    strict = dict(node)
    for group in ("$defs", "definitions", "properties"):
        if group in node:
            strict[group] = {name: _strict(inner, root, resolving) for name, inner in node[group].items()}
    if "items" in node:
        strict["items"] = _strict(node["items"], root, resolving)
    if "anyOf" in node:
        strict["anyOf"] = [_strict(inner, root, resolving) for inner in node["anyOf"]]
    if "properties" in node or "object" in _types(node):
        if "properties" not in node or node["properties"].keys() ^ set(node.get("required", ())):
            raise _Loose
        if strict.setdefault("additionalProperties", False) is not False:
            raise _Loose
    return strict


def _types(node: dict[str, Any]) -> list[str]:
    types = node.get("type", [])
    return types if isinstance(types, list) else [types]


def _strict_reference(node: dict[str, Any], root: dict[str, Any], resolving: tuple[str, ...]) -> dict[str, Any]:
    """Strict mode takes a reference alone: with words beside it, what it points to is written out."""
    ref = node["$ref"]
    if node.keys() - _BESIDE_A_REF:
        raise _Loose
    target: Any = root
    for step in ref.removeprefix("#/").split("/"):
        if not ref.startswith("#/") or not isinstance(target, dict) or step not in target:
            raise _Loose
        target = target[step]
    if len(node) == 1:
        return dict(node)
    if ref in resolving or not isinstance(target, dict):
        raise _Loose
    beside = {key: value for key, value in node.items() if key != "$ref"}
    return _strict(target | beside, root, (*resolving, ref))
