"""The beat of a worker, from a thread of its own: a loop that is blocked is no death."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from shared_libs.atomic.errors import in_words
from shared_libs.durable.database import StoreUnavailable, open_database
from shared_libs.durable.holding import SET_BACK_S, Holder
from shared_libs.durable.jobs import Beaten, Held, WorkerPolicy

_log = logging.getLogger("shared_libs.durable")

FRESH = 0.6
"""The share of the lease after which a worker that could not beat begins no new effect."""

PATIENCE_S = 1.0
"""
Seconds for one beat, or a quarter of a lease; after one that did not get through twice as many, up to a lease.

Where the line was cut, a new one is heard at once, while the old one repeats what was lost after ever longer waits: an
interruption shorter than a lease would cost the lease. A server that is slow is given the time.
"""

SAID_EVERY_S = 60.0
"""Seconds after which an outage is told again that goes on for the same reason."""

SILENT_S = 120.0
"""Seconds a loop may be blocked until its worker counts as dead."""


def clock() -> float:
    """Seconds that also pass while the process is stopped, and where the system tells, while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Beat:
    """
    Beats, reaps, and brings back what the database believes this worker to hold.

    Args:
        url: the store.
        executor, name: the worker's id and what people call it.
        policy: the lease, and how many runs it does at once.
        on_beat: called in the beat's thread with what the worker holds, and when that was asked for (`clock`).

    """

    def __init__(
        self,
        url: str,
        executor: str,
        name: str,
        policy: WorkerPolicy,
        on_beat: Callable[[Sequence[Held], float], None],
    ) -> None:
        self._url, self._executor, self._name = url, executor, name
        self._concurrency, self._lease_s = policy.concurrency, policy.lease_s
        self._on_beat = on_beat
        self._beaten = asyncio.Event()
        self._sent = self._reaps_from = -math.inf
        self._patience_s = self._least_s = max(PATIENCE_S, self._lease_s / 4)
        self._why, self._said_at = "", 0.0
        self._ahead: dict[str, tuple[float, float]] = {}  # beats of others that lie ahead, and since when each is known
        self._apart, self._apart_said_at = False, -math.inf
        self._apart_s = 0.0
        self._pending_answer = False
        self._stop = threading.Event()
        self.draining = False
        self._thread = threading.Thread(target=self._run, name="durable-beat", daemon=True)

    @property
    def age_s(self) -> float:
        """Seconds since the last beat that got through was sent."""
        return clock() - self._sent

    @property
    def fresh(self) -> bool:
        """Whether the last beat is young enough to begin an effect, and no other clock counts it."""
        return self.age_s < FRESH * self._lease_s and not self._apart

    async def beaten(self) -> None:
        """Wait for the next beat that gets through, or for being told to end."""
        self._beaten.clear()
        await self._beaten.wait()

    async def start(self) -> None:
        """Begin to beat; the first beat is through when this returns, or the worker is to end before it."""
        self._loop = asyncio.get_running_loop()
        self._born = self._answered = clock()
        self._thread.start()
        if not self.draining:
            await self.beaten()

    def drain(self) -> None:
        """Tell with the beats that this worker ends; who waits for a beat waits for it no more."""
        self.draining = True
        self._beaten.set()

    async def stop(self) -> None:
        """Beat no more, and say that this worker has ended."""
        self._stop.set()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, 2.0)

    def _run(self) -> None:
        asyncio.run(self._beat_on())

    async def _beat_on(self) -> None:
        database = open_database(self._url, connections=1)
        holder = Holder(database, self._executor)
        every_s = min(1.0, self._lease_s / 5)
        try:
            while not self._stop.is_set():
                began = clock()
                if self._loop_lives():
                    await self._once(holder)
                await asyncio.sleep(max(0.02, every_s - (clock() - began)))
            await holder.leave()
        except StoreUnavailable as error:
            _log.warning("worker %s could not sign off: %s", self._name, error)
        finally:
            await database.aclose()

    async def _once(self, holder: Holder) -> None:
        sent = clock()
        try:
            async with asyncio.timeout(self._patience_s):
                beaten = await holder.beat(self._name, self._lease_s, self._concurrency, draining=self.draining)
                await self._compare_clocks(holder, beaten, sent)
            self._on_beat(beaten.held, sent)  # what is lost is known to be so before the beat counts
            if self._why:
                silent_s = clock() - max(self._sent, self._born)
                _log.warning("worker %s beats again, after %.0f s", self._name, silent_s)
                if silent_s > FRESH * self._lease_s:
                    # after an outage everybody's last beat is old: nobody is dead before all had the time to beat again
                    self._reaps_from = sent + self._lease_s
                self._why = ""
            self._sent, self._patience_s = sent, self._least_s
            self._loop.call_soon_threadsafe(self._beaten.set)
            if sent >= self._reaps_from:
                async with asyncio.timeout(self._patience_s):  # the next beat is due, whatever stands in the way of it
                    reaped = await holder.reap()
                if reaped:
                    _log.warning("worker %s queued %d runs of workers that are silent", self._name, reaped)
        except (StoreUnavailable, TimeoutError) as error:
            self._patience_s = max(self._least_s, min(2 * self._patience_s, self._lease_s))
            self._say(str(error) or "no answer")
        except Exception as error:  # noqa: BLE001 - whatever it is: a worker that beats no more holds its slots for nothing
            self._say(in_words(error), exc_info=True)

    async def _compare_clocks(self, holder: Holder, beaten: Beaten, sent: float) -> None:
        """
        Tell that clocks differ. By two of them nobody's silence, and no run's time, can be counted.

        Of a server there is one, and this host's counts nothing. An SQLite file has that of each machine that opens it:
        where others beat on ahead of this one, it stands back.
        """
        others = {name: at for name, at in beaten.ahead.items() if name != self._executor}
        moved = any(name in self._ahead and self._ahead[name][0] != at for name, at in others.items())
        known = dict(self._ahead.values())
        self._ahead = {name: (at, known.get(at, sent)) for name, at in others.items()}
        waits = any(sent - since < self._lease_s for _, since in self._ahead.values())
        self._apart = waits and self._executor not in beaten.ahead
        if beaten.ahead and not self._apart:  # ours lies ahead, or nobody beats there any more
            await holder.count_from_now()
        if moved and self._apart and sent - self._apart_said_at >= SAID_EVERY_S:
            self._apart_said_at = sent
            _log.error(
                "worker %s does nothing: another one on this file beats by a clock that is %.0f s ahead of this "
                "machine's. An SQLite file is for the workers of one machine: PostgreSQL is for many",
                *(self._name, max(others.values()) - beaten.now),
            )
        took_s = clock() - sent
        apart_s = time.time() - took_s / 2 - beaten.now
        if abs(apart_s - self._apart_s) > SET_BACK_S + took_s:
            self._apart_s = apart_s
            _log.warning(
                "worker %s: the clock of this machine is %.0f s %s that of the database, by which all is counted",
                *(self._name, abs(apart_s), "ahead of" if apart_s > 0 else "behind"),
            )

    def _say(self, why: str, *, exc_info: bool = False) -> None:
        """Tell that a beat did not get through: at once where the reason is a new one, else now and then."""
        if why != self._why or clock() - self._said_at >= SAID_EVERY_S:
            self._why, self._said_at = why, clock()
            _log.warning("worker %s could not beat: %s", self._name, why, exc_info=exc_info)

    def _loop_lives(self) -> bool:
        """Whether the worker's loop has done anything lately."""
        if not self._pending_answer:
            self._pending_answer = True
            self._loop.call_soon_threadsafe(self._answer)
        return clock() - self._answered < SILENT_S

    def _answer(self) -> None:
        self._pending_answer = False
        self._answered = clock()
