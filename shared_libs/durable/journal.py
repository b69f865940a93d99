"""The journal of one execution of a durable run: its facts by name, its events by number, and the gate before both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec

from shared_libs.atomic.errors import LLMError, RunInterrupted
from shared_libs.atomic.events import AgentEvent, AttemptFinished, RunFinished, TextDelta, ThinkingDelta
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.types import Attempt, LLMResponse, ToolResult
from shared_libs.durable.beat import clock
from shared_libs.durable.database import StoreUnavailable, persistently
from shared_libs.durable.folding import folded, kept_name
from shared_libs.durable.following import TURNS, Outlet, Piece
from shared_libs.durable.holding import Holder
from shared_libs.durable.jobs import Claim
from shared_libs.durable.keeping import ASKED, Events, Fact
from shared_libs.durable.store import to_json

T = TypeVar("T")

SEGMENT = 500
"""Facts after which the state of a run is written down, and earlier ones are not read again."""

MOST_WHOLE = 262_144
"""Characters kept of an output that was cut for the model, which `read_rest` gives."""

TELL_S = 0.25
"""Seconds after which an event is written though no fact comes, and where somebody follows."""
TELL_FOLLOWED_S = 0.05


class Pulse(Protocol):
    """Whether the worker may still act, as far as it knows."""

    @property
    def fresh(self) -> bool:
        """Whether its last beat is young enough to begin an effect."""

    async def beaten(self) -> None:
        """Wait for the next beat that gets through."""


class FactJournal:
    """
    Keeps the facts of a run this worker holds (`Journal` of the core).

    `outlet` gets pieces of text while somebody follows. The worker sets `lost` when the run is another's, `draining`
    when it is to be handed over, `cancelled` when it is to end, and `followed`. `proven`: it has kept a fact here.
    """

    def __init__(
        self,
        claim: Claim,
        holder: Holder,
        pulse: Pulse,
        *,
        outlet: Outlet | None = None,
    ) -> None:
        self.claim = claim
        self.lost = self.draining = self.proven = False
        self.followed = claim.followed
        self.cancelled = claim.cancelled
        self.begun_at = clock()
        self.result: AgentResult | None = None
        self.contents: dict[str, str] = {}
        self._holder, self._pulse = holder, pulse
        self._outlet = outlet
        self._turn, self._spoken = claim.last_event, list[Piece]()
        self._facts = dict(claim.facts)
        self._answers: dict[int, str] = {}
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._told = {told for text in claim.events if (told := _identity(msgspec.json.decode(text))) is not None}
        self._untold: list[tuple[int, str]] = []
        self._end: list[tuple[int, str]] = []
        self._asking: dict[str, Fact] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._writes: set[asyncio.Task[Any]] = set()
        self._write_turn = asyncio.Lock()
        self._made = 0
        self._doing: set[asyncio.Task[Any] | None] = set()
        self._settled = asyncio.Event()
        self.events = self.heard = self._last_event = claim.last_event
        self._started = self._loop.time() - claim.elapsed_s

    # the core's protocol

    @property
    def replaying(self) -> bool:
        """Whether the run is still where it has been before."""
        return bool(self.claim.facts) and self._made == 0

    @property
    def started_at(self) -> float | None:
        """When this part of the run began first: its deadline counts from then."""
        return time.time() - (self._loop.time() - self._started)

    @property
    def wants_pause(self) -> bool:
        """Whether the segment is full, whoever has made its facts; not while it is replayed."""
        return self._made > 0 and len(self._facts) >= SEGMENT and not self.draining

    def knows(self, name: str) -> bool:
        """Whether there is a fact of this name."""
        return kept_name(name) in self._facts

    def was_told(self, event: AgentEvent) -> bool:
        """Whether an event was told before."""
        identity = _identity(msgspec.structs.asdict(event) | {"type": event.__struct_config__.tag})
        return self.replaying if identity is None else identity in self._told

    async def once(self, name: str, kind: type[T], do: Callable[[], Awaitable[T]]) -> T:
        """
        Return the fact of this name; where there is none, do what makes it, and keep it before it is returned.

        Raises:
            RunInterrupted: the run is another worker's, or is handed over.

        """
        if (kept := kept_name(name)) in self._facts:
            try:
                value = msgspec.json.decode(self._facts[kept], type=kind)
            except msgspec.DecodeError as error:
                raise TypeError(f"the fact {name!r} is no {kind.__name__}: {error}") from error
            self._heard_of(name, value)
            return value
        task = asyncio.current_task()
        inside = task in self._doing  # that a call begins: a part of the call
        await self._may_begin(inside=inside)
        self._made += 1
        self._doing.add(task)
        try:
            value = _cut(await (self._ask(kept, do) if kind is LLMResponse else do()))
            await self._keep(Fact(kept, to_json(value)))
            if inside:
                await self._may_begin(inside=True)
        finally:
            if not inside:
                self._doing.discard(task)
                if not self._doing:
                    self._settled.set()
        self._heard_of(name, value)
        return value

    async def _ask(self, name: str, do: Callable[[], Awaitable[Any]]) -> Any:
        """Ask a model, and note that; an answer that was lost with a process before this one is booked."""
        asked_s = self._loop.time() - self._started
        self._asking[name] = Fact(f"{ASKED}{self.claim.epoch} {name}", to_json(asked_s))
        self._tell_soon()
        try:
            response = await do()
        except LLMError as error:
            self._book_lost(name, error.provider, error.model)
            raise
        finally:
            self._asking.pop(name, None)
        lost = self._book_lost(name, response.provider, response.requested_model)
        return msgspec.structs.replace(response, attempts=(*response.attempts, *lost)) if lost else response

    def _book_lost(self, name: str, provider: str, model: str) -> list[Attempt]:
        """Tell of the requests to a model of which no answer was recorded: the ledger says what the server saw."""
        lost = [
            Attempt(
                provider=provider,
                model=model,
                number=1,
                outcome="lost",
                why="its process ended before the answer was recorded: it is asked again, and paid twice",
                started_s=asked_s,
                ended_s=asked_s,
            )
            for note, asked_s in self.claim.asked
            if note.removeprefix(ASKED).partition(" ")[2] == name
        ]
        for attempt in lost:
            current_scope().emit(AttemptFinished(attempt=attempt))
        return lost

    def may_begin(self) -> None:
        """
        Look again as the body of a tool begins: the process may have been stopped since it was decided on.

        Raises:
            RunInterrupted: the run is another's, or nobody knows; it is handed over, if it is still this worker's.

        """
        if self.lost or not self._pulse.fresh:
            raise RunInterrupted(f"run {self.claim.run_id} may be another worker's")

    # what the worker does to it

    def stop(self) -> None:
        """Cancel the run in this process, wherever it is."""
        assert self._main is not None
        self._main.cancel()

    def leave(self) -> None:
        """Write nothing more, and wait for no write: this process ends, and the run is another's."""
        self.lost = True
        for writing in self._writes:
            writing.cancel()

    # the gate

    async def _may_begin(self, *, inside: bool = False) -> None:
        """
        Wait until an effect may begin; nothing is awaited between its return and the effect.

        `inside` one that has begun, and is made to its end though the run is to be handed over: who goes on with the
        run could only say that it may have happened.
        """
        while True:
            if self.lost:
                raise RunInterrupted(f"run {self.claim.run_id} is another worker's")
            if self.draining and not inside:
                while self._doing:  # what has begun is recorded before the run is handed over
                    self._settled.clear()
                    await self._settled.wait()
                raise RunInterrupted(f"run {self.claim.run_id} is handed over")
            if self.cancelled:
                self.stop()
                await asyncio.Event().wait()
            if self._pulse.fresh:
                return
            await self._pulse.beaten()

    async def _keep(self, fact: Fact) -> None:
        """Record a fact; a write that has begun is not cut by a cancellation."""
        writing = self._loop.create_task(self._write(fact))
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)
        kept = await asyncio.shield(writing)
        if not kept:
            self.lost = True
            raise RunInterrupted(f"run {self.claim.run_id} is another worker's")
        self._facts[fact.name] = fact.value
        self.proven = True

    async def _write(self, fact: Fact | None) -> bool:
        if self.followed and self._outlet is not None:
            await self._outlet.flush()
        async with self._write_turn:  # events are written in their order
            events, self._untold = self._untold, []
            facts = [*self._asking.values(), *([] if fact is None else [fact])]
            self._asking.clear()
            if self._telling is not None:
                self._telling.cancel()
                self._telling = None
            keep: Callable[[], Awaitable[bool]] = lambda: self._holder.keep(self.claim, facts, events)  # noqa: E731
            kept = await persistently(keep, while_=lambda: not self.lost)
            return bool(kept)

    async def settle(self, *, ends: bool) -> Events:
        """
        Wait for writes that have begun; return the events that are not written yet.

        The run's end is one of them where `ends`: else it ended for this execution only.
        """
        while self._writes:
            await asyncio.wait(self._writes)
        if self._telling is not None:
            self._telling.cancel()
        events, self._untold = self._untold, []
        return [*events, *self._end] if ends else events

    # events

    def hear(self, event: AgentEvent) -> bool:
        """Take an event of this run; it is written with the next fact, or soon. False where it is nobody's business."""
        self.heard = max(self.heard, event.seq)
        if isinstance(event, TextDelta | ThinkingDelta):
            if self._outlet is not None:
                at = self._spoken[-1].end if self._spoken else 0
                self._spoken.append(Piece(event, self.claim.epoch, self._turn, at, self._last_event))
                if self.followed:
                    self._outlet.put(self._spoken[-1])
            return True
        if isinstance(event, RunFinished):
            if event.result.stop_reason == "handed_over" or (event.result.status == "cancelled" and not self.cancelled):
                return False  # it ends for this process only
            if event.result.status == "paused" and self.cancelled:
                return False  # nobody is waited for any more
            self.result = event.result
        self._last_event = event.seq
        if event.__struct_config__.tag in TURNS:
            self._turn, self._spoken = event.seq, []
        written = event.seq, to_json(folded(event, self.contents, self._answers))
        if isinstance(event, RunFinished):
            self._end = [written]  # it is told in the transaction that ends the run, and not before its result is there
            return True
        self._untold.append(written)
        self._tell_soon()
        return True

    def tell_again(self) -> None:
        """Call out what has been said of the turn under way: somebody lacks some of it."""
        if self._outlet is not None:
            for piece in self._spoken:
                self._outlet.put(piece)

    def _tell_soon(self) -> None:
        if self._telling is None:
            wait_s = TELL_FOLLOWED_S if self.followed else TELL_S
            self._telling = self._loop.call_later(wait_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if self.lost or not (self._untold or self._asking):
            return
        writing = self._loop.create_task(self._write_events())
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)

    async def _write_events(self) -> None:
        try:
            if not await self._write(None):
                self.lost = True
                self.stop()  # no beat tells it any more
        except StoreUnavailable:
            self.lost = True

    def _heard_of(self, name: str, value: Any) -> None:
        """Remember what of the coming events stands in a fact."""
        if isinstance(value, ToolResult):
            self.contents[name.removeprefix("tool.")] = value.content
        elif isinstance(value, LLMResponse) and name.startswith("model."):
            self._answers[int(name.split(".")[1])] = name


def _cut(value: T) -> T:
    """Cut what `read_rest` gives as it is kept, so that it is the same before a takeover and after it."""
    if isinstance(value, ToolResult) and len(value.whole) > MOST_WHOLE:
        note = f"\n[what followed, {len(value.whole) - MOST_WHOLE} more characters, was not kept]"
        value = msgspec.structs.replace(value, whole=value.whole[:MOST_WHOLE] + note)
    return value


def _identity(event: dict[str, Any]) -> tuple[Any, ...] | None:
    """
    What makes an event of a run the one it is, where a replay brings it again.

    None for what happens anew, such as a request to a model.
    """
    kind = event["type"]
    if kind in ("step_started", "model_finished", "thought", "memory_compacted"):
        return kind, event.get("step")
    if kind in ("tool_started", "tool_finished", "approval_requested"):
        return kind, event["call_id"]
    if kind in ("memory_loaded", "limit_reached"):
        return (kind,)
    return None
