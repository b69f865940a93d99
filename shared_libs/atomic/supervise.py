"""
Awaiting what may not return.

`asyncio.wait_for` waits for a task that swallows its cancellation: a tool that absorbs it for six seconds holds a
one-second limit for seven. `supervise` cancels, waits a short grace, and then leaves the task behind, booked on the
ledger of the current scope. It is the only way this library awaits a tool, a memory store or a model.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.events import Abandoned, AbandonedEnded
from shared_libs.atomic.scope import current_scope

T = TypeVar("T")

_log = logging.getLogger(__name__)

MAX_LEFT_RUNNING = 16
"""Calls of one owner that may run on unasked; half of the threads of a tool, so that others still find one."""

GRACE_S = 0.02
"""How long a cancelled task may take to clean up, in seconds; a part of the 50 ms a run may overrun."""


class Expiry:
    """A moment that may be moved while it is waited for (`at`, loop seconds), and what it means (`why`)."""

    __slots__ = ("_why", "at")

    def __init__(self, at: float, why: str) -> None:
        self.at = at
        self._why = why

    @property
    def why(self) -> str:
        """What it means that this moment has come."""
        return self._why


class Elsewhere(Protocol):
    """Work that goes on outside the task that waits for it."""

    def still_running(self) -> bool:
        """Whether it goes on."""

    def when_over(self, then: Callable[[], None]) -> None:
        """Have `then` called by the loop when it has ended."""


class LeftRunning:
    """What the calls of one owner have left running; when that is too much, it takes no further calls."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: set[_Left] = set()

    def __len__(self) -> int:
        return len(self._running)

    def __str__(self) -> str:
        return f"{len(self)} earlier calls were given up and still run; try again when some have ended"

    @property
    def full(self) -> bool:
        """Whether a further call is to be refused."""
        return len(self) >= MAX_LEFT_RUNNING

    def book(self, left: _Left) -> None:
        """Count one until it ends."""
        self._running.add(left)

    def clear(self, left: _Left) -> None:
        """Count one no more."""
        self._running.discard(left)


class BodyCancelled(Exception):
    """The body raised `CancelledError` by itself; nobody outside asked for it."""


async def supervise(
    body: Coroutine[Any, Any, T],
    expiry: Expiry,
    *,
    what: str,
    name: str,
    call_id: str = "",
    elsewhere: Elsewhere | None = None,
    left: LeftRunning | None = None,
) -> T:
    """
    Await `body` as a task of its own, until `expiry` and never longer than `GRACE_S` after it.

    Args:
        body: what to run.
        expiry: when to give up; may be moved by the body while it runs.
        what: "tool", "memory" or "model", for the ledger.
        name: whose call it is, for the ledger.
        call_id: the call's id, for the ledger.
        elsewhere: work that goes on outside the task, such as in a thread.
        left: where the owner counts what its calls leave running.

    Raises:
        DeadlineExceeded: time was over; its `still_running` tells whether the body was left behind.
        BodyCancelled: the body cancelled itself.
        asyncio.CancelledError: somebody outside cancelled the caller; the body was cancelled first.

    """
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    bell = _Bell(loop, expiry)
    task = loop.create_task(bell.ring_after(body))
    expired = False
    try:
        try:
            await bell.rung
        finally:
            bell.stop()
        if not task.done():
            expired = True
            task.cancel()
            await _grace(task)
    except asyncio.CancelledError:
        # an outside cancel always wins; a second one, during the grace, ends it. The body is cancelled once: a driver
        # that is closing a connection when a second one comes leaves it half closed
        try:
            if not expired:
                task.cancel()
            await _grace(task)
        finally:
            if _goes_on(task, elsewhere):
                _Left(task, elsewhere, Abandoned(what=what, name=name, call_id=call_id)).book(began_at, left)
        raise
    if _goes_on(task, elsewhere):
        _Left(task, elsewhere, Abandoned(what=what, name=name, call_id=call_id)).book(began_at, left)
        raise DeadlineExceeded(expiry.why, still_running=True)
    if expired and (task.cancelled() or task.exception()):
        raise DeadlineExceeded(expiry.why)
    if task.cancelled():
        raise BodyCancelled
    try:
        return task.result()
    finally:
        del task  # an error holds this frame, and the task the error: a cycle that only the collector would free


