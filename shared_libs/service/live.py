"""Runs under way in this process: who follows them, what becomes of them when nobody does, and their end."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import msgspec
from msgspec.structs import replace

from shared_libs.agents.react_agent import ReActAgent
from shared_libs.agents.variant import Extras
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.events import AgentEvent, EventSink, ModelAsked, RunFinished
from shared_libs.atomic.results import AgentResult, Decision
from shared_libs.atomic.scope import current_scope, use_scope
from shared_libs.service.admission import FULL, Admission, Demand, Grant
from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call
from shared_libs.service.paused import PausedRuns
from shared_libs.service.problems import Problem


def _nobody(event: AgentEvent) -> None:
    """Drop the events of runs that the service did not begin."""


_listener: ContextVar[EventSink] = ContextVar("listener", default=_nobody)


def hear(event: AgentEvent) -> None:
    """Take an event of any agent, and give it to the run of the service in which it happened; an observer."""
    _listener.get()(event)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run is to do: `options` are further arguments of the agent's run, such as an output schema.

    `agent` is the entry's as this request wants it, where it wants more of it, and `extras` the same as plain data;
    `resumes` a paused run to go on with.
    """

    question: Any
    session_id: str | None = None
    stream: bool = False
    options: dict[str, Any] = {}
    agent: ReActAgent | None = None
    extras: Extras = Extras()
    resumes: Resumed | None = None


class Resumed(msgspec.Struct, frozen=True):
    """A paused run to go on with: its state, what is decided about its calls, and whether it stands in the queue."""

    state: dict[str, Any]
    decisions: dict[str, Decision]
    queued: bool = False


