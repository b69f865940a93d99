"""Ollama's own chat API, as the server says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared_libs.atomic.types import ToolCall
from shared_libs.testing.faults.formats.base import Answer, dumps


class OllamaChat:
    """`POST /api/chat`."""

    base = ""
    path = "/api/chat"
    stream_type = "application/x-ndjson"
    streams_unasked = True

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The answer as one JSON document."""
        return dumps(_line(answer, 0, answer.text, answer.tool_calls) | _ending(answer))

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """The answer as the lines of a stream; the last one is its end marker."""
        lines = [_line(answer, at, piece) for at, piece in enumerate(answer.pieces)]
        lines += [_line(answer, len(lines) + at, "", [call]) for at, call in enumerate(answer.tool_calls)]
        lines.append(_line(answer, len(lines), "") | _ending(answer))
        return [dumps(line) + b"\n" for line in lines]

    def broken_event(self) -> bytes:
        """A line of a stream that is not what it says."""
        return b'{"model":"m","message":{"role":"assistant","con\n'

    def error(self, status: int, code: str, message: str) -> bytes:
        """The body of a refusal. Ollama has no filter of its own: who serves it behind one says so as OpenAI does."""
        if code == "filter":
            return dumps({"error": {"message": message, "code": "content_filter"}})
        return dumps({"error": message})

    def filtered(self, answer: Answer, request: Mapping[str, Any], *, stream: bool) -> list[bytes] | None:
        """A refusal, see `error`."""
        return None

    def context_message(self) -> str:
        """How the server says that a conversation is too long."""
        return "the input length exceeds the context length"


def _line(answer: Answer, at: int, text: str, calls: Sequence[ToolCall] = ()) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
            for index, call in enumerate(calls)
        ]
    return {
        "model": answer.model,
        "created_at": f"2026-01-01T00:00:00.{at:09d}Z",
        "message": message,
        "done": False,
    }


def _ending(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "done": True,
        "done_reason": "stop",
        "total_duration": 1,
        "load_duration": 1,
        "prompt_eval_count": usage.input_tokens,
        "prompt_eval_duration": 1,
        "eval_count": usage.output_tokens,
        "eval_duration": 1,
    }
