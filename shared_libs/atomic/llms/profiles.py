"""
Known servers, as data: what would otherwise cost each process a refused request.

A row is a pattern of the address, one of the model's name, and what is known. All rows that fit are added up. What is
not here is learnt (`lessons.py`). Sources: the API references of the providers named.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from shared_libs.atomic.patterns import late

Trait = Literal[
    "ids-of-nine",
    "no-user-after-tool",
    "no-system",
    "system-first",
    "no-null-content",
    "plain-content",
    "tools-with-history",
    "no-empty-parameters",
    "plain-schemas",
    "portable-properties",
    "no-strict-tools",
    "no-tools",
    "streams-only",
    "whole-only",
    "whole-beside-tools",
    "schema-loose",
    "schema-object",
    "schema-words",
    "schema-beside-tools",
    "no-encrypted-reasoning",
]
"""
What a server wants beside the names of fields.

Ids of nine letters and digits; an assistant between a tool and a user; no system role, or only at the front; a content
that is never null, or always a text; tool definitions while the conversation has calls, no parameters of tools without
any, none but plain ones, names of them of letters, digits, `_`, `.` and `-`, and no word of strictness; no tools at
all, which an agent then tells in words; of structured
output no strict mode, JSON without a schema, or nothing but words, or that it may stand beside tools: elsewhere its
grammar keeps the model from calling any. No reasoning that is encrypted. Answers as streams alone, or
never as streams, or not with tools, whatever the caller wants.
"""


class Profile(NamedTuple):
    """What is known of a server before it was asked anything."""

    traits: tuple[Trait, ...] = ()
    dropped: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    texts_at_once: int | None = None


_COMPLETION_TOKENS = (("max_tokens", "max_completion_tokens"),)


class _Row(NamedTuple):
    address: re.Pattern[str]
    profile: Profile
    model: re.Pattern[str]


def _row(address: str, profile: Profile, model: str = "") -> _Row:
    return _Row(late(address), profile, late(model))


_ROWS = (
    # OpenAI and Azure: `max_tokens` is deprecated, and refused by reasoning models
    _row(r"//api\.openai\.com", Profile(("schema-beside-tools",), renamed=_COMPLETION_TOKENS, texts_at_once=2048)),
    _row(
        r"\.(openai\.azure|cognitiveservices\.azure|services\.ai\.azure)\.com",
        Profile(("schema-beside-tools",), texts_at_once=2048),
    ),
    _row(r"\.azure\.com", Profile(renamed=_COMPLETION_TOKENS), r"^(o\d|gpt-5)"),
    # Gemini's compatible API: BatchEmbedContents takes 100
    _row(r"//generativelanguage\.googleapis\.com", Profile(texts_at_once=100)),
    # Mistral: ids of nine characters, and no user's turn behind a tool's; usage comes without being asked for
    _row(
        r"//[\w.-]*\.mistral\.ai",
        Profile(traits=("ids-of-nine", "no-user-after-tool"), dropped=("stream_options",)),
    ),
    # DeepSeek: JSON mode without schemas
    _row(r"//api\.deepseek\.com(?!/anthropic)", Profile(traits=("schema-object",))),
    # Moonshot: JSON mode without schemas
    _row(r"//api\.moonshot\.(ai|cn)(?!/anthropic)", Profile(traits=("schema-object",))),
    # DashScope (Qwen): ten texts at once
    _row(r"//dashscope[\w-]*\.aliyuncs\.com", Profile(texts_at_once=10)),
    # Zhipu, SiliconFlow, Cohere, Voyage: texts at once
    _row(r"//(open\.bigmodel\.cn|api\.z\.ai)", Profile(traits=("schema-object",), texts_at_once=64)),
    _row(r"//api\.siliconflow\.(cn|com)", Profile(texts_at_once=32)),
    _row(r"//api\.cohere\.(com|ai)", Profile(texts_at_once=96)),
    _row(r"//api\.voyageai\.com", Profile(texts_at_once=1000)),
    # Perplexity: roles alternate strictly
    _row(r"//api\.perplexity\.ai", Profile(traits=("no-user-after-tool", "system-first"))),
    # Bedrock: tool definitions as long as the conversation has calls; Anthropic, there too: names of parameters
    _row(r"bedrock[\w-]*\.[\w-]+\.amazonaws\.com", Profile(traits=("tools-with-history", "portable-properties"))),
    _row(r"//api\.anthropic\.com", Profile(traits=("portable-properties",))),
    # Imitators of Anthropic's API know no structured output
    _row(r"(deepseek\.com|moonshot\.(ai|cn)|z\.ai/api|bigmodel\.cn/api)/anthropic", Profile(traits=("schema-words",))),
    # Gemma's template has no system role, whoever serves it at Google's address
    _row(r"//generativelanguage\.googleapis\.com", Profile(traits=("no-system",)), r"^(models/)?gemma"),
)


def profile_of(base_url: str, model: str) -> Profile:
    """Return what is known of a model at an address; nothing, for most."""
    fitting = [row.profile for row in _ROWS if row.address.search(base_url) and row.model.search(model)]
    return Profile(
        tuple(trait for profile in fitting for trait in profile.traits),
        tuple(name for profile in fitting for name in profile.dropped),
        tuple(pair for profile in fitting for pair in profile.renamed),
        min((profile.texts_at_once for profile in fitting if profile.texts_at_once), default=None),
    )
