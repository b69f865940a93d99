"""The thread that writes: what it is given waits in a bounded queue, and goes to the database in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from shared_libs.atomic.errors import RunStoreUnavailable
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.observability.runs.desk import Desk, Told
from shared_libs.observability.runs.statements import Change

T = TypeVar("T")

_log = logging.getLogger("shared_libs.observability")

MOST_WAITING = 20_000
"""How many events wait at the most."""

MOST_BYTES = 64 << 20
"""How much they hold together at the most."""

GATHER_S = 0.02
"""Seconds that a batch is gathered: a transaction for each event would cost more than all of them."""

BEGIN_S = 0.1
"""Seconds that what only begins something waits for what becomes of it: most of a short run is one transaction then."""

BATCH = 500
"""Events of a batch at the most."""

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
"""The waits between two tries while the database is away; each is twice the one before."""

TOLD_AGAIN_S = 60.0
"""Seconds until it is told again that events are refused, for the same reason."""

TIDY_S = 3_600.0
"""Seconds between two times that old runs are looked for."""


class Writer:
    """
    A queue with one consumer in a daemon thread.

    While the database is away what is told waits, in its order; what finds the queue full is lost, counted, and told in
    the log. What the database refuses is lost alone.

    Args:
        desk: what is done with the events, in this thread.

    """

    def __init__(self, desk: Desk) -> None:
        self.lost = 0
        self._desk = desk
        self._refused, self._told_again_at = "", 0.0
        self.begin_anew()
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """Begin with an empty queue and no thread; in a forked child the rest is the parent's."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Told, int]] = deque()
        self._bytes = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._tidy_at = 0.0
        self._busy = self._soon = self._hurry = self._closing = False
        self._desk.begin_anew()

    def put(self, told: Told, *, begins: bool = False) -> None:
        """Hand over an event; never waits. One that only `begins` something may be written a little later."""
        size = len(told.event)
        with self._changed:
            if len(self._waiting) >= MOST_WAITING or self._bytes + size > MOST_BYTES:
                self.lost += 1
                return
            self._waiting.append((told, size))
            self._bytes += size
            gathering = not (begins or self._soon)
            self._soon = self._soon or gathering
            if gathering or len(self._waiting) == 1 or self._thread is None:  # else it has been told already
                with suppress(RuntimeError):  # the system gives no thread: the next that is told tries again
                    self._wake(gathering=gathering)

    def call(self, do: Callable[[], T]) -> Future[T]:
        """Have something done in the writer's thread, between two batches."""
        outcome: Future[T] = Future()

        def settle() -> None:
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(do())
                except BaseException as error:  # noqa: BLE001 - whoever waits for it hears of it
                    outcome.set_exception(error)

        with self._changed:
            self._wake()  # first: what raises here is not done later
            self._calls.append(settle)
        return outcome

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything so far is written, at most so many seconds; tell whether it is."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not (self._waiting or self._busy), timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what is left, at most so many seconds, and let the thread go; a later event begins another one."""
        with self._changed:
            if self._thread is None:
                return not self._waiting
            self._closing = self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._thread is None, timeout_s)

    def _wake(self, *, gathering: bool = False) -> None:
        if self._thread is None:
            self._closing = self._hurry = False
            thread = threading.Thread(target=self._work, name="factory-runs", daemon=True)
            thread.start()
            self._thread = thread
        elif gathering or not self._busy:
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            self._busy = True
            if (batch := self._next()) is None:
                self._desk.clear()
                with self._changed:
                    self._busy = False
                    if not self._waiting and not self._calls:
                        self._thread = None
                        self._changed.notify_all()
                        return
                continue
            self._serve()
            if batch:
                self._deliver([told for told, _ in batch])
                with self._changed:
                    self._bytes -= min(self._bytes, sum(size for _, size in batch))
                self._tidy()

    def _next(self) -> list[tuple[Told, int]] | None:
        """Wait for something to do; None: there is nothing more."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._calls or self._closing)
            if self._closing and not self._waiting and not self._calls:
                return None
            self._busy = True
            self._changed.wait_for(lambda: self._soon or self._hurry or self._calls or self._closing, BEGIN_S)
            self._changed.wait_for(lambda: self._hurry or self._calls or self._closing, GATHER_S if self._soon else 0)
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._soon = bool(self._waiting)
            self._hurry = self._hurry and bool(self._waiting)
            return batch

    def _serve(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _deliver(self, batch: list[Told]) -> None:
        """Write what was told: all at once, and each alone where that is refused."""
        changes: list[list[Change]] = []
        try:
            for told in batch:
                with self._refusable():
                    changes.append(self._patiently(partial(self._desk.changes, told)))
            together = [change for each in changes for change in each]
            try:
                self._patiently(partial(self._desk.write, together))
            except RunStoreUnavailable:
                raise
            except Exception:  # noqa: BLE001 - something in it is refused: the rest is not lost for it
                for each in changes:
                    with self._refusable():
                        self._patiently(partial(self._desk.write, each))
        except RunStoreUnavailable:  # and nobody waits any more until it is there again
            with self._changed:
                self.lost += len(batch) + len(self._waiting)
                self._waiting.clear()
                self._bytes = 0

    @contextmanager
    def _refusable(self) -> Iterator[None]:
        """Lose one event where it is refused."""
        try:
            yield
        except RunStoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - no event is worth the others
            self.lost += 1
            words, now = str(error), time.monotonic()
            if words != self._refused or now >= self._told_again_at:  # a store that refuses all is no flood of lines
                self._refused, self._told_again_at = words, now + TOLD_AGAIN_S
                _log.warning("an event is not recorded (%d are lost so far): %s", self.lost, words)

    def _patiently(self, do: Callable[[], T]) -> T:
        """
        Do something, and again while the database is away.

        Raises:
            RunStoreError: it is refused, or the store is closed while the database is away.

        """
        wait_s, lost = FIRST_WAIT_S, self.lost
        while True:
            try:
                done = do()
            except RunStoreUnavailable as error:
                if wait_s == FIRST_WAIT_S:
                    _log.warning("%s; what is recorded waits, up to %d events", error, MOST_WAITING)
                with self._changed:
                    if self._changed.wait_for(lambda: self._closing, wait_s):
                        raise
                self._serve()
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                if wait_s > FIRST_WAIT_S:
                    _log.warning(
                        "run store %s takes events again; %d were lost meanwhile",
                        self._desk.shelf.place,
                        self.lost - lost,
                    )
                return done

    def _tidy(self) -> None:
        now = time.monotonic()
        if now >= self._tidy_at:
            try:
                more = self._desk.prune_some() > 0
            except Exception as error:  # noqa: BLE001 - there is another time
                _log.warning("old runs are not forgotten: %s", error)
                more = False
            self._tidy_at = now if more else now + TIDY_S
