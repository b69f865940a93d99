"""
What spans are told, made when somebody reads it: a batch's exporter does, in its own thread.

A fact is attributes, or what makes them. What makes them keeps no contents: neither an answer nor a result stays
because a collector is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from shared_libs.atomic.events import AttemptStarted
from shared_libs.atomic.types import Attempt, Usage
from shared_libs.observability.otel_words import FINISH, named, usage_told

Fact = dict[str, Any] | Callable[[], dict[str, Any]]


def put_together(facts: Iterable[Fact]) -> dict[str, Any]:
    """Return the attributes of facts; of two of one name the later one holds."""
    told: dict[str, Any] = {}
    for fact in facts:
        told |= fact if isinstance(fact, dict) else fact()
    return told


def an_attempt(agent: str | None, event: AttemptStarted) -> dict[str, Any]:
    """A request that begins."""
    told = _below(agent) | {
        "gen_ai.operation.name": named(event.operation),
        "gen_ai.provider.name": named(event.provider),
        "gen_ai.request.model": named(event.model),
        "factory.attempt": event.number,
    }
    return told | {"gen_ai.request.stream": True} if event.stream else told


def an_end(attempt: Attempt) -> dict[str, Any]:
    """What became of a request."""
    told: dict[str, Any] = {}
    if attempt.first_token_s is not None:
        told["gen_ai.response.time_to_first_chunk"] = attempt.first_token_s - attempt.started_s
    if attempt.status_code is not None:
        told["http.response.status_code"] = attempt.status_code
    if attempt.waited_s:
        told["factory.waited_s"] = attempt.waited_s
    return told if attempt.usage is None else told | usage_told(attempt.usage)


def an_answer(usage: Usage, finish_reason: str, model: str, cost_usd: float | None) -> dict[str, Any]:
    """What a model answered, without what it said."""
    told = usage_told(usage) | {"gen_ai.response.finish_reasons": (named(FINISH.get(finish_reason, finish_reason)),)}
    if model:
        told["gen_ai.response.model"] = named(model)
    return told if cost_usd is None else told | {"factory.cost_usd": cost_usd}


def a_tool(agent: str | None, name: str, call_id: str) -> dict[str, Any]:
    """A call of a tool."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.call.id": named(call_id),
        "gen_ai.tool.type": "function",
    } | _below(agent)


def a_retrieval(agent: str | None, collection: str, k: int | None, operation: str) -> dict[str, Any]:
    """What a collection is asked."""
    return {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": named(collection),
        "gen_ai.retrieval.top_k": k,
        "factory.retrieval.operation": named(operation),
    } | _below(agent)


def _below(agent: str | None) -> dict[str, Any]:
    """What each span of a run says of it; a call outside any has no agent."""
    return {} if agent is None else {"gen_ai.agent.name": agent}
