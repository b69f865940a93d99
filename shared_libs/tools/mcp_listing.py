"""The tools a server lists, read one by one: mended where what was meant is plain, else left out with the reason."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.json_schema import shown
from shared_libs.atomic.json_schema.check import MAX_BYTES
from shared_libs.atomic.json_schema.values import TYPES

MAX_DESCRIPTION = 16_000
"""Characters of a tool's description that a model sees."""

_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ONE_SCHEMA = ("items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SAYS_A_SCHEMA = frozenset({"type", "$schema", "$ref", *_OF_SCHEMAS, *_ONE_SCHEMA, *_LISTS, "required", "description"})
_NOT_EMPTY = ("required", "enum", *_LISTS)
_KINDS = {
    **{kind: kind for kind in TYPES},
    **dict.fromkeys(("str", "text", "char", "enum", "date", "datetime", "date-time", "uuid", "file"), "string"),
    **dict.fromkeys(("int", "long", "short", "bigint", "int32", "int64", "uint", "uint32", "uint64"), "integer"),
    **dict.fromkeys(("float", "double", "decimal", "real", "float32", "float64"), "number"),
    "bool": "boolean",
    **dict.fromkeys(("list", "tuple", "set"), "array"),
    **dict.fromkeys(("dict", "map", "json", "record", "struct", "hash"), "object"),
    **dict.fromkeys(("none", "nil"), "null"),
    **dict.fromkeys(("any", "mixed", "undefined", "unknown", "variant", "optional", "union"), ""),
}
"""Types as languages call them, in any case; some say nothing."""
_TYPE = re.compile(r"(?:type_)?(?P<of>[\w-]{1,40})(?:[<\[(].{0,200})?\??", re.DOTALL)
"""A type with what it is of, such as `list<string>` and `string?`."""

_SCHEMA_UNDER = ("inputSchema", "input_schema", "parameters")
"""Where the schema of a tool stands: in MCP, and in the APIs that servers were written for before."""

_WRAPPED_IN = ("jsonSchema", "json_schema", "schema")
"""What libraries of schemas put around one."""

_MAX_DEPTH = 100
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_NUMBERS = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)


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
    item = _function(item)
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
    return Listed(name, words, _parameters(_schema_of(item)), harmless)


def name_of(item: Any) -> str:
    """What a server calls a tool; empty where it says nothing of use."""
    name = _function(item).get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else ""


def _function(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tool itself, where it is described as OpenAI's API has it."""
    inner = item.get("function")
    return inner if isinstance(inner, Mapping) and "name" not in item else item


def _schema_of(item: Mapping[str, Any]) -> Any:
    """What a tool says of its arguments, wherever it says so, as text too."""
    schema = next((item[word] for word in _SCHEMA_UNDER if item.get(word) is not None), None)
    if isinstance(schema, str):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            schema = msgspec.json.decode(schema)
    for word in _WRAPPED_IN:
        if isinstance(schema, dict) and isinstance(schema.get(word), dict) and "properties" not in schema:
            schema = schema[word]
    if isinstance(schema, dict) and schema and not _SAYS_A_SCHEMA.intersection(schema):
        kinds = [one for one in schema.values() if isinstance(one, dict) and "type" in one]
        schema = {"properties": schema} if len(kinds) == len(schema) else schema  # the properties alone
    return schema


def size_of(item: Any) -> int:
    """Bytes of a tool's schema as JSON; of one that is nested too deep for JSON, its bound."""
    try:
        return len(msgspec.json.encode(_schema_of(_function(item)))) if isinstance(item, Mapping) else 0
    except (RecursionError, TypeError, ValueError, msgspec.MsgspecError):
        return MAX_BYTES


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
    kinds = [*_kinds(kind)]
    if not kinds or "object" in kinds:
        taken = {**taken, "type": "object"}
    else:
        raise MisuseError(f"its inputSchema is of type {shown(kind)}; arguments are an object")
    if not schema.get("properties"):
        taken = {**taken, "properties": {}}
    return taken


def plainer(schema: dict[str, Any]) -> dict[str, Any] | None:
    """
    Write a schema as it was meant: null and `[]` in a keyword's place, types as a language calls them, true as a text.

    None: there is nothing of that kind in it.
    """
    mended: dict[str, Any] = _mended(schema, _MAX_DEPTH)
    if mended == schema:
        return None
    return mended


def _kinds(given: Any) -> Iterator[str]:
    """The types that a `type` names, whatever the language; none where it says nothing."""
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, str):
            yield from dict.fromkeys(filter(None, map(_kind, one.split("|"))))


def _kind(word: str) -> str:
    """The type a word of some language means; another word as it is."""
    word = word.strip()
    if word.endswith("[]"):
        return "array"
    said = _TYPE.fullmatch(word.lower())
    return _KINDS.get(said["of"], word) if said is not None else word


def _due(given: str | list[Any] | dict[str, Any]) -> Iterator[str]:
    """The names that are required: one, several, or those that are said to be."""
    if isinstance(given, dict):
        given = [name for name, due in given.items() if due is True]
    yield from [given] if isinstance(given, str) else [name for name in given if isinstance(name, str)]


def _by_name(given: Any) -> dict[str, Any] | None:
    """Properties as a list of what says its own name."""
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        return None
    named = [one for one in given if isinstance(one.get("name"), str)]
    return {one["name"]: {word: said for word, said in one.items() if word != "name"} for one in named}


def _one(word: str, given: Any, depth: int) -> Any:
    """A schema within another: null and `[]` say nothing, a text is a type, or true or false where that may stand."""
    if given is None or given == []:
        return {}
    if isinstance(given, list) and all(isinstance(kind, str) for kind in given):
        return _mended({"type": given}, depth - 1)
    if isinstance(given, str):
        truth = {"true": True, "false": False}.get(given.strip().lower())
        return _mended({"type": given}, depth - 1) if truth is None or word == "properties" else truth
    return _mended(given, depth - 1)


def _mended(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or not depth:
        return schema
    mended: dict[str, Any] = {}
    for word, given in schema.items():
        if (given is None and word not in ("const", "default")) or (word in _NOT_EMPTY and given in ({}, "", [])):
            continue
        if word == "type":
            kinds = [*_kinds(given)]
            mended |= {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
        elif word in _OF_SCHEMAS:
            inner = given if isinstance(given, dict) else _by_name(given)
            mended[word] = given if inner is None else {key: _one(word, one, depth) for key, one in inner.items()}
        elif word == "not" and not isinstance(given, dict | bool):
            continue
        elif word in _ONE_SCHEMA:
            mended[word] = given if word == "items" and isinstance(given, list) else _one(word, given, depth)
        elif word in _LISTS and isinstance(given, Sequence) and not isinstance(given, str):
            mended[word] = [_mended(one, depth - 1) for one in given]
        elif word == "required" and isinstance(given, str | list | dict):
            mended[word] = [*_due(given)]
        elif word == "enum" and isinstance(given, dict):  # as some languages write an enumeration
            mended[word] = [*given.values()]
        elif word in _NUMBERS and isinstance(given, str):
            mended |= {word: float(given) if "." in given else int(given)} if _NUMBER.fullmatch(given) else {}
        else:
            mended[word] = given
    return mended
