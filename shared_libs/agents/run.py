"""One run in progress: its clock, its numbered events, its budget, and the ledger of what was left behind."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypedDict, TypeVar

import msgspec

from shared_libs.agents.best_answer import best_answer, in_shape
from shared_libs.agents.limits import Limits
from shared_libs.agents.pause import PausedRun
from shared_libs.agents.speech import AnswerStart, Speech
from shared_libs.agents.step import Ending, RunState
from shared_libs.atomic.asking import Asking
from shared_libs.atomic.budget import Budget
from shared_libs.atomic.deadline import Deadline, event_loop
from shared_libs.atomic.errors import RunInterrupted
from shared_libs.atomic.events import (
    AgentEvent,
    AttemptFinished,
    EventSink,
    ModelAsked,
    RunFinished,
    RunStarted,
    StreamRestarted,
    TextDelta,
    ThinkingDelta,
    wants_requests,
)
from shared_libs.atomic.journal import REPLAY_S, Journal, Within
from shared_libs.atomic.llms.structured import OutputSchema, Wanted
from shared_libs.atomic.rescue import call_here, noted
from shared_libs.atomic.resilience.attempt import ChunkSink
from shared_libs.atomic.results import AgentResult, StillRunning
from shared_libs.atomic.scope import Scope, current_scope
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.types import Attempt, LLMChunk, LLMResponse, ToolSpec
from shared_libs.atomic.watchdog import WATCHDOG

T = TypeVar("T")

_log = logging.getLogger(__name__)

RESERVE_SHARE = 0.25
"""The reserve for the last word is at most this share of the time."""

STORE_S = 0.5
"""Seconds kept at the end to store the exchange; at most a tenth of the time is."""


class OtherOptions(TypedDict, total=False):
    """What may be said of one run besides its question; `ReActAgent.async_run` tells what it means."""

    timeout: float | None
    session_id: str | None
    run_id: str | None
    deps: Any


class RunOptions(OtherOptions, total=False):
    """Everything that may be said of one run besides its question."""

    output_schema: Wanted[Any] | None


class Run:
    """
    The state of one run that is not plain data.

    Three moments divide its time: `explore` ends the exploration, `speak` the last word, `deadline` everything. They
    lie so that each part, with the grace of what it leaves behind, ends before the next.
    """

    def __init__(
        self,
        agent: str,
        timeout_s: float,
        limits: Limits,
        sinks: Sequence[EventSink],
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        stores: bool = False,
    ) -> None:
        self.agent = agent
        self.caller = current_scope()
        self.journal = _journal_of(self.caller)
        self.id = run_id or _new_id(self.caller)
        self.session_id = session_id
        self.timeout_s = timeout_s
        self.limits = limits
        self.loop = event_loop()
        started = self.journal.started_at if self.journal is not None else None
        # what begins again in another process has the time that is left since it began first
        self.started_at = self.loop.time() - (0.0 if started is None else max(0.0, time.time() - started))
        began = datetime.now(UTC) if started is None else datetime.fromtimestamp(started, UTC)
        self.started_wall = began.isoformat(timespec="milliseconds")
        self.deadline = Deadline(self.started_at + timeout_s)
        self.speak = self.deadline.earlier_by(GRACE_S + (min(STORE_S, timeout_s / 10) if stores else 0.0))
        self.explore = self.speak.earlier_by(min(limits.reserve_s, timeout_s * RESERVE_SHARE))
        self.budget = Budget(
            max_tool_calls=limits.max_tool_calls,
            max_tokens=limits.max_tokens,
            max_cost_usd=limits.max_cost_usd,
            max_steps=limits.max_steps,
            parent=self.caller.budget,
            # of the scope, and not of this: a run that holds itself is freed by the collector only
            cut_off=None if self.caller.budget is None else partial(getattr, self.caller, "stale"),
        )
        self.state = RunState("")
        self.tools: Mapping[str, BaseTool] = {}
        self.specs: list[ToolSpec] = []
        self.attempts: list[Attempt] = []
        self.listen(lambda *_: None)
        self.trouble: str | None = None
        self.session_length: int | None = None
        self.session_before = 0
        self.shape: OutputSchema | None = None
        self.own_shape = False
        self.deps: Any = None
        self.last_words = 0
        self._left_behind: list[tuple[str, str, float, Callable[[], bool]]] = []
        self._sinks = tuple(sinks)
        self.listener: EventSink | None = None
        """Which of them is ours: the stream of the run itself, which is no foreign code."""
        wants = [wish for wish in map(wants_requests, sinks) if wish]
        self.asking = Asking(self._tell_asked, whole=wants.count("options") < len(wants)) if wants else None
        self._seq = 0 if self.journal is None else self.journal.events
        self._resumed = self._seq > 0
        self._waited_s = self.caller.waited_s
        self._over = False
        WATCHDOG.begin(self)

    def go_on_from(self, paused: PausedRun) -> None:
        """Take up a paused run: its state, what it has spent, its count of events, and its clock without the pause."""
        self.state = paused.state
        self._resumed = True
        self.attempts = list(paused.attempts)
        self.started_at -= paused.elapsed_s
        self.started_wall = paused.started_at
        since = datetime.now(UTC) - datetime.fromisoformat(paused.started_at)
        self._waited_s = max(self._waited_s, since.total_seconds() - paused.elapsed_s)
        self._seq = max(self._seq, paused.events)
        self.budget.go_on_from(paused.spent)
        self.session_length, self.session_before = paused.session_length, paused.session_before

    def _paused(self) -> PausedRun:
        return PausedRun(
            agent=self.agent,
            run_id=self.id,
            session_id=self.session_id,
            started_at=self.started_wall,
            elapsed_s=self.elapsed_s,
            left_s=self.deadline.remaining(),
            events=self._seq + 1,  # the end of this part of the run is one too
            state=self.state,
            spent=self.budget.so_far(),
            attempts=self.attempts,
            session_length=self.session_length,
            session_before=self.session_before,
            output_schema=self.shape.schema if self.shape is not None and self.own_shape else None,
        )

    @property
    def edge_at(self) -> float:
        """When the loop is ended from outside; what is only replayed gets a moment though the deadline has passed."""
        replays = self.journal is not None and self.journal.replaying
        return max(self.deadline.at, self.loop.time() + REPLAY_S) if replays else self.deadline.at

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self.loop.time() - self.started_at

    @property
    def time_is_up(self) -> bool:
        """Whether the exploration is over."""
        return self.explore.at <= self.loop.time()

    def scope(self, deadline: Deadline, step: int = 0) -> Scope:
        """What a call of this run can see."""
        caller = self.caller
        return Scope(
            deadline,
            self.emit,
            self.id,
            step,
            "",
            self.started_at,
            self.abandon,
            self.budget,
            fence=caller.fence,
            journal=self.journal,
            deps=self.deps,
            may_begin=caller.may_begin,
            asking=self.asking,
        )

    def start(self, question: str, *, model: str, protocol: str, rehearsal: bool) -> None:
        """Tell that the run has begun, or goes on."""
        self._tell(
            RunStarted(
                agent=self.agent,
                question=question,
                started_at=self.started_wall,
                timeout_s=self.deadline.at - self.loop.time() if self._resumed else self.timeout_s,
                model=model,
                protocol=protocol,
                session_id=self.session_id,
                rehearsal=rehearsal,
                resumed=self._resumed,
                waited_s=self._waited_s,
                parent_run_id=self.caller.run_id or None,
                parent_call_id=self.caller.call_id or None,
            )
        )

    def once(self, name: str, kind: type[T], do: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Do what is a fact of this run, or take it from the journal of a durable one, which has done it before."""
        return do() if self.journal is None else self.journal.once(name, kind, do)

    async def asked_once(self, name: str, ask: Callable[[], Awaitable[LLMResponse]]) -> LLMResponse:
        """Ask a model, as a fact; of an answer that is known the attempts are booked as they were."""
        known = self.knows(name)
        response = await self.once(name, LLMResponse, ask)
        if known:
            self.attempts += response.attempts
        return response

    def knows(self, name: str) -> bool:
        """Whether the journal has a fact of this name: what is known needs no time."""
        return self.journal is not None and self.journal.knows(name)

    @property
    def is_followed(self) -> bool:
        """Whether somebody elsewhere hears a durable run as it happens: then the model is asked for a stream."""
        return self.journal is not None and self.journal.followed

    def emit(self, event: AgentEvent) -> None:
        """
        Number an event and hand it out; after the end nothing is heard any more, so a stale call cannot speak.

        The ledger of attempts is kept from the events too: so it is whole however a call ends.
        """
        if self._over:
            return
        if isinstance(event, AttemptFinished):
            self.attempts.append(event.attempt)
        if not self._sinks or (self.journal is not None and self.journal.was_told(event)):
            return  # what is replayed was told before
        self._tell(event)

    def _tell(self, event: AgentEvent) -> None:
        self._seq = event.seq = self._seq + 1
        event.run_id, event.at_s = self.id, self.loop.time() - self.started_at
        self._hand_out(event, self._sinks)

    def _tell_asked(self, event: ModelAsked) -> None:
        if not self._over:
            event.run_id, event.at_s = self.id, self.loop.time() - self.started_at
            self._hand_out(event, filter(wants_requests, self._sinks))

    def _hand_out(self, event: AgentEvent, sinks: Iterable[EventSink]) -> None:
        for sink in sinks:
            try:
                if sink is self.listener:
                    sink(event)
                else:
                    call_here(sink, event)
            except (KeyboardInterrupt, RunInterrupted):
                raise
            except BaseException:  # noqa: BLE001 - a listener is foreign code: it must not end the run
                self._sinks = tuple(other for other in self._sinks if other is not sink)
                noted(_log.exception, "an event sink failed and is left out for the rest of run %s", self.id)

    def listen(self, answer_start: AnswerStart) -> None:
        """Begin to hear a turn of the model; `answer_start` tells where in its text the answer begins."""
        self.speech = Speech(answer_start)

    def hears(self, *, stream: bool) -> ChunkSink | None:
        """Who hears the model speak; nobody, where nobody listens and the answer comes in one piece."""
        return self.hear if stream or self._sinks else None

    def hear(self, chunk: LLMChunk) -> None:
        """Tell the listeners what the model says: as text what may be the answer, as thinking what comes before it."""
        if chunk.kind == "restarted":
            self.speech.clear()
            self.emit(StreamRestarted(reason=chunk.reason))
        elif chunk.kind == "thinking" and chunk.text:
            self.emit(ThinkingDelta(text=chunk.text))
        elif chunk.kind == "text" and chunk.text:
            thinking, answer = self.speech.hear(chunk.text)
            if thinking:
                self.emit(ThinkingDelta(text=thinking))
            if answer:
                self.emit(TextDelta(text=answer))

    def settle(self, answer: str | None) -> None:
        """Tell the answer where none of it was told as it came; what was told and turned out to be none is void."""
        if not answer:
            return
        told = self.speech.told
        if told.strip() and told != answer and told.endswith(answer):
            self.emit(StreamRestarted(reason="what came first was reasoning"))
            told = ""
        if not told.strip():
            self.emit(TextDelta(text=answer))

    @property
    def answer_so_far(self) -> str:
        """What of the answer the model has said in this turn; cut off, it may still be the best there is."""
        return self.speech.answer

    @property
    def best_answer(self) -> str | None:
        """The best there is should the run end now."""
        said = self.answer_so_far
        if not said and self.shape is not None and self.shape.fitting_part(self.speech.text)[0] is not None:
            said = self.speech.text  # it might have become a call, written out
        return best_answer(self.state, said)

    def abandon(self, name: str, call_id: str, began_at: float, is_running: Callable[[], bool]) -> None:
        """Book something that ignored its cancellation, on the ledger of the run that called this one too."""
        self.caller.abandon(name, call_id, began_at, is_running)
        self._left_behind.append((name, call_id, began_at, is_running))

    def leave(self) -> None:
        """End the run for this process, without a word: another one goes on with it, or nobody does."""
        self._over = True
        WATCHDOG.end(self)

    def finish(self, ending: Ending) -> AgentResult:
        """Make the result, and end the run for every listener."""
        now = self.loop.time()
        if self.shape is not None:
            ending = in_shape(ending, self.shape)
        failed = ending.status in ("failed", "cancelled")
        output = ending.output
        trouble = "; ".join(filter(None, (self.trouble, ending.unfit)))
        result: AgentResult = AgentResult(
            run_id=self.id,
            status=ending.status,
            stop_reason=ending.stop_reason,
            answer=ending.answer,
            output_data=None if output is None else output.data,
            partial_output=ending.partial_output,
            steps=tuple(self.state.steps),
            usage=self.budget.usage,
            cost_usd=self.budget.cost_usd,
            elapsed_s=now - self.started_at,
            still_running=tuple(
                StillRunning(name, call_id, now - since)
                for name, call_id, since, is_running in self._left_behind
                if is_running()
            ),
            attempts=tuple(self.attempts),
            error=ending.why if failed else trouble or None,
            pending=ending.pending,
            state=msgspec.to_builtins(self._paused()) if ending.status == "paused" else None,
        )
        if output is not None:
            result.with_output(output.value)
        WATCHDOG.end(self)  # what it has to tell comes before the end
        if not self._over:  # told also where all the rest was a replay
            self._tell(RunFinished(result=result))
        self._over = True
        return result


def _journal_of(caller: Scope) -> Journal | None:
    """The journal of a run: the caller's own, or the part of it that belongs to the call a sub-agent is asked in."""
    if caller.journal is None or not caller.call_id:
        return caller.journal
    return Within(caller.journal, caller.call_id)


def _new_id(caller: Scope) -> str:
    """A name for a run; a sub-agent of a durable run has the same one each time."""
    if caller.journal is not None and caller.call_id:
        return f"{caller.run_id}/{caller.call_id}"
    return os.urandom(16).hex()
