"""Where synchronous code runs: in a bounded set of daemon threads per owner, never on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from shared_libs.atomic.errors import RunInterrupted, ToolError, in_words
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.atomic.rescue import Call, Lent, call_of, in_progress

MAX_THREADS = 32
"""Threads one owner (a tool, an evaluator) may hold, stuck ones included: a bulkhead, so that none starves another."""


IDLE_S = 10.0
"""Seconds a thread waits for its next call before it ends; as long as those of anyio."""


class Job:
    """One call in a thread. `running` turns false when the thread is through with it, whoever still waits."""

    __slots__ = ("_call", "_crew", "_done", "_lent", "_loop", "_then", "running")

    def __init__(self, crew: _Crew, call: Callable[[], Any], lent: Lent) -> None:
        self._crew = crew
        self._then: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Any] = self._loop.create_future()
        self._call = call
        self._lent = lent
        self.running = True

    async def result(self) -> Any:
        """Wait for the call; cancelling the wait does not stop the thread."""
        return await self._done

    async def ended(self) -> None:
        """Wait until the outcome is there; cancelling the wait changes nothing, so one can wait again."""
        await asyncio.wait([self._done])

    def withdraw(self) -> None:
        """Take it back if no thread has begun it: then none ever will, and it is not `running`."""
        self._crew.withdraw(self)

    def when_over(self, then: Callable[[], None]) -> None:
        """Have `then` called by the loop when the thread is through."""
        self._then = then

    def belong_to(self, call: Call) -> None:
        """Have what the thread calls on the event loop be a part of `call`, which may be interrupted there."""
        self._lent.lender = call

    def run(self) -> None:
        """Run the call in the current thread and hand the outcome to the loop."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = self._call()
        except BaseException as caught:  # noqa: BLE001 - SystemExit in a thread is the tool's failure, not the process's end
            known = isinstance(caught, Exception | RunInterrupted)
            error = caught if known else ToolError(in_words(caught))
        self.running = False
        self._crew.through()  # before anybody hears of it: the next call, made at once, needs no second thread
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self._then is not None:
            self._then()
        if self._done.done():
            return
        if isinstance(error, StopIteration):  # a future refuses it
            error = ToolError("StopIteration")
        if error is not None:
            self._done.set_exception(error)
            self._done.exception()  # who gave the call up hears of its end, not of its failure: no "never retrieved"
        else:
            self._done.set_result(value)


class Threads:
    """
    A few reusable daemon threads of one owner.

    Daemons, because a thread stuck in native code must not keep the process alive; not asyncio's default executor,
    because six stuck calls there starve everything else in the process. Calls over `limit` wait for a free thread. A
    thread that has had nothing to do for `idle_s` ends, and so does an idle one whose owner is gone.
    """

    def __init__(self, name: str, limit: int = MAX_THREADS, *, idle_s: float = IDLE_S) -> None:
        self._crew = _Crew(name, limit, idle_s)
        weakref.finalize(self, self._crew.close).atexit = False

    def __len__(self) -> int:
        """How many threads there are."""
        return self._crew.threads

    @property
    def idle(self) -> int:
        """How many of them have nothing to do."""
        return self._crew.idle

    def submit(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Job:
        """
        Start `function(**arguments)` in a thread, with the caller's context variables.

        Raises:
            ToolError: a thread was needed and the system gave none; the call is not made, now or later.

        """
        context, lent = contextvars.copy_context(), Lent(call_of(in_progress.get()))
        context.run(in_progress.set, lent)
        job = Job(self._crew, lambda: context.run(function, **arguments), lent)
        self._crew.add(job)
        return job

    def close(self) -> None:
        """Let the idle threads end; busy ones end after their job. The next call starts others."""
        self._crew.close()


class _Crew:
    """
    The threads themselves. They know this and not their owner, which may go while they wait.

    Of many jobs that come at once each wakes no thread of its own: they would all want the interpreter at the same
    time, and be switched to and fro. One is woken, and whoever takes a job while more are left wakes the next before it
    begins. The one that has waited shortest is woken first, so that the others come to their end.
    """

    def __init__(self, name: str, limit: int, idle_s: float) -> None:
        self._name = name
        self._limit = limit
        self._idle_s = idle_s
        self.begin_anew()
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """Have no threads; a forked child has none, and what is queued is the parent's to do."""
        self.threads = 0
        self._closed = False
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()
        self._asleep: list[threading.Lock] = []
        self._coming = 0
        """Threads that are about to look at the queue: woken, just started, or through with a job."""

    @property
    def idle(self) -> int:
        """Threads that have no job."""
        return len(self._asleep) + self._coming

    def add(self, job: Job) -> None:
        """Queue a job, and see that there is a thread for it."""
        with self._lock:
            self._closed = False
            if not self._coming and not self._wakes_one() and self.threads < self._limit:
                self._start_one()
            self._queue.append(job)

    def withdraw(self, job: Job) -> None:
        """Take back a job that no thread has begun."""
        with self._lock:
            if job in self._queue:
                self._queue.remove(job)
                job.running = False

    def through(self) -> None:
        """Count the current thread as idle."""
        with self._lock:
            self._coming += 1

    def close(self) -> None:
        """Let idle threads end."""
        with self._lock:
            self._closed = True
            while self._wakes_one():
                pass

    def _wakes_one(self) -> bool:
        """Wake an idle thread, if there is any; under the lock."""
        if not self._asleep:
            return False
        self._coming += 1
        self._asleep.pop().release()
        return True

    def _start_one(self) -> None:
        """Start a thread; under the lock."""
        thread = threading.Thread(target=self._work, name=f"factory-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise ToolError(
                f"{self._name} was not started: the system gives no further thread ({error}); fewer calls at once, or "
                "a higher limit of threads, would help"
            ) from error
        self.threads += 1
        self._coming += 1

    def _work(self) -> None:
        sleep = threading.Lock()
        sleep.acquire()  # it is awake
        while (job := self._next(sleep)) is not None:
            job.run()
            del job  # an idle thread holds nothing of its last call

    def _next(self, sleep: threading.Lock) -> Job | None:
        """Wait for a job; None when this thread is to end."""
        with self._lock:
            self._coming -= 1
            while not self._queue:
                if (self._closed or not self._slept(sleep)) and not self._queue:
                    self.threads -= 1
                    return None
            job = self._queue.popleft()
            if self._queue and not self._coming and not self._wakes_one() and self.threads < self._limit:
                with contextlib.suppress(ToolError):  # then the next waits for this one
                    self._start_one()
            return job

    def _slept(self, sleep: threading.Lock) -> bool:
        """Sleep without the lock that is held; whether somebody woke it."""
        self._asleep.append(sleep)
        self._lock.release()
        woken = sleep.acquire(timeout=self._idle_s)
        self._lock.acquire()
        if not woken and sleep in self._asleep:
            self._asleep.remove(sleep)
            return False
        if not woken:
            sleep.acquire()  # it was woken in the very moment in which it would have ended
        self._coming -= 1
        return True
