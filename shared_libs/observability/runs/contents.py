"""What of an event is contents: the words of users, models and tools, which are kept only where that is wanted."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from shared_libs.atomic.events import AgentEvent, ModelAsked
from shared_libs.atomic.types import ImagePart, Message, TextPart
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.redact import is_harmless, redact_data, redact_schema

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
    "retrieval_started": ("query",),
    "run_finished": (
        *("result.answer", "result.steps.thought", "result.steps.actions.input", "result.steps.observations.content"),
        *("result.pending.input", "result.state"),
    ),
}
"""The fields of each event that hold contents; a path goes through the items of a list."""

LONGEST_SENT = 200_000
"""Characters that are kept of one message to a model; what tools returned stands whole in their own events."""

MOST_TOOLS = 500
"""Tools whose masked descriptions are remembered."""

_CUT = "more characters are not kept)"
_BLANK: dict[type, Any] = {str: "", dict: {}, list: []}


def kept(event: AgentEvent, text: bytes, *, contents: bool) -> bytes:
    """Return what is kept of an event, from its JSON: its secrets masked, its contents only where they are wanted."""
    if contents and is_harmless(event):
        return text
    data: _Data = msgspec.json.decode(text)
    if not contents:
        for path in CONTENTS.get(data["type"], ()):
            _blank(data, path.split("."))
    return msgspec.json.encode(redact_data(data))


def kept_request(asked: ModelAsked) -> _Data:
    """Return what is kept of a request: its secrets masked, of an image which it was, of a long text its beginning."""
    data: _Data = msgspec.to_builtins(
        msgspec.structs.replace(asked, messages=[_in_short(message) for message in asked.messages], tools=None),
        enc_hook=repr,
    )
    masked: _Data = redact_data(data)
    tools = None if asked.tools is None else [masked_tool(json_bytes(tool)) for tool in asked.tools]
    return masked | {"tools": tools}


@lru_cache(MOST_TOOLS)
def masked_tool(tool: bytes) -> _Data:
    """A tool without secrets; each run of an agent tells the same ones."""
    masked: _Data = redact_schema(msgspec.json.decode(tool))
    return masked


def is_cut(message: Message) -> bool:
    """Whether a message that was kept is the beginning of a longer one."""
    texts = [message.content] if isinstance(message.content, str) else [getattr(p, "text", "") for p in message.content]
    return any(len(text) > LONGEST_SENT and text.endswith(_CUT) for text in texts)


def _in_short(message: Message) -> Message:
    content = message.content
    if isinstance(content, str):
        return message if len(content) <= LONGEST_SENT else msgspec.structs.replace(message, content=_begun(content))
    parts = tuple(TextPart(_begun(part.text)) if isinstance(part, TextPart) else _which(part) for part in content)
    return msgspec.structs.replace(message, content=parts)


def _begun(text: str) -> str:
    rest = len(text) - LONGEST_SENT
    return text if rest <= 0 else f"{text[:LONGEST_SENT]}… ({rest} {_CUT}"


def _which(image: ImagePart) -> ImagePart:
    return ImagePart(image.place, image.media_type)


def _blank(value: Any, path: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _blank(item, path)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) > 1:
            _blank(value[path[0]], path[1:])
        else:
            value[path[0]] = _BLANK.get(type(value[path[0]]))
