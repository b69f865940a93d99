"""OpenAI's Responses API, as the server says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.testing.faults.formats.base import Answer, dumps, server_sent
from shared_libs.testing.faults.formats.openai_errors import OpenAIErrors

_Item = dict[str, Any]


class OpenAIResponses(OpenAIErrors):
    """`POST /v1/responses`."""

    path = "/v1/responses"

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The answer as one JSON document."""
        items = [item for item, _ in _items(answer)]
        return dumps(_response(answer, request, "completed", items))

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """The answer as the events of a stream; the last one is its end marker."""
        return _told(answer, request, "completed")

    def broken_event(self) -> bytes:
        """An event of a stream that is not what it says."""
        return b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"lo\n\n'

    def filtered(self, answer: Answer, request: Mapping[str, Any], *, stream: bool) -> list[bytes]:
        """The answer ends in its middle, and says that the filter ended it."""
        half = "".join(answer.pieces[: len(answer.pieces) // 2])
        told = msgspec.structs.replace(answer, text=half, tool_calls=())
        if stream:
            return _told(told, request, "incomplete")
        return [dumps(_response(told, request, "incomplete", [item for item, _ in _items(told)]))]


def _told(answer: Answer, request: Mapping[str, Any], status: str) -> list[bytes]:
    opened = _response(answer, request, "in_progress", [])
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": opened},
        {"type": "response.in_progress", "response": opened},
    ]
    items = _items(answer)
    for index, (item, pieces) in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        emptied: _Item = {"content": []} if item["type"] == "message" else {"arguments": ""}
        begun = item | {"status": "in_progress"} | emptied
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        events += [place | event for event in _text_events(item, pieces) or _call_events(item, pieces)]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    last = _response(answer, request, status, [item for item, _ in items])
    events.append({"type": f"response.{status}", "response": last})
    return [server_sent(event | {"sequence_number": number}, event["type"]) for number, event in enumerate(events)]


def _text_events(item: _Item, pieces: list[str]) -> list[dict[str, Any]]:
    if item["type"] != "message":
        return []
    part = item["content"][0]
    kind, at = "response.output_text", {"content_index": 0}
    return [
        {"type": "response.content_part.added", "part": part | {"text": ""}} | at,
        *({"type": f"{kind}.delta", "delta": piece, "logprobs": []} | at for piece in pieces),
        {"type": f"{kind}.done", "text": part["text"], "logprobs": []} | at,
        {"type": "response.content_part.done", "part": part} | at,
    ]


def _call_events(item: _Item, pieces: list[str]) -> list[dict[str, Any]]:
    kind = "response.function_call_arguments"
    return [
        *({"type": f"{kind}.delta", "delta": piece} for piece in pieces),
        {"type": f"{kind}.done", "name": item["name"], "arguments": item["arguments"]},
    ]


def _items(answer: Answer) -> list[tuple[_Item, list[str]]]:
    """The items of the output, and the pieces in which each is streamed."""
    items: list[tuple[_Item, list[str]]] = []
    if answer.text:
        part = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
        items.append((message, answer.pieces))
    for number, call in enumerate(answer.tool_calls, 1):
        raw = msgspec.json.encode(call.arguments).decode()
        made = {"type": "function_call", "id": f"fc_{number}", "status": "completed"}
        made |= {"call_id": call.id, "name": call.name, "arguments": raw}
        items.append((made, [raw[at : at + 5] for at in range(0, len(raw), 5)]))
    return items


def _response(answer: Answer, request: Mapping[str, Any], status: str, items: list[_Item]) -> dict[str, Any]:
    told = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": answer.model}
    asked = {
        "instructions": request.get("instructions"),
        "parallel_tool_calls": request.get("parallel_tool_calls", True),
        "tool_choice": request.get("tool_choice", "auto"),
        "tools": request.get("tools", []),
    }
    reason = {"reason": "content_filter"} if status == "incomplete" else None
    usage = None if status == "in_progress" else _usage(answer)
    return told | asked | {"error": None, "incomplete_details": reason, "output": items, "usage": usage}


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
