"""A worker: claims runs from the queue and does them, as many at once as it may, until it is told to drain."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec

from shared_libs.atomic.errors import ConfigError, FactoryError, RunInterrupted, in_words
from shared_libs.atomic.events import AgentEvent, ModelAsked, RunFinished, WithRequests
from shared_libs.atomic.propagation import within_trace
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.whole import column_value
from shared_libs.durable.beat import Beat
from shared_libs.durable.database import StoreUnavailable, persistently
from shared_libs.durable.ends import failed, not_waited_for
from shared_libs.durable.folding import folded, folded_result, kept_name
from shared_libs.durable.following import Outlet
from shared_libs.durable.holding import NOW, Holder
from shared_libs.durable.jobs import Claim, Held, Unreadable, WorkerPolicy
from shared_libs.durable.journal import FactJournal
from shared_libs.durable.keeping import Events
from shared_libs.durable.making import Agent, Agents, Build
from shared_libs.durable.schedules import submit_due
from shared_libs.durable.store import WORKER_CHANNEL, JobStore, to_json

_log = logging.getLogger("shared_libs.durable")

PRUNE_S = 3600.0
"""Seconds between two looks for what is to be forgotten."""

POLL_S = 0.5
"""Seconds between two looks into the queue while nobody calls."""

RESERVE = 2
"""
How many times its concurrency a worker takes on beyond it, of runs that others have begun and lost.

