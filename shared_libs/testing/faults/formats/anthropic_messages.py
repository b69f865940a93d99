"""Anthropic's messages, as the server says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.testing.faults.formats.base import Answer, dumps, server_sent

_TYPES = {
    "key": "authentication_error",
    "permission": "permission_error",
    "model": "not_found_error",
    "rate": "rate_limit_error",
    "server": "api_error",
}


class AnthropicMessages:
    """`POST /v1/messages`."""

    base = ""
    path = "/v1/messages"
    stream_type = "text/event-stream"
    streams_unasked = False

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The answer as one JSON document."""
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            for call in answer.tool_calls
        ]
        usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens}
        return dumps(_message(answer) | {"content": content, "stop_reason": _stop(answer), "usage": usage})

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """The answer as the events of a stream; the last one is its end marker."""
        return self._told(answer, _stop(answer))

    def broken_event(self) -> bytes:
        """An event of a stream that is not what it says."""
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"te\n\n'

    def error(self, status: int, code: str, message: str) -> bytes:
        """The body of a refusal."""
        kind = "overloaded_error" if status == 529 else _TYPES.get(code, "invalid_request_error")
        return dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})

    def filtered(self, answer: Answer, request: Mapping[str, Any], *, stream: bool) -> list[bytes] | None:
        """The model says itself that it refuses, in a stream in the middle of its answer."""
        if not stream:
            usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": 0}
            return [dumps(_message(answer) | {"stop_reason": "refusal", "usage": usage})]
        half = "".join(answer.pieces[: len(answer.pieces) // 2])
        return self._told(msgspec.structs.replace(answer, text=half, tool_calls=()), "refusal")

    def context_message(self) -> str:
        """How the provider says that a conversation is too long."""
        return "prompt is too long: 200001 tokens > 200000 maximum"

    def _told(self, answer: Answer, stop: str) -> list[bytes]:
        usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": 1}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": _message(answer) | {"usage": usage}}]
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if answer.text:
            told = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
            blocks.append(({"type": "text", "text": ""}, told))
        for call in answer.tool_calls:
            raw = msgspec.json.encode(call.arguments).decode()
            parts = [raw[at : at + 5] for at in range(0, len(raw), 5)]
            told = [{"type": "input_json_delta", "partial_json": part} for part in ("", *parts)]
            blocks.append(({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, told))
        for index, (block, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        ending = {"stop_reason": stop, "stop_sequence": None}
        events.append(
            {"type": "message_delta", "delta": ending, "usage": {"output_tokens": answer.usage.output_tokens}}
        )
        events.append({"type": "message_stop"})
        return [server_sent(event, event["type"]) for event in events]


def _message(answer: Answer) -> dict[str, Any]:
    said = {"id": "msg_1", "type": "message", "role": "assistant", "model": answer.model, "content": []}
    return said | {"stop_reason": None, "stop_sequence": None}


def _stop(answer: Answer) -> str:
    return "tool_use" if answer.tool_calls else "end_turn"
