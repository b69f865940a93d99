"""
A limit that several processes keep together: asked of a store, one caller at a time, the nearest deadline first.

The store is foreign and may be out. Then a process goes on with the same limit for itself alone, says so once, and
asks the store again after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import weakref
from bisect import bisect_left, insort
from typing import NamedTuple

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import DeadlineExceeded, RateLimited
from shared_libs.atomic.events import Warned
from shared_libs.atomic.resilience.limiter import Limiter, Place
from shared_libs.atomic.resilience.policy import LimitStore, RateLimit
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.supervise import BodyCancelled, supervise

_log = logging.getLogger(__name__)

STORE_S = 2.0
"""How long the store may take, in seconds; at most half of a caller's time."""

TRUSTED_S = 0.25
"""A store that was silent for less is not called out: the caller was in too much of a hurry."""

OUT_S = 10.0
"""How long a store that failed is left alone, in seconds."""

_SOON_S = 0.005
"""The shortest wait between two questions: the clocks of two machines do not tick together."""

_TICK_S = 0.001
"""A timer may ring this much early, by the resolution of the loop's clock."""


async def close_store(limit: RateLimit) -> None:
    """Close the store of a limit, if it has one; a store that does not close is left behind."""
    if limit.store is None:
        return
    expiry = Expiry(asyncio.get_running_loop().time() + STORE_S, f"not closed within {STORE_S:g} s")
    try:
        await supervise(limit.store.aclose(), expiry, what="limit", name="store")
    except Exception as error:  # noqa: BLE001 - a store is foreign code, and nothing depends on its end
        _log.warning("the store of the rate limit was not closed: %s", error)


class _Turn(NamedTuple):
    """Somebody who waits; the nearest deadline sorts first."""

    at: float
    order: int
    woken: asyncio.Event


