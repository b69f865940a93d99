"""The tools a server lists, read one by one: mended where what was meant is plain, else left out with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.json_schema import shown

MAX_DESCRIPTION = 16_000
"""Characters of a tool's description that a model sees."""

_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ONE_SCHEMA = ("items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAX_DEPTH = 100


class Listed(msgspec.Struct, frozen=True):
    """A tool as its server describes it; `name` is what the server calls it."""

    name: str
    description: str
    parameters: dict[str, Any]
    harmless: bool
    """Whether the server says that calling it again repeats no side effect."""


def read(item: Any) -> Listed:
    """
    Read one item of a list of tools.

    Raises:
        MisuseError: it cannot be a tool; the text says why.

    """
    if not isinstance(item, Mapping):
        raise MisuseError(f"{shown(item)} is no description of a tool")
    name = name_of(item)
    if not name:
        raise MisuseError("it has no name")
    execution = item.get("execution")
    if isinstance(execution, Mapping) and execution.get("taskSupport") == "required":
        raise MisuseError("it runs as a task only, which this client does not do")
    hints = item.get("annotations")
    hints = hints if isinstance(hints, Mapping) else {}
    words = next((item[key] for key in ("description", "title") if item.get(key) and isinstance(item[key], str)), "")
    if len(words) > MAX_DESCRIPTION:
        words = f"{words[:MAX_DESCRIPTION]}… [cut: {len(words) - MAX_DESCRIPTION} characters]"
    harmless = hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True
    return Listed(name, words, _parameters(item.get("inputSchema")), harmless)


def name_of(item: Any) -> str:
    """What a server calls a tool; empty where it says nothing of use."""
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else ""


def _parameters(schema: Any) -> dict[str, Any]:
    """
    Return the schema of a tool's arguments; one that says nothing takes none.

    Servers in Go leave `properties` out, which OpenAI refuses; those in PHP write `[]` for an empty object, and null
    stands for "nothing said" in many.
    """
    if schema is None or schema == []:
        schema = {}
    if not isinstance(schema, dict):
        raise MisuseError(f"its inputSchema is {shown(schema)}, no object")
    taken: dict[str, Any] = schema
    kind = schema.get("type")
    if kind is None or (isinstance(kind, list) and "object" in kind):
        taken = {**taken, "type": "object"}
    elif kind != "object":
        raise MisuseError(f"its inputSchema is of type {shown(kind)}; arguments are an object")
    if not schema.get("properties"):
        taken = {**taken, "properties": {}}
    return taken


def plainer(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Take out of a schema what says nothing: null in a keyword's place, `[]` for an object; None: there is no such."""
    mended: dict[str, Any] = _mended(schema, _MAX_DEPTH)
    if mended == schema:
        return None
    return mended


def _mended(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or not depth:
        return schema
    mended: dict[str, Any] = {}
    for word, given in schema.items():
        if given is None and word not in ("const", "default"):
            continue
        if word in _OF_SCHEMAS:
            inner = given if isinstance(given, dict) else {} if given == [] else None
            mended[word] = given if inner is None else {key: _mended(one, depth - 1) for key, one in inner.items()}
        elif word in _ONE_SCHEMA:
            mended[word] = {} if given == [] and word != "items" else _mended(given, depth - 1)
        elif word in _LISTS and isinstance(given, Sequence) and not isinstance(given, str):
            mended[word] = [_mended(one, depth - 1) for one in given]
        elif word == "required" and given in ({}, ""):
            continue
        else:
            mended[word] = given
    return mended
