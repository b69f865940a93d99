"""
Admission: whether work may begin, and when. Every route that costs a model's time goes through it.

In this order, each on the loop's clock: what the key may use is reserved, a slot is waited for in a fair queue, the
work is done with what time is left, and what was used is settled. What can never be is refused at once, with the time
after which it may.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.types import Usage
from shared_libs.service.callers import Caller
from shared_libs.service.fair_queue import RANKS, Waiter
from shared_libs.service.pool import Pool
from shared_libs.service.problems import Problem

UNKNOWN_TOKENS = 1000
"""What a request is taken to use when nobody has said and none has ended."""

FULL = (429, 503, 529)
"""How providers say that they have no room."""


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

    """

    caller: Caller
    target: str
    deadline: Deadline
    tokens: int = 0
    need_s: float | None = None
    priority: str = "default"


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


def _nothing() -> None:
    """Nobody asked to be told."""


class Admission:
    """
    Lets work begin.

    Args:
        most: slots of an agent or a chain at the most.

    """

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._pools: dict[str, Pool] = {}
        self._under_way: dict[str, int] = {}

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
        self._count(demand.caller)
        grant, began_at = None, loop.time()
        try:
            waiter = _waiter(demand, pool, began_at)
            queued_s = await pool.enter(waiter, demand.need_s, accepted)
            grant, began_at = Grant(demand, queued_s), loop.time()
            yield grant
        except LLMError as error:
            if grant is not None and error.status_code in FULL:
                grant.upstream_was_full()
            raise
        finally:
            self._uncount(demand.caller)
            if grant is not None:
                used = grant.usage.total_tokens if grant.usage is not None else 0
                took_s = loop.time() - began_at
                pool.leave(cost=float(used or waiter.cost), took_s=took_s, was_full=grant.throttled)

    def told(self) -> dict[str, dict[str, float]]:
        """Return what is going on: slots, those taken, and those who wait, by target."""
        return {
            name: {"slots": int(pool.limit), "taken": pool.taken, "waiting": len(pool.queue)}
            for name, pool in self._pools.items()
        }

    def _pool(self, target: str) -> Pool:
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = Pool(target, self._most)
        return pool

    def _count(self, caller: Caller) -> None:
        under_way = self._under_way.get(caller.key_id, 0)
        if caller.concurrency is not None and under_way >= caller.concurrency:
            raise Problem(
                "rate_limited",
                f"the key {caller.key_id} has {under_way} requests under way, which is all that it may",
                retry_after_s=1.0,
                facts={"limit": caller.concurrency, "unit": "requests at the same time"},
            )
        self._under_way[caller.key_id] = under_way + 1

    def _uncount(self, caller: Caller) -> None:
        self._under_way[caller.key_id] -= 1
        if not self._under_way[caller.key_id]:
            del self._under_way[caller.key_id]


def _waiter(demand: Demand, pool: Pool, now: float) -> Waiter:
    caller = demand.caller
    return Waiter(
        caller.key_id,
        weight=caller.weight,
        cost=float(demand.tokens or pool.mean_cost() or UNKNOWN_TOKENS),
        since=now,
        until=demand.deadline.at,
        rank=max(RANKS[demand.priority], RANKS[caller.priority]),
    )