class LiveRun:
    """
    A run of an agent.

    Its events are kept while it is under way, so that whoever comes late, or reads slowly, misses nothing and is
    waited for by nobody.
    """

    kept_here = True
    """Whether this process keeps it while it waits for a decision."""

    def __init__(self, entry: Entry, asked: Asked, demand: Demand, *, record: EventSink, run_id: str = "") -> None:
        self.id = run_id or os.urandom(16).hex()
        self.entry = entry
        self.demand = demand
        self.events: list[AgentEvent] = []
        self.followers = 0
        self.queued_s = 0.0
        self._task: asyncio.Task[AgentResult] | None = None
        self._asked = asked
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] | None = None
        self._accepted = self._loop.create_future()
        self._over = self.leaving = False
        self._ended_by = ""
        self.first = 1
        self._known = 0
        self._grant: Grant | None = None

    @property
    def told_its_end(self) -> bool:
        """Whether its last event is its end; one that was not admitted has none."""
        return len(self.events) > self._known and isinstance(self.events[-1], RunFinished)

    @property
    def failed(self) -> bool:
        """Whether there is no result: it was not admitted, or could not be done."""
        return (
            self.task.done() and not self.told_its_end and (self.task.cancelled() or self.task.exception() is not None)
        )

    def goes_on_from(self, number: int, before: LiveRun | None) -> None:
        """Say that it goes on behind an event; what came before is known from the run until then, if that is here."""
        self.first = number + 1
        if before is not None:
            self.events = list(before.events)
            self._known, self.first = len(self.events), before.first

    def has_events_after(self, number: int) -> bool:
        """Whether all events behind that one are here, and not only in the store."""
        return number + 1 >= self.first or self.first == 1

    @property
    def caller(self) -> Caller:
        """Whose it is."""
        return self.demand.caller

    @property
    def begun(self) -> bool:
        """Whether it has a task of its own."""
        return self._task is not None

    @property
    def resumes(self) -> Resumed | None:
        """What it goes on with."""
        return self._asked.resumes

    @property
    def task(self) -> asyncio.Task[AgentResult]:
        """The task it runs in, where that is its own (`Runs.begin`)."""
        assert self._task is not None
        return self._task

    def begin(self, admission: Admission) -> asyncio.Task[AgentResult]:
        """Do it in a task of its own."""
        self._task = self._loop.create_task(self.perform(admission))
        return self._task

    async def perform(self, admission: Admission) -> AgentResult:
        """
        Wait for a slot, and do it, in the task of the caller.

        Raises:
            Problem: it was not admitted.
            MisuseError: the question is not valid.

        """
        try:
            async with self.entry.used(), admission.enter(self.demand, self._accept) as grant:
                self.queued_s, self._grant = grant.queued_s, grant
                token = _listener.set(self._hear)
                try:
                    with use_scope(replace(current_scope(), waited_s=grant.queued_s)):
                        return await self._run()
                finally:
                    _listener.reset(token)
        finally:
            self._over = True
            self._accept()
            self._wake()

    async def accepted(self) -> None:
        """
        Wait until it is certain that it is not refused at once.

        Raises:
            Problem: it was.

        """
        await asyncio.shield(self._accepted)
        if self.task.done() and not self.task.cancelled():
            self.task.result()

    async def result(self) -> AgentResult:
        """
        Wait for its end, in whatever task it runs; whoever is cancelled here leaves it running.

        Raises:
            Problem: it was not admitted.

        """
        self.followers += 1
        try:
            await asyncio.wait([self.task])
        finally:
            self.followers -= 1
        if not self.task.cancelled():
            return self.task.result()
        if self.told_its_end:
            ended: RunFinished = self.events[-1]  # type: ignore[assignment]
            return ended.result
        if self.leaving:
            raise Problem("server_busy", "this server stops, and the run has not begun; another one takes it")
        raise Problem("conflict", "the run was cancelled before it began")

    def end(self, why: str) -> None:
        """End it; its result says why."""
        self._ended_by = why
        self.task.cancel()

    def give_up(self) -> None:
        """End it: its client has gone, and wants it no more."""
        self.end("its client has gone")

    def leave(self) -> None:
        """End it: this server stops."""
        self.leaving = True
        self.end("the server stopped before it had ended")

    async def cancel(self) -> None:
        """End it, and wait for that; of one that has ended nothing changes."""
        if not self.task.done():
            self.end("cancelled by request")
            await asyncio.wait([self.task])

    async def follow(self, after: int = -1) -> AsyncIterator[list[AgentEvent]]:
        """Yield the events with a number above `after`, as many at once as there are, until the run is over."""
        self.followers += 1
        place = 0
        try:
            while True:
                ready = [event for event in self.events[place:] if event.seq > after]
                place = len(self.events)
                if ready:
                    yield ready
                elif self._over:
                    return
                else:
                    self._changed = self._changed or self._loop.create_future()
                    await asyncio.shield(self._changed)
        finally:
            self.followers -= 1

    async def _run(self) -> AgentResult:
        asked, agent = self._asked, self._asked.agent or self.entry.agent
        left_s = self.demand.deadline.remaining() or 1e-3
        given: dict[str, Any] = {"timeout": left_s, "session_id": asked.session_id, "run_id": self.id, **asked.options}
        if (paused := asked.resumes) is not None:
            return await agent.async_resume(paused.state, paused.decisions, timeout=given["timeout"])
        if not asked.stream:
            return await agent.async_run(asked.question, **given)
        result = None
        async for event in agent.async_stream(asked.question, **given):
            if isinstance(event, RunFinished):
                result = event.result
        assert result is not None
        return result

    def _hear(self, event: AgentEvent) -> None:
        if isinstance(event, RunFinished) and event.run_id == self.id and event.result.status == "cancelled":
            event = replace(event, result=replace(event.result, error=self._ended_by or event.result.error))
        self._record(event)
        if event.run_id == self.id and not isinstance(event, ModelAsked):  # not those of agents that it calls
            if isinstance(event, RunFinished) and self._grant is not None:
                self._grant.settle(event.result.usage, event.result.cost_usd)  # of one that was cancelled, too
                if any(attempt.status_code in FULL for attempt in event.result.attempts):
                    self._grant.upstream_was_full()
            self.events.append(event)
            self._wake()

    def _accept(self) -> None:
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _wake(self) -> None:
        if self._changed is not None:  # somebody follows, and has seen all there was
            self._changed.set_result(None)
            self._changed = None


