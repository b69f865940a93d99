"""Texts and data that can be sent and kept: of whole characters, and for a column of a database without NUL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def whole_text(text: str) -> str:
    """
    Return a text that can be sent: half characters that meet are one, others, as in file names, are question marks.

    One of somebody's own kind becomes Python's: whoever reads on is in no place where its methods could be interrupted.
    """
    if type(text) is not str:
        text = str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        met = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return met.encode("utf-8", "replace").decode()
    return text


def whole_data(value: Any) -> Any:
    """Return JSON-like data whose texts can all be sent; a text that can be is itself."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, Mapping):
        return {whole_data(key): whole_data(item) for key, item in value.items()}
    return [whole_data(item) for item in value] if isinstance(value, list | tuple) else value


def column_value(value: Any) -> Any:
    """Return a value as a column of a database holds it: a text without NUL, and without half characters."""
    return whole_text(value.replace("\0", "\ufffd")) if isinstance(value, str) else value
