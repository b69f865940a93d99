"""OpenAI's chat completions, as the server says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.atomic.types import ToolCall
from shared_libs.testing.faults.formats.base import Answer, dumps, server_sent
from shared_libs.testing.faults.formats.openai_errors import OpenAIErrors


class OpenAIChat(OpenAIErrors):
    """`POST /v1/chat/completions`."""

    path = "/v1/chat/completions"

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The answer as one JSON document."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if answer.tool_calls:
            message["tool_calls"] = [_call(call) for call in answer.tool_calls]
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}
        return dumps(_envelope(answer, "chat.completion") | {"choices": [choice], "usage": _usage(answer)})

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """The answer as the events of a stream; the last one is its end marker."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in answer.pieces]
        for index, call in enumerate(answer.tool_calls):
            told = _call(call)
            raw = told["function"].pop("arguments")
            opening = told | {"index": index, "function": told["function"] | {"arguments": ""}}
            pieces = [opening, *({"index": index, "function": {"arguments": raw[at : at + 5]}} for at in _steps(raw))]
            deltas += [{"tool_calls": [piece]} for piece in pieces]
        return [*self._deltas(answer, deltas), *self._ending(answer, request, _finish(answer))]

    def broken_event(self) -> bytes:
        """An event of a stream that is not what it says."""
        return b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"lo\n\n'

    def filtered(self, answer: Answer, request: Mapping[str, Any], *, stream: bool) -> list[bytes] | None:
        """In a stream the filter stops the answer in its middle; else the request is refused."""
        if not stream:
            return None
        half = answer.pieces[: len(answer.pieces) // 2]
        deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in half)]
        return [*self._deltas(answer, deltas), *self._ending(answer, request, "content_filter")]

    def _deltas(self, answer: Answer, deltas: list[dict[str, Any]]) -> list[bytes]:
        envelope = _envelope(answer, "chat.completion.chunk")
        return [
            server_sent(envelope | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            for delta in deltas
        ]

    def _ending(self, answer: Answer, request: Mapping[str, Any], finish: str) -> list[bytes]:
        envelope = _envelope(answer, "chat.completion.chunk")
        events = [server_sent(envelope | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})]
        options = request.get("stream_options")
        if isinstance(options, Mapping) and options.get("include_usage"):
            events.append(server_sent(envelope | {"choices": [], "usage": _usage(answer)}))
        return [*events, server_sent(b"[DONE]")]


def _envelope(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": answer.model}


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.tool_calls else "stop"


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.arguments).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _steps(raw: str) -> range:
    return range(0, len(raw), 5)


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
