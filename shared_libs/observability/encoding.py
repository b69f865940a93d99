"""Anything as JSON in UTF-8: half a character, as a model or a file name may have one, has no place in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON; what is no Unicode is a question mark, what JSON does not know stands as its `repr`."""
    try:
        return msgspec.json.encode(value, enc_hook=repr)
    except UnicodeEncodeError:
        return msgspec.json.encode(valid_text(msgspec.to_builtins(value, enc_hook=repr)))


def valid_text(value: Any) -> Any:
    """Return JSON-like data without lone surrogates; a text without any itself."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {valid_text(key): valid_text(item) for key, item in value.items()}
    return [valid_text(item) for item in value] if isinstance(value, list | tuple) else value
