"""How many tokens an answer took, under the names of every server that speaks chat completions."""

from __future__ import annotations

from operator import attrgetter

import msgspec

from shared_libs.atomic.types import Usage


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_read: int | None = None
    cachedTokens: int | None = None  # noqa: N815 - the field's own name, as below


class SaidUsage(msgspec.Struct):
    """Tokens as they are told; the cached ones are among those given. A further name stands here and in its list."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    cached_tokens: int | None = None  # Moonshot
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    cache_read_input_tokens: int | None = None  # of Anthropic's models
    num_cached_tokens: int | None = None  # vLLM
    promptTokens: int | None = None  # noqa: N815
    completionTokens: int | None = None  # noqa: N815
    inputTokens: int | None = None  # noqa: N815 - Bedrock
    outputTokens: int | None = None  # noqa: N815
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    promptTokenCount: int | None = None  # noqa: N815 - Gemini
    candidatesTokenCount: int | None = None  # noqa: N815
    prompt_eval_count: int | None = None  # Ollama
    eval_count: int | None = None
    generated_tokens: int | None = None

    def neutral(self) -> Usage:
        """The counts as ours; of given and made, one that was not told is what the total leaves for it."""
        given, made = self.prompt_tokens, self.completion_tokens
        if not (given and made):
            given, made = (next(filter(None, told(self)), 0) for told in (_GIVEN, _MADE))
        cached = next(filter(None, _CACHED(self)), 0)
        total = self.total_tokens or given + made
        if total > given + made and not (given and made):
            given, made = given or total - made, made or total - given
        details = self.prompt_tokens_details or self.input_tokens_details
        if details is not None:
            cached = details.cached_tokens or details.cache_read or details.cachedTokens or cached
        return Usage(given, made, cached, total)


_GIVEN = attrgetter(
    *("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "prompt_token_count", "promptTokenCount"),
    "prompt_eval_count",
)
_MADE = attrgetter(
    *("completion_tokens", "output_tokens", "completionTokens", "outputTokens", "candidates_token_count"),
    *("candidatesTokenCount", "eval_count", "generated_tokens"),
)
_CACHED = attrgetter("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens")
