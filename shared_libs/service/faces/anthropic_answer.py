"""Anthropic's messages as they are answered, whole and streamed."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.types import Thinking, ToolCall, Usage
from shared_libs.service.faces.wanted import Called, Outcome, Piece, Said, Thought
from shared_libs.service.problems import Problem
from shared_libs.service.streams import sse

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_PROVIDER = "anthropic"


def anthropic_status(problem: Problem) -> int:
    """The status of a refusal: an API that has no time now says 529."""
    status = problem.kind.status
    return 529 if status == 503 else 400 if status in (409, 422) else status


def anthropic_error(problem: Problem, request_id: str = "") -> dict[str, Any]:
    """A refusal, as the vendor's SDKs read it."""
    status = anthropic_status(problem)
    error: dict[str, Any] = {
        "type": _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error"),
        "message": problem.detail,
        "factory": {"code": problem.code, "param": problem.param} | problem.facts,
    }
    return {"type": "error", "error": error, "request_id": request_id or None}


class MessageAnswer:
    """
    One answer of the messages API.

    Args:
        id: names it.
        model: what the client asked for.
        input_tokens: about how many were given: a stream tells that at its beginning, before anybody has counted.
        thinking: whether the answer tells how it was thought.

    """

    def __init__(self, id: str, model: str, *, input_tokens: int, thinking: bool) -> None:
        self._id = f"msg_{id}"
        self._model = model
        self._input_tokens = input_tokens
        self._thinking = thinking
        self._index = -1
        self._open = ""

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The answer in one piece."""
        content: list[dict[str, Any]] = self._thoughts(outcome) if self._thinking else []
        if outcome.text or not outcome.calls:
            content.append({"type": "text", "text": outcome.text})
        content += [{"type": "tool_use", **_call(call), "input": call.arguments} for call in outcome.calls]
        return self._message(content, _STOPS[outcome.finish], usage_of(outcome.usage), outcome.facts)

    def begin(self) -> bytes:
        """The first event of a stream."""
        usage = usage_of(Usage(self._input_tokens, 1))
        return _event({"type": "message_start", "message": self._message([], None, usage, {})})

    def piece(self, piece: Piece) -> bytes:
        """What a piece is on this wire; nothing, where the wire has no word for it."""
        match piece:
            case Said(text):
                return self._into("text", {"text": ""}) + self._delta({"type": "text_delta", "text": text})
            case Thought() if self._thinking:
                return self._thought(piece)
            case Called(call):
                delta = {"type": "input_json_delta", "partial_json": call.arguments_json()}
                return self._close() + self._into("tool_use", {**_call(call), "input": {}}) + self._delta(delta)
            case Outcome():
                return self._end(piece)
        return b""

    def failed(self, problem: Problem) -> bytes:
        """The end of a stream that failed."""
        return _event(anthropic_error(problem))

    def _thought(self, thought: Thought) -> bytes:
        told, sealed = b"", thought.sealed
        if sealed is not None and (hidden := hidden_in(sealed)) is not None:
            return self._close() + self._into("redacted_thinking", {"data": hidden}) + self._close()
        if thought.text:
            told = self._into("thinking", {"thinking": "", "signature": ""})
            told += self._delta({"type": "thinking_delta", "thinking": thought.text})
        if sealed is not None and sealed.signature:
            told += self._into("thinking", {"thinking": "", "signature": ""})
            told += self._delta({"type": "signature_delta", "signature": sealed.signature}) + self._close()
        return told

    def _end(self, outcome: Outcome) -> bytes:
        empty = b"" if self._index >= 0 else self._into("text", {"text": ""})
        told = {
            "type": "message_delta",
            "delta": {"stop_reason": _STOPS[outcome.finish], "stop_sequence": None, "container": None},
            "usage": usage_of(outcome.usage),
        }
        if outcome.facts:
            told["factory"] = outcome.facts
        return empty + self._close() + _event(told) + _event({"type": "message_stop"})

    def _into(self, kind: str, block: dict[str, Any]) -> bytes:
        """Begin a block, unless the one that is open is of its kind."""
        if self._open == kind:
            return b""
        closed = self._close()
        self._index += 1
        self._open = kind
        begun = {"type": "content_block_start", "index": self._index, "content_block": {"type": kind, **block}}
        return closed + _event(begun)

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event({"type": "content_block_stop", "index": self._index})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _message(self, content: list[Any], stop: str | None, usage: Any, facts: dict[str, Any]) -> dict[str, Any]:
        message = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": usage,
        }
        return message | ({"factory": facts} if facts else {})

    def _thoughts(self, outcome: Outcome) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        for block in outcome.thinking:
            if (hidden := hidden_in(block)) is not None:
                told.append({"type": "redacted_thinking", "data": hidden})
            elif block.text:
                told.append({"type": "thinking", "thinking": block.text, "signature": block.signature})
        return told


def hidden_in(block: Thinking) -> str | None:
    """What nobody but the vendor can read of a thought; None where it is none of its hidden ones."""
    return (block.data or {}).get("data") if block.provider == _PROVIDER else None


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens, as the API counts them: what was read from a cache, and written to one, apart from the rest."""
    read, written = usage.cached_input_tokens, usage.cache_creation_input_tokens
    hour = usage.hour_cache_input_tokens
    kept = {"ephemeral_5m_input_tokens": written - hour, "ephemeral_1h_input_tokens": hour}
    return ({"cache_creation": kept} if hour else {}) | {
        "input_tokens": max(0, usage.input_tokens - read - written),
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name}


def _event(data: dict[str, Any]) -> bytes:
    return sse(msgspec.json.encode(data), event=data["type"])