class SharedLimiter:
    """
    The limit of one model as one event loop asks a store for it. Concurrency is counted by process.

    Args:
        model: names the model in the store: provider, address and model.
        own: what this process itself counts, and falls back on.

    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_asking",
        "_loop",
        "_model",
        "_opens",
        "_order",
        "_out_until",
        "_own",
        "_told",
        "_turns",
    )

    def __init__(self, model: str, own: Limiter) -> None:
        self._model = model
        self._own = own
        self._order = itertools.count()
        self._turns: list[_Turn] = []
        self._asking = False
        self._opens: list[float] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._out_until = -math.inf
        self._told = False
        self._loop = asyncio.get_running_loop()
        own.when_left(_Waker(self))

    async def enter(self, store: LimitStore, limit: RateLimit, deadline: Deadline, about: int) -> Place:
        """
        Wait for a place and take it; give it back to the process's own limiter.

        Raises:
            RateLimited: no place can be free before the deadline; `retry_after_s` says when one may be.

        """
        if self._is_out() or not await self._share(store, limit, deadline):
            return await self._own.enter(limit, deadline, about)
        # only the store limits: what the process itself has counted does not
        return self._own.take(limit, about)

    async def book(self, limit: RateLimit, tokens: int, deadline: Deadline) -> None:
        """Tell the store what an answer cost, so that the other processes know before the answer is used."""
        store = limit.store
        if store is None or limit.tokens_per_minute is None or not tokens or self._is_out():
            return
        now = asyncio.get_running_loop().time()
        expiry = Expiry(min(deadline.at, now + STORE_S), "no answer in time")
        try:
            await supervise(store.book(self._model, tokens), expiry, what="limit", name=self._model)
        except Exception as error:  # noqa: BLE001 - a store is foreign code, and its failure costs no answer
            if not deadline.expired:
                self._give_up(error)

    async def _share(self, store: LimitStore, limit: RateLimit, deadline: Deadline) -> bool:
        """Wait for the store to give a place; False when it is out."""
        loop = asyncio.get_running_loop()
        me = _Turn(deadline.at, next(self._order), asyncio.Event())
        insort(self._turns, me)
        try:
            while not self._is_out():
                self._refuse_if_late(me, loop.time())
                if self._is_next(me, limit, loop.time()) and await self._ask(store, limit, deadline):
                    return True
                if not self._is_next(me, limit, loop.time()):
                    me.woken.clear()
                    async with asyncio.timeout_at(None if deadline.at == math.inf else deadline.at):
                        await me.woken.wait()
        except TimeoutError:
            raise RateLimited("not asked: no place within the shared limit before the deadline") from None
        else:
            return False
        finally:
            self._turns.remove(me)
            self._wake()

    def _is_next(self, me: _Turn, limit: RateLimit, now: float) -> bool:
        """Whether it is for this one to ask now; if it only is too early, there will be a call."""
        if self._asking or self._turns[0] is not me:
            return False
        if self._own.is_full(limit):
            return False
        if self._opens and self._opens[0] > now + _TICK_S:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = asyncio.get_running_loop().call_at(self._opens[0], self._wake)
            return False
        return True

    async def _ask(self, store: LimitStore, limit: RateLimit, deadline: Deadline) -> bool:
        """Ask the store for a place; without one, learn when places open, and tell those who wait."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        patience_s = min(STORE_S, (deadline.at - asked_at) / 2)
        expiry = Expiry(asked_at + patience_s, f"no answer within {patience_s:.3g} s")
        self._asking = True
        try:
            # more places than there are callers, for those who come before the next question
            asked = store.take(self._model, limit, 2 * len(self._turns) + 8)
            waits = await supervise(asked, expiry, what="limit", name=self._model)
        except DeadlineExceeded as error:
            if patience_s < TRUSTED_S:
                raise RateLimited("not asked: the store of the limit did not answer before the deadline") from None
            self._give_up(error)
            return False
        except Exception as error:  # noqa: BLE001 - a store is foreign code: whatever it raises, it is out
            self._give_up(error)
            return False
        finally:
            self._asking = False
        if self._told:
            self._told = False
            _log.warning("the limit of %s is shared again", self._model)
        # a process that slept on its place might send too late for it to count
        if not waits and loop.time() - asked_at <= STORE_S:
            self._opens = []
            return True
        self._opens = [loop.time() + max(wait_s, _SOON_S) for wait_s in waits]
        for turn in self._turns:
            turn.woken.set()
        return False

    def _refuse_if_late(self, me: _Turn, now: float) -> None:
        """Refuse who cannot be served in time, if those before are served first."""
        if not self._opens or self._opens[0] <= now:
            return
        opens_at = self._opens[min(bisect_left(self._turns, me), len(self._opens) - 1)]
        if opens_at >= me.at:
            wait_s = opens_at - now
            raise RateLimited(f"not asked: the shared limit is used up for {wait_s:.3g} s", retry_after_s=wait_s)

    def _is_out(self) -> bool:
        left_s = self._out_until - asyncio.get_running_loop().time()
        return 0 < left_s <= OUT_S  # more belongs to the clock of another loop

    def _give_up(self, error: Exception) -> None:
        """Leave the store alone for a while; say so once."""
        self._out_until = asyncio.get_running_loop().time() + OUT_S
        self._opens = []
        if not self._told:
            self._told = True
            why = "the request was cancelled from within" if isinstance(error, BodyCancelled) else error
            text = (
                f"the store of the rate limit does not work: {why}; until it does, this process keeps the limit of "
                f"{self._model} for itself alone, and several processes together may exceed it"
            )
            _log.warning("%s", text)
            current_scope().emit(Warned(message=text))
        for turn in self._turns:
            turn.woken.set()

    def wake_from_anywhere(self) -> bool:
        """Wake the first who waits, from any thread; False when the loop is closed."""
        if self._turns:
            with contextlib.suppress(RuntimeError):  # it closes at this very moment
                self._loop.call_soon_threadsafe(self._wake)
        return not self._loop.is_closed()

    def _wake(self) -> None:
        if self._turns:
            self._turns[0].woken.set()
            return
        self._opens = []
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class _Waker:
    """Wakes the first in a shared limiter's queue when any thread gives a place back, while that limiter lives."""

    def __init__(self, limiter: SharedLimiter) -> None:
        self._limiter = weakref.ref(limiter)

    def __call__(self) -> bool:
        limiter = self._limiter()
        return limiter is not None and limiter.wake_from_anywhere()
