"""
JSON that is nearly what a protocol says: what fits is taken, what does not is as if it had not come.

The strict decoders are tried first, and are what costs nothing; this is for the answers they refuse. The servers that
imitate an API send numbers as text, lists as objects and `false` for nothing, mostly in fields that nobody needs.
"""

from __future__ import annotations

import json
import types
import typing
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_SAYS = ("text", "content", "thinking", "value", "output_text", "summary")
"""Under what an object has its words."""
_LONGEST_NUMBER = 30
"""Digits of a number written as text; Python's own reading of longer ones is slow."""


class Unfit(ValueError):
    """A value is not of the kind that a field is declared to be."""


def parsed(body: bytes) -> Any:
    """
    The JSON value of a body, NaN, lone halves of surrogate pairs and line breaks inside texts included.

    Bytes that are no UTF-8 cost their character alone.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.

    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return json.loads(body, strict=False)
    except UnicodeDecodeError:
        return json.loads(body.decode("utf-8", "replace"), strict=False)


def words_in(value: Any) -> str:
    """What a value says where a text belongs: a text, the parts of one, or an object around one."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join([words_in(one) for one in value])
    if isinstance(value, dict):
        return next((said for key in _SAYS if (said := words_in(value.get(key)))), "")
    return "" if value is None or isinstance(value, bool) else str(value)


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or the one that stands without its brackets: what `fitted` makes structs of."""
    items = _numbered(value) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]


def _numbered(value: dict[str, Any]) -> list[Any]:
    """An object where a list belongs: its first item, or all of them by their numbers."""
    return list(value.values()) if all(key.isdecimal() for key in value) else [value]


def fitted(value: Any, kind: Any) -> Any:
    """
    A value as `kind`: a struct, or what its fields are declared to be.

    Numbers are read from text and whole ones from floats; a list of one may come without its brackets; what does not
    fit is left out, of a list as of a struct.

    Raises:
        Unfit: nothing of it fits.

    """
    if kind is Any or kind is object:
        return value
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        return _as_one_of(value, typing.get_args(kind))
    if kind in {None, types.NoneType} and value is None:
        return None
    if origin is list or kind is list:
        return _as_list(value, (typing.get_args(kind) or (Any,))[0])
    if (origin is dict or kind is dict) and isinstance(value, dict):
        return value
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _as_struct(value, kind)
    if kind is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if kind in {int, float}:
        return _as_number(value, kind)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise Unfit(f"{type(value).__name__} is no {kind}")


def _as_one_of(value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        try:
            return fitted(value, kind)
        except Unfit:
            continue
    raise Unfit(f"{type(value).__name__} is none of {kinds}")


def _as_list(value: Any, kind: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError, RecursionError):
            value = parsed(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, dict) and value:
        value = _numbered(value)
    if not isinstance(value, list):
        raise Unfit(f"{type(value).__name__} is no list")
    items = []
    for item in value:
        try:
            items.append(fitted(item, kind))
        except Unfit:
            continue
    return items


def _as_struct(value: Any, kind: type[msgspec.Struct]) -> msgspec.Struct:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # as some servers send their errors
    if isinstance(value, str) and "text" in kind.__struct_fields__:
        value = {"text": value}
    if not isinstance(value, dict):
        raise Unfit(f"{type(value).__name__} is no {kind.__name__}")
    fields = {}
    for name, field in _fields(kind).items():
        if name in value:
            try:
                fields[name] = fitted(value[name], field)
            except Unfit:
                continue
    return kind(**fields)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _as_number(value: Any, kind: type[int | float]) -> Any:
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            value = float(value) if "." in value or kind is float else int(value)
        except ValueError:
            raise Unfit("the text is no number") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and value != value // 1):
        raise Unfit(f"{type(value).__name__} is no {kind.__name__}")
    return kind(value)
