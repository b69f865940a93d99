"""What a model reads of a call: any result as text, any error as a reason, cut to what may be shown."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.errors import ToolError, in_words
from shared_libs.atomic.tools.kinds import is_file
from shared_libs.atomic.tools.plain import plain
from shared_libs.atomic.types import ToolResult
from shared_libs.atomic.whole import whole_text


def as_text(value: Any) -> str:
    """
    Return a result as a model reads it: text verbatim (bytes too, where they are text), anything else as JSON.

    Raises:
        ToolError: it is a `ToolResult` that tells an error.

    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview) or is_file(value):
        return str(plain(value))
    if isinstance(value, ToolResult):
        given: Any = value.content  # of foreign code, whatever its type says
        content = given if isinstance(given, str) else as_text(given)
        if value.is_error:
            raise ToolError(content)
        return content
    simple = plain(value)
    return str(simple) if isinstance(value, type) else msgspec.json.encode(simple).decode()


def words_of(error: BaseException) -> str:
    """Return what a tool says was wrong, of any other error its kind too; where that fails, what failed."""
    if not isinstance(error, ToolError):
        return in_words(error)
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the text of an error is foreign code too
        return f"{type(error).__name__}, whose text fails: {in_words(failure)}"


def cut(text: str, limit: int) -> tuple[str, str]:
    """Return what is shown of a text, at most `limit` characters and a note, and the whole where that is more."""
    text = whole_text(text)
    if len(text) <= limit:
        return text, ""
    return f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters are not shown]", text
