"""Admission: whether work may begin, and when. Every route that costs a model's time goes through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.types import Usage
from shared_libs.service.callers import Caller


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a request wants.

    Args:
        caller: who asks.
        target: which agent or chain; its slots are counted together.
        deadline: when it has to be over.
        tokens: what it is going to use, estimated.
        need_s: seconds it takes at the least; None: what such requests took of late.

    """

    caller: Caller
    target: str
    deadline: Deadline
    tokens: int = 0
    need_s: float | None = None


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
    """Lets work begin."""

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
        accepted()
        began_at = asyncio.get_running_loop().time()
        yield Grant(demand, asyncio.get_running_loop().time() - began_at)
