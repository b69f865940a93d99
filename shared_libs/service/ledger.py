"""
What keys and teams have used: reserved before, settled after, so that no number of requests at once passes a limit.

Amounts are whole: requests, tokens, millionths of a dollar. An account is a limit in a window of the calendar (UTC); a
new window is a new row, so that nothing that was spent at midnight is lost. What is reserved and never settled, because
its process was killed, is free again when it expires.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from shared_libs.atomic.errors import FactoryError

Window = Literal["minute", "day", "month", "total"]
Unit = Literal["requests", "tokens", "usd", "slots"]
"""What is counted; a slot is used by a request while it is under way, and nothing of it is spent."""

MICRO = 1_000_000
"""Millionths of a dollar in a dollar."""


class LedgerError(FactoryError):
    """The ledger's database failed; nothing of the call was booked."""


class Account(NamedTuple):
    """Who may use how much in a window: `limit` in whole units, dollars in millionths."""

    name: str
    unit: Unit
    limit: int
    window: Window

    def shown(self, amount: int) -> float | int:
        """Return an amount as people are told it: dollars, and not millionths of them."""
        return amount / MICRO if self.unit == "usd" else amount

    def period(self, now: float) -> str:
        """Name the window that a moment lies in."""
        at = datetime.fromtimestamp(now, UTC)
        return {
            "minute": at.strftime("%Y-%m-%dT%H:%M"),
            "day": at.strftime("%Y-%m-%d"),
            "month": at.strftime("%Y-%m"),
            "total": "total",
        }[self.window]

    def resets_in_s(self, now: float) -> float | None:
        """Return the seconds until the window is over; None: it never is."""
        at = datetime.fromtimestamp(now, UTC)
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.window == "minute":
            return 60.0 - now % 60.0
        if self.window == "day":
            return (midnight + timedelta(days=1) - at).total_seconds()
        if self.window == "month":
            return ((midnight.replace(day=1) + timedelta(days=32)).replace(day=1) - at).total_seconds()
        return None


class OverLimit(FactoryError):
    """An account has no room: how much of it is spent, and how much reserved by what is under way."""

    def __init__(self, account: Account, spent: int, held: int, resets_in_s: float | None) -> None:
        super().__init__(f"{account.name}: {spent + held} of {account.limit} {account.unit} are used")
        self.account = account
        self.spent = spent
        self.held = held
        self.resets_in_s = resets_in_s


class Hold(NamedTuple):
    """
    What is reserved.

    `amounts` is how much, by the account's name and its window; `left` what nobody has spent or reserved, by name;
    `ahead_s` how far the ledger's clock is ahead of this machine's.
    """

    id: str
    amounts: Mapping[tuple[str, str], int]
    left: Mapping[str, int]
    ahead_s: float = 0.0


class Ledger(Protocol):
    """Where it is written."""

    async def reserve(self, wanted: Sequence[tuple[Account, int]], lasts_s: float) -> Hold:
        """
        Reserve an amount of each account, or of none.

        Never more than a limit: one request at a time always has room while anything is left.

        Args:
            wanted: the accounts, and how much of each.
            lasts_s: seconds after which it is free again if nobody settles it.

        Raises:
            OverLimit: one has no room.
            LedgerError: the database failed.

        """

    async def settle(self, hold: Hold, used: Mapping[str, int], rest: Hold | None = None) -> None:
        """
        Book what was used, by the name of the account, and free what was reserved; once, however often it is called.

        Args:
            hold: what was reserved.
            used: how much of it was used.
            rest: what stays reserved in its place, until it would have ended itself.

        Raises:
            LedgerError: the database failed.

        """

    async def add(self, used: Mapping[Account, int]) -> None:
        """
        Book what was used without being reserved.

        Raises:
            LedgerError: the database failed.

        """

    async def aclose(self) -> None:
        """Close what is open."""


def room(account: Account, amount: int, spent: int, held: int) -> int | None:
    """Return how much may be reserved: the amount, or what is left for the only one; None where there is no room."""
    amount = min(amount, account.limit)
    if spent + held + amount <= account.limit:
        return amount
    left = account.limit - spent
    return left if held == 0 and left > 0 else None
