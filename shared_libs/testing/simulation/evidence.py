"""What was seen of the runs of an agent, from outside: what the promises are checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec

from shared_libs.agents import ReActAgent
from shared_libs.atomic.events import AgentEvent, AttemptStarted, RunFinished, RunStarted
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Message
from shared_libs.testing.scenarios.model_player import Asked, Chances

LATE_S = 0.05
"""How much later than its limit a run may end, in seconds."""


class SeenRun(msgspec.Struct):
    """A run as its caller saw it: what was asked, and when it came back with what; moments by the loop's clock."""

    id: str
    question: str
    timeout_s: float
    session_id: str | None = None
    after_s: float = 0.0
    cancel_after_s: float | None = None
    began_s: float = 0.0
    ended_s: float | None = None
    held_s: float = 0.0
    result: AgentResult | None = None
    error: str = ""


class Evidence:
    """
    Everything that was seen of the runs of one agent.

    Args:
        agent: whose runs they are.
        chances: what its players saw.
        runs: the runs that were asked for; sub-agents' show in the events alone.
        events: of all of them, in the order in which they came.
        kept: what the memory holds of each session in the end.
        left: the tasks that were left when everything was closed, those aside that ignore their cancellation.
        clear_after_s: the moment after which nothing goes wrong any more.

    """

    def __init__(
        self,
        agent: ReActAgent,
        chances: Chances,
        runs: Sequence[SeenRun],
        events: Sequence[AgentEvent],
        *,
        kept: Mapping[str, Sequence[Message]] | None = None,
        left: Sequence[str] = (),
        clear_after_s: float | None = None,
    ) -> None:
        self.agent = agent
        self.chances = chances
        self.runs = runs
        self.events = events
        self.kept = kept or {}
        self.left = left
        self.clear_after_s = clear_after_s

    @cached_property
    def by_run(self) -> dict[str, RunRecord]:
        """The runs, sub-agents' too, by their ids; only those that began."""
        grouped: dict[str, list[AgentEvent]] = {}
        for event in self.events:
            grouped.setdefault(event.run_id, []).append(event)
        seen = {run.id: run for run in self.runs}
        asked: dict[str, list[Asked]] = {}
        for request in self.chances.asked:
            asked.setdefault(request.run_id, []).append(request)
        return {
            name: RunRecord(name, told, asked.get(name, []), seen.get(name), self._heard(told))
            for name, told in grouped.items()
        }

    def _heard(self, events: Sequence[AgentEvent]) -> bool:
        names = {f"{event.provider}/{event.model}" for event in events if isinstance(event, AttemptStarted)}
        return not names & self.chances.unheard

    @cached_property
    def callers(self) -> set[str]:
        """The runs that called another agent."""
        return {event.parent_run_id for event in self.events if isinstance(event, RunStarted) and event.parent_run_id}


class RunRecord(NamedTuple):
    """
    One run: its events, and the requests of it that reached a model.

    `seen` is what its caller saw of it; None: it is a sub-agent's. `heard` tells whether every model of it is a player.
    """

    id: str
    events: list[AgentEvent]
    asked: list[Asked]
    seen: SeenRun | None
    heard: bool = True

    @property
    def result(self) -> AgentResult | None:
        """What it ended in, as its last event tells."""
        last = self.events[-1]
        return last.result if isinstance(last, RunFinished) else None

    @property
    def started(self) -> RunStarted | None:
        """Its first event."""
        first = self.events[0]
        return first if isinstance(first, RunStarted) else None


class Broken(NamedTuple):
    """A promise that was broken, and how."""

    promise: str
    how: str

    def __str__(self) -> str:
        return f"promise {self.promise}: {self.how}"
