"""
What a call made on behalf of a run can see: its deadline, where its events go, and who it is.

The scope travels in a context variable, so it reaches tools, their threads, models and sub-agents without being passed
by hand. It is replaced, never changed, on the way down.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

import msgspec

from shared_libs.atomic.asking import Asking
from shared_libs.atomic.budget import Budget
from shared_libs.atomic.context_value import holds
from shared_libs.atomic.deadline import NEVER, Deadline
from shared_libs.atomic.events import AgentEvent, EventSink, ModelFinished
from shared_libs.atomic.journal import Journal, Within
from shared_libs.atomic.types import LLMResponse


def _nowhere(event: AgentEvent) -> None:
    """Drop events of calls made outside any run."""


def _forget(name: str, call_id: str, began_at: float, is_running: Callable[[], bool]) -> None:
    """Nobody keeps a ledger outside a run."""


class Fence:
    """
    Stands between a tool call and its run. Once it is down, the call's events are dropped, its memory writes refused.

    What a call that was given up leaves running is still booked: of that the run wants to know.
    """

    __slots__ = ("_down", "_emit", "_outer")

    def __init__(self, emit: EventSink, outer: Fence | None) -> None:
        self._emit = emit
        self._outer = outer
        self._down = False

    @property
    def is_down(self) -> bool:
        """Whether this call, or one it was made in, has been given up."""
        return self._down or (self._outer is not None and self._outer.is_down)

    def lower(self) -> None:
        """Give the call up."""
        self._down = True

    def emit(self, event: AgentEvent) -> None:
        """Pass an event on while the call is not given up."""
        if not self._down:
            self._emit(event)


class Scope(msgspec.Struct, frozen=True):
    """
    The surroundings of one call.

    `run_id`, `step` and `call_id` together name the call for good: the same call of a resumed run has the same three,
    so they make an idempotency key. `started_at` is the loop time the run began. `abandon(name, call_id,
    began_at, is_running)` books what ignores its cancellation. `budget` is the run's; a sub-agent's counts on it too.
    `tool` is whose call it is; `fence` shuts it off when it has been given up. `journal` keeps the facts of a durable
    run; `deps` is what it gives tools that declare it. `may_begin` is asked once more as the body of a tool begins, and
    raises `RunInterrupted` where the run has become another process's since the call was made. `asking` tells what
    models are asked, where somebody keeps that. `waited_s` are the seconds that a run made in this scope has
    waited for its turn.
    """

    deadline: Deadline = NEVER
    emit: EventSink = _nowhere
    run_id: str = ""
    step: int = 0
    call_id: str = ""
    started_at: float | None = None
    abandon: Callable[[str, str, float, Callable[[], bool]], None] = _forget
    budget: Budget | None = None
    tool: str = ""
    fence: Fence | None = None
    journal: Journal | None = None
    deps: Any = None
    may_begin: Callable[[], None] | None = None
    asking: Asking | None = None
    waited_s: float = 0.0

    @property
    def key(self) -> str:
        """
        What names this call for good: `run_id/step/call_id`, or "" outside a call.

        Passed on to whatever the call changes, it makes a repetition harmless.
        """
        return f"{self.run_id}/{self.step}/{self.call_id}" if self.run_id and self.call_id else ""

    @property
    def stale(self) -> bool:
        """Whether the call has been given up: what it still says or writes is not heard."""
        return self.fence is not None and self.fence.is_down

    def replays(self, call_id: str) -> bool:
        """Whether a call that passes ports has facts of an earlier execution of the run."""
        return self.journal is not None and Within(self.journal, call_id).replaying

    def of_call(self, tool: str, deadline: Deadline, call_id: str, *, passes_ports: bool = False) -> Scope:
        """
        The scope of a call of `tool` made in this one.

        The journal goes on only into what `passes_ports`, such as a sub-agent; of any other tool the call itself is the
        fact, and what it does inside has no name of its own.
        """
        call_id = call_id or self.call_id
        fence = Fence(self.emit, self.fence)
        return Scope(
            deadline,
            fence.emit,
            self.run_id,
            self.step,
            call_id,
            self.started_at,
            self.abandon,
            self.budget,
            tool,
            fence,
            self.journal if passes_ports else None,
            self.deps,
            self.may_begin,
            self.asking,
        )


_OUTSIDE = Scope()
_current: ContextVar[Scope] = ContextVar("scope", default=_OUTSIDE)


def current_scope() -> Scope:
    """The scope of the running call; an empty one outside a run."""
    return _current.get()


def tell_outside(response: LLMResponse) -> None:
    """Tell who hears of calls outside any run what a model answered; a run tells it itself, with its step."""
    scope = _current.get()
    if not scope.run_id and scope.emit is not _nowhere:
        scope.emit(ModelFinished(step=0, response=response))


def scope_in(context: Context | None) -> Scope:
    """The scope of a call whose context is known; an empty one outside a run."""
    return _OUTSIDE if context is None else context.get(_current, _OUTSIDE)


def current_deadline() -> Deadline:
    """The deadline the running call has to keep; never, outside a run."""
    return _current.get().deadline


def use_scope(scope: Scope) -> holds[Scope]:
    """Make `scope` the current one inside a `with` block."""
    return holds(_current, scope)


def use_deadline(deadline: Deadline) -> holds[Scope]:
    """Narrow the current deadline to `deadline` inside a `with` block; a later one changes nothing."""
    scope = _current.get()
    return use_scope(msgspec.structs.replace(scope, deadline=deadline) if deadline < scope.deadline else scope)