class _Bell:
    """
    Wakes a waiter when a body has ended or its time is over.

    The body rings it in its own last step: one turn of the loop less than a callback of its task would take.
    """

    __slots__ = ("_expiry", "_handle", "_loop", "rung")

    def __init__(self, loop: asyncio.AbstractEventLoop, expiry: Expiry) -> None:
        self._loop = loop
        self._expiry = expiry
        self.rung: asyncio.Future[None] = loop.create_future()
        self._handle = None if expiry.at == math.inf else loop.call_at(expiry.at, self._look)

    async def ring_after(self, body: Coroutine[Any, Any, T]) -> T:
        try:
            return await body
        finally:
            self.ring()

    def ring(self, _: object = None) -> None:
        if not self.rung.done():
            self.rung.set_result(None)

    def stop(self) -> None:
        """Look at the time no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        """Ring when it is time; a moved expiry costs no new timer until the old one fires."""
        if self._loop.time() < self._expiry.at:
            self._handle = self._loop.call_at(self._expiry.at, self._look)
        else:
            self.ring()


async def _grace(task: asyncio.Task[Any]) -> None:
    """Give a cancelled task its time to clean up."""
    loop = asyncio.get_running_loop()
    bell = _Bell(loop, Expiry(loop.time() + GRACE_S, ""))
    task.add_done_callback(bell.ring)  # a task that never began has no last step
    try:
        await bell.rung
    finally:
        bell.stop()


def _goes_on(task: asyncio.Task[Any], elsewhere: Elsewhere | None) -> bool:
    """Whether anything of the body still runs."""
    if not task.done():
        return True
    if task.cancelled():
        return elsewhere is not None and elsewhere.still_running()
    task.exception()  # it was looked at: no "never retrieved" at exit
    return False


class _Left:
    """One call that goes on although nobody waits for it any more."""

    __slots__ = ("_at", "_elsewhere", "_left", "_scope", "_task", "_told", "_what")

    def __init__(self, task: asyncio.Task[Any], elsewhere: Elsewhere | None, what: Abandoned) -> None:
        self._task = task
        self._elsewhere = elsewhere
        self._what = what
        self._left: LeftRunning | None = None
        self._told = False

    def book(self, began_at: float, left: LeftRunning | None) -> None:
        """Put it on the ledgers of its run and its owner, and tell that it is left behind."""
        self._at = asyncio.get_running_loop().time()
        self._left, self._scope = left, current_scope()
        if left is not None:
            left.book(self)
        self._scope.abandon(self._what.name, self._what.call_id, began_at, self.is_running)
        self._scope.emit(self._what)
        if not self._scope.run_id:  # nobody hears the event
            _log.warning("%s %s ignored its cancellation and was left running", self._what.what, self._what.name)
        self._task.add_done_callback(lambda _: self._look())
        if self._elsewhere is not None:
            self._elsewhere.when_over(self._look)

    def is_running(self) -> bool:
        """Whether it still goes on."""
        return not self._task.done() or (self._elsewhere is not None and self._elsewhere.still_running())

    def _look(self) -> None:
        """Take it off when the task, and what it waited for, are both over."""
        if self._told or self.is_running():
            return
        self._told = True
        _ = self._task.cancelled() or self._task.exception()  # it was looked at: no "never retrieved" at exit
        if self._left is not None:
            self._left.clear(self)
        late_s = self._task.get_loop().time() - self._at
        what, name = self._what.what, self._what.name
        self._scope.emit(AbandonedEnded(what=what, name=name, call_id=self._what.call_id, late_s=late_s))
        _log.info("%s %s ended %.3g s after it was left running", what, name, late_s)
