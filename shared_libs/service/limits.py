"""
What a caller may use, and what becomes of that when the ledger is away.

While its database does not answer, requests go on from an allowance: a twentieth of what was left of each account when
it last answered, in this process. What is used of it is booked when the database is there again; behind it requests are
answered 503, never 401.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from shared_libs.service.callers import Caller
from shared_libs.service.ledger import MICRO, Account, Hold, Ledger, LedgerError, OverLimit, Unit
from shared_libs.service.problems import Problem
from shared_libs.service.rates import Rate, Rates, tightest
from shared_libs.service.settings import TeamLimits

_log = logging.getLogger("shared_libs.service")

ALLOWANCE = 20
"""The part of what was left of an account that may be used while the ledger is away: a twentieth."""

MOST_ACCOUNTS = 10_000

SPARE_S = 60.0
"""How long behind a request's deadline its reservation lasts, if nobody settles it."""

BOOKED_S = 1.0
"""How long what is being booked is waited for, where that is in a request's way."""

HELD_AGAIN_S = 1.0
"""When to come back where nothing but what is under way stands in the way."""

RETRIES_S = (0.2, 1.0, 5.0, 15.0, 30.0)
"""Waits before what was used is booked again, where the ledger fails."""


class Estimate(msgspec.Struct, frozen=True):
    """What a request is going to use, or has used."""

    tokens: int
    cost_usd: float

    def of(self, unit: Unit) -> int:
        """Return it in whole units."""
        return {"requests": 1, "tokens": self.tokens, "usd": round(self.cost_usd * MICRO), "slots": 1}[unit]


class Booking:
    """What is reserved for one request, until it is settled or released."""

    def __init__(
        self, limits: CallerLimits, accounts: Sequence[Account], estimate: Estimate, hold: Hold | None
    ) -> None:
        self._limits = limits
        self._accounts = accounts
        self._estimate = estimate
        self.hold = hold

    @property
    def rates(self) -> Rates:
        """What is left of the limits of the minute; nothing, where the ledger is away."""
        return () if self.hold is None else _rates(self._accounts, self.hold)

    def settle(self, used: Estimate | None) -> None:
        """Book what was used; None: what was estimated, for a request that was cut off before anybody could say."""
        used = used or self._estimate
        spent = {account: used.of(account.unit) for account in self._accounts if account.unit != "slots"}
        self._limits.book(self.hold, spent)

    def release(self) -> None:
        """Book nothing: it was not done."""
        self._limits.book(self.hold, {})


