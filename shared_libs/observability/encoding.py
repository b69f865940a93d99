"""Anything as JSON in UTF-8: half a character, as a model or a file name may have one, has no place in it."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.whole import whole_data


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON; what is no Unicode is a question mark, what JSON does not know stands as its `repr`."""
    try:
        return msgspec.json.encode(value, enc_hook=repr)
    except UnicodeEncodeError:
        return msgspec.json.encode(whole_data(msgspec.to_builtins(value, enc_hook=repr)))
