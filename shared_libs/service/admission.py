"""
Admission: whether work may begin, and when. Every route that costs a model's time goes through it.

In this order, each on the loop's clock: what the key may use is reserved, a slot is waited for in a fair queue, the
work is done with what time is left, and what was used is settled. What can never be is refused at once, with the time
after which it may.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import msgspec

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.types import Price, Usage
from shared_libs.service.callers import Caller
from shared_libs.service.fair_queue import RANKS, Waiter
from shared_libs.service.lag import LoopLag
from shared_libs.service.limits import Booking, CallerLimits, Estimate, too_many_at_once
from shared_libs.service.pool import Pool, Waits
from shared_libs.service.problems import Problem
from shared_libs.service.rates import Rates

MOST_QUEUES = 20
"""Of how many keys it is told how many of their requests wait."""

REMEMBERED = 64
"""Of how many requests it is remembered what they used, to say what the next one is going to use."""

UNKNOWN_TOKENS = 1000
"""What a request is taken to use when nobody has said and none has ended."""

FULL = (429, 503, 529)
"""How providers say that they have no room."""


N = TypeVar("N", int, float)


def _tell_nobody(_: Rates) -> None:
    """Nobody asked to be told."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a request wants.

    Args:
        caller: who asks.
        target: which agent or chain; its slots are counted together.
        deadline: when it has to be over.
        tokens: what it is going to use, estimated; 0: as much as such requests used of late.
        need_s: seconds it takes at the least; None: what the quickest tenth of such requests took of late.
        priority: "critical", "default" or "sheddable"; a key's own is the highest it gets.
        price: what the dearest of its models costs; None where nobody knows, and no budget is touched.
        tell_rates: called with what is left of the caller's limits of the minute, once it is reserved.

    """

    caller: Caller
    target: str
    deadline: Deadline
    tokens: int = 0
    need_s: float | None = None
    priority: str = "default"
    price: Price | None = None
    tell_rates: Callable[[Rates], object] = _tell_nobody


class Grant:
    """A slot. Whoever has it says what was used before the `async with` block ends, with the work."""

    def __init__(self, demand: Demand, queued_s: float) -> None:
        self.demand = demand
        self.queued_s = queued_s
        self.usage: Usage | None = None
        self.cost_usd: float | None = None
        self.throttled = False

    def settle(self, usage: Usage, cost_usd: float | None) -> None:
        """Say what was used; without it the estimate stands."""
        self.usage, self.cost_usd = usage, cost_usd

    def upstream_was_full(self) -> None:
        """Say that the provider refused for want of capacity (429, 503, 529): there are too many slots."""
        self.throttled = True


def stopping() -> Problem:
    """Say that the server stops, and has waited for what is under way as long as it may."""
    return Problem("stopping", "this server stops, and the time for what is under way is over")


def _nothing() -> None:
    """Nobody asked to be told."""


class Admission:
    """
    Lets work begin.

    Args:
        most: slots of an agent or a chain at the most.
        limits: what callers may use.
        lag: how late the loop is, and what is refused for it.

    """

    def __init__(self, most: int = 100, limits: CallerLimits | None = None, lag: LoopLag | None = None) -> None:
        self._most = most
        self._limits = limits
        self._lag = lag or LoopLag()
        self._used: dict[str, deque[Estimate]] = {}
        self._pools: dict[str, Pool] = {}
        self._under_way: dict[str, int] = {}
        self._refused: dict[str, Counter[str]] = {}
        self._endings: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def enter(self, demand: Demand, accepted: Callable[[], None] = _nothing) -> AsyncIterator[Grant]:
        """
        Wait for a slot, and hold it while the block runs.

        Args:
            demand: what is wanted.
            accepted: called when it is not refused at once: it has a slot, or waits for one.

        Raises:
            Problem: it would come too late, a limit or budget is reached, or there is more to do than can be done.

        """
        loop = asyncio.get_running_loop()
        pool = self._pool(demand.target)
        self._count(demand)
        grant, booking, began_at = None, None, loop.time()
        ending = asyncio.timeout(None)
        self._endings.add(ending)
        try:
            async with ending:
                waiter = _waiter(demand, pool, began_at)
                self._lag.check(waiter.rank)
                if self._limits is not None and self._limits.bind(demand.caller):
                    pool.check(waiter)  # what comes too late reserves nothing
                    lasts_s = demand.deadline.remaining() or 0.0
                    booking = await self._limits.reserve(demand.caller, self._estimate(demand), lasts_s)
                    demand.tell_rates(booking.rates)
                queued_s = await pool.enter(waiter, accepted)
                pool.waits.add(queued_s)
                grant, began_at = Grant(demand, queued_s), loop.time()
                yield grant
        except TimeoutError:
            if not ending.expired():
                raise
            raise stopping() from None
        except Problem as problem:
            if grant is None:
                self._note_refusal(demand, problem)
            raise
        except LLMError as error:
            if grant is not None:
                grant.settle(sum(filter(None, (attempt.usage for attempt in error.attempts)), Usage()), None)
                if error.status_code in FULL:
                    grant.upstream_was_full()
            raise
        finally:
            self._endings.discard(ending)
            self._uncount(demand.caller)
            if grant is not None:
                used = grant.usage.total_tokens if grant.usage is not None else 0
                took_s = loop.time() - began_at
                pool.leave(cost=float(used or waiter.cost), took_s=took_s, was_full=grant.throttled)
            if booking is not None:
                self._settle(booking, grant)

    def stop(self) -> None:
        """End what is under way and what waits, each with a `Problem` that its client is told."""
        now = asyncio.get_running_loop().time()
        for ending in self._endings:
            ending.reschedule(now)

    def told(self) -> dict[str, dict[str, Any]]:
        """
        Return what is going on, by target.

        Slots, those taken, who waits by key, how long whoever came now would wait, and what was refused since the
        start, by the code of its problem.
        """
        return {
            name: {
                "slots": int(pool.limit),
                "most": pool.most,
                "taken": pool.taken,
                "waiting": len(pool.queue),
                "queues": dict(Counter(waiter.key for waiter in pool.queue).most_common(MOST_QUEUES)),
                "predicted_wait_s": pool.predicted_wait_s("", 1.0, pool.mean_cost() or UNKNOWN_TOKENS),
                "refused": dict(self._refused.get(name, {})),
            }
            for name, pool in self._pools.items()
        }

    def waits(self) -> dict[str, Waits]:
        """Return how long requests waited for their slots, by target."""
        return {name: pool.waits for name, pool in self._pools.items()}

    def _note_refusal(self, demand: Demand, problem: Problem) -> None:
        self._refused.setdefault(demand.target, Counter())[problem.code] += 1

    def _estimate(self, demand: Demand) -> Estimate:
        """Say what a request is going to use: what it says itself, else what nine of ten such requests used."""
        used = self._used.get(demand.target, ())
        tokens = demand.tokens or _most_of(each.tokens for each in used) or UNKNOWN_TOKENS
        if used and not demand.tokens:
            return Estimate(tokens, _most_of(each.cost_usd for each in used))
        return Estimate(tokens, 0.0 if demand.price is None else demand.price.cost_usd(Usage(0, tokens)))

    def _settle(self, booking: Booking, grant: Grant | None) -> None:
        if grant is None:
            booking.release()
        elif grant.usage is None:
            booking.settle(None)
        else:
            price, cost_usd = grant.demand.price, grant.cost_usd
            if cost_usd is None:
                cost_usd = 0.0 if price is None else price.cost_usd(grant.usage)
            used = Estimate(grant.usage.total_tokens, cost_usd)
            self._used.setdefault(grant.demand.target, deque(maxlen=REMEMBERED)).append(used)
            booking.settle(used)

    def _pool(self, target: str) -> Pool:
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = Pool(target, self._most)
        return pool

    def _count(self, demand: Demand) -> None:
        caller = demand.caller
        under_way = self._under_way.get(caller.key_id, 0)
        if caller.concurrency is not None and under_way >= caller.concurrency:
            problem = too_many_at_once(caller.key_id, under_way, caller.concurrency)
            self._note_refusal(demand, problem)
            raise problem
        self._under_way[caller.key_id] = under_way + 1

    def _uncount(self, caller: Caller) -> None:
        self._under_way[caller.key_id] -= 1
        if not self._under_way[caller.key_id]:
            del self._under_way[caller.key_id]


def _most_of(used: Iterable[N]) -> N | Literal[0]:
    """Return what nine of ten do not pass."""
    known = sorted(used)
    return known[(len(known) * 9) // 10] if known else 0


def _waiter(demand: Demand, pool: Pool, now: float) -> Waiter:
    caller = demand.caller
    need_s = pool.quick_s(now) if demand.need_s is None else demand.need_s
    return Waiter(
        caller.key_id,
        weight=caller.weight,
        cost=float(demand.tokens or pool.mean_cost() or UNKNOWN_TOKENS),
        since=now,
        until=demand.deadline.at - need_s,
        need_s=need_s,
        rank=max(RANKS[demand.priority], RANKS[caller.priority]),
    )
