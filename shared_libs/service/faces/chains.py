"""A chain of models as a client sees it: nothing between them but the onion, and every field goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.types import LLMChunk, LLMResponse
from shared_libs.service.faces.wanted import Called, Outcome, Piece, Said, Thought, Voided, Wanted

Tell = Callable[[Piece], None]


async def ask_chain(llm: BaseLLMWrapper, wanted: Wanted, tell: Tell | None = None) -> LLMResponse:
    """
    Ask the models of a chain, within the current deadline.

    Args:
        llm: the chain.
        wanted: what is asked.
        tell: gets the answer's pieces as they come; without it the answer is asked for in one piece.

    Raises:
        LLMError: nobody answered.

    """
    given: dict[str, Any] = {"chat_fields": wanted.fields} if wanted.fields else {}
    if wanted.own_fields:
        given = {"chat_fields": wanted.fields, "wire_fields": wanted.own_fields}
    if tell is not None:
        given["on_chunk"] = lambda chunk: _tell(chunk, tell)
    return await llm.async_chat(wanted.messages, wanted.tools, **given)


def outcome_of(response: LLMResponse) -> Outcome:
    """Read a model's answer."""
    reason = response.finish_reason
    return Outcome(
        text=response.text,
        calls=response.tool_calls,
        thinking=response.thinking,
        finish="stop" if reason == "pause" else reason,
        usage=response.usage,
        facts={"model": response.model, "attempts": len(response.attempts)},
    )


def _tell(chunk: LLMChunk, tell: Tell) -> None:
    if chunk.kind == "text":
        tell(Said(chunk.text))
    elif chunk.kind == "thinking":
        tell(Thought(chunk.text, chunk.sealed))
    elif chunk.kind == "restarted":
        tell(Voided(chunk.reason))
    elif chunk.kind == "tool_call" and chunk.tool_call is not None:
        tell(Called(chunk.tool_call))
