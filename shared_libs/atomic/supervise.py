"""
Awaiting what may not return.

`asyncio.wait_for` waits for a task that swallows its cancellation: a tool that absorbs it for six seconds holds a
one-second limit for seven. `supervise` cancels, waits a short grace, and then leaves the task behind, booked on the
ledger of the current scope. It is the only way this library awaits foreign code: a tool, a memory store, a model. Its
own requests, which obey, are awaited `within` their time in the task that makes them (`in_place`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from shared_libs.atomic.alarm import Alarm, Expiry
from shared_libs.atomic.errors import DeadlineExceeded, RunInterrupted, in_words
from shared_libs.atomic.events import Abandoned, AbandonedEnded
from shared_libs.atomic.rescue import BLOCKED, Call, call_here, door, forget_in_thread, in_progress, noted
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.watchdog import WATCHDOG

T = TypeVar("T")

_log = logging.getLogger(__name__)

MAX_LEFT_RUNNING = 16
"""Calls of one owner that may run on unasked; half of the threads of a tool, so that others still find one."""

GRACE_S = 0.02
"""How long a cancelled task may take to clean up, in seconds; a part of the 50 ms a run may overrun."""

_LAST_LOOKS = 3
"""How often it is looked at once more when that is over, each time after a turn or two of the loop."""

NO_FAILURES = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, RunInterrupted)
"""What ends the caller, not only the call: whoever makes a failure of whatever foreign code raises lets these pass."""


class Elsewhere(Protocol):
    """Work that goes on outside the task that waits for it."""

    @property
    def running(self) -> bool:
        """Whether it goes on, or is still to begin."""

    def withdraw(self) -> None:
        """Take it back where it has not begun."""

    def when_over(self, then: Callable[[], None]) -> None:
        """Have `then` called by the loop when it has ended."""

    def belong_to(self, call: Call) -> None:
        """Have what it calls on this loop be a part of `call`."""


class LeftRunning:
    """What the calls of one owner have left running; when that is too much, it takes no further calls."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: set[_Straggler] = set()

    def __len__(self) -> int:
        return len(self._running)

    def __str__(self) -> str:
        return f"{len(self)} earlier calls were given up and still run; try again when some have ended"

    @property
    def full(self) -> bool:
        """Whether a further call is to be refused."""
        if len(self._running) < MAX_LEFT_RUNNING:
            return False
        self._running -= {each for each in self._running if not each.is_running()}
        return len(self._running) >= MAX_LEFT_RUNNING

    def book(self, straggler: _Straggler) -> None:
        """Count one until it ends."""
        self._running.add(straggler)

    def clear(self, straggler: _Straggler) -> None:
        """Count one no more."""
        self._running.discard(straggler)


class BodyCancelled(Exception):
    """The body raised `CancelledError` by itself; nobody outside asked for it."""


class BodyExited(Exception):
    """The body raised `SystemExit`, which must not end the process that hosts it."""


