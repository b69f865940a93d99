"""
Why a model stopped, in the words of every server: one table, whatever API they stand in.

A reason that no line knows is no success: somebody invented it for a case that the usual words do not cover.
"""

from __future__ import annotations

import re
from functools import lru_cache

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
    ),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens", "max_length"),
        *("model_length", "token_limit", "limit", "error_limit", "context_length", "context_length_exceeded"),
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
        *("image_safety", "image_prohibited_content", "image_recitation"),
        *("blocked", "moderated", "safety_block", "policy_violation"),
        *("guardrail_intervened", "guardrails", "moderation", "content_policy_violation", "flagged"),
    ),
    ProviderUnavailable: (
        *("error", "network_error", "insufficient_system_resource", "server_error", "internal_error"),
        *("malformed_function_call", "unexpected_tool_call", "malformed_tool_use", "malformed_model_output"),
        *("timeout", "time_limit", "engine_overloaded", "overloaded", "other", "finish_reason_unspecified", "load"),
    ),
    StreamInterrupted: ("abort", "aborted", "cancelled", "canceled", "user_cancel", "interrupted", "unload"),
}
_BY_WORD = {word: meaning for meaning, words in _MEANS.items() for word in words}
_BETWEEN = re.compile(r"[-. ]|(?<=[a-z])(?=[A-Z])")
_NONE = frozenset({"", "null", "none"})
"""What some servers send in every chunk where null belongs."""


@lru_cache(maxsize=256)
def told(reason: str | None) -> str:
    """The reason as the table has it, or "" where none was told; `MAX_TOKENS`, `maxTokens` and `max-tokens` are one."""
    word = _BETWEEN.sub("_", (reason or "").strip()).lower().removeprefix("finish_reason_")
    return "" if word in _NONE else word


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
    meaning = _BY_WORD.get(reason, "stop" if not reason else MalformedResponse)
    if isinstance(meaning, str):
        return "tool_calls" if calls and meaning == "stop" else meaning
    if meaning is MalformedResponse:
        raise MalformedResponse(f"the answer ended for a reason that is not known ({reason:.80})")
    if meaning is ContentFiltered:
        raise ContentFiltered(f"the provider's filter stopped the answer ({reason}){': ' if why else ''}{why}")
    raise meaning(f"the provider broke the answer off ({reason}){': ' if why else ''}{why}")