class CallerLimits:
    """
    The limits of keys and teams.

    Args:
        ledger: where it is written what they have used.
        teams: what teams may use together.

    """

    def __init__(self, ledger: Ledger, teams: Mapping[str, TeamLimits] | None = None) -> None:
        self._ledger = ledger
        self._teams = dict(teams or {})
        self._allowed: OrderedDict[str, int] = OrderedDict()
        self._left_of_teams: dict[str, int] = {}
        self.away = False
        self._unbooked: dict[Account, int] = {}
        self._booking: dict[asyncio.Task[None], Hold] = {}

    def bind(self, caller: Caller) -> bool:
        """Whether there is a limit for this caller."""
        return bool(self._accounts(caller))

    async def reserve(self, caller: Caller, estimate: Estimate, lasts_s: float) -> Booking:
        """
        Reserve what a request is going to use.

        Raises:
            Problem: a limit is reached, a budget is spent, or the ledger has been away too long.

        """
        accounts = self._accounts(caller)
        wanted = [(account, estimate.of(account.unit)) for account in accounts]
        try:
            if self._unbooked:
                await self._book_what_waits()
            hold = await self._reserved(wanted, lasts_s + SPARE_S)
        except OverLimit as error:
            problem = _refusal(error)
            left = error.account.limit - error.spent - error.held
            self._note_left({error.account.name: left})
            if error.account.window == "minute":
                problem.rates = [_rate(error.account, left, error.resets_in_s or 0.0)]
            raise problem from error
        except LedgerError as error:
            self.away = True
            self._take_from_allowance(wanted, error)
            return Booking(self, accounts, estimate, None)
        self._remember(hold)
        return Booking(self, accounts, estimate, hold)

    async def _reserved(self, wanted: Sequence[tuple[Account, int]], lasts_s: float) -> Hold:
        """Reserve; whoever comes back with its answer in hand is not refused for what is just being booked of it."""
        try:
            return await self._ledger.reserve(wanted, lasts_s)
        except OverLimit as error:
            of_it = error.account.name
            ending = [task for task, hold in self._booking.items() if any(of_it == name for name, _ in hold.amounts)]
            if not ending:
                raise
            await asyncio.wait(ending, timeout=BOOKED_S)
        return await self._ledger.reserve(wanted, lasts_s)

    async def standing(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the limits that bind a caller, and what is left of each: None where the ledger does not answer."""
        told = []
        for account in self._accounts(caller):
            if account.unit == "slots":
                continue
            try:
                hold = await self._ledger.reserve([(account, 0)], SPARE_S)
                left: int | None = hold.left[account.name]
                await self._ledger.settle(hold, {})
            except OverLimit as error:
                left = account.limit - error.spent - error.held
            except LedgerError:
                left = None
            told.append(
                {
                    "whose": account.name.partition(":")[0],
                    "unit": account.unit,
                    "window": account.window,
                    "limit": account.shown(account.limit),
                    "left": None if left is None else account.shown(max(0, left)),
                }
            )
        return told

    def of_teams(self) -> Iterator[tuple[str, Account, int | None]]:
        """Yield the limits of each team, and what was left when this process last looked; None: it has not yet."""
        for team, limits in self._teams.items():
            for account in _accounts(f"team:{team}", limits):
                yield team, account, self._left_of_teams.get(account.name)

    def book(self, hold: Hold | None, used: Mapping[Account, int]) -> None:
        """Write what was used, in a task of its own: whoever is cancelled is booked all the same."""
        if hold is None:  # it went on without the ledger
            for account, amount in used.items():
                self._unbooked[account] = self._unbooked.get(account, 0) + amount
            return
        task = asyncio.get_running_loop().create_task(self._book(hold, used))
        self._booking[task] = hold
        task.add_done_callback(self._booking.pop)

    async def aclose(self) -> None:
        """Write what is left to write, and close."""
        if self._booking:
            await asyncio.wait(self._booking, timeout=5.0)
        await self._ledger.aclose()

    def _accounts(self, caller: Caller) -> list[Account]:
        found = _accounts(f"key:{caller.key_id}", caller)
        if caller.concurrency is not None:
            found.append(Account(f"key:{caller.key_id}:slots", "slots", caller.concurrency, "total"))
        if caller.team in self._teams:
            found += _accounts(f"team:{caller.team}", self._teams[caller.team])
        return found

    def _note_left(self, left: Mapping[str, int]) -> None:
        self.away = False
        self._left_of_teams.update((name, max(0, each)) for name, each in left.items() if name.startswith("team:"))

    def _remember(self, hold: Hold) -> None:
        self._note_left(hold.left)
        for name, left in hold.left.items():
            self._allowed[name] = left // ALLOWANCE
            self._allowed.move_to_end(name)
        while len(self._allowed) > MOST_ACCOUNTS:
            self._allowed.popitem(last=False)

    def _take_from_allowance(self, wanted: Sequence[tuple[Account, int]], error: LedgerError) -> None:
        wanted = [each for each in wanted if each[0].unit != "slots"]  # those of this process are counted all the same
        if any(self._allowed.get(account.name, 0) < amount for account, amount in wanted):
            _log.warning("%s", error)
            raise Problem(
                "store_unavailable", "limits and budgets cannot be looked at now; try again", retry_after_s=1.0
            ) from error
        for account, amount in wanted:
            self._allowed[account.name] -= amount

    async def _book(self, hold: Hold, used: Mapping[Account, int]) -> None:
        for wait_s in (*RETRIES_S, None):
            try:
                await self._ledger.settle(hold, {account.name: amount for account, amount in used.items()})
            except LedgerError as error:
                if wait_s is None:
                    _log.error("%s; not booked: %s", error, {account.name: amount for account, amount in used.items()})
                    return
                await asyncio.sleep(wait_s)
            else:
                return

    async def _book_what_waits(self) -> None:
        waiting, self._unbooked = self._unbooked, {}
        try:
            await self._ledger.add(waiting)
        except LedgerError:
            self._unbooked = waiting
            raise


def too_many_at_once(key_id: str, under_way: int, most: int) -> Problem:
    """Refuse what a key may not have beside what is under way."""
    return Problem(
        "rate_limited",
        f"the key {key_id} has {under_way} requests under way, which is all that it may",
        retry_after_s=HELD_AGAIN_S,
        facts={"limit": most, "unit": "requests at the same time"},
    )


def _accounts(owner: str, limits: Caller | TeamLimits) -> list[Account]:
    found: list[Account] = []
    if limits.requests_per_minute is not None:
        found.append(Account(f"{owner}:requests", "requests", limits.requests_per_minute, "minute"))
    if limits.tokens_per_minute is not None:
        found.append(Account(f"{owner}:tokens", "tokens", limits.tokens_per_minute, "minute"))
    if limits.budget_usd is not None:
        most = round(limits.budget_usd * MICRO)
        found.append(Account(f"{owner}:usd:{limits.budget_window}", "usd", most, limits.budget_window))
    return found


def _rates(accounts: Sequence[Account], hold: Hold) -> Rates:
    at = time.time() + hold.ahead_s
    minutes = [account for account in accounts if account.window == "minute"]
    return tightest(_rate(each, hold.left.get(each.name, 0), each.resets_in_s(at) or 0.0) for each in minutes)


def _rate(account: Account, left: int, resets_in_s: float) -> Rate:
    unit: Literal["requests", "tokens"] = "requests" if account.unit == "requests" else "tokens"
    return Rate(unit, account.limit, max(0, left), resets_in_s)


def _refusal(error: OverLimit) -> Problem:
    account = error.account
    if account.unit == "slots":
        return too_many_at_once(account.name.split(":")[1], error.held, account.limit)
    money = account.unit == "usd"
    # what is under way may use less than was reserved for it; a request is one all the same
    only_held = error.spent < account.limit and account.unit != "requests"
    told = account.shown
    owner = account.name.partition(":")[0]
    window = "in all" if account.window == "total" else f"a {account.window}"
    what = f"{'US dollars' if money else account.unit} {window}"
    return Problem(
        "budget_exhausted" if money and not only_held else "rate_limited",
        f"the {owner} has a limit of {told(account.limit)} {what}: {told(error.spent)} are spent, and "
        f"{told(error.held)} are reserved by what is under way",
        retry_after_s=HELD_AGAIN_S if only_held else None if money else error.resets_in_s,
        facts={
            "limit": told(account.limit),
            "spent": told(error.spent),
            "reserved": told(error.held),
            "unit": account.unit,
            "window": account.window,
            "resets_in_s": None if error.resets_in_s is None else round(error.resets_in_s, 1),
        },
    )
