"""Requests of OpenAI's Responses API as data: our conversation and tools as the items it takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.json_schema import portable
from shared_libs.atomic.llms.payload import portable_id, portable_name
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec, plain_on, with_extra

PROVIDER = "openai"
WIRE = "responses"
"""What this API is called in `extra`."""

MAX_ID_CHARS = 64
"""The API refuses a longer id of a tool call."""


def request_items(messages: Sequence[Message], made_by: list[str], stale: Collection[str]) -> list[dict[str, Any]]:
    """
    The conversation as the API takes it.

    Args:
        messages: the conversation.
        made_by: whose reasoning goes back; that of others is left out.
        stale: ids of reasoning items that the server cannot read any more.

    """
    items: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            call_id = portable_id(message.tool_call_id or "", MAX_ID_CHARS)
            told = {"type": "function_call_output", "call_id": call_id, "output": _content(message)}
            items.append(with_extra(told, message.extra, WIRE))
        elif message.role == "assistant":
            own = [data for data in _own(message, made_by) if _ids(data).isdisjoint(stale)]
            items += _verbatim(message, own) or _assistant_items(message, own, f"msg_{len(items)}")
        else:
            told = {"type": "message", "role": message.role, "content": _content(message)}
            items.append(with_extra(told, message.extra, WIRE))
    return items


def reasoning_ids(messages: Sequence[Message], made_by: list[str]) -> list[str]:
    """The ids of the reasoning items that a request hands back."""
    return [id for message in messages for data in _own(message, made_by) for id in sorted(_ids(data))]  # noqa: A001 - its word


def request_tool(tool: ToolSpec, *, says_strict: bool = True) -> dict[str, Any]:
    """
    A tool as the API takes it.

    Here it makes tools strict unless it is told not to, which would demand every optional argument; `says_strict` is
    whether the server knows the word.
    """
    told: dict[str, Any] = {"type": "function", "name": tool.name, "description": tool.description}
    told["parameters"] = portable(tool.parameters)
    told = with_extra(told, tool.extra, WIRE)
    if says_strict:
        return {"strict": False} | told
    told.pop("strict", None)
    return told


def _own(message: Message, made_by: list[str]) -> list[dict[str, Any]]:
    blocks = (block.data for block in message.thinking if block.provider == PROVIDER)
    return [data for data in blocks if data and data.get("made_by") == made_by]


def _ids(data: dict[str, Any]) -> set[str]:
    """The ids of the reasoning that was kept in a block."""
    items = [data, *(item for item in data.get("items", ()) if item.get("type") == "reasoning")]
    return {item["id"] for item in items if item.get("id")}


def _verbatim(message: Message, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A turn as its maker gave it, where it has more than can be told apart; nothing where it was not kept so."""
    kept: list[dict[str, Any]] = next((data["items"] for data in own if "items" in data), [])
    if sum(item["type"] == "function_call" for item in kept) != len(message.tool_calls):
        return []
    going = iter(message.tool_calls)
    return [item | _request_call(next(going)) if item["type"] == "function_call" else item for item in kept]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str) or plain_on(message.content, WIRE):
        return message.text
    return [_part(part) for part in message.content]


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"detail": "auto"} | with_extra({"type": "input_image", "image_url": part.url}, part.extra, WIRE)
    return with_extra({"type": "input_text", "text": part.text}, part.extra, WIRE)


def _assistant_items(message: Message, own: list[dict[str, Any]], id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if message.text:
        # as the API itself would have said it: llama.cpp takes no bare text, vLLM misses every field that is left out
        text = {"type": "output_text", "text": message.text, "annotations": []}
        said: dict[str, Any] = {"type": "message", "id": id, "role": "assistant", "status": "completed"}
        said["content"] = [text]
        for data in own:
            said |= {"phase": data["phase"]} if "phase" in data else {}
        items += [*_reasoning_before("", own), with_extra(said, message.extra, WIRE)]
    for call in message.tool_calls:
        items += [*_reasoning_before(call.id, own), _request_call(call)]
    return items


def _reasoning_before(id: str, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What led to a call, or to the text; the API refuses reasoning without what it led to."""
    kept = ("id", "summary", "encrypted_content", "content")
    return [
        {"type": "reasoning"} | {key: data[key] for key in kept if key in data}
        for data in own
        if "id" in data and data.get("before") == id
    ]


def _request_call(call: ToolCall) -> dict[str, Any]:
    # servers parse the arguments of past calls; what never was JSON is handed back as a JSON object that quotes it
    arguments = call.arguments if call.malformed is None else {"not_json": call.malformed}
    return {
        "type": "function_call",
        "call_id": portable_id(call.id, MAX_ID_CHARS),
        "name": portable_name(call.name),
        "arguments": msgspec.json.encode(arguments).decode(),
    }