So a takeover waits for no slot as long as a third of the workers live, and no worker is buried under a fleet's runs.
"""

REFUSED_S = 30.0
"""Seconds until a definition that could not be built here is tried again."""

GIVE_BACK_S = 5.0
"""Seconds after which a run that the database believes to be ours and is not is a stray, and not just being claimed."""

HAND_OVER_S = 5.0
"""Seconds that handing over what was cut off may take; without a database it takes for ever."""


Extend = Callable[[Any, Claim], Agent]
"""Makes of an agent what one run wants of it beside its definition (`Claim.extras`)."""


def _nothing_more(agent: Any, claim: Claim) -> Agent:
    if claim.extras:
        raise ConfigError(["this worker can do nothing for a run beside its definition"])
    made: Agent = agent
    return made


class Worker:
    """
    Does durable runs.

    Args:
        url: the store.
        build: makes the agent of a definition, for all its runs.
        extend: makes of that what one run wants beside it; without, such runs are left to others.
        policy: how much it does, and when it gives up.
        record: gets every event of every run, sub-agents' too, and whose it is (the team).
        name: what people call it; by default host and process.
        only: the run to do, and none but it.

    """

    def __init__(
        self,
        url: str,
        build: Build,
        *,
        extend: Extend | None = None,
        policy: WorkerPolicy | None = None,
        record: Callable[[AgentEvent, str], None] | None = None,
        name: str = "",
        only: str | None = None,
    ) -> None:
        self.store = JobStore(url)
        self.executor = uuid.uuid4().hex  # the name of a pod comes back; this does not
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.policy = policy or WorkerPolicy()
        self._extend = extend or _nothing_more
        self._record, self._only = record, only
        self._holder = Holder(self.store.database, self.executor)
        self.counts = self._holder.counts
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._deaths: dict[tuple[str, int], int] = {}
        self._journals: dict[str, FactJournal] = {}
        self._agents = Agents(build, [WithRequests(self._hear)])
        self._beat = Beat(url, self.executor, self.name, self.policy, self._on_beat)
        self._refused: dict[str, float] = {}
        self._awake = asyncio.Event()
        self._draining = False
        self._cut_off = asyncio.Event()
        self.started = asyncio.Event()

    async def run(self) -> None:
        """
        Claim and do runs until `drain` is called and all are handed over.

        Raises:
            StoreUnavailable: the store cannot be reached at the start.

        """
        await self.store.aopen()
        self._loop = asyncio.get_running_loop()
        # where the database cannot call nobody hears pieces, and none are kept to be told again
        self._outlet = Outlet(self.store) if self.store.database.dialect == "postgresql" else None
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.store.aclose)
            stack.push_async_callback(self._agents.aclose)
            await self._beat.start()
            stack.push_async_callback(self._beat.stop)
            self.started.set()
            for beside in (self._attend(), self._keep_house()):
                stack.callback(self._loop.create_task(beside).cancel)
            stack.push_async_callback(self._hand_over_all)
            while not self._draining:
                self._awake.clear()
                await self._claim()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._awake.wait()
                if self._only is not None and await self._is_done(self._only):
                    break
            cut_off = self._loop.create_task(self._cut_off.wait())
            stack.callback(cut_off.cancel)
            while self._tasks and not cut_off.done():
                await asyncio.wait([cut_off, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)

    def drain(self) -> None:
        """Claim nothing more, begin no new effect, and hand over what is under way at its next boundary."""
        self._draining = True
        self._beat.drain()
        self._agents.stop()
        for journal in self._journals.values():
            journal.draining = True
        self._awake.set()

    def cut_off(self) -> None:
        """Hand over at once what has not been handed over yet; what is in flight is done once more elsewhere."""
        self._agents.stop()
        for journal in self._journals.values():
            journal.stop()
        self._cut_off.set()

    async def _hand_over_all(self) -> None:
        """Leave nothing behind, also where this is cancelled; what the database hears nothing of, others take over."""
        if not self._cut_off.is_set():
            self.cut_off()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks.values(), timeout=HAND_OVER_S)
            if left:
                _log.warning("worker %s leaves %d runs behind, which others take over", self.name, len(left))
                for journal in self._journals.values():
                    journal.leave()
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=1.0)

    async def _is_done(self, run_id: str) -> bool:
        job = await self.store.get(run_id)
        # what it refuses is that run: who waits for it is told why, and does not wait for others
        return not self._tasks and (job is None or job.ended or job.status == "waiting" or bool(self._refused))

    @property
    def ready(self) -> bool:
        """Whether it claims runs: it has begun, its last beat got through, and it does not drain."""
        return self.started.is_set() and self._beat.fresh and not self._draining

    @property
    def draining(self) -> bool:
        """Whether it was told to end."""
        return self._draining

    @property
    def beat_age_s(self) -> float:
        """Seconds since its last beat got through."""
        return self._beat.age_s

    @property
    def held(self) -> frozenset[str]:
        """The ids of the runs it does."""
        return frozenset(self._journals)

    @property
    def busy(self) -> int:
        """How many runs it does."""
        return len(self._tasks)

    # the queue

    async def _claim(self) -> None:
        most = self.policy.concurrency - len(self._tasks)
        if full := most <= 0:
            most += RESERVE * self.policy.concurrency
        if most <= 0 or not self._beat.fresh:
            return
        unproven = self._unproven()
        if max(unproven, default=0) >= self.policy.doubtful:
            return
        now = self._loop.time()
        self._refused = {name: until for name, until in self._refused.items() if until > now}
        try:
            doubtful = self.policy.doubtful, not unproven
            # what is done here already is lost, or the database is an older one: it is taken when that has ended
            refused = [*self._refused, *(run_id for run_id, _ in self._tasks)]
            claims = await self._holder.claim(most, refused, self._only, begun=full, doubtful=doubtful)
        except StoreUnavailable as error:
            _log.warning("worker %s cannot claim: %s", self.name, error)
            return
        except Unreadable as error:  # the others are taken without it
            self._refused[error.run_id] = now + REFUSED_S
            with suppress(StoreUnavailable):
                await self._holder.leave_to_others(error, self._cannot(error.run_id, str(error)))
            self._awake.set()
            return
        except Exception:  # noqa: BLE001 - as the beat: it may be another's doing, and pass; what it holds goes on
            _log.exception("worker %s cannot claim", self.name)
            return
        for claim in claims:
            self.counts.new += claim.epoch == 1
            self.counts.again += claim.epoch > 1
            self._deaths[claim.run_id, claim.epoch] = claim.deaths
            self._tasks[claim.run_id, claim.epoch] = self._loop.create_task(self._execute(claim))
        if len(claims) == most and claims[-1].epoch > 1:
            self._awake.set()  # there may be more that was lost than there were slots

    def _unproven(self) -> list[int]:
        """Return how often those of its runs have died that have kept no fact here yet: one may do so again."""
        proven = {run_id for run_id, journal in self._journals.items() if journal.proven}
        return [deaths for (run_id, _), deaths in self._deaths.items() if run_id not in proven]

    async def _attend(self) -> None:
        """Submit what is due, and be called when there is something to do; where nobody calls there are the polls."""
        works: Callable[[], bool] = lambda: False  # noqa: E731 - until there is a line
        told: dict[str, str] = {}
        while True:
            if not works():
                works = await self._try("listen", self.store.listen(WORKER_CHANNEL, self._called)) or works
            await self._try("attend to schedules", submit_due(self.store, told))
            await asyncio.sleep(1.0)

    async def _keep_house(self) -> None:
        """Forget what ended long ago, some at a time."""
        while self.policy.retention_s:
            forgotten = await self._try("forget runs", self.store.prune(self.policy.retention_s))
            await asyncio.sleep(0.1 if forgotten else PRUNE_S)

    async def _try(self, what: str, doing: Awaitable[Any]) -> Any:
        """Do what is done again later: that it failed, however, may be another's doing, and pass."""
        try:
            return await doing
        except StoreUnavailable:
            pass
        except Exception:  # noqa: BLE001 - as a beat and a claim
            _log.exception("worker %s cannot %s", self.name, what)

    def _called(self, text: str) -> None:
        what, _, run_id = text.partition(":")
        if what == "queued":
            self._awake.set()
        journal = self._journals.get(run_id)
        if journal is not None and what == "cancel":
            self._cancel(journal)
        elif journal is not None and what in ("follow", "tell"):
            journal.followed = True
            if what == "tell":
                journal.tell_again()

    def _on_beat(self, held: Sequence[Held], asked_at: float) -> None:
        """Compare what the database believes with what is; in the beat's thread."""
        believed = {(one.run_id, one.epoch): one for one in held}
        for journal in list(self._journals.values()):
            one = believed.pop((journal.claim.run_id, journal.claim.epoch), None)
            if one is not None:
                journal.followed = one.followed
                if one.cancelled and not journal.cancelled:
                    self._loop.call_soon_threadsafe(self._cancel, journal)
            elif journal.begun_at < asked_at and not journal.lost:
                journal.lost = True  # at once: from here on it begins no effect
                self._loop.call_soon_threadsafe(journal.stop)
        for stray in believed.values():
            if stray.held_s > GIVE_BACK_S and (stray.run_id, stray.epoch) not in self._tasks:
                asyncio.run_coroutine_threadsafe(self._give_back(stray), self._loop)

    async def _give_back(self, stray: Held) -> None:
        with suppress(StoreUnavailable):  # the next beat brings it back again
            if await self._holder.give_back(stray.run_id, stray.epoch):  # and else it has just ended here
                _log.warning("worker %s gives back run %s, which it does not run", self.name, stray.run_id)

    @staticmethod
    def _cancel(journal: FactJournal) -> None:
        if not journal.cancelled:
            journal.cancelled = True
            journal.stop()

    # one run

    async def _execute(self, claim: Claim) -> None:
        try:
            await self._do(claim)
        except Exception:  # noqa: BLE001 - one run that cannot be done ends no worker
            _log.exception("worker %s could not do run %s", self.name, claim.run_id)
        finally:
            del self._tasks[claim.run_id, claim.epoch], self._deaths[claim.run_id, claim.epoch]
            self._awake.set()

    async def _do(self, claim: Claim) -> None:
        if claim.deaths >= self.policy.deaths:
            last = list(claim.facts)[-1:] or ["its beginning"]
            why = f"dead letter: {claim.deaths} executions died one after the other behind {last[0]}"
            await self._end(claim, None, failed(claim.run_id, why))
            return
        if claim.lost is not None:
            await self._end(claim, None, failed(claim.run_id, claim.lost))
            return
        refused = claim.definition_hash  # with it all runs of the definition
        async with AsyncExitStack() as lent:
            try:
                agent = await lent.enter_async_context(self._agents.of(claim))
                refused = claim.run_id
                agent = self._extend(agent, claim)
            except Exception as error:  # noqa: BLE001 - whatever keeps it from being built here
                why = in_words(error) if not isinstance(error, FactoryError) else str(error)
                await self._refuse(claim, refused, why)
                return
            part: Claim | None = claim
            while part is not None:
                part = await self._part(part, agent)

    async def _part(self, claim: Claim, agent: Agent) -> Claim | None:
        """Do a run until it ends, pauses or is handed over; return the next part of it where a segment is full."""
        journal = FactJournal(claim, self._holder, self._beat, outlet=self._outlet)
        self._journals[claim.run_id] = journal
        journal.draining = self._draining
        try:
            try:
                with within_trace(claim.trace), use_scope(Scope(journal=journal, may_begin=journal.may_begin)):
                    result = await _answer(agent, claim)
            except (RunInterrupted, asyncio.CancelledError):
                if journal.result is None or not journal.cancelled or journal.lost:
                    await self._hand_over(claim, journal)
                    return None
                result = journal.result
            except Exception as error:  # noqa: BLE001 - misuse that only the run shows, such as a session without a memory
                result = failed(claim.run_id, str(error) or in_words(error))
            if result.status == "paused" and journal.cancelled:
                result = not_waited_for(result)
            if result.status != "paused":
                await self._end(claim, journal, result)
                return None
            return await self._pause(claim, journal, result)
        finally:
            del self._journals[claim.run_id]

    async def _end(self, claim: Claim, journal: FactJournal | None, result: AgentResult) -> None:
        contents = {} if journal is None else journal.contents
        told = journal is not None and journal.result is result
        events = () if told else self._told_end(claim, journal, result)
        changes = {
            "status": result.status,
            "result": to_json(folded_result(result, contents)),
            "ended_at": NOW,
            "executor": None,
            "pending": None,
            "state": None,
            "why": result.error,
        }
        await self._move(claim, journal, changes, events)

    def _told_end(self, claim: Claim, journal: FactJournal | None, result: AgentResult) -> Events:
        """Tell an end that the run itself did not tell: every run has one, for whoever follows it."""
        number = 1 + (claim.last_event if journal is None else journal.heard)
        event = RunFinished(run_id=claim.run_id, seq=number, at_s=result.elapsed_s, result=result)
        if journal is not None:
            self._hear(event)
            return ()
        self._recorded(event, claim.team)
        return [(number, to_json(folded(event, {}, {})))]

    async def _pause(self, claim: Claim, journal: FactJournal, result: AgentResult) -> Claim | None:
        """Write the state down; it waits for decisions, or goes on with an empty journal."""
        segment = claim.segment + 1
        kept = {"state": to_json(result.state), "segment": segment}
        if result.stop_reason == "approval":
            pending = to_json(result.pending)
            await self._move(claim, journal, kept | {"status": "waiting", "executor": None, "pending": pending})
            return None
        if not await self._move(claim, journal, kept | {"began_at": NOW}):
            return None
        return msgspec.structs.replace(
            claim, state=result.state, segment=segment, facts={}, asked=[], events=[], elapsed_s=0.0, decisions={}
        )

    async def _hand_over(self, claim: Claim, journal: FactJournal) -> None:
        if not journal.lost:
            self.counts.handed_over += await self._move(claim, journal, _QUEUED)

    async def _refuse(self, claim: Claim, refused: str, why: str) -> None:
        """Leave a run, or all of its definition, to workers that have what it needs."""
        self._refused[refused] = self._loop.time() + REFUSED_S
        changes = _QUEUED | {"why": self._cannot(claim.run_id, why)}
        if not claim.last_event and claim.state is None:  # it has not begun, and its time does not count yet
            changes |= {"first_at": None, "began_at": None}
        await self._move(claim, None, changes)

    def _cannot(self, run_id: str, why: str) -> str:
        why = column_value(f"worker {self.name} cannot do it: {why}")
        _log.warning("run %s: %s", run_id, why)
        return why

    async def _move(
        self, claim: Claim, journal: FactJournal | None, changes: Mapping[str, Any], events: Events = ()
    ) -> bool:
        if journal is not None:
            events = await journal.settle(ends=changes.get("status") != "queued")
        moved = await persistently(
            lambda: self._holder.move(claim, changes, events), while_=lambda: journal is None or not journal.lost
        )
        return bool(moved)

    # agents and their events

    def _hear(self, event: AgentEvent) -> None:
        journal = self._journals.get(event.run_id)
        known = journal is None or isinstance(event, ModelAsked) or journal.hear(event)  # a request is no fact
        if known:
            of = journal or self._journals.get(event.run_id.partition("/")[0])
            self._recorded(event, "" if of is None else of.claim.team)

    def _recorded(self, event: AgentEvent, team: str) -> None:
        if self._record is None:
            return
        try:
            self._record(event, team)
        except Exception:  # noqa: BLE001 - foreign code: it must not end what hears beside it, which is the run's end
            _log.exception("worker %s could not record an event of run %s", self.name, event.run_id)


_QUEUED: dict[str, Any] = {"status": "queued", "executor": None, "facts_then": -1}
"""Back into the queue, and no death."""


async def _answer(agent: Agent, claim: Claim) -> AgentResult:
    if claim.state is not None:
        turn = claim.state["state"].get("open_turn") or {"calls": [], "results": {}}
        open_calls = {call["id"] for call in turn["calls"]} - set(turn["results"])
        told = {call_id: claim.decisions.get(kept_name(call_id)) for call_id in open_calls}
        decisions = {call_id: decision for call_id, decision in told.items() if decision is not None}
        return await agent.async_resume(claim.state, decisions, timeout=None)
    given: Any = {"timeout": claim.timeout_s, "session_id": claim.session_id, "run_id": claim.run_id}
    return await agent.async_run(claim.question, **given)