async def supervise(
    body: Coroutine[Any, Any, T],
    expiry: Expiry,
    *,
    what: str,
    name: str,
    call_id: str = "",
    elsewhere: Elsewhere | None = None,
    left_running: LeftRunning | None = None,
) -> T:
    """
    Await `body` as a task of its own, until `expiry` and never longer than `GRACE_S` after it.

    The body begins at once where Python can do that (3.12), and costs no turn of the loop if it never waits.

    Args:
        body: what to run.
        expiry: when to give up; may be moved by the body while it runs.
        what: "tool", "memory" or "model", for the ledger.
        name: whose call it is, for the ledger.
        call_id: the call's id, for the ledger.
        elsewhere: work that goes on outside the task, such as in a thread.
        left_running: where the owner counts what its calls leave running.

    Raises:
        DeadlineExceeded: time was over; its `still_running` tells whether the body was left behind.
        BodyCancelled: the body cancelled itself.
        BodyExited: the body tried to end the process.
        asyncio.CancelledError: somebody outside cancelled the caller; the body was cancelled first.

    """
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    bell = _Bell(loop, expiry, name)
    calls = WATCHDOG.calls_on(loop)
    calls.add(bell)
    if elsewhere is not None:
        elsewhere.belong_to(bell)
    task = _begun(bell.ring_after(body), loop)
    cancelled: asyncio.CancelledError | None = None
    expired = False
    if not task.done():
        try:
            await bell.wait()
        except asyncio.CancelledError as error:
            cancelled = error
        if not task.done():
            expired = cancelled is None
            # once: a driver that is closing a connection when a second one comes leaves it half closed
            task.cancel()
            cancelled = await settle([task]) or cancelled
    calls.discard(bell)
    WATCHDOG.tell(loop)  # a body that never waited has left the loop no turn in which to tell what held it
    if _goes_on(task, elsewhere):
        _Straggler(task, elsewhere, Abandoned(what=what, name=name, call_id=call_id)).book(began_at, left_running)
        if cancelled is None:
            raise DeadlineExceeded(expiry.why, still_running=True)
    if cancelled is not None:  # a cancel from outside always wins
        try:
            raise cancelled
        finally:
            del cancelled
    if expired and (task.cancelled() or task.exception()):
        raise DeadlineExceeded(expiry.why)
    if task.cancelled():
        raise BodyCancelled
    try:
        return task.result()
    except GeneratorExit as error:  # of the body's own; one of ours closes this very coroutine
        raise BodyExited("GeneratorExit") from error
    finally:
        del task  # an error holds this frame, and the task the error: a cycle that only the collector would free


def said_by(error: BaseException) -> str:
    """Say a foreign error's kind and text; its kind alone where the text takes too long."""
    try:
        return call_here(in_words, error)
    except DeadlineExceeded:
        return type(error).__name__


