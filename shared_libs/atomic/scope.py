"""
What a call made on behalf of a run can see: its deadline, where its events go, and who it is.

The scope travels in a context variable, so it reaches tools, their threads, models and sub-agents without being passed
by hand. It is replaced, never changed, on the way down.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token

import msgspec

from shared_libs.atomic.deadline import NEVER, Budget, Deadline
from shared_libs.atomic.events import AgentEvent, EventSink


def _nowhere(event: AgentEvent) -> None:
    """Drop events of calls made outside any run."""


def _forget(name: str, call_id: str, began_at: float, is_running: Callable[[], bool]) -> None:
    """Nobody keeps a ledger outside a run."""


class Scope(msgspec.Struct, frozen=True):
    """
    The surroundings of one call.

    `run_id`, `step` and `call_id` together name the call for good: the same call of a resumed run has the same three,
    so they make an idempotency key. `started_at` is the loop time the run began. `abandon(name, call_id,
    began_at, is_running)` books what ignores its cancellation. `budget` is the run's; a sub-agent's counts on it too.
    """

    deadline: Deadline = NEVER
    emit: EventSink = _nowhere
    run_id: str = ""
    step: int = 0
    call_id: str = ""
    started_at: float | None = None
    abandon: Callable[[str, str, float, Callable[[], bool]], None] = _forget
    budget: Budget | None = None

    def of_call(self, deadline: Deadline, call_id: str) -> Scope:
        """The scope of a tool call made in this one."""
        call_id = call_id or self.call_id
        return Scope(deadline, self.emit, self.run_id, self.step, call_id, self.started_at, self.abandon, self.budget)


_OUTSIDE = Scope()
_current: ContextVar[Scope] = ContextVar("scope", default=_OUTSIDE)


def current_scope() -> Scope:
    """The scope of the running call; an empty one outside a run."""
    return _current.get()


def current_deadline() -> Deadline:
    """The deadline the running call has to keep; never, outside a run."""
    return _current.get().deadline


class use_scope:  # noqa: N801 - used like a function, a class because it is on the path of every call
    """Make `scope` the current one inside a `with` block."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._token: Token[Scope]

    def __enter__(self) -> Scope:
        self._token = _current.set(self._scope)
        return self._scope

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def use_deadline(deadline: Deadline) -> use_scope:
    """Narrow the current deadline to `deadline` inside a `with` block; a later one changes nothing."""
    scope = _current.get()
    return use_scope(msgspec.structs.replace(scope, deadline=deadline) if deadline < scope.deadline else scope)
