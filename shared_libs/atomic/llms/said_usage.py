"""Tokens as servers tell them, under many names and with parts that do not fit each other: our counts."""

from __future__ import annotations

from operator import attrgetter

import msgspec

from shared_libs.atomic.types import Usage

_MOST = 2**53
"""A larger count is none; and no database, nor JSON of browsers, takes it."""


class CacheCreation(msgspec.Struct):
    """What was written to Anthropic's cache, by how long it stays."""

    ephemeral_1h_input_tokens: int | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_read: int | None = None
    cachedTokens: int | None = None  # noqa: N815 - the field's own name, as below
    cache_write_tokens: int | None = None  # OpenAI since GPT-5.6, OpenRouter
    cache_creation_tokens: int | None = None  # LiteLLM
    cache_creation_input_tokens: int | None = None  # DashScope
    cache_creation_token_details: CacheCreation | None = None  # LiteLLM, of Anthropic's models


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class SaidUsage(msgspec.Struct, gc=False):
    """Tokens as they are told; a further name stands here and in its list."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    cached_tokens: int | None = None  # Moonshot
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    cache_read_input_tokens: int | None = None  # of Anthropic's models, as the next
    cache_creation_input_tokens: int | None = None
    num_cached_tokens: int | None = None  # vLLM
    precached_prompt_tokens: int | None = None  # GigaChat
    prompt_n: int | None = None  # llama.cpp, among its timings, as the next two
    predicted_n: int | None = None
    cache_n: int | None = None
    promptTokens: int | None = None  # noqa: N815
    completionTokens: int | None = None  # noqa: N815
    inputTokens: int | None = None  # noqa: N815 - Bedrock, as the next four
    outputTokens: int | None = None  # noqa: N815
    cacheReadInputTokens: int | None = None  # noqa: N815
    cacheWriteInputTokens: int | None = None  # noqa: N815
    totalTokens: int | None = None  # noqa: N815
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    promptTokenCount: int | None = None  # noqa: N815 - Gemini, as the next four
    candidatesTokenCount: int | None = None  # noqa: N815
    thoughtsTokenCount: int | None = None  # noqa: N815
    cachedContentTokenCount: int | None = None  # noqa: N815
    totalTokenCount: int | None = None  # noqa: N815
    prompt_eval_count: int | None = None  # Ollama
    eval_count: int | None = None
    generated_tokens: int | None = None

    def neutral(self) -> Usage:
        """The counts as ours."""
        given, made = self.prompt_tokens, self.completion_tokens
        if not (given and made):
            given, made = (_first(told(self)) for told in (_GIVEN, _MADE))
        elif _BESIDES(self) == _NOTHING_BESIDES:
            return counted(given, made, total=self.total_tokens)
        details = self.prompt_tokens_details or self.input_tokens_details
        cached = (details and _first(_CACHED_DETAIL(details))) or _first(_CACHED(self))
        written = (details and _first(_WRITTEN_DETAIL(details))) or _first(_WRITTEN(self))
        apart = bool(self.precached_prompt_tokens) or (not self.prompt_tokens and details is None and any(_APART(self)))
        kept = details and details.cache_creation_token_details
        hour = kept.ephemeral_1h_input_tokens if kept else 0
        of_output = self.completion_tokens_details or self.output_tokens_details
        thought = (of_output and of_output.reasoning_tokens) or self.thoughtsTokenCount
        return counted(given, made, cached, written, _first(_TOTAL(self)), apart=apart, hour=hour, thought=thought)


def counted(
    given: int | None,
    made: int | None,
    cached: int | None = 0,
    written: int | None = 0,
    total: int | None = 0,
    *,
    apart: bool = False,
    hour: int | None = 0,
    thought: int | None = 0,
) -> Usage:
    """
    Counts whose parts fit each other.

    What was read from a cache, and written to it, is among what was given, for that is what a price is taken from. What
    the total has beyond both is what was not told, or was thought (xAI, Gemini): it is paid for as what was made.

    Args:
        given: tokens of the request.
        made: tokens of the answer.
        cached: of the request, those read from a cache.
        written: of the request, those written to it.
        total: both together, where that is told.
        apart: whether the provider tells `given` without what a cache had to do with.
        hour: of what was written to a cache, what is kept for an hour.
        thought: tokens of thinking, among what was made.

    """
    given, made, cached, written, total = map(_count, (given, made, cached, written, total))
    if apart or cached + written > given:
        given += cached + written
    beyond = total - given - made
    if beyond > 0 and (given or made):
        if not given or beyond == cached + written:
            given += beyond
        else:
            made += beyond
    hour, thought = min(_count(hour), written), min(_count(thought), made)
    return Usage(given, made, cached, max(total, given + made), written, hour, thought)


def newest(known: Usage, told: Usage) -> Usage:
    """What is told last of each count: some servers tell them one by one, and some send zeros at the end."""
    pairs = zip(msgspec.structs.astuple(told), msgspec.structs.astuple(known), strict=True)
    given, made, cached, total, *rest = (new or old for new, old in pairs)
    return Usage(given, made, cached, max(total, given + made), *rest)


def _first(told: tuple[int | None, ...]) -> int:
    return next(filter(None, told), 0)


def _count(told: int | None) -> int:
    return told if told is not None and 0 < told <= _MOST else 0


_PLAIN = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_BESIDES = attrgetter(*(name for name in SaidUsage.__struct_fields__ if name not in _PLAIN))
_NOTHING_BESIDES = _BESIDES(SaidUsage())
_GIVEN = attrgetter(
    *("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "prompt_token_count", "promptTokenCount"),
    *("prompt_eval_count", "prompt_n"),
)
_MADE = attrgetter(
    *("completion_tokens", "output_tokens", "completionTokens", "outputTokens", "candidates_token_count"),
    *("candidatesTokenCount", "eval_count", "generated_tokens", "predicted_n"),
)
_CACHED = attrgetter(
    *("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens", "cache_n"),
    "precached_prompt_tokens",
    *("cacheReadInputTokens", "cachedContentTokenCount"),
)
_WRITTEN = attrgetter("cache_creation_input_tokens", "cacheWriteInputTokens")
_CACHED_DETAIL = attrgetter("cached_tokens", "cache_read", "cachedTokens")
_WRITTEN_DETAIL = attrgetter("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_TOTAL = attrgetter("total_tokens", "totalTokens", "totalTokenCount")
_APART = attrgetter("input_tokens", "inputTokens", "prompt_n")
"""The words of those who tell what was given without what a cache had to do with."""
