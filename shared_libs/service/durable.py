"""Durable runs over HTTP: submitted to the queue, done by workers, and answered from the store by the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared_libs.agents.best_answer import best_answer
from shared_libs.agents.pause import PausedRun
from shared_libs.agents.step import RunState
from shared_libs.atomic.errors import FactoryError
from shared_libs.atomic.events import (
    AgentEvent,
    Event,
    RunFinished,
    StreamRestarted,
    TextDelta,
    Thought,
    ToolFinished,
    ToolStarted,
)
from shared_libs.atomic.results import Action, AgentResult, Decision, Observation, Step
from shared_libs.durable import Job, JobStore, Submission
from shared_libs.durable.following import Following
from shared_libs.durable.forgetting import forget_session, open_in_session
from shared_libs.factory.durability import submission
from shared_libs.factory.durable_agent import DurableAgent
from shared_libs.observability.runs.rows import RunRow
from shared_libs.service.admission import Demand
from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call
from shared_libs.service.fair_queue import RANKS
from shared_libs.service.live import Asked, LiveRun
from shared_libs.service.problems import Problem

ANSWER_SHARE = 0.1
ANSWER_S = 1.0
"""
A durable run gets a share less of the time a client gives, and so many seconds less at the most: they are for the way
through the queue, and for the answer should no worker give one.
"""

LAST_S = 0.05
"""Seconds before the deadline at which the answer is made from what the store has told."""

CANCELLED_S = 2.5
"""Seconds in which the worker of a run ends it when it is told to."""


class Queue:
    """
    The queue of durable runs, as a service uses it. Nothing is opened before it is needed.

    Args:
        url: the store; workers use the same.

    """

    def __init__(self, url: str) -> None:
        self.store = JobStore(url)
        self.following = Following(self.store)
        self._there = self._ready = False
        self._cancelling: set[asyncio.Task[None]] = set()

    async def submit(self, made: Submission, definition_hash: str) -> None:
        """
        Put a run into the queue; it is committed when this returns.

        Raises:
            MisuseError: there is another run of this id.
            StoreUnavailable: the store does not answer.

        """
        if not self._ready:
            await self.store.aopen()
            self._ready = self._there = True
        await self.store.submit(made, definition_hash)

    async def job(self, run_id: str, team: str) -> Job | None:
        """Return a durable run; None where there is none, or it is another team's."""
        if not self._there:
            self._there = await self.store.is_there()
        return await self.store.get(run_id, team) if self._there else None

    async def state(self, run_id: str, team: str) -> dict[str, Any] | None:
        """Return what a durable run goes on from that waits; None where none does."""
        return await self.store.state(run_id, team) if await self.job(run_id, team) is not None else None

    async def cancel(self, job: Job) -> Job:
        """Cancel a run, and wait a little for what its worker says of it; return how it stands then."""
        if await self.store.cancel(job.run_id):
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(CANCELLED_S),
                    aclosing(self.following.follow(job.run_id, after=2**31 - 1)) as events,
                ):
                    async for _ in events:
                        pass
        return await self.store.get(job.run_id) or job

    async def decide(self, run_id: str, decisions: Mapping[str, Decision]) -> bool:
        """
        Enter decisions; a worker goes on with the run. False where all of them have been decided before.

        Raises:
            MisuseError: the run waits for none of them.

        """
        told = {call: msgspec.to_builtins(decision) for call, decision in decisions.items()}
        return bool(await self.store.decide(run_id, told))

    async def open_in_session(self, team: str, agent: str, session_id: str) -> list[str]:
        """Return the runs of a session that have not ended, some at the most."""
        self._there = self._there or await self.store.is_there()
        return await open_in_session(self.store.database, team, agent, session_id) if self._there else []

    async def forget_session(self, team: str, agent: str, session_id: str) -> int:
        """Delete the runs of a session that have ended; return how many."""
        return await forget_session(self.store.database, team, agent, session_id) if self._there else 0

    def cancel_later(self, run_id: str, submitting: asyncio.Task[Any]) -> None:
        """Cancel a run once it is certain whether it stands here, and wait for nothing."""

        async def cancel() -> None:
            await asyncio.wait([submitting])
            with suppress(FactoryError):  # it never came here, or the store is away: then it ends by its deadline
                await self.store.cancel(run_id)

        task = asyncio.get_running_loop().create_task(cancel())
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=CANCELLED_S)
        await self.store.aclose()


