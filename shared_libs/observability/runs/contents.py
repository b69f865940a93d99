"""What of an event is contents: the words of users, models and tools, which are kept only where that is wanted."""

from __future__ import annotations

from typing import Any

from shared_libs.observability.redact import redact_data

_Data = dict[str, Any]

CONTENTS: dict[str, tuple[str, ...]] = {
    "run_started": ("question",),
    "text_delta": ("text",),
    "thinking_delta": ("text",),
    "model_finished": ("response.text", "response.thinking", "response.tool_calls.arguments", "response.parsed"),
    "thought": ("text",),
    "tool_started": ("input",),
    "approval_requested": ("input",),
    "tool_finished": ("content",),
    "run_finished": (
        *("result.answer", "result.steps.thought", "result.steps.actions.input", "result.steps.observations.content"),
        *("result.pending.input", "result.state"),
    ),
}
"""The fields of each event that hold contents; a path goes through the items of a list."""

LONGEST_URL = 1_000
"""Characters of a `data:` URL that are kept: an image is no text, and is not looked at here."""

_BLANK: dict[type, Any] = {str: "", dict: {}, list: []}


def kept(data: _Data, *, contents: bool) -> _Data:
    """Return what is kept of an event: its secrets masked, its contents only where they are wanted."""
    if not contents:
        for path in CONTENTS.get(data["type"], ()):
            _blank(data, path.split("."))
    masked: _Data = redact_data(data)
    return masked


def _blank(value: Any, path: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _blank(item, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) > 1:
            _blank(value[path[0]], path[1:])
        else:
            value[path[0]] = _BLANK.get(type(value[path[0]]))
