"""
Why a model stopped, in the words of every server: one table, whatever API they stand in.

A reason that no line knows is no success: somebody invented it for a case that the usual words do not cover.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from shared_libs.atomic.errors import (
    ContentFiltered,
    LLMError,
    MalformedResponse,
    ProviderUnavailable,
    StreamInterrupted,
)
from shared_libs.atomic.types import FinishReason

_MEANS: dict[FinishReason | type[LLMError], tuple[str, ...]] = {
    "stop": (
        *("stop", "end_turn", "stop_sequence", "completed", "complete", "done", "end", "finish", "finished"),
        *("eos", "eos_token", "eos_found", "found_eos", "eos_reached", "stop_token", "stop_str"),  # TGI, Together, MLX
        *("stop_string", "stop_word", "stopped"),
        *("normal", "success", "natural", "repetition_stop", "model_stop"),
        *("end_of_text", "end_of_turn", "endoftext", "im_end", "eot_id"),
    ),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length"),
        *("model_length", "token_limit", "limit", "error_limit", "context_length", "context_length_exceeded"),
        *("max_output", "context", "continuation"),  # MiniMax, Reka, Gemini
        *("length_limit", "token_limit_reached", "max_tokens_reached", "max_seq_len", "context_full"),
        *(
            "model_context_window_exceeded",
            "context_window_exceeded",
            "incomplete",
            "truncated",
            "out_of_tokens",
        ),  # GLM, Anthropic
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls", "tools"),
    "pause": ("pause_turn", "compaction"),  # Anthropic: its own tools take longer, or the context was made shorter
    ContentFiltered: (
        *("content_filter", "content_filtered", "content_filtering", "refusal", "safety", "sensitive", "error_toxic"),
        *("recitation", "blocklist", "prohibited_content", "spii", "language"),  # Gemini, as the next
        *("image_safety", "image_prohibited_content", "image_recitation", "model_armor", "prompt_blocked"),
        *("blacklist", "censorship_blocked", "escalation"),  # GigaChat, StepFun, Gemini
        *("blocked", "moderated", "safety_block", "safety_blocked", "policy_violation"),
        *("guardrail_intervened", "guardrails", "moderation", "content_policy_violation", "flagged"),
    ),
    ProviderUnavailable: (
        *("error", "network_error", "insufficient_system_resource", "server_error", "internal_error"),
        *("malformed_response", "missing_thought_signature", "too_many_tool_calls", "function_call_filter"),
        *("malformed_function_call", "unexpected_tool_call", "malformed_tool_use", "malformed_model_output"),
        *("repetition", "no_image", "image_other"),  # vLLM: it went round in circles; Gemini
        *("timeout", "time_limit", "engine_overloaded", "overloaded", "other", "finish_reason_unspecified", "load"),
    ),
    StreamInterrupted: (
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "user_cancel",
        "interrupted",
        "unload",
        "not_finished",
    ),
}
_BY_WORD = {word: meaning for meaning, words in _MEANS.items() for word in words}
_BETWEEN = re.compile(r"[-. ]|(?<=[a-z])(?=[A-Z])")
_NONE = frozenset({"", "null", "none"})
"""What some servers send in every chunk where null belongs."""


def told(reason: Any) -> str:
    """The reason as the table has it, or "" where none was told; `MAX_TOKENS`, `maxTokens` and `max-tokens` are one."""
    if isinstance(reason, dict):  # SGLang: its type, and what it matched
        reason = reason.get("type") or reason.get("reason")
    return _word(reason) if isinstance(reason, str) else ""


@lru_cache(maxsize=256)
def _word(reason: str) -> str:
    word = _BETWEEN.sub("_", reason.strip(" \n<|>")).lower().removeprefix("finish_reason_")
    return "" if word in _NONE else word


def cut_off(reason: str) -> FinishReason:
    """
    What a reason, as `told` gave it, means of an answer that says that it is not whole: a limit, if no more is known.

    Raises:
        LLMError: the provider broke it off.

    """
    meaning = _meaning(reason)
    return "length" if isinstance(meaning, str) or meaning is MalformedResponse else finish_of(reason, calls=False)


def _meaning(reason: str) -> FinishReason | type[LLMError]:
    """Where another one stands behind it (Gemini: `content_filter: SAFETY`), the closer one counts, if it is known."""
    head, _, tail = reason.partition(":")
    return _BY_WORD.get(tail.strip("_")) or _BY_WORD.get(head) or ("stop" if not reason else MalformedResponse)


def finish_of(reason: str, *, calls: bool, why: str = "") -> FinishReason:
    """
    What a reason, as `told` gave it, means.

    Args:
        reason: why the model stopped; "" where the server did not say.
        calls: whether the answer has tool calls, which is what counts where the reason says no more than "stop".
        why: what the provider explains, for the error.

    Raises:
        LLMError: the answer was broken off, or nobody knows what the reason means.

    """
    meaning = _meaning(reason)
    if isinstance(meaning, str):
        return "tool_calls" if calls and meaning == "stop" else meaning
    if meaning is MalformedResponse:
        raise MalformedResponse(f"the answer ended for a reason that is not known ({reason:.80})")
    if meaning is ContentFiltered:
        raise ContentFiltered(f"the provider's filter stopped the answer ({reason}){': ' if why else ''}{why}")
    raise meaning(f"the provider broke the answer off ({reason}){': ' if why else ''}{why}")