def wants_durable(entry: Entry, call: Call) -> bool:
    """
    Whether a run is to be durable: by its request (`?durable`), or by its agent's definition.

    Raises:
        Problem: the parameter is neither true nor false, or it is true and no agent is asked.

    """
    if "durable" not in call.query:
        return entry.kind == "agent" and isinstance(entry.agent, DurableAgent)
    wanted = call.is_said("durable")
    if wanted and entry.kind != "agent":
        raise Problem("invalid_request", f"{entry.name} is a chain: only runs of agents are durable", param="durable")
    return wanted


async def submission_of(
    entry: Entry, asked: Asked, demand: Demand, *, run_id: str, timeout_s: float | None, followed: bool
) -> tuple[Submission, str]:
    """
    Make what is submitted for a request, and the hash of its definition.

    Raises:
        ConfigError: the definition does not hold any more, or has a secret in plain text.

    """
    caller = demand.caller
    return await asyncio.to_thread(
        submission,
        entry.path,
        asked.question,
        run_id=run_id,
        session_id=asked.session_id,
        timeout_s=timeout_s,
        extras=msgspec.structs.replace(asked.extras, output_schema=asked.options.get("output_schema")),
        team=caller.team,
        asked_by=caller.key_id,
        key_limit=caller.concurrency,
        followed=followed,
        priority=None if demand.priority == "default" else _PRIORITIES[demand.priority],
    )


_PRIORITIES = {name: 10 * (RANKS["default"] - rank) for name, rank in RANKS.items()}


class DurableRun(LiveRun):
    """
    A durable run, followed for a client: what it answers is told by the store, whoever does the run.

    By its deadline it answers with what there is; the run goes on, and is found by its id.

    Args:
        queue: where it stands.
        begin: puts it there; None: it is there.
        after: the event behind which it is followed.
        patient: whether it is followed to its end, however long that takes.

    """

    kept_here = False

    def __init__(
        self,
        entry: Entry,
        demand: Demand,
        queue: Queue,
        run_id: str = "",
        *,
        begin: Begin | None = None,
        after: int = 0,
        patient: bool = False,
    ) -> None:
        # the worker records what happens
        super().__init__(entry, Asked(question=""), demand, record=lambda _: None, run_id=run_id)
        self._queue, self._begin, self._after, self._patient = queue, begin, after, patient

    def give_up(self) -> None:
        """End it wherever it is: its client has gone, and wants it no more."""
        super().give_up()
        self._queue.cancel_later(self.id, self.task)

    async def _run(self) -> AgentResult:
        try:
            if self._begin is not None:
                await self._begun(self._begin)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if self._patient else self.demand.deadline.at - LAST_S):
                    return await self._followed()
        except asyncio.CancelledError:
            if not self.leaving:
                raise
            self.task.uncancel()  # this server stops, and the run goes on: the answer is what there is
        return so_far(self.id, self.events)

    async def _begun(self, begin: Begin) -> None:
        """Put it there; this is not cut by a server that stops: its client would not know whether it stands."""
        beginning = asyncio.ensure_future(begin(self))
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError:
            if self.leaving:
                await beginning
            else:
                beginning.cancel()
                await asyncio.wait([beginning])
            raise

    async def _followed(self) -> AgentResult:
        """Hear what is told of it, until it ends or waits for a decision."""
        async with aclosing(self._queue.following.follow(self.id, after=self._after)) as events:
            async for told in events:
                event: Any = Event.from_dict(told)
                if isinstance(event, RunFinished) and event.result.status == "paused":
                    event = await self._with_state(event)
                self._hear(event)
                if isinstance(event, RunFinished) and event.result.stop_reason != "handed_over":
                    return event.result
        raise Problem("conflict", f"the run {self.id} is kept no longer")

    async def _with_state(self, event: RunFinished) -> RunFinished:
        """Return the end of a part of the run as who resumes it needs it: by it a client's calls are numbered."""
        state = await self._queue.store.state(self.id)
        return msgspec.structs.replace(event, result=msgspec.structs.replace(event.result, state=state))


Begin = Callable[[DurableRun], Awaitable[None]]


