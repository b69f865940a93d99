"""What of a run's record is the agent's own: its turns, and not what its tools asked models meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from shared_libs.atomic import events as e
from shared_libs.atomic.events import AgentEvent, AttemptStarted
from shared_libs.atomic.types import Attempt, LLMResponse


class Try(msgspec.Struct):
    """
    A request of the agent, and what came of it.

    `number` counts the requests to its model. `told_s` is how long the provider asked to wait afterwards, `again`
    whether it was asked again, and `next` whether another was asked. `response` is the answer, where it was one.
    """

    began: AttemptStarted
    number: int
    ended: Attempt | None = None
    told_s: float | None = None
    again: bool = False
    next: bool = False
    response: LLMResponse | None = None

    @property
    def model(self) -> str:
        """Who was asked."""
        return f"{self.began.provider}/{self.began.model}"


def tries(events: Iterable[AgentEvent]) -> list[Try]:
    """Return the requests of a run's own turns, in their order."""
    found: list[Try] = []
    open_calls: set[str] = set()
    for event in events:
        match event:
            case e.ToolStarted(call_id=call_id):
                open_calls.add(call_id)
            case e.ToolFinished(call_id=call_id):
                open_calls.discard(call_id)
            case AttemptStarted(operation="chat") if not open_calls:  # else a tool asks, whose result is known
                model = (event.provider, event.model)
                number = 1 + sum((one.began.provider, one.began.model) == model for one in found)
                found.append(Try(event, number))
            case e.AttemptFinished(attempt=attempt):
                for one in _of(found, attempt.provider, attempt.model, attempt.number):
                    one.ended = attempt
            case _:
                _note(found, event)
    return found


def _note(found: list[Try], event: AgentEvent) -> None:
    """Note what became of a request that has ended."""
    match event:
        case e.RetryScheduled():
            for one in _last(found, event.provider, event.model):
                one.again = True
                one.told_s = event.wait_s if event.told else None
        case e.FellBack():
            for one in _last(found, event.provider, event.model):
                one.next = True
        case e.ModelFinished(response=response):
            for one in _last(found, response.provider, response.requested_model):
                one.response = response


def _of(found: list[Try], provider: str, model: str, number: int) -> Iterator[Try]:
    """The request that this is the end of: the latest of its number that has none."""
    for one in reversed(found):
        began = one.began
        if one.ended is None and (began.provider, began.model, began.number) == (provider, model, number):
            yield one
            return


def _last(found: list[Try], provider: str, model: str) -> Iterator[Try]:
    """The latest request to a model that has ended; of an answer that names no model, to any."""
    for one in reversed(found):
        named = (one.began.provider, one.began.model) == (provider, model) or not model
        if one.ended is not None and one.ended.outcome != "cancelled" and named:
            yield one
            return