async def settle(tasks: Collection[asyncio.Task[Any]], grace_s: float = GRACE_S) -> asyncio.CancelledError | None:
    """
    Give cancelled tasks their time to clean up, `grace_s` seconds in all and never less than a few turns of the loop.

    Turns, because the process may be held up for longer than the grace (a busy machine, a thread that has the
    interpreter, hundreds of calls given up at once): then no task has had its chance to obey, and none is to be called
    abandoned for it. Returns the last cancellation of the caller that came meanwhile: it has to wait as well. Some
    cancel once (asyncio.timeout), others on every turn of the loop (the scopes of anyio, and so Starlette, FastAPI and
    MCP); who leaves at the second leaves behind what was about to obey.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + grace_s
    cancelled, last_looks = None, _LAST_LOOKS
    waiting = {task for task in tasks if not task.done()}
    while waiting and last_looks:
        left_s = max(until - clock(), 0)
        last_looks -= not left_s
        try:
            _, waiting = await asyncio.wait(waiting, timeout=left_s)
        except asyncio.CancelledError as error:
            cancelled = error
            waiting = {task for task in waiting if not task.done()}
    return cancelled


async def together(bodies: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """
    Run bodies at once and return their results in order.

    When one fails, or the caller is cancelled, the others are cancelled and given their grace before that is raised:
    nothing runs on that nobody has booked. Each body awaits what is foreign by `supervise`.
    """
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(body) for body in bodies]
    cancelled: asyncio.CancelledError | None = None
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    except asyncio.CancelledError as error:
        cancelled = error
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    cancelled = await settle(unfinished, 2 * GRACE_S) or cancelled
    failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]  # they were looked at
    if cancelled is not None:
        raise cancelled
    if failure := next(filter(None, failures), None):
        raise failure
    return [task.result() for task in tasks]


if sys.version_info >= (3, 12):

    def _begun(body: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
        """A task that has begun: what never waits is done already."""
        return asyncio.Task(body, loop=loop, eager_start=True)

else:

    def _begun(body: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
        """A task that will begin in the next turn of the loop."""
        return loop.create_task(body)


class _Bell(Call):
    """
    Wakes a waiter when a body has ended or its time is over.

    The body rings it in its own last step: one turn of the loop less than a callback of its task would take. For the
    watchdog it is the call: where the body holds the loop, no bell can be heard, and the body itself is interrupted.
    """

    __slots__ = ("_expiry", "_loop", "_name", "_rung")

    def __init__(self, loop: asyncio.AbstractEventLoop, expiry: Expiry, name: str) -> None:
        self.interrupted = self.in_thread = None
        self._loop = loop
        self._expiry = expiry
        self._name = name
        self._rung: asyncio.Future[None] | None = None

    @property
    def at(self) -> float:
        return self._expiry.at

    @door
    async def ring_after(self, body: Coroutine[Any, Any, T]) -> T:
        in_progress.set(self)  # in the task's own context
        try:
            return await body
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if self.interrupted is not None:  # whatever foreign code has made of the interrupt
                raise DeadlineExceeded(self._told()) from None
            if isinstance(error, SystemExit):
                raise BodyExited(f"SystemExit: {error}") from error
            raise
        finally:
            if self.in_thread is not None:
                forget_in_thread(self)
            self.ring()

    def _told(self) -> str:
        if self.interrupted == "own":
            return f"{self._expiry.why}: it blocked the event loop, and was interrupted"
        return f"{self._name} was interrupted: {BLOCKED}"

    async def wait(self) -> None:
        """Wait until it rings."""
        self._rung = self._loop.create_future()
        alarm = Alarm(self._loop, self._expiry, self.ring)
        try:
            await self._rung
        finally:
            alarm.stop()

    def ring(self) -> None:
        if self._rung is not None and not self._rung.done() and not self._loop.is_closed():
            self._rung.set_result(None)


def _goes_on(task: asyncio.Task[Any], elsewhere: Elsewhere | None) -> bool:
    """Whether anything of the body still runs; what was to run elsewhere and has not begun never will."""
    if not task.done():
        return True
    if task.cancelled():
        return elsewhere is not None and _runs_on(elsewhere)
    task.exception()  # it was looked at: no "never retrieved" at exit
    return False


def _runs_on(elsewhere: Elsewhere) -> bool:
    elsewhere.withdraw()
    return elsewhere.running


class _Straggler:
    """One call that goes on although nobody waits for it any more."""

    __slots__ = ("_at", "_elsewhere", "_left_running", "_scope", "_task", "_told", "_what")

    def __init__(self, task: asyncio.Task[Any], elsewhere: Elsewhere | None, what: Abandoned) -> None:
        self._task = task
        self._elsewhere = elsewhere
        self._what = what
        self._left_running: LeftRunning | None = None
        self._told = False

    def book(self, began_at: float, left_running: LeftRunning | None) -> None:
        """Put it on the ledgers of its run and its owner, and tell that it is left behind."""
        self._at = asyncio.get_running_loop().time()
        self._left_running, self._scope = left_running, current_scope()
        if left_running is not None:
            left_running.book(self)
        self._scope.abandon(self._what.name, self._what.call_id, began_at, self.is_running)
        self._scope.emit(self._what)
        if not self._scope.run_id:  # nobody hears the event
            noted(_log.warning, "%s %s ignored its cancellation and was left running", self._what.what, self._what.name)
        self._task.add_done_callback(lambda _: self._look())
        if self._elsewhere is not None:
            self._elsewhere.when_over(self._look)

    def is_running(self) -> bool:
        """Whether it still goes on; a task whose loop was closed under it does not."""
        in_task = not (self._task.done() or self._task.get_loop().is_closed())
        return in_task or (self._elsewhere is not None and self._elsewhere.running)

    def _look(self) -> None:
        """Take it off when the task, and what it waited for, are both over."""
        if self._told or self.is_running():
            return
        self._told = True
        _ = self._task.cancelled() or self._task.exception()  # it was looked at: no "never retrieved" at exit
        if self._left_running is not None:
            self._left_running.clear(self)
        late_s = self._task.get_loop().time() - self._at
        what, name = self._what.what, self._what.name
        self._scope.emit(AbandonedEnded(what=what, name=name, call_id=self._what.call_id, late_s=late_s))
        noted(_log.info, "%s %s ended %.3g s after it was left running", what, name, late_s)