def durable_run(
    entry: Entry, asked: Asked, demand: Demand, queue: Queue, run_id: str = "", *, patient: bool = False
) -> DurableRun:
    """
    Make a durable run of what is asked: a new one, or one that waits and that this request decides.

    Args:
        entry: the agent.
        asked: what it is to do.
        demand: who asks, and until when.
        queue: where it is to stand.
        run_id: names it; one that is there already is followed.
        patient: whether it is followed to its end; it has the time that its definition gives.

    """

    async def submit(run: DurableRun) -> None:
        left_s = demand.deadline.remaining()
        timeout_s = None if patient else left_s - min(ANSWER_S, ANSWER_SHARE * left_s)
        followed = asked.stream and not patient
        made = await submission_of(entry, asked, demand, run_id=run.id, timeout_s=timeout_s, followed=followed)
        await queue.submit(*made)

    paused = asked.resumes
    if paused is None:
        return DurableRun(entry, demand, queue, run_id, begin=submit, patient=patient)

    async def decide(run: DurableRun) -> None:
        await queue.decide(run.id, paused.decisions)  # told before or not: what counts is how the run goes on

    state = PausedRun.read(paused.state)
    return DurableRun(entry, demand, queue, state.run_id, begin=decide, after=state.events, patient=patient)


def so_far(run_id: str, events: Sequence[AgentEvent]) -> AgentResult:
    """Make the result of a run that goes on: partial, with what has been told of it."""
    steps: dict[int, Step] = {}
    said, at_s = "", 0.0
    for event in events:
        at_s = max(at_s, event.at_s)
        match event:
            case TextDelta(text=text):
                said += text
            case StreamRestarted() | ToolStarted():
                said = ""
        if isinstance(event, Thought | ToolStarted | ToolFinished):
            steps[event.step] = _with(steps.get(event.step, Step("")), event)
    whole = tuple(
        msgspec.structs.replace(step, actions=tuple(a for a in step.actions if a.call_id in seen))
        for step in steps.values()
        for seen in [{row.call_id for row in step.observations}]
    )
    begun = "it goes on" if events else "no worker has begun it yet"
    return AgentResult(
        run_id=run_id,
        status="partial",
        stop_reason="deadline",
        answer=best_answer(RunState("", steps=list(whole)), said),
        steps=whole,
        elapsed_s=at_s,
        error=f"the time for this answer is up, and the run is durable: {begun}; GET /v1/runs/{run_id} tells its end",
    )


def _with(step: Step, event: Thought | ToolStarted | ToolFinished) -> Step:
    match event:
        case Thought(text=text):
            return msgspec.structs.replace(step, thought=text)
        case ToolStarted(tool=tool, input=given, call_id=call_id):
            others = tuple(action for action in step.actions if action.call_id != call_id)
            return msgspec.structs.replace(step, actions=(*others, Action(tool, given, call_id)))
        case ToolFinished(call_id=call_id, content=content, is_error=is_error, elapsed_s=elapsed_s):
            seen = Observation(call_id, content, is_error, elapsed_s)
            return msgspec.structs.replace(step, observations=(*step.observations, seen))
    raise AssertionError


def row_of(job: Job, row: RunRow | None) -> RunRow:
    """Show a durable run as the store of runs shows the others; how it stands, the queue knows best."""
    if row is None:
        began = datetime.fromtimestamp(job.first_at or job.submitted_at, UTC).isoformat(timespec="milliseconds")
        question = job.question if isinstance(job.question, str) else msgspec.json.encode(job.question).decode()
        row = RunRow(
            run_id=job.run_id,
            agent=job.agent,
            team=job.team,
            source="worker",
            session_id=job.session_id,
            question=question[:8_000],
            started_at=began,
        )
    changes: dict[str, Any] = {"status": "paused" if job.status == "waiting" else job.status}
    if job.result is not None:
        result: AgentResult = msgspec.convert(job.result, AgentResult)
        same = ("stop_reason", "answer", "error", "elapsed_s", "usage", "cost_usd")
        changes |= {name: getattr(result, name) for name in same} | {"result": job.result}
    elif job.pending:
        changes["result"] = (row.result or {}) | {"run_id": job.run_id, "status": "paused", "pending": job.pending}
    elif job.why is not None:
        changes["why"] = job.why
    return msgspec.structs.replace(row, **changes)
