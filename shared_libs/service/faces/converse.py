"""
One request of any wire, from what it wants to the last byte of its answer.

The wires differ in how they read and write; who is asked, for how long, what becomes of it when the client goes, and
that no stream merely ends, is the same for all of them, and stands here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

from shared_libs.agents.react_agent import ReActAgent
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import use_deadline
from shared_libs.atomic.types import LLMResponse, estimate_tokens
from shared_libs.service.admission import Demand
from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.chains import ask_chain, outcome_of
from shared_libs.service.faces.hold import Hold
from shared_libs.service.faces.runs import (
    RunReader,
    conversation,
    paused_run_of,
    prepared,
    resumed,
    shadowed,
)
from shared_libs.service.faces.wanted import Outcome, Piece, Said, Wanted
from shared_libs.service.live import Asked, LiveRun, Resumed, outside_s
from shared_libs.service.problems import Problem, problem_of

OUTPUT_TOKENS = 512
"""What an answer is taken to use where the client sets no bound."""

_MAX_IGNORED = 20
_NAME = re.compile(r"[^\w.:\[\]-]", re.ASCII)


class Answer(Protocol):
    """How a wire writes an answer."""

    def whole(self, outcome: Outcome) -> Any:
        """The answer in one piece, JSON-ready."""

    def begin(self) -> bytes:
        """What a stream begins with."""

    def piece(self, piece: Piece) -> bytes:
        """What a piece is on this wire; an `Outcome` is the end of the stream."""

    def failed(self, problem: Problem) -> bytes:
        """The end of a stream that failed."""


async def converse(call: Call, entry: Entry, wanted: Wanted, answer: Answer) -> None:
    """
    Ask what the request asks, and answer it.

    Raises:
        Problem: it was refused, or failed before anything was sent.
        LLMError: nobody answered, before anything was sent.

    """
    await (_agent if entry.kind == "agent" else _chain)(call, entry, wanted, answer)


def demand_of(call: Call, entry: Entry, wanted: Wanted) -> Demand:
    """Say what a request is going to use."""
    most = wanted.fields.get("max_completion_tokens") or wanted.fields.get("max_tokens") or OUTPUT_TOKENS
    return Demand(
        caller=call.caller,
        target=entry.name,
        deadline=call.deadline(entry.longest_s, streams=wanted.stream),
        tokens=estimate_tokens(wanted.messages) + int(most),
        need_s=0.0 if entry.kind == "agent" else None,  # an agent can always answer with what it has
    )


def tell_ignored(call: Call, names: Iterable[str]) -> None:
    """Name to the client what of its request means nothing here."""
    told = [_NAME.sub("?", name)[:60] for name in names][:_MAX_IGNORED]
    if told:
        call.exchange.tell("x-factory-ignored", ", ".join(told))


async def _chain(call: Call, entry: Entry, wanted: Wanted, answer: Answer) -> None:
    tell_ignored(call, wanted.ignored)
    demand = demand_of(call, entry, wanted)
    call.stays_when_gone("cancel")
    pieces = _Pieces() if wanted.stream else None

    async def ask() -> LLMResponse:
        async with entry.used(), call.service.admission.enter(demand) as grant:
            began_at = _now()
            try:
                with use_deadline(demand.deadline):
                    response = await ask_chain(entry.llm, wanted, None if pieces is None else pieces.put)
            finally:
                call.exchange.waited_s += _now() - began_at + grant.queued_s
            grant.settle(response.usage, response.cost_usd)
        return response

    if pieces is None:
        await call.reply(answer.whole(outcome_of(await ask())))
        return
    asking = asyncio.get_running_loop().create_task(ask())
    try:
        await _write(call, _of_chain(pieces, asking), answer)
    finally:
        if not asking.done():
            asking.cancel()
            await asyncio.wait([asking])


async def _of_chain(pieces: _Pieces, asking: asyncio.Task[LLMResponse]) -> AsyncIterator[list[Piece]]:
    asking.add_done_callback(lambda _: pieces.wake())
    while not asking.done() or pieces.ready:
        if batch := pieces.ready:
            pieces.ready = []
            yield batch
        else:
            await pieces.more()
    yield [outcome_of(asking.result())]


class _Pieces:
    """Pieces on their way from the model to the client: whoever comes for them gets all there are."""

    __slots__ = ("_waiter", "ready")

    def __init__(self) -> None:
        self.ready: list[Piece] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, piece: Piece) -> None:
        self.ready.append(piece)
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


async def _agent(call: Call, entry: Entry, wanted: Wanted, answer: Answer) -> None:
    going_on = _going_on(call, wanted)
    agent = prepared(entry.agent, wanted, stream=wanted.stream and going_on is not None)
    if wanted.session_id is not None and agent.memory is None:
        wanted.session_id, wanted.ignored = None, [*wanted.ignored, "session_id"]
    tell_ignored(call, [*wanted.ignored, *shadowed(entry.agent, wanted)])
    live = begin_run(call, entry, agent, wanted, going_on)
    stays = call.stays_when_gone("cancel")
    reader = RunReader(agent, wanted)
    try:
        if wanted.stream:
            await _write(call, _of_run(live, reader), answer)
        else:
            result = await live.result()
            call.exchange.waited_s += live.queued_s + outside_s(result)
            outcome = reader.outcome(result)
            await call.reply(answer.whole(outcome))
    finally:
        if live.task.done():
            keep_paused(call, live.task)
        elif stays:
            call.service.runs.leave(live)
        else:
            live.task.cancel()


def begin_run(call: Call, entry: Entry, agent: ReActAgent, wanted: Wanted, going_on: Resumed | None) -> LiveRun:
    """Begin a run, or go on with one that has waited for this client."""
    if going_on is None:
        question, run_id = conversation(wanted), ""
        session = wanted.session_id and f"{call.caller.team}/{wanted.session_id}".lstrip("/")
        asked = Asked(question=question, session_id=session, stream=wanted.stream, agent=agent)
    else:
        run_id = going_on.state["run_id"]
        asked = Asked(question="", stream=wanted.stream, agent=agent, resumes=going_on)
    live = LiveRun(entry, asked, demand_of(call, entry, wanted), record=call.service.record(call.caller), run_id=run_id)
    call.exchange.tell("x-factory-run-id", live.id)
    call.service.runs.begin(live)
    return live


def _going_on(call: Call, wanted: Wanted) -> Resumed | None:
    """
    Find the run that waits for the results at the end of this conversation.

    Without it the conversation is the history of a run of its own, and what the other one's tools said is lost.
    """
    run_id = paused_run_of(wanted.messages)
    if run_id is None:
        return None
    state = call.service.paused.find(call.caller.team, run_id)
    found = None if state is None else resumed(state, wanted.messages)
    call.exchange.tell("x-factory-resumed", "no" if found is None else run_id)
    return found


def keep_paused(call: Call, task: asyncio.Task[AgentResult]) -> None:
    """Keep a run that waits for its client."""
    if not task.cancelled() and task.exception() is None and (state := task.result().state) is not None:
        call.service.paused.keep(call.caller.team, task.result().run_id, state)


async def _of_run(live: LiveRun, reader: RunReader) -> AsyncIterator[list[Piece]]:
    ended = False
    async for events in live.follow():
        batch = [piece for event in events for piece in reader.take(event)]
        ended = ended or any(isinstance(piece, Outcome) for piece in batch)
        if batch:
            yield batch
    if not ended:
        await live.result()  # which was not admitted, and says why


async def _write(call: Call, source: AsyncIterator[list[Piece]], answer: Answer) -> None:
    """
    Write a stream: what fails before its first byte is an answer of its own, what fails behind it is told in it.

    Raises:
        Problem: it failed before anything was sent.
        LLMError: likewise.

    """
    stream, hold, begun = call.events(), Hold(), False
    try:
        async for batch in source:
            call.exchange.waited_s = _now() - call.exchange.began_at
            ready = [told for piece in batch for told in hold.take(piece, _now())]
            written = b"".join(map(answer.piece, _joined(ready)))
            if written:
                await stream.write(*(() if begun else (answer.begin(),)), written)
                begun = True
    except Exception as error:
        if not stream.started:
            raise
        await stream.write(answer.failed(problem_of(error)))
    await stream.close()


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Make one of the words that are ready at once."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, Said) and isinstance(last, Said):
            joined[-1] = Said(last.text + piece.text)
        else:
            joined.append(piece)
    return joined


def _now() -> float:
    return asyncio.get_running_loop().time()
