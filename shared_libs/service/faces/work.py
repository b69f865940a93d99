"""
What is under way for one request: a chain that is asked, or a run of an agent. The same two methods for both.

`whole` gives the outcome; `pieces` gives it as it comes. `close` ends what nobody waits for any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from shared_libs.agents.variant import Extras, extended
from shared_libs.atomic.types import LLMResponse, estimate_tokens
from shared_libs.durable import Job
from shared_libs.service.admission import FULL, Demand, stopping
from shared_libs.service.catalogue import Entry
from shared_libs.service.durable import DurableRun, durable_run, wants_durable
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.chains import Tell, ask_chain, outcome_of
from shared_libs.service.faces.runs import RunReader, conversation, extras_of, paused_run_of, resumed, shadowed
from shared_libs.service.faces.wanted import Outcome, Piece, Wanted, pieces_of
from shared_libs.service.live import Asked, LiveRun, Resumed, demand_of_run, outside_s
from shared_libs.service.problems import Problem
from shared_libs.service.routers.answers import session_of

MOST_BEHIND = 1_000_000
"""Characters that wait for a client that reads too slowly, before it is cut off."""

OUTPUT_TOKENS = 512
"""What an answer is taken to use where the client sets no bound."""


def begin_work(
    call: Call, entry: Entry, wanted: Wanted, going_on: Resumed | None = None, run_id: str = ""
) -> ChainWork | RunWork:
    """
    Begin what a request asks for; a run begins at once, a chain is asked when its answer is awaited.

    Args:
        call: the request.
        entry: who is asked.
        wanted: what is asked.
        going_on: the run that waits for it (`waiting_run`).
        run_id: what a durable run is called, where it has a name already.

    Raises:
        Problem: the request is not valid.

    """
    if entry.kind == "agent":
        return run_of(call, entry, wanted, going_on, run_id)
    return ChainWork(call, entry, wanted)


class ChainWork:
    """A chain of models that is asked."""

    durable = False

    def __init__(self, call: Call, entry: Entry, wanted: Wanted) -> None:
        self.ignored = wanted.unheard(entry.llm.wire)
        self._call = call
        self._entry = entry
        self._wanted = wanted
        self._demand = _demand(call, entry, wanted)
        self._asking: asyncio.Task[LLMResponse] | None = None

    async def whole(self) -> Outcome:
        """
        Ask, and return the answer.

        Raises:
            Problem: it was not admitted.
            LLMError: nobody answered.

        """
        if not self._call.stays:
            return outcome_of(await self._ask(None))
        self._asking = asyncio.get_running_loop().create_task(self._ask(None))
        return outcome_of(await asyncio.shield(self._asking))

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """Ask, and yield the answer's pieces, as many at once as there are; raises as `whole` does."""
        if not self._wanted.stream:
            yield pieces_of(await self.whole())
            return
        queue = _Queue(self._call.cut)
        self._asking = asking = asyncio.get_running_loop().create_task(self._ask(queue.put))
        asking.add_done_callback(lambda _: queue.wake())
        try:
            while not asking.done() or queue.ready:
                if queue.ready:
                    yield queue.take()
                else:
                    await queue.more()
        finally:
            queue.close()  # work that goes on without its client keeps nothing for it
        yield [outcome_of(asking.result())]

    async def close(self, *, stays: bool) -> None:
        """End it, unless it is to go on."""
        if self._asking is not None and not self._asking.done() and not stays:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self, tell: Tell | None) -> LLMResponse:
        exchange, loop = self._call.exchange, asyncio.get_running_loop()
        async with self._entry.used(), self._call.service.admission.enter(self._demand) as grant:
            began_at = loop.time()
            try:
                with self._call.service.calling(self._demand.deadline):
                    response = await ask_chain(self._entry.llm, self._wanted, tell)
            finally:
                exchange.waited_s += loop.time() - began_at + grant.queued_s
            grant.settle(response.usage, response.cost_usd)
            if any(attempt.status_code in FULL for attempt in response.attempts):  # another of its models stood in
                grant.upstream_was_full()
        return response


def run_of(call: Call, entry: Entry, wanted: Wanted, going_on: Resumed | None, run_id: str) -> RunWork:
    """Begin a run of an agent, or go on with one that has waited for this client; here, or durable."""
    extras = extras_of(wanted)
    agent = extended(entry.agent, extras, stream=wanted.stream and going_on is not None)
    if wanted.session_id is not None and agent.memory is None:
        wanted.session_id, wanted.ignored = None, [*wanted.ignored, "session_id"]
    asked = Asked(
        question="" if going_on else conversation(wanted),
        session_id=session_of(call.caller, wanted.session_id),
        stream=wanted.stream,
        agent=agent,
        extras=extras,
        options={} if wanted.schema is None else {"output_schema": wanted.schema},
        resumes=going_on,
    )
    demand = _demand(call, entry, wanted)
    live: LiveRun
    if going_on.queued if going_on else wants_durable(entry, call):
        live = durable_run(entry, asked, demand, call.service.queue, run_id, patient=wanted.background)
    else:
        live = _here(call, entry, asked, demand)
    call.exchange.tell("x-factory-run-id", live.id)
    ignored = [*wanted.unheard(entry.llm.wire), *shadowed(entry.agent, wanted)]
    return RunWork(call, live, RunReader(agent, wanted.tools), ignored)


