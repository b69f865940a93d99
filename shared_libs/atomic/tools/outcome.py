"""What a model reads of a call: any result as text, any error as a reason, cut to what may be shown."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.errors import ToolError, in_words
from shared_libs.atomic.types import ToolResult


def as_text(value: Any) -> str:
    """
    Return a result as a model reads it: text verbatim, anything else as JSON.

    Raises:
        ToolError: it is a `ToolResult` that tells an error.

    """
    if isinstance(value, str):
        return value
    if isinstance(value, ToolResult):
        given: Any = value.content  # of foreign code, whatever its type says
        content = given if isinstance(given, str) else as_text(given)
        if value.is_error:
            raise ToolError(content)
        return content
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return str(value)


def words_of(error: ToolError) -> str:
    """Return what a tool says was wrong; where that fails, what failed."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the text of an error is foreign code too
        return f"{type(error).__name__}, whose text fails: {in_words(failure)}"


def cut(text: str, limit: int) -> tuple[str, str]:
    """Return what is shown of a text, at most `limit` characters and a note, and the whole where that is more."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate, as in a file name, cannot be sent
    if len(text) <= limit:
        return text, ""
    return f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters are not shown]", text


def _plain(value: Any) -> Any:
    """JSON of what msgspec does not know: pydantic models, numpy scalars and arrays; else its text."""
    for method, options in (("model_dump", {"mode": "json"}), ("tolist", {}), ("isoformat", {})):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert(**options)
    return str(value)
