"""An event loop for a command: Ctrl-C always gets through, and closing never waits for what does not end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from shared_libs.cli.exits import ExitCode, raise_on_interrupt

T = TypeVar("T")

CANCEL_S = 0.5
"""Seconds a cancelled command may take to clean up."""

CLOSE_S = 0.2
"""Seconds that what is left may take to end when the loop closes."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class CommandLoop:
    """
    Runs coroutines one after the other on an event loop in a daemon thread.

    The main thread only waits, so that a tool that blocks the loop cannot keep Ctrl-C from being heard. The first
    Ctrl-C (or SIGTERM) cancels what runs, so that it cleans up; the second ends the process at once. `asyncio.run`
    would wait for tasks that absorb their cancellation; this does not.
    """

    def __init__(self) -> None:
        raise_on_interrupt()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="factory-loop", daemon=True)
        self._thread.start()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """
        Run to the end.

        Raises:
            KeyboardInterrupt: it was cancelled by a signal; a `Terminated` for SIGTERM.

        """
        task = _Task(self._loop, main)
        with _sigterm_interrupts():
            try:
                with _woken_by(task.outcome) as wait:
                    task.start()  # in here: the loop's thread may be far before this one goes on, and a signal may come
                    wait()
                return task.outcome.result()
            except KeyboardInterrupt:
                try:
                    task.cancel()
                    concurrent.futures.wait([task.outcome], timeout=CANCEL_S)
                except KeyboardInterrupt:
                    os._exit(ExitCode.INTERRUPTED)
                raise

    def clean_up(self, main: Coroutine[Any, Any, None]) -> None:
        """Run something nobody waits for long: what fails or does not end changes nothing any more."""
        task = _Task(self._loop, main)
        task.start()
        with contextlib.suppress(Exception):
            task.outcome.result(CLOSE_S)

    def close(self) -> None:
        """Cancel what is left, give it a moment, and leave."""
        self.clean_up(self._cancel_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel_the_rest(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_S / 2)
        await self._loop.shutdown_asyncgens()


class _Task(Generic[T]):
    """A coroutine on a loop of another thread; `outcome` is what it ends in."""

    def __init__(self, loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, T]) -> None:
        self.outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop = loop
        self._main = main
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Hand it to the loop."""
        self._loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Ask it to end; its outcome comes when it has."""
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())

    def _start(self) -> None:
        self._task = self._loop.create_task(self._settle())

    async def _settle(self) -> None:
        try:
            self.outcome.set_result(await self._main)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.outcome.set_exception(error)


@contextlib.contextmanager
def _woken_by(outcome: concurrent.futures.Future[Any]) -> Iterator[Callable[[], None]]:
    """
    Wait for an outcome so that any signal ends the wait, too.

    A signal that comes just before the main thread sleeps in a lock, or that the system hands to another thread, is
    noted by Python and acted on when the lock is free; a byte in a pipe is there whenever it came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    awake, waker = socket.socketpair()
    with awake, waker:
        waker.settimeout(0)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:

            def wait() -> None:
                outcome.add_done_callback(_ring)
                while not outcome.done():
                    awake.recv(1)

            def _ring(_: object) -> None:
                with contextlib.suppress(OSError):  # nobody waits any more
                    waker.send(b"\0")

            yield wait
        finally:
            signal.set_wakeup_fd(before)


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, too, cancels what runs; inside a thread that is not the main one nobody can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
