"""One run in progress: its clock, its numbered events, its budget, and the ledger of what was left behind."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from shared_libs.agents.limits import Limits
from shared_libs.agents.pause import PausedRun
from shared_libs.agents.step import Ending, RunState, best_answer
from shared_libs.atomic.deadline import Budget, Deadline
from shared_libs.atomic.events import (
    AgentEvent,
    AttemptFinished,
    EventSink,
    RunFinished,
    StreamRestarted,
    TextDelta,
    ThinkingDelta,
)
from shared_libs.atomic.results import AgentResult, StillRunning
from shared_libs.atomic.scope import Scope, current_scope
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.types import Attempt, LLMChunk, ToolSpec
from shared_libs.atomic.watchdog import WATCHDOG

_log = logging.getLogger(__name__)

RESERVE_SHARE = 0.25
"""The reserve for the last word is at most this share of the time."""

STORE_S = 0.5
"""Seconds kept at the end to store the exchange; at most a tenth of the time is."""


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
        self.id = run_id or uuid.uuid4().hex
        self.session_id = session_id
        self.timeout_s = timeout_s
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self.started_at = self._loop.time()
        self.started_wall = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.deadline = Deadline(self.started_at + timeout_s)
        self.speak = self.deadline.earlier_by(GRACE_S + (min(STORE_S, timeout_s / 10) if stores else 0.0))
        self.explore = self.speak.earlier_by(min(limits.reserve_s, timeout_s * RESERVE_SHARE))
        self.caller = current_scope()
        self.budget = Budget(
            max_tool_calls=limits.max_tool_calls,
            max_tokens=limits.max_tokens,
            max_cost_usd=limits.max_cost_usd,
            max_steps=limits.max_steps,
            parent=self.caller.budget,
            cut_off=lambda: self.caller.stale,
        )
        self.state = RunState("")
        self.tools: Mapping[str, BaseTool] = {}
        self.specs: list[ToolSpec] = []
        self.attempts: list[Attempt] = []
        self.listen(lambda *_: None)
        self.trouble: str | None = None
        self.session_length: int | None = None
        self.session_before = 0
        self._left_behind: list[tuple[str, str, float, Callable[[], bool]]] = []
        self._sinks = list(sinks)
        self._seq = 0
        self._over = False
        WATCHDOG.begin(self)

    def go_on_from(self, paused: PausedRun) -> None:
        """Take up a paused run: its state, what it has spent, its count of events, and its clock without the pause."""
        self.state = paused.state
        self.attempts = list(paused.attempts)
        self.started_at -= paused.elapsed_s
        self.started_wall = paused.started_at
        self._seq = paused.events
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
        )

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self._loop.time() - self.started_at

    def scope(self, deadline: Deadline, step: int = 0) -> Scope:
        """What a call of this run can see."""
        caller = self.caller
        return Scope(
            deadline, self.emit, self.id, step, "", self.started_at, self.abandon, self.budget, fence=caller.fence
        )

    def emit(self, event: AgentEvent) -> None:
        """
        Number an event and hand it out; after the end nothing is heard any more, so a stale call cannot speak.

        The ledger of attempts is kept from the events too: so it is whole however a call ends.
        """
        if self._over:
            return
        if isinstance(event, AttemptFinished):
            self.attempts.append(event.attempt)
        if not self._sinks:
            return
        self._seq += 1
        event.run_id, event.seq, event.at_s = self.id, self._seq, self._loop.time() - self.started_at
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except Exception:  # noqa: BLE001 - a listener is foreign code: it must not end the run
                self._sinks.remove(sink)
                _log.exception("an event sink failed and is left out for the rest of run %s", self.id)

    def listen(self, answer_start: Callable[[str, str | None], int | None]) -> None:
        """Begin to hear a turn of the model; `answer_start` tells where in its text the answer begins."""
        self.said = ""
        self._answer_start = answer_start
        self._start: int | None = None
        self._spoken = 0

    def hear(self, chunk: LLMChunk) -> None:
        """Tell the listeners what the model says: as text what may be the answer, as thinking what comes before it."""
        if chunk.kind == "restarted":
            self.said, self._start, self._spoken = "", None, 0
            self.emit(StreamRestarted(reason=chunk.reason))
        elif chunk.kind == "thinking" and chunk.text:
            self.emit(ThinkingDelta(text=chunk.text))
        elif chunk.kind == "text" and chunk.text:
            self.said += chunk.text
            if not self._spoken:
                self._start = self._answer_start(self.said, chunk.text if self._start is None else None)
            if self._start is None:
                self.emit(ThinkingDelta(text=chunk.text))
            elif len(self.said) > max(self._start, self._spoken):
                self.emit(TextDelta(text=self.said[max(self._start, self._spoken) :]))
                self._spoken = len(self.said)

    @property
    def answer_so_far(self) -> str:
        """What of the answer the model has said in this turn; cut off, it may still be the best there is."""
        start = self._answer_start(self.said, None)
        return "" if start is None else self.said[start:]

    @property
    def best_answer(self) -> str | None:
        """The best there is should the run end now."""
        return best_answer(self.state, self.answer_so_far)

    def abandon(self, name: str, call_id: str, began_at: float, is_running: Callable[[], bool]) -> None:
        """Book something that ignored its cancellation, on the ledger of the run that called this one too."""
        self.caller.abandon(name, call_id, began_at, is_running)
        self._left_behind.append((name, call_id, began_at, is_running))

    def finish(self, ending: Ending) -> AgentResult:
        """Make the result, and end the run for every listener."""
        now = self._loop.time()
        failed = ending.status in ("failed", "cancelled")
        result = AgentResult(
            run_id=self.id,
            status=ending.status,
            stop_reason=ending.stop_reason,
            answer=ending.answer,
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
            error=ending.why if failed else self.trouble,
            pending=ending.pending,
            state=msgspec.to_builtins(self._paused()) if ending.status == "paused" else None,
        )
        self.emit(RunFinished(result=result))
        self._over = True
        WATCHDOG.end(self)
        return result
