"""
Awaiting what may not return.

`asyncio.wait_for` waits for a task that swallows its cancellation: a tool that absorbs it for six seconds holds a
one-second limit for seven. `supervise` cancels, waits a short grace, and then leaves the task behind, booked on the
ledger of the current scope. It is the only way this library awaits a tool, a memory store or a model.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.events import Abandoned
from shared_libs.atomic.scope import current_scope

T = TypeVar("T")

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


class BodyCancelled(Exception):
    """The body raised `CancelledError` by itself; nobody outside asked for it."""


async def supervise(
    body: Coroutine[Any, Any, T],
    expiry: Expiry,
    *,
    what: str,
    name: str,
    call_id: str = "",
    still_running: Callable[[], bool] | None = None,
) -> T:
    """
    Await `body` as a task of its own, until `expiry` and never longer than `GRACE_S` after it.

    Args:
        body: what to run.
        expiry: when to give up; may be moved by the body while it runs.
        what: "tool", "memory" or "model", for the ledger.
        name: whose call it is, for the ledger.
        call_id: the call's id, for the ledger.
        still_running: tells whether work goes on outside the task, such as in a thread.

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
            if _goes_on(task, still_running):
                _abandon(task, Abandoned(what=what, name=name, call_id=call_id), began_at, still_running)
        raise
    if _goes_on(task, still_running):
        _abandon(task, Abandoned(what=what, name=name, call_id=call_id), began_at, still_running)
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


def _goes_on(task: asyncio.Task[Any], still_running: Callable[[], bool] | None) -> bool:
    """Whether anything of the body still runs."""
    if not task.done():
        return True
    if task.cancelled():
        return still_running is not None and still_running()
    task.exception()  # it was looked at: no "never retrieved" at exit
    return False


def _abandon(
    task: asyncio.Task[Any], left: Abandoned, began_at: float, still_running: Callable[[], bool] | None
) -> None:
    """Put what goes on unasked on the scope's ledger."""
    scope = current_scope()

    def running() -> bool:
        return not task.done() or (still_running is not None and still_running())

    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    scope.abandon(left.name, left.call_id, began_at, running)
    scope.emit(left)
