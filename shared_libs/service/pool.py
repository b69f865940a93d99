"""The slots of one agent or chain: how many there are, who waits for one, and for how long."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import accumulate

from shared_libs.observability.prometheus import SECONDS
from shared_libs.service.fair_queue import RANKS, TARGET_S, FairQueue, Waiter
from shared_libs.service.problems import Problem

REMEMBERED = 256
"""How many requests are remembered, to say how long one takes."""

REMEMBERED_S = 600.0

CUT = 0.7
"""What is left of the slots when the provider is full; one more comes back for as many successes as there are slots."""

FIRST_GUESS_S = 1.0
"""How long a request takes when none has ended yet."""

MOST_WAITING = 1000
"""How many wait at the most; further ones are refused at once."""


class Recent:
    """What requests took of late, and what they used: sums are kept, so that asking costs nothing."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, float, float]] = deque()
        self._quick_s = 0.0
        self._looked_at = float("-inf")
        self._unseen = 0
        self.seconds = self.cost = 0.0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, now: float, seconds: float, cost: float) -> None:
        """Remember a request that has ended."""
        self._kept.append((now, seconds, cost))
        self.seconds += seconds
        self.cost += cost
        self._unseen += 1
        if len(self._kept) > REMEMBERED:
            _, seconds, cost = self._kept.popleft()
            self.seconds -= seconds
            self.cost -= cost

    def quick_s(self, now: float) -> float:
        """Return what the quickest tenth of them took; some more, or a second, do not change it by much."""
        if self._unseen > len(self._kept) // 4 or now - self._looked_at > 1.0:
            took = sorted(seconds for at, seconds, _ in self._kept if now - at <= REMEMBERED_S)
            self._quick_s = took[len(took) // 10] if took else 0.0
            self._looked_at, self._unseen = now, 0
        return self._quick_s


class Waits:
    """How long requests waited for a slot, counted in buckets."""

    def __init__(self) -> None:
        self.sum_s = 0.0
        self._counts = [0] * (len(SECONDS) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.sum_s += seconds
        self._counts[bisect_left(SECONDS, seconds)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many waited no longer than each bound, as Prometheus has it."""
        return list(zip([*map(str, SECONDS), "+Inf"], accumulate(self._counts), strict=True))


class Pool:
    """
    Slots, and a fair queue for them.

    The number of slots follows the provider: a refusal for want of capacity (429, 503, 529) cuts it, successes bring
    it back (AIMD). How long answers take does not count: that is how long they are.

    Args:
        name: whose slots they are.
        most: how many there are at the most.

    """

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.limit = float(most)
        self.taken = 0
        self.queue = FairQueue()
        self.waits = Waits()
        self._loop = asyncio.get_running_loop()
        self._recent = Recent()
        self._cut_at = float("-inf")

    def check(self, waiter: Waiter) -> None:
        """
        Refuse what would be refused at once, and nothing more.

        Raises:
            Problem: it would come too late, or there is more to do than can be done.

        """
        now = self._loop.time()
        if not self._is_free or len(self.queue):
            self._refuse_what_cannot_be(waiter, now)
        elif waiter.until < now:
            raise self._too_late(now, waiter)

    async def enter(self, waiter: Waiter, accepted: Callable[[], None]) -> float:
        """
        Take a slot, as soon as it is this one's turn; returns the seconds it has waited.

        Args:
            waiter: who waits.
            accepted: called when it is not refused at once.

        Raises:
            Problem: it would come too late, or there is more to do than can be done.

        """
        self.check(waiter)
        if self._is_free and not len(self.queue):
            self.taken += 1
            accepted()
            return 0.0
        self._make_room(waiter)
        future: asyncio.Future[None] = self._loop.create_future()
        waiter.token = future
        self.queue.add(waiter)
        accepted()
        timer = self._loop.call_at(waiter.until, self._expire, waiter)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.leave()  # it had its turn in the moment it left
            raise
        finally:
            timer.cancel()
            self.queue.remove(waiter)
        return self._loop.time() - waiter.since

    def leave(self, *, cost: float = 0.0, took_s: float | None = None, was_full: bool = False) -> None:
        """
        Give a slot back.

        Args:
            cost: how much work was done.
            took_s: seconds it took; None where it was not done.
            was_full: whether the provider refused for want of capacity.

        """
        now = self._loop.time()
        self.taken -= 1
        if was_full:
            began_at = now - (took_s or 0.0)
            if began_at >= self._cut_at:  # those that were under way at the last cut say nothing new
                self.limit = max(1.0, self.limit * CUT)
                self._cut_at = now
        elif took_s is not None:
            self._recent.add(now, took_s, cost)
            self.limit = min(float(self.most), self.limit + 1.0 / self.limit)
        self._serve(now)

    def quick_s(self, now: float) -> float:
        """Return what the quickest tenth of requests took of late, in seconds; 0 where none has ended."""
        return self._recent.quick_s(now)

    def mean_s(self) -> float:
        """Return what a request took of late, in seconds."""
        return self._recent.seconds / len(self._recent) if len(self._recent) else FIRST_GUESS_S

    def mean_cost(self) -> float:
        """Return how much work a request was of late; 0 where none has ended."""
        return self._recent.cost / len(self._recent) if len(self._recent) else 0.0

    def predicted_wait_s(self, key: str, weight: float, cost: float) -> float:
        """Return how long somebody would wait who came now, in seconds."""
        if self._is_free and not len(self.queue):
            return 0.0
        done, busy_s = self._recent.cost, self._recent.seconds
        per_s = (done / busy_s if done and busy_s else cost / FIRST_GUESS_S) * int(self.limit)
        return self._between_s + self.queue.ahead(key, weight, cost) / per_s

    @property
    def wait_limit_s(self) -> float:
        """How long anybody waits in an overloaded queue: the target, and as long as one request takes."""
        return TARGET_S + self.mean_s()

    @property
    def _between_s(self) -> float:
        return self.mean_s() / max(1, int(self.limit))

    @property
    def _is_free(self) -> bool:
        return self.taken < int(self.limit)

    def _refuse_what_cannot_be(self, waiter: Waiter, now: float) -> None:
        wait_s = self.predicted_wait_s(waiter.key, waiter.weight, waiter.cost)
        overloaded = self.queue.overloaded(waiter.key)
        # in an overloaded queue the newest comes first: what stands before it says nothing
        if now + (self._between_s if overloaded else wait_s) > waiter.until:
            raise self._too_late(now, waiter, wait_s)
        if overloaded and waiter.rank == RANKS["sheddable"]:
            raise self._overloaded(waiter, now)
        if len(self.queue) >= MOST_WAITING and self._last().rank <= waiter.rank:
            raise self._overloaded(waiter, now)

    def _make_room(self, waiter: Waiter) -> None:
        """Shed the last of those who matter less, where too many wait."""
        if len(self.queue) >= MOST_WAITING:
            last = self._last()
            self.queue.remove(last)
            self._fail(last, self._overloaded(last, waiter.since))

    def _last(self) -> Waiter:
        return max(self.queue, key=lambda other: (other.rank, other.since))

    def _serve(self, now: float) -> None:
        """Give free slots to those whose turn it is."""
        while self._is_free and (waiter := self.queue.pop(now, self.wait_limit_s)) is not None:
            for late in self.queue.late(waiter.key, now, self.wait_limit_s):
                self._fail(late, self._overloaded(late, now))
            if waiter.token.done():
                continue
            if waiter.until < now:
                self._fail(waiter, self._too_late(now, waiter))
            else:
                self.taken += 1
                waiter.token.set_result(None)

    def _expire(self, waiter: Waiter) -> None:
        self.queue.remove(waiter)
        self._fail(waiter, self._too_late(self._loop.time(), waiter))

    def _fail(self, waiter: Waiter, problem: Problem) -> None:
        if not waiter.token.done():
            waiter.token.set_exception(problem)

    def _too_late(self, now: float, waiter: Waiter, wait_s: float = 0.0) -> Problem:
        need_s = waiter.need_s
        left_s = max(0.0, waiter.until + need_s - now)
        detail = (
            f"{self.name}: it takes at least {need_s:.2f} s, and could begin in {wait_s:.2f} s; the deadline is in "
            f"{left_s:.2f} s"
        )
        facts = {"wait_s": round(wait_s, 3), "need_s": round(need_s, 3), "left_s": round(left_s, 3)}
        # it fits when the queue is so short that what is left covers both; where it never does, waiting is no use
        again_s = max(0.0, wait_s - max(0.0, left_s - need_s)) if need_s < left_s else None
        return Problem("deadline_unreachable", detail, retry_after_s=again_s, facts=facts)

    def _overloaded(self, waiter: Waiter, now: float) -> Problem:
        waited_s = now - waiter.since
        detail = f"{self.name}: {len(self.queue)} wait for {int(self.limit)} slots; this one waited {waited_s:.2f} s"
        return Problem("overloaded", detail, retry_after_s=max(0.1, 2 * self._between_s), facts={"why": "queue"})
