"""
Leases: a server reserves a part of what is left of a caller's accounts ahead, and takes requests from it.

What is leased is reserved in the ledger as anything else is, so that no number of servers passes a limit. A caller that
asks often begins without a word to the database; what was used is booked as each request ends, and those that end
together as one. A lease takes requests for `LEASE_S`, and gives back what is left of it then, or as soon as somebody
here is refused for want of it. Where little is left each request asks for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shared_libs.service.ledger import Account, Hold, Ledger, LedgerError, OverLimit

LEASE_S = 2.0
"""How long a lease takes requests; so long may others wait for what it does not use."""

RECENT_S = 5.0
"""A lease is for as much as was asked for in so many seconds."""

SHARE = 20
"""The part of what is left of an account that is leased at the most: a twentieth."""

OFTEN = 3
"""Requests within `RECENT_S` from which a caller is worth a lease."""

REMEMBERED = 256
MOST_CALLERS = 10_000
"""How many requests of a caller, and of how many callers, are remembered to say how much they ask for."""

CLOSE_S = 5.0

Amounts = Mapping[str, int]
Wanted = Sequence[tuple[Account, int]]


class _Draw(NamedTuple):
    """What a lease books at once: what was used, what is freed, and the name of what stays reserved."""

    used: Amounts
    freed: Amounts
    hold_id: str


class _Lease:
    """A hold that several requests share; `free` is what none of them has."""

    def __init__(self, hold: Hold, timer: asyncio.TimerHandle, ends: float) -> None:
        self.hold = hold
        self.timer = timer
        self.free = {name: amount for (name, _), amount in hold.amounts.items()}
        self._periods = dict(hold.amounts.keys())
        self._until = timer.when()
        self._ends = ends
        self._given: dict[str, Amounts] = {}
        self._used: dict[str, int] = {}
        self._freed: dict[str, int] = {}
        self._drawing: _Draw | None = None
        self._lock = asyncio.Lock()

    def covers(self, wanted: Wanted, lasts_s: float) -> bool:
        """Whether a request may be taken from it now."""
        now, at = asyncio.get_running_loop().time(), time.time() + self.hold.ahead_s
        return (
            now < self._until
            and now + lasts_s <= self._ends
            and all(
                amount <= self.free[account.name] and account.period(at) == self._periods[account.name]
                for account, amount in wanted
            )
        )

    def give(self, wanted: Wanted) -> Hold:
        """Give a request its part."""
        amounts = {account.name: amount for account, amount in wanted}
        for name, amount in amounts.items():
            self.free[name] -= amount
        left = {name: self.hold.left[name] + self.free[name] for name in amounts}
        places = {(name, self._periods[name]): amount for name, amount in amounts.items()}
        hold = Hold(uuid.uuid4().hex, places, left, self.hold.ahead_s)
        self._given[hold.id] = amounts
        return hold

    def take_back(self, hold_id: str, used: Amounts) -> None:
        """Note what a request has used; once, however often it is said."""
        for name, amount in self._given.pop(hold_id, {}).items():
            self._freed[name] = self._freed.get(name, 0) + amount
            self._used[name] = self._used.get(name, 0) + used.get(name, 0)

    def close(self) -> None:
        """Take no request any more, and free what none has."""
        self._until = 0.0
        self.timer.cancel()
        for name, amount in self.free.items():
            self._freed[name] = self._freed.get(name, 0) + amount
            self.free[name] = 0

    async def book(self, ledger: Ledger) -> None:
        """
        Book what was used and free what is not needed, for all requests that have ended so far.

        Raises:
            LedgerError: the database failed; the next time begins with what has failed, which counts once.

        """
        async with self._lock:
            while self._drawing is not None or self._freed:
                if self._drawing is None:
                    self._drawing = _Draw(self._used, self._freed, uuid.uuid4().hex)
                    self._used, self._freed = {}, {}
                draw, before = self._drawing, self.hold
                left = {place: amount - draw.freed.get(place[0], 0) for place, amount in before.amounts.items()}
                rest = before._replace(id=draw.hold_id, amounts=left)
                over = not (self._until > 0 or self._given or any(left.values()))
                await ledger.settle(before, draw.used, None if over else rest)
                self.hold, self._drawing = rest, None


class _Caller:
    """What is known of who asks for certain accounts."""

    def __init__(self) -> None:
        self.lease: _Lease | None = None
        self.left: Amounts = {}
        self.asked: deque[tuple[float, Wanted]] = deque(maxlen=REMEMBERED)
        self.lock = asyncio.Lock()

    def ahead(self, wanted: Wanted) -> dict[str, int] | None:
        """Say how much to reserve ahead; None where a lease is not worth it, or little is left."""
        since = asyncio.get_running_loop().time() - RECENT_S
        recent = [each for at, each in self.asked if at >= since]
        if len(recent) < OFTEN:
            return None
        sums: dict[str, int] = {}
        for each in recent:
            for account, amount in each:
                sums[account.name] = sums.get(account.name, 0) + amount
        ahead = {
            account.name: min(sums[account.name], self.left.get(account.name, 0) // SHARE) for account, _ in wanted
        }
        return ahead if all(amount <= ahead[account.name] for account, amount in wanted) else None


class LeasedLedger:
    """
    A ledger that takes what is asked for often from leases of another one.

    Args:
        ledger: where everything is written.
        lease_s: how long a lease takes requests.

    """

    def __init__(self, ledger: Ledger, lease_s: float = LEASE_S) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self._callers: OrderedDict[tuple[str, ...], _Caller] = OrderedDict()
        self._given: dict[str, _Lease] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def reserve(self, wanted: Wanted, lasts_s: float) -> Hold:
        """Reserve an amount of each account, or of none."""
        if not any(amount for _, amount in wanted):
            return await self._ledger.reserve(wanted, lasts_s)
        caller = self._caller(wanted)
        caller.asked.append((asyncio.get_running_loop().time(), wanted))
        if (hold := self._from_lease(caller, wanted, lasts_s)) is not None:
            return hold
        if (ahead := caller.ahead(wanted)) is not None:
            async with caller.lock:  # one asks for all who wait
                hold = self._from_lease(caller, wanted, lasts_s) or await self._leased(caller, wanted, ahead, lasts_s)
            if hold is not None:
                return hold
        hold = await self._asked_alone(wanted, lasts_s)
        caller.left = hold.left
        return hold

    async def settle(self, hold: Hold, used: Amounts, rest: Hold | None = None) -> None:
        """Book what was used, and free what was reserved."""
        lease = self._given.get(hold.id)
        if lease is None:
            await self._ledger.settle(hold, used, rest)
            return
        lease.take_back(hold.id, used)
        await lease.book(self._ledger)
        self._given.pop(hold.id, None)

    async def add(self, used: Mapping[Account, int]) -> None:
        """Book what was used without being reserved."""
        await self._ledger.add(used)

    async def aclose(self) -> None:
        """Give back what is leased, and close."""
        for caller in self._callers.values():
            self._close(caller, caller.lease)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_S)
        await self._ledger.aclose()

    def _caller(self, wanted: Wanted) -> _Caller:
        names = tuple(account.name for account, _ in wanted)
        caller = self._callers.get(names)
        if caller is None:
            caller = self._callers[names] = _Caller()
            if len(self._callers) > MOST_CALLERS:
                _, oldest = self._callers.popitem(last=False)
                self._close(oldest, oldest.lease)
        self._callers.move_to_end(names)
        return caller

    def _from_lease(self, caller: _Caller, wanted: Wanted, lasts_s: float) -> Hold | None:
        lease = caller.lease
        if lease is None or not lease.covers(wanted, lasts_s):
            return None
        hold = lease.give(wanted)
        self._given[hold.id] = lease
        return hold

    async def _leased(self, caller: _Caller, wanted: Wanted, ahead: Amounts, lasts_s: float) -> Hold | None:
        asked = [(account, amount + ahead[account.name]) for account, amount in wanted]
        try:
            hold = await self._ledger.reserve(asked, self._lease_s + lasts_s)
        except OverLimit:
            return None
        caller.left = hold.left
        self._close(caller, caller.lease)
        timer = asyncio.get_running_loop().call_later(self._lease_s, lambda: self._close(caller, lease))
        lease: _Lease = _Lease(hold, timer, timer.when() + lasts_s)
        caller.lease = lease
        return self._from_lease(caller, wanted, lasts_s)

    async def _asked_alone(self, wanted: Wanted, lasts_s: float) -> Hold:
        try:
            return await self._ledger.reserve(wanted, lasts_s)
        except OverLimit as error:
            name = error.account.name
            in_the_way = [
                (caller, caller.lease)
                for caller in self._callers.values()
                if caller.lease is not None and caller.lease.free.get(name)
            ]
            if not in_the_way:
                raise
            for caller, lease in in_the_way:
                self._close(caller, lease)
            await asyncio.wait(self._closing)
        return await self._ledger.reserve(wanted, lasts_s)

    def _close(self, caller: _Caller, lease: _Lease | None) -> None:
        """Let a lease take no more, and give back what is left of it."""
        if lease is None:
            return
        if caller.lease is lease:
            caller.lease = None
        lease.close()
        task = asyncio.get_running_loop().create_task(self._give_back(lease))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _give_back(self, lease: _Lease) -> None:
        with contextlib.suppress(LedgerError):  # its last request tries again, and it ends by itself
            await lease.book(self._ledger)
