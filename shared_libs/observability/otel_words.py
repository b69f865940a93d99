"""What spans and points are told: values of attributes without secrets and of a bounded length."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shared_libs.atomic import events
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.types import ImagePart, LLMResponse, Message, ToolCall, Usage
from shared_libs.atomic.whole import whole_data, whole_text
from shared_libs.observability.redact import redact_data, redact_start

SCOPE = "genai-factory"
"""The name under which spans and points are made."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Buckets of `gen_ai.client.operation.duration`, as the conventions give them."""

TOKENS = tuple(4.0**power for power in range(14))
"""Buckets of `gen_ai.client.token.usage`, as the conventions give them."""

LONGEST_WHY = 500
"""How many characters of a failure's words stand in a span's status, and in an event of a span."""

LONGEST_CONTENT = 32_000
"""How many characters of a question, an answer, an input or an observation stand in an attribute."""

LONGEST_NAME = 64
"""How many characters of a tool's name, which a model may have invented, stand in a span's."""

LONGEST_ID = 256
"""How many characters of any other name, and of an id, stand in an attribute: some servers put kilobytes into an id."""

FINISH = {"tool_calls": "tool_call"}
"""Finish reasons that the conventions call otherwise."""


NOTED: dict[type[AgentEvent], tuple[str, ...]] = {
    events.RetryScheduled: ("provider", "model", "wait_s", "why"),
    events.FellBack: ("provider", "model", "next_provider", "next_model", "why"),
    events.BreakerChanged: ("provider", "model", "state"),
    events.StreamRestarted: ("reason",),
    events.ApprovalRequested: ("tool", "call_id"),
    events.Abandoned: ("what", "name", "call_id"),
    events.AbandonedEnded: ("what", "name", "call_id", "late_s"),
    events.LoopBlocked: ("tool", "call_id", "blocked_s"),
    events.LimitReached: ("stop_reason", "why"),
    events.Warned: ("message",),
}
"""What is told as an event of the run's span, and which of its fields."""


def without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that are not known."""
    return {name: value for name, value in attributes.items() if value is not None}


def usage_told(usage: Usage, of: str = "gen_ai") -> dict[str, Any]:
    """
    Tokens, by the names of the conventions.

    Those of a run are `factory`'s: many back ends add up what has the names of the conventions, wherever it stands, and
    would count each request again with every run that it is part of.
    """
    told = {f"{of}.usage.input_tokens": usage.input_tokens, f"{of}.usage.output_tokens": usage.output_tokens}
    if usage.cached_input_tokens:
        told[f"{of}.usage.cache_read.input_tokens"] = usage.cached_input_tokens
    if usage.cache_creation_input_tokens:
        told[f"{of}.usage.cache_creation.input_tokens"] = usage.cache_creation_input_tokens
    if usage.reasoning_tokens:
        told[f"{of}.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return told


def named(value: Any, longest: int = LONGEST_ID) -> str:
    """A name or an id as an attribute: whoever told it, it is text that an exporter can send, and short."""
    text = value if type(value) is str else str(value)
    return text if len(text) <= longest and text.isascii() else whole_text(text[:longest])


def shown(value: Any) -> Any:
    """A field of an event as an attribute: words without secrets, and no longer than anybody reads."""
    return _kept(value, LONGEST_WHY) if isinstance(value, str) else value


def as_json(value: Any) -> str:
    """A value as JSON, without secrets, and cut."""
    return _kept(value if isinstance(value, str) else _json(value), LONGEST_CONTENT)


def as_messages(role: str, text: str) -> str:
    """One message of a text, as the conventions write messages."""
    return _json([{"role": role, "parts": [{"type": "text", "content": _kept(text, LONGEST_CONTENT)}]}])


def turn(response: LLMResponse) -> str:
    """A model's turn, as the conventions write messages: whole JSON, of contents that are cut."""
    reason = named(FINISH.get(response.finish_reason, response.finish_reason))
    return _json([{"role": "assistant", "parts": _said(response.text, response.tool_calls), "finish_reason": reason}])


def message(sent: Message) -> str:
    """A message that was sent to a model, the same way; of an image it says which it was."""
    if sent.role == "tool":
        text = _kept(sent.text, LONGEST_CONTENT)
        parts = [{"type": "tool_call_response", "id": named(sent.tool_call_id or ""), "response": text}]
    else:
        images = [] if isinstance(sent.content, str) else [part for part in sent.content if isinstance(part, ImagePart)]
        parts = [{"type": "uri", "modality": "image", "uri": _kept(image.place, LONGEST_WHY)} for image in images]
        parts += _said(sent.text, sent.tool_calls)
    return _json({"role": sent.role, "parts": parts})


def _said(said: str, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    text = _kept(said, LONGEST_CONTENT)
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    room = LONGEST_CONTENT
    for call in calls:
        told = _json(call.input)
        arguments = whole_data(redact_data(call.input)) if len(told) <= room else _kept(told, room)
        room -= min(room, len(told))
        parts.append({"type": "tool_call", "id": named(call.id), "name": named(call.name), "arguments": arguments})
        if not room:
            break
    return parts


def _kept(text: str, limit: int) -> str:
    return whole_text(redact_start(text, limit))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
