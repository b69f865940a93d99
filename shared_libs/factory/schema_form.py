"""
The form of our JSON Schemas: whatever checks a file with one names the wrong key, and not just a section.

`anyOf` says only that nothing fitted. So what stands for one of several things is told apart first: by its type, or by
the key that names it (`if`/`then`), and only what was meant is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared_libs.factory.schema_examples import example_of

Json = dict[str, Any]

ROW: Json = {"type": "string", "pattern": r"\$\{\{", "description": "A value of the matrix."}
"""What stands in a scenario for a value of its matrix."""

_NONE = object()
_TYPE_OF = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", dict: "object"}


def named(key: str, words: str, variants: Mapping[str, Json], *, required: bool = True) -> Json:
    """
    Describe a mapping whose key says what it is: each variant is checked for its own name alone.

    A variant describes the whole mapping, `key` included.
    """
    cases = [
        {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": variant}
        for name, variant in variants.items()
    ]
    naming = {"description": words, "enum": list(variants), "examples": list(variants)[:1]}
    return {"type": "object", "properties": {key: naming}, "required": [key] * required, "allOf": cases}


def either(kind: str, this: Json, other: Json) -> Json:
    """Describe what is `this` where it has the JSON type, and the other where it has not."""
    return {"if": {"type": kind}, "then": this, "else": other}


def or_row(schema: Json) -> Json:
    """Let a value of the matrix stand there too."""
    return {"if": {"$ref": "#/$defs/Row"}, "else": schema}


def told_apart(schema: Any, definitions: Mapping[str, Json]) -> Any:
    """Replace every `anyOf` whose branches are of different types; what refers to words gets them."""
    if isinstance(schema, list):
        return [told_apart(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: told_apart(value, definitions) for key, value in schema.items()}
    if "$ref" in inner and (words := definitions.get(inner["$ref"].rpartition("/")[2], {}).get("description")):
        inner.setdefault("description", words)
    branches = inner.pop("anyOf", None)
    if branches is None:
        return inner
    kinds = [_types(branch, definitions) for branch in branches]
    together = [kind for several in kinds for kind in several]
    if len(set(together)) != len(together):
        return inner | {"anyOf": branches}
    if all("$ref" not in branch and "enum" not in branch and "const" not in branch for branch in branches):
        merged = {key: value for branch in branches for key, value in branch.items() if key != "type"}
        return {"type": together} | merged | inner
    cases = [
        {"if": {"type": kinds[index]}, "then": branch}
        for index, branch in enumerate(branches)
        if branch.keys() - {"type"}
    ]
    return {"type": together, "allOf": cases} | inner


def _types(branch: Json, definitions: Mapping[str, Json]) -> list[str]:
    if "$ref" in branch:
        return _types(definitions.get(branch["$ref"].rpartition("/")[2], {"type": "object"}), definitions)
    if isinstance(kind := branch.get("type", "object"), list):
        return kind
    values = branch.get("enum", [branch["const"]] if "const" in branch else [])
    return list(dict.fromkeys(_TYPE_OF[type(value)] for value in values)) or [kind]


def with_examples(schema: Any, section: str = "") -> Any:
    """Give every key an example and, where leaving it out means an empty one, its default."""
    if isinstance(schema, list):
        return [with_examples(item, section) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: value if key in ("$defs", "default", "examples") else with_examples(value, section)
        for key, value in schema.items()
    }
    if "$defs" in schema:
        inside = schema["$defs"].items()
        found["$defs"] = {name: with_examples(inner, name.rpartition(".")[2]) for name, inner in inside}
    properties = found.get("properties")
    for key, value in properties.items() if isinstance(properties, dict) else ():
        if isinstance(value, dict) and "const" not in value:
            value.setdefault("examples", [example_of(section, key, value)])
            if key not in found.get("required", ()) and (empty := _empty(value)) is not _NONE:
                value.setdefault("default", empty)
    return found


def _empty(schema: Json) -> Any:
    """Return what leaving the key out means, by its type: null, or nothing in it."""
    kinds = schema.get("type", ())
    if "null" in kinds:
        return None
    return [] if "array" in kinds else {} if "object" in kinds else _NONE


def untitled(schema: Any) -> Any:
    """Leave out the titles pydantic makes of names, which an editor would show instead of the words."""
    if isinstance(schema, list):
        return [untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: untitled(item) for name, item in value.items()} if key == "properties" else untitled(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }
