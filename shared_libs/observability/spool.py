"""Hand things to a consumer in a thread of its own, so that a slow disk or terminal never holds up a run."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from shared_libs.atomic.forks import outside_the_loop

T = TypeVar("T")


class _End:
    """What is put last."""


class Spool(Generic[T]):
    """
    A queue with one consumer in a daemon thread, from the first thing that is put into it until `end`.

    After a failure (`error`) the rest is dropped: what is written has no holes. Once a wait of `flush` was in vain the
    consumer counts as stuck, and nobody waits for it again.
    """

    def __init__(self, consume: Callable[[T], None], *, name: str) -> None:
        self.error: Exception | None = None
        self._consume = consume
        self._name = name
        self.begin_anew()
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """Begin with no thread and an empty queue; a forked child has not the thread, and the rest is the parent's."""
        self._stuck = self._works = False
        self._consumed = 0
        self._starting = threading.Lock()
        self._queue: queue.SimpleQueue[T | threading.Event | _End] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Hand over an item; never waits."""
        self._put(item)

    def flush(self, timeout_s: float = 1.0, *, patiently: bool = False) -> bool:
        """
        Wait until everything so far is consumed, and tell whether it is.

        Args:
            timeout_s: for so many seconds at the most.
            patiently: for as long as something is consumed within each of these spans.

        """
        if not self._stuck and self._works:
            reached = threading.Event()
            self._put(reached)
            seen = self._consumed
            while not (done := reached.wait(timeout_s)) and patiently and self._consumed != seen:
                seen = self._consumed
            self._stuck = not done
        return not self._stuck and (self._works or self._queue.empty())

    def end(self) -> None:
        """Let the thread go behind what is there; what is put later begins another one."""
        if self._works:
            self._put(_End())

    def _put(self, item: T | threading.Event | _End) -> None:
        self._queue.put(item)
        with self._starting:
            if not self._works:
                with contextlib.suppress(RuntimeError):  # the system gives no thread: the next that is put tries again
                    threading.Thread(target=self._work, name=f"factory-{self._name}", daemon=True).start()
                    self._works = True

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                with self._starting:
                    if self._queue.empty():
                        self._works = False
                        return
            elif isinstance(item, threading.Event):
                item.set()
            elif self.error is None:
                self._consumed += 1
                try:
                    self._consume(item)
                except Exception as error:  # noqa: BLE001 - kept for whoever asks; a thread has nobody to raise to
                    self.error = error
