"""What spans and points are told: values of attributes without secrets and of a bounded length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shared_libs.atomic.types import LLMResponse, Usage
from shared_libs.observability.redact import redact_start

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

FINISH = {"tool_calls": "tool_call"}
"""Finish reasons that the conventions call otherwise."""


def without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without those that are not known."""
    return {name: value for name, value in attributes.items() if value is not None}


def usage_told(usage: Usage) -> dict[str, Any]:
    """Tokens, by the names of the conventions."""
    told = {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
    if usage.cached_input_tokens:
        told["gen_ai.usage.cache_read.input_tokens"] = usage.cached_input_tokens
    return told


def shown(value: Any) -> Any:
    """A field of an event as an attribute: words without secrets, and no longer than anybody reads."""
    return redact_start(value, LONGEST_WHY) if isinstance(value, str) else value


def as_json(value: Any) -> str:
    """A value as JSON, without secrets, and cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return redact_start(text, LONGEST_CONTENT)


def as_messages(role: str, text: str) -> str:
    """One message of a text, as the conventions write messages."""
    return as_json([{"role": role, "parts": [{"type": "text", "content": redact_start(text, LONGEST_CONTENT)}]}])


def turn(response: LLMResponse) -> str:
    """A model's turn, as the conventions write messages."""
    text = redact_start(response.text, LONGEST_CONTENT)
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    parts += [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.input} for call in response.tool_calls
    ]
    reason = FINISH.get(response.finish_reason, response.finish_reason)
    return as_json([{"role": "assistant", "parts": parts, "finish_reason": reason}])