def demand_of_run(entry: Entry, call: Call, deadline: Deadline) -> Demand:
    """Say what a run of an agent wants; it may begin at any time, because it can always answer with what it has."""
    return Demand(
        caller=call.caller,
        target=entry.name,
        deadline=deadline,
        need_s=0.0,
        priority=call.priority,
        price=entry.price,
        tell_rates=call.tell_rates,
    )


ENDED_S = 60.0
MOST_ENDED = 200
"""How long, and how many, runs are kept here when they have ended; the store has them after that."""


class Runs:
    """
    The runs of this process.

    Args:
        admission: lets them begin.
        paused: keeps those that wait for a decision.
        orphan_grace_s: how long a run goes on that nobody follows any more.

    """

    def __init__(self, admission: Admission, paused: PausedRuns, *, orphan_grace_s: float) -> None:
        self._admission = admission
        self._paused = paused
        self._orphan_grace_s = orphan_grace_s
        self._live: dict[str, LiveRun] = {}
        self._ended: OrderedDict[str, LiveRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def get(self, run_id: str, team: str) -> LiveRun | None:
        """Return a run that is under way or has just ended, if it is that team's."""
        live = self._live.get(run_id) or self._ended.get(run_id)
        return live if live is not None and live.caller.team == team else None

    def begin(self, live: LiveRun) -> asyncio.Task[AgentResult]:
        """Do a run in a task of its own, which outlives the request."""
        task = live.begin(self._admission)
        self._live[live.id] = live
        task.add_done_callback(lambda task: self._end(live, task))
        return task

    def begin_if_idle(self, live: LiveRun) -> bool:
        """Do a run, unless one of its name is under way."""
        if live.id in self._live:
            return False
        self.begin(live)
        return True

    def leave(self, live: LiveRun) -> None:
        """Say that a client has gone: where nobody follows the run by the end of the grace, it is cancelled."""

        def look() -> None:
            if not live.followers:
                live.end("nobody followed it any more")

        asyncio.get_running_loop().call_later(self._orphan_grace_s, look)

    async def drain(self, deadline: Deadline) -> None:
        """Let runs end until the deadline, and cancel the rest."""
        runs = {live.task: live for live in self._live.values()}
        if runs:
            _, left = await asyncio.wait(runs, timeout=deadline.remaining())
            for task in left:
                runs[task].leave()
            if left:
                await asyncio.wait(left, timeout=1.0)

    def _end(self, live: LiveRun, task: asyncio.Task[AgentResult]) -> None:
        # who reads slowly, or comes back at once, finds each piece of text as it was numbered
        if self._live.get(live.id) is live:
            del self._live[live.id]
        self._ended[live.id] = live
        if len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)
        asyncio.get_running_loop().call_later(ENDED_S, self._forget, live)
        if task.cancelled() or task.exception() is not None or not live.kept_here:
            return
        if (state := task.result().state) is not None:
            self._paused.keep(live.caller.team, live.id, state)

    def _forget(self, live: LiveRun) -> None:
        if self._ended.get(live.id) is live:
            del self._ended[live.id]


def outside_s(result: AgentResult) -> float:
    """Return how long a run waited for models and tools, in seconds; what is left of its time was ours."""
    total = reached = 0.0
    for attempt in sorted(result.attempts, key=lambda attempt: attempt.started_s):
        begins = max(reached, attempt.started_s - attempt.waited_s)  # those of a hedge run side by side
        total += max(0.0, attempt.ended_s - begins)
        reached = max(reached, attempt.ended_s)
    total += sum(max((seen.elapsed_s for seen in step.observations), default=0.0) for step in result.steps)
    return min(result.elapsed_s, total)
