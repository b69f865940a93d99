"""Chat completions as they are answered, whole and streamed: the same answer, once folded."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

from shared_libs.atomic.llms.openai_request import WIRE
from shared_libs.atomic.types import ToolCall, Usage, with_extra
from shared_libs.service.faces.wanted import Called, Outcome, Piece, Said, Thought
from shared_libs.service.problems import Problem
from shared_libs.service.streams import encode, sse

DONE = b"data: [DONE]\n\n"

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}

_CODES = {
    "invalid_request": None,
    "unauthorized": "invalid_api_key",
    "forbidden": "insufficient_permissions",
    "rate_limited": "rate_limit_exceeded",
    "upstream_rate_limited": "rate_limit_exceeded",
    "budget_exhausted": "insufficient_quota",
    "upstream_quota_spent": "insufficient_quota",
    "content_filtered": "content_filter",
    "body_too_large": "request_too_large",
}
"""What OpenAI calls it; what is not here has a code of ours."""


def openai_status(problem: Problem) -> int:
    """The status of a refusal: the vendor's SDK repeats a 409 by itself, and knows no 422 of this kind."""
    return 400 if problem.kind.status in (409, 422) else problem.kind.status


def openai_error(problem: Problem, request_id: str = "") -> dict[str, Any]:
    """A refusal, as the vendor's SDKs read it."""
    status = openai_status(problem)
    told: dict[str, Any] = {
        "message": problem.detail,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": problem.param,
        "code": _CODES.get(problem.code, problem.code),
    }
    if problem.facts:
        told["factory"] = problem.facts
    if request_id:
        told["request_id"] = request_id
    return {"error": told}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens, as chat completions name them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class ChatAnswer:
    """
    One answer of chat completions.

    Args:
        id: names it, in every chunk the same.
        model: what the client asked for.
        include_usage: whether a stream ends with the usage.
        progress: whether an agent's reasoning and tools are shown as `reasoning_content`.

    """

    def __init__(self, id: str, model: str, *, include_usage: bool = False, progress: bool = False) -> None:
        self._id = f"chatcmpl-{id}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        self._usage = b',"usage":null' if include_usage else b""
        self._progress = progress
        self._calls = 0

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": outcome.text or None, "refusal": None}
        if not outcome.calls:
            message["content"] = outcome.text
        if self._progress and (thinking := "".join(block.text for block in outcome.thinking)):
            message["reasoning_content"] = thinking
        if outcome.calls:
            message["tool_calls"] = [_call(call) for call in outcome.calls]
        message = with_extra(message, {WIRE: given_of(outcome)}, WIRE)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.finish}
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "usage": usage_of(outcome.usage),
            "system_fingerprint": None,
        } | ({"factory": outcome.facts} if outcome.facts else {})

    def begin(self) -> bytes:
        """The first chunk of a stream."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def piece(self, piece: Piece) -> bytes:
        """What a piece is on this wire; nothing, where the wire has no word for it."""
        match piece:
            case Said(text):
                before, behind = self._around_text
                return before + encode(text) + behind
            case Thought(text) if text and self._progress:
                return self._chunk({"reasoning_content": text})
            case Called(call):
                return self._called(call)
            case Outcome():
                return self._end(piece)
        return b""

    def failed(self, problem: Problem) -> bytes:
        """The end of a stream that failed: the SDK raises, whatever came before."""
        return sse(openai_error(problem)) + DONE

    @cached_property
    def _head(self) -> bytes:
        """What each chunk of a stream begins with."""
        head = encode({"id": self._id, "object": "chat.completion.chunk", "created": self._created})
        return b"data: " + head[:-1] + b',"model":' + encode(self._model) + b',"system_fingerprint":null'

    @cached_property
    def _around_text(self) -> tuple[bytes, bytes]:
        """What a chunk of text alone has before it and behind it."""
        before = self._head + b',"choices":[{"index":0,"delta":{"content":'
        return before, b'},"logprobs":null,"finish_reason":null}]' + self._usage + b"}\n\n"

    def _called(self, call: ToolCall) -> bytes:
        index = self._calls
        self._calls += 1
        begun = {"index": index, **_call(call)}
        begun["function"] = {"name": call.name, "arguments": ""}
        rest = {"index": index, "function": {"arguments": call.arguments_json()}}
        return self._chunk({"tool_calls": [begun]}) + self._chunk({"tool_calls": [rest]})

    def _end(self, outcome: Outcome) -> bytes:
        told = b""
        if given := given_of(outcome):
            each = enumerate(given.pop("tool_calls", ()))
            calls = [_more_of_call(index, more) for index, more in each if more]
            told = self._chunk(given | ({"tool_calls": calls} if calls else {}))
        told += self._chunk({}, outcome.finish, outcome.facts if not self._include_usage else {})
        if self._include_usage:
            counted = b',"choices":[],"usage":' + encode(usage_of(outcome.usage))
            facts = b',"factory":' + encode(outcome.facts) if outcome.facts else b""
            told += self._head + counted + facts + b"}\n\n"
        return told + DONE

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, facts: dict[str, Any] | None = None) -> bytes:
        choice = encode([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])
        more = b',"factory":' + encode(facts) if facts else b""
        return self._head + b',"choices":' + choice + self._usage + more + b"}\n\n"


def given_of(outcome: Outcome) -> dict[str, Any]:
    """What a model of this very wire gave with its answer and wants to see again, in its places of the message."""
    given: dict[str, Any] = {}
    for block in outcome.thinking:
        data = block.data or {}
        if block.provider == WIRE and "made_by" in data:
            given |= data.get("fields", {})
            if len(calls := data.get("calls", ())) == len(outcome.calls) != 0:
                given["tool_calls"] = calls
    return given


def _more_of_call(index: int, more: dict[str, Any]) -> dict[str, Any]:
    """What more there is of a call that a stream has told; the vendor's SDK insists on a function in each piece."""
    return more | {"index": index, "function": {"arguments": ""} | more.get("function", {})}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json()}}
