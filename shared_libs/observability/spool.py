"""Hand things to a consumer in a thread of its own, so that a slow disk or terminal never holds up a run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from shared_libs.atomic.forks import outside_the_loop

T = TypeVar("T")


class Spool(Generic[T]):
    """
    A queue with one consumer in a daemon thread.

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
        """Begin with a thread and an empty queue; a forked child has not the thread, and the rest is the parent's."""
        self._stuck = False
        self._queue: queue.SimpleQueue[T | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"factory-{self._name}", daemon=True).start()

    def put(self, item: T) -> None:
        """Hand over an item; never waits."""
        self._queue.put(item)

    def flush(self, timeout_s: float = 1.0) -> bool:
        """Wait until everything so far is consumed, at most so many seconds; tell whether it is."""
        if not self._stuck:
            reached = threading.Event()
            self._queue.put(reached)
            self._stuck = not reached.wait(timeout_s)
        return not self._stuck

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
            elif self.error is None:
                try:
                    self._consume(item)
                except Exception as error:  # noqa: BLE001 - kept for whoever asks; a thread has nobody to raise to
                    self.error = error
