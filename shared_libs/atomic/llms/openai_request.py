"""Requests of OpenAI's chat completions as data: our conversation and tools as they take them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.json_schema import portable
from shared_libs.atomic.llms.given import Returned, returned, wire_ids
from shared_libs.atomic.llms.payload import portable_id
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec, plain_on, with_extra

WIRE = "openai"
"""What these requests are called in `extra`."""

MAX_ID_CHARS = 40
"""The API refuses a longer id of a tool call."""


def request_messages(
    messages: Sequence[Message],
    made_by: Sequence[str] = (),
    leave_out: Collection[str] = (),
    stand_in: Collection[str] = (),
) -> list[dict[str, Any]]:
    """
    The conversation as the API takes it.

    Args:
        messages: the conversation.
        made_by: who is asked: reasoning, ids and what else it gave goes back to it as it came; that of others is left
            out, it has no place for it.
        leave_out: fields that it gave and does not take back.
        stand_in: fields that it misses in what others made.

    """
    ids = wire_ids([message for message in messages if message.tool_calls], made_by, MAX_ID_CHARS)
    told: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            call_id = message.tool_call_id or ""
            call_id = ids.get(call_id) or portable_id(call_id, MAX_ID_CHARS)
            content = message.content
            text = content if type(content) is str else message.text
            told.append(with_extra({"role": "tool", "tool_call_id": call_id, "content": text}, message.extra, WIRE))
        elif message.role == "assistant":
            turn = _request_turn(message, ids, returned(message, made_by, leave_out, stand_in))
            told.append(with_extra(turn, message.extra, WIRE, leave_out))
        else:
            told.append(_request_message(message))
    return told


def given_fields(messages: Iterable[Message], made_by: Sequence[str]) -> set[str]:
    """The names of all that goes back to who gave it."""
    names: set[str] = set()
    for message in messages:
        back = returned(message, made_by)
        names.update(back.fields, *back.calls)
        if message.role == "assistant" and message.extra is not None:
            names.update(message.extra.get(WIRE, ()))
    return names


def _request_turn(message: Message, ids: Mapping[str, str], back: Returned) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    if message.tool_calls:
        given = back.calls or [{}] * len(message.tool_calls)
        said["tool_calls"] = [
            _request_call(call, ids[call.id], more) for call, more in zip(message.tool_calls, given, strict=True)
        ]
    elif not message.text:
        said["content"] = ""
    return said | back.fields if back.fields else said


def _request_message(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if not isinstance(content, str):
        content = message.text if plain_on(content, WIRE) else list(map(_request_part, content))
    told = {"role": message.role, "content": content}
    if message.name:
        told["name"] = message.name
    return with_extra(told, message.extra, WIRE)


def _request_part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return with_extra({"type": "image_url", "image_url": {"url": part.url}}, part.extra, WIRE)
    return with_extra({"type": "text", "text": part.text}, part.extra, WIRE)


def _request_call(call: ToolCall, id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    # servers parse the arguments of past calls; what never was JSON is handed back as a JSON object that quotes it
    arguments = call.arguments if call.malformed is None else {"not_json": call.malformed}
    function = {"name": call.name, "arguments": msgspec.json.encode(arguments).decode()}
    if not given:
        return {"id": id, "type": "function", "function": function}
    return {**given, "id": id, "type": "function", "function": {**given.get("function", {}), **function}}


def request_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the API takes it."""
    function = {"name": tool.name, "description": tool.description, "parameters": portable(tool.parameters)}
    return with_extra({"type": "function", "function": function}, tool.extra, WIRE)
