"""Where synchronous code runs: in a bounded set of daemon threads per owner, never on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from shared_libs.atomic.errors import ToolError

MAX_THREADS = 32
"""Threads one owner (a tool, an evaluator) may hold, stuck ones included: a bulkhead, so that none starves another."""


class Job:
    """One call in a thread. `running` turns false when the thread is through with it, whoever still waits."""

    __slots__ = ("_call", "_done", "_loop", "_then", "_threads", "running")

    def __init__(self, threads: Threads, call: Callable[[], Any]) -> None:
        self._threads = threads
        self._then: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Any] = self._loop.create_future()
        self._call = call
        self.running = True

    async def result(self) -> Any:
        """Wait for the call; cancelling the wait does not stop the thread."""
        return await self._done

    async def ended(self) -> None:
        """Wait until the outcome is there; cancelling the wait changes nothing, so one can wait again."""
        await asyncio.wait([self._done])

    def still_running(self) -> bool:
        """Whether a thread is at it; what no thread has begun is taken back and never will be."""
        self._threads.withdraw(self)
        return self.running

    def when_over(self, then: Callable[[], None]) -> None:
        """Have `then` called by the loop when the thread is through."""
        self._then = then

    def run(self) -> None:
        """Run the call in the current thread and hand the outcome to the loop."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = self._call()
        except BaseException as caught:  # noqa: BLE001 - SystemExit in a thread is the tool's failure, not the process's end
            error = caught if isinstance(caught, Exception) else ToolError(f"{type(caught).__name__}: {caught}")
        self.running = False
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
        else:
            self._done.set_result(value)


class Threads:
    """
    A few reusable daemon threads of one owner.

    Daemons, because a thread stuck in native code must not keep the process alive; not asyncio's default executor,
    because six stuck calls there starve everything else in the process. Calls over `limit` wait for a free thread.
    """

    def __init__(self, name: str, limit: int = MAX_THREADS) -> None:
        self._name = name
        self._limit = limit
        self._threads = 0
        self._idle = 0
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Job:
        """Start `function(**arguments)` in a thread, with the caller's context variables."""
        context = contextvars.copy_context()
        job = Job(self, lambda: context.run(function, **arguments))
        with self._changed:
            self._closed = False
            self._queue.append(job)
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"factory-{self._name}", daemon=True).start()
        return job

    def withdraw(self, job: Job) -> None:
        """Take back a job that no thread has begun."""
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                job.running = False

    def close(self) -> None:
        """Let the idle threads end; busy ones end after their job."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._closed:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                job = self._queue.popleft()
            job.run()
