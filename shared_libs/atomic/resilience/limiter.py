"""
Our own limits on a model: requests and tokens in any minute, and requests at once.

A sliding window, not a bucket: a bucket of 50 a minute lets 99 through in its first. Who waits is served in the order
of deadlines, and who cannot be served in time is told so at once instead of waiting for nothing. Tokens are reserved
when a request begins, by what an answer usually takes, and settled when it has come: a burst is bounded as well.

The callers may be on several event loops in several threads: the counts are kept under a lock, and who waits is woken
by its own loop. A call costs the same however many others are in the window.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.atomic.resilience.policy import RateLimit

WINDOW_S = 60.0

_LEARNING = 0.2
"""The share of the newest answer in what an answer usually takes."""


class Place:
    """The right to make one request on a loop; `reserved` tokens are held for it, `held` is what it waited for."""

    __slots__ = ("held", "loop", "reserved")

    def __init__(self, loop: asyncio.AbstractEventLoop, reserved: int) -> None:
        self.loop = loop
        self.reserved = reserved
        self.held = ""


class _Waiter:
    """Somebody who waits for a place; the nearest deadline sorts first."""

    __slots__ = ("_woken", "about", "held", "key", "limit", "loop", "place")

    def __init__(self, key: tuple[float, int], limit: RateLimit, about: int) -> None:
        self.held = ""
        self.key = key
        self.limit = limit
        self.about = about
        self.loop = asyncio.get_running_loop()
        self.place: Place | None = None
        self._woken: asyncio.Future[None] = self.loop.create_future()

    def __lt__(self, other: _Waiter) -> bool:
        return self.key < other.key

    async def wait(self) -> None:
        """Wait until woken."""
        await self._woken

    def wake(self) -> bool:
        """Wake whoever waits, from any thread; False when its loop is closed."""
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


class Limiter:
    """The use of one model by this process, and the queue of those who want to use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: Counter[asyncio.AbstractEventLoop] = Counter()
        self._requests: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque()
        self._in_window = 0
        self._reserved: Counter[asyncio.AbstractEventLoop] = Counter()
        self._usual = 0.0
        self._waiting: list[_Waiter] = []
        self._order = itertools.count()
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._hearers: list[Callable[[], bool]] = []
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """Begin anew in a child: what waits there is nobody's, and the lock may be held."""
        self._lock = threading.Lock()
        self._active, self._reserved = Counter(), Counter()
        self._waiting, self._timers, self._hearers = [], {}, []

    async def enter(self, limit: RateLimit, deadline: Deadline, about: int = 0) -> Place:
        """
        Wait for a place and take it; give it back by `leave`.

        Args:
            limit: what may be used.
            deadline: when there is no use for a place any more.
            about: how many tokens the request may take, for as long as no answer has told what is usual.

        Raises:
            RateLimited: no place can be free before the deadline; `retry_after_s` says when one may be.

        """
        now = asyncio.get_running_loop().time()
        with self._lock:
            if not self._waiting and self._opens_at(limit, about, now)[0] <= now:
                return self._take(asyncio.get_running_loop(), limit, about, now)
            waiter = _Waiter((deadline.at, next(self._order)), limit, about)
            ahead = bisect_right(self._waiting, waiter)
            opens_at, held = self._opens_at(limit, about, now, ahead)
            waiter.held = _in_words(limit, held) if held else self._waiting[0].held  # which would fit, but for others
            if deadline.at <= opens_at != float("inf"):
                wait_s = opens_at - now
                told = f"not asked: our own limit of {waiter.held} is used up for {wait_s:.3g} s"
                raise RateLimited(told, retry_after_s=wait_s)
            insort(self._waiting, waiter)
        self._serve()
        try:
            async with asyncio.timeout_at(None if deadline.at == float("inf") else deadline.at):
                await waiter.wait()
        except BaseException as error:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
            if waiter.place is not None:  # it was given in the same moment: pass it on
                self.leave(waiter.place, 0)
            else:
                self._serve()
            if isinstance(error, TimeoutError):
                told = f"not asked: no place within our own limit of {waiter.held} before the deadline"
                raise RateLimited(told) from None
            raise
        assert waiter.place is not None
        waiter.place.held = waiter.held
        return waiter.place

    def take(self, limit: RateLimit, about: int = 0) -> Place:
        """Take a place that somebody else, such as a shared store, has given; give it back by `leave`."""
        with self._lock:
            now = _now()
            self._forget(now)
            return self._take(asyncio.get_running_loop(), limit, about, now)

    def leave(self, place: Place, tokens: int) -> None:
        """Give the place back, and book the tokens the answer cost instead of those reserved."""
        with self._lock:
            self._give_back(place)
            if tokens:
                self._tokens.append((_now(), tokens))
                self._in_window += tokens
                self._usual += (tokens - self._usual) * (_LEARNING if self._usual else 1.0)
        self._serve()
        if self._hearers:
            self._hearers = [hear for hear in self._hearers if hear()]

    def is_full(self, limit: RateLimit) -> bool:
        """Whether as many requests are under way as may be at once."""
        if limit.concurrency is None:
            return False
        return sum(many for loop, many in [*self._active.items()] if not loop.is_closed()) >= limit.concurrency

    def when_left(self, hear: Callable[[], bool]) -> None:
        """Have `hear` called, in any thread, whenever a place is given back, until it returns False."""
        self._hearers.append(hear)

    def _take(self, loop: asyncio.AbstractEventLoop, limit: RateLimit, about: int, now: float) -> Place:
        place = Place(loop, self._expected(limit, about))
        self._active[loop] += 1
        self._reserved[loop] += place.reserved
        self._requests.append(now)
        return place

    def _give_back(self, place: Place) -> None:
        if self._active[place.loop] > 1:
            self._active[place.loop] -= 1
            self._reserved[place.loop] -= place.reserved
        else:  # the last one there, or one of a loop that was closed under it, whose places are given back already
            del self._active[place.loop], self._reserved[place.loop]

    def _expected(self, limit: RateLimit, about: int) -> int:
        """How many tokens a request will take, where that is limited."""
        return 0 if limit.tokens_per_minute is None else round(self._usual) or about

    def _serve(self) -> None:
        """Give free places to those who wait, the nearest deadline first; look again when the next one opens."""
        if not self._waiting:
            return
        with self._lock:
            while self._waiting:
                first = self._waiting[0]
                now = _now()
                opens_at, _ = self._opens_at(first.limit, first.about, now)
                if first.loop.is_closed():
                    del self._waiting[0]
                elif opens_at <= now:
                    del self._waiting[0]
                    first.place = self._take(first.loop, first.limit, first.about, now)
                    if not first.wake():
                        self._give_back(first.place)
                else:
                    self._look_again(first.loop, opens_at)
                    return

    def _look_again(self, loop: asyncio.AbstractEventLoop, opens_at: float) -> None:
        """Have the loop of the first who waits look again when a place opens; infinite: when one is given back."""
        if opens_at == float("inf"):
            return
        if running_loop() is not loop:  # only a loop itself may set its timers
            loop.call_soon_threadsafe(self._serve)
            return
        timer = self._timers.get(loop)
        if timer is not None and not timer.cancelled() and timer.when() <= opens_at and timer.when() > loop.time():
            return
        if timer is not None:
            timer.cancel()
        self._timers = {known: timer for known, timer in self._timers.items() if not known.is_closed()}
        self._timers[loop] = loop.call_at(opens_at, self._serve)

    def _opens_at(self, limit: RateLimit, about: int, now: float, ahead: int = 0) -> tuple[float, str]:
        """
        When there is a place, with `ahead` others served first, and which part of the limit is waited for.

        Now or earlier: there is one; infinite: when somebody gives one back, which has no time.
        """
        self._forget(now)
        opens_at, held = now, ""
        if limit.requests_per_minute is not None:
            # the request that must leave the window first; those ahead will enter as those before them leave
            index, rounds = len(self._requests) + ahead - limit.requests_per_minute, 1
            if index >= len(self._requests) > 0:
                rounds += (index - len(self._requests)) // limit.requests_per_minute + 1
                index -= limit.requests_per_minute * (rounds - 1)
            if index >= 0:
                opens_at = (self._requests[index] if self._requests else now) + WINDOW_S * rounds
                held = "requests_per_minute"
        if limit.tokens_per_minute is not None:
            fits_at = self._tokens_fit_at(limit.tokens_per_minute, self._expected(limit, about), now)
            if fits_at > opens_at:
                opens_at, held = fits_at, "tokens_per_minute"
        if opens_at <= now and self.is_full(limit):
            return float("inf"), "concurrency"
        return opens_at, held

    def _tokens_fit_at(self, most: int, expected: int, now: float) -> float:
        """When so many tokens fit in; what is larger than the whole limit goes alone."""
        reserved = self._reserved.total()
        excess = self._in_window + reserved + expected - most
        if excess <= 0 or not (self._in_window or reserved):
            return now
        for at, count in self._tokens:
            excess -= count
            if excess <= 0:
                return at + WINDOW_S
        return float("inf") if reserved else self._tokens[-1][0] + WINDOW_S

    def _forget(self, now: float) -> None:
        """Drop what has left the window, or belongs to the clock of another loop, or to a loop that is closed."""
        for closed in [loop for loop in self._active if loop.is_closed()]:  # nobody there will give a place back
            del self._active[closed], self._reserved[closed]
        while self._requests and not now - WINDOW_S < self._requests[0] <= now:
            self._requests.popleft()
        while self._tokens and not now - WINDOW_S < self._tokens[0][0] <= now:
            self._in_window -= self._tokens.popleft()[1]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The running loop, or None where none runs any more."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in_words(limit: RateLimit, held: str) -> str:
    many, of = getattr(limit, held), "token" if held.startswith("tokens") else "request"
    return f"{many:,} {of}{'' if many == 1 else 's'} {'at once' if held == 'concurrency' else 'a minute'}"


def _now() -> float:
    """The running loop's time; where none runs any more, the clock that loops read."""
    loop = running_loop()
    return time.monotonic() if loop is None else loop.time()