def _here(call: Call, entry: Entry, asked: Asked, demand: Demand) -> LiveRun:
    """
    Make a run of this process; one that goes on with these results already is joined.

    Raises:
        Problem: it goes on with other ones.

    """
    run_id = asked.resumes.state["run_id"] if asked.resumes else ""
    before = call.service.runs.get(run_id, call.caller.team) if run_id else None
    if before is None or before.task.done():
        return LiveRun(entry, asked, demand, record=call.service.record(call.caller), run_id=run_id)
    if before.resumes != asked.resumes:
        raise Problem("conflict", "the run goes on already, with other results of these calls")
    return before


def run_there(call: Call, entry: Entry, job: Job) -> RunWork:
    """Follow a durable run from its beginning that another process has put into the queue."""
    extras = msgspec.convert(job.extras, Extras)
    demand = demand_of_run(entry, call, call.deadline(entry.longest_s, streams=True))
    live = DurableRun(entry, demand, call.service.queue, job.run_id, patient=True)
    return RunWork(call, live, RunReader(extended(entry.agent, extras), extras.tools))


class RunWork:
    """
    A run of an agent, which begins.

    Args:
        call: the request.
        live: the run.
        reader: reads its events.
        ignored: what of the request means nothing here.

    """

    def __init__(self, call: Call, live: LiveRun, reader: RunReader, ignored: Sequence[str] = ()) -> None:
        self.ignored = ignored
        self.live = live
        self._call, self._reader = call, reader
        if not live.begun:
            call.service.runs.begin(live)

    @property
    def durable(self) -> bool:
        """Whether the run goes on whatever becomes of this process."""
        return isinstance(self.live, DurableRun)

    async def whole(self) -> Outcome:
        """
        Wait for the run's end, and return its answer.

        Raises:
            Problem: it was not admitted, or failed.

        """
        result = await self.live.result()
        self._call.exchange.waited_s += self.live.queued_s + outside_s(result)
        with self._told_as_it_is():
            return self._reader.outcome(result)

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """Yield the answer's pieces, as many at once as there are, none when it has begun; raises as `whole` does."""
        ended = False
        async for events in self.live.follow():
            with self._told_as_it_is():
                batch = [piece for event in events for piece in self._reader.take(event)]
            ended = ended or any(isinstance(piece, Outcome) for piece in batch)
            yield batch
        if not ended:  # it was not admitted, and says why; or it is durable, and goes on behind its deadline
            yield pieces_of(self._reader.outcome(await self.live.result()))

    @contextmanager
    def _told_as_it_is(self) -> Iterator[None]:
        """Say of a failed run what its result does not tell: that the server stops, that no model may be asked now."""
        try:
            yield
        except Problem as problem:
            if self.live.leaving:
                raise stopping() from None
            if problem.code == "run_failed" and (wait_s := self.live.entry.resting_s) is not None:
                told = Problem("upstream_unavailable", problem.detail, retry_after_s=wait_s, facts=problem.facts)
                raise told from None
            raise

    async def close(self, *, stays: bool) -> None:
        """End it, unless it is to go on; keep it, where it waits for its client."""
        live, service = self.live, self._call.service
        if not live.task.done():
            if stays:
                service.runs.leave(live)
            elif not live.followers:  # nobody has joined it
                live.give_up()
        elif live.kept_here and not live.task.cancelled() and live.task.exception() is None:
            result = live.task.result()
            if result.state is not None:
                service.paused.keep(live.caller.team, result.run_id, result.state)


def _demand(call: Call, entry: Entry, wanted: Wanted) -> Demand:
    """Say what a request is going to use."""
    most = wanted.fields.get("max_completion_tokens") or wanted.fields.get("max_tokens") or OUTPUT_TOKENS
    return Demand(
        caller=call.caller,
        target=entry.name,
        deadline=call.deadline(entry.longest_s, streams=wanted.stream or wanted.background),
        tokens=estimate_tokens(wanted.messages) + int(most),
        need_s=0.0 if entry.kind == "agent" else None,  # an agent can always answer with what it has
        priority=call.priority,
        price=entry.price,
        tell_rates=call.tell_rates,
    )


async def waiting_run(call: Call, entry: Entry, wanted: Wanted) -> Resumed | None:
    """
    Find the run that waits for the results at the end of this conversation, here or in the queue.

    Without it the conversation is the history of a run of its own, and what the other one's tools said is lost.
    """
    run_id = paused_run_of(wanted.messages) if entry.kind == "agent" else None
    if run_id is None:
        return None
    team = call.caller.team
    here = call.service.paused.find(team, run_id)
    state = here or await call.service.queue.state(run_id, team)
    found = None if state is None else resumed(state, wanted.messages, queued=here is None)
    call.exchange.tell("x-factory-resumed", "no" if found is None else run_id)
    return found


class _Queue:
    """
    Pieces on their way from the model to the client: whoever comes for them gets all there are.

    A client that is too far behind to catch up is cut off, and so is what would be kept for it.
    """

    __slots__ = ("_behind", "_cut", "_open", "_waiter", "ready")

    def __init__(self, cut: Callable[[], object]) -> None:
        self.ready: list[Piece] = []
        self._behind = 0
        self._open = True
        self._cut = cut
        self._waiter: asyncio.Future[None] | None = None

    def put(self, piece: Piece) -> None:
        if not self._open:
            return
        if self._behind > MOST_BEHIND:  # without this piece, which alone may be longer
            self.close()
            self._cut()
        else:
            self.ready.append(piece)
            self._behind += len(getattr(piece, "text", ""))
        self.wake()

    def take(self) -> list[Piece]:
        ready, self.ready, self._behind = self.ready, [], 0
        return ready

    def close(self) -> None:
        self._open = False
        self.ready.clear()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
