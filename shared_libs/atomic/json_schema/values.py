"""JSON values as a schema sees them: their types, their equality, their formats, and how a problem shows them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import re
import uuid
from collections.abc import Callable, Hashable, Mapping
from typing import Any

MAX_PROBLEMS = 20
"""Problems that are told of one value; a model mends no more at once."""

_SHOWN = 80
_SHOWN_ITEMS = 5
_SHOWN_DEPTH = 3

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


def key_of(value: Any) -> Hashable:
    """Return what is equal for equal JSON: true is not 1, and 1 is 1.0."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list | tuple):
        return ("list", *(key_of(item) for item in value))
    if isinstance(value, Mapping):
        return ("dict", frozenset((key, key_of(item)) for key, item in value.items()))
    hashable: Hashable = value
    return hashable


def shown(value: Any, depth: int = _SHOWN_DEPTH) -> str:
    """Show a value in a problem; however large it is, only so much is looked at."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}… ({len(value)} characters)"
    if isinstance(value, dict | list | tuple) and not depth:
        return "{…}" if isinstance(value, dict) else "[…]"
    if isinstance(value, dict):
        some = [f"{shown(key)}: {shown(value[key], depth - 1)}" for key in itertools.islice(value, _SHOWN_ITEMS)]
        return f"{{{', '.join(some)}{', …' if len(value) > _SHOWN_ITEMS else ''}}}"
    if isinstance(value, list | tuple):
        some = [shown(item, depth - 1) for item in value[:_SHOWN_ITEMS]]
        return f"[{', '.join(some)}{', …' if len(value) > _SHOWN_ITEMS else ''}]"
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN:
        return f"a number of {value.bit_length()} bits"
    return f"{value!r:.{_SHOWN}}"


def _reads(read: Callable[[str], Any]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return fits


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": lambda text: (
        re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None and _reads(dt.date.fromisoformat)(text)
    ),
    "email": lambda text: "@" in text,
    "idn-email": lambda text: "@" in text,
    "ipv4": _reads(ipaddress.IPv4Address),
    "ipv6": lambda text: "%" not in text and _reads(ipaddress.IPv6Address)(text),
    "uuid": lambda text: len(text) == 36 and text.count("-") == 4 and _reads(uuid.UUID)(text),
}
"""The formats that are checked; those that people read in several ways (times, addresses) only describe."""
