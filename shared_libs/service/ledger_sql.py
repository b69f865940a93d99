"""The ledger in a database: exact over any number of processes, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Column, Double, Select, String, Table, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.service.database import METADATA, ServiceDatabase, clock
from shared_libs.service.ledger import Account, Hold, LedgerError, OverLimit, room

_ACCOUNTS = Table(
    "factory_accounts",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("period", String(32), primary_key=True),
    Column("spent", BigInteger, nullable=False),
)
_HOLDS = Table(
    "factory_holds",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("period", String(32), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("expires", Double, nullable=False, index=True),  # seconds since 1970, by the clock of the database
)


KEPT_S = 3600.0
"""How long a reservation is kept behind its end: whoever settles it late is known."""


class SQLLedger:
    """
    A ledger that processes share.

    What it does is one transaction that nobody else can come between: on SQLite it is alone, on PostgreSQL it holds the
    rows of its accounts, in the order of their names.
    """

    def __init__(self, database: ServiceDatabase) -> None:
        self._database = database

    async def reserve(self, wanted: Sequence[tuple[Account, int]], lasts_s: float) -> Hold:
        """Reserve an amount of each account, or of none."""
        hold_id = uuid.uuid4().hex
        amounts: dict[tuple[str, str], int] = {}
        left: dict[str, int] = {}
        async with self._transaction() as connection:
            now = await clock(connection)
            for account, amount in sorted(wanted, key=lambda each: each[0].name):
                place = account.name, account.period(now)
                spent = await _spent(connection, account, place)
                held = await _held(connection, place, now)
                taken = room(account, amount, spent, held)
                if taken is None:
                    raise OverLimit(account, spent, held, account.resets_in_s(now))
                amounts[place] = taken
                left[account.name] = account.limit - spent - held - taken
            rows = [
                {"id": hold_id, "name": name, "period": period, "amount": amount, "expires": now + lasts_s}
                for (name, period), amount in amounts.items()
            ]
            await connection.execute(insert(_HOLDS), rows)
        return Hold(hold_id, amounts, left, now - time.time())

    async def settle(self, hold: Hold, used: Mapping[str, int], rest: Hold | None = None) -> None:
        """Book what was used, and free what was reserved; what expired long ago is cleared away."""
        async with self._transaction() as connection:
            places = sorted(hold.amounts)
            for name, period in places:
                await connection.execute(_row(name, period).with_for_update())
            if await _was_there(connection, hold, rest):
                for name, period in places:
                    await _book(connection, name, period, used.get(name, 0))
            over = _HOLDS.c.expires <= await clock(connection) - KEPT_S
            await connection.execute(delete(_HOLDS).where(over, _HOLDS.c.name.in_([name for name, _ in places])))

    async def add(self, used: Mapping[Account, int]) -> None:
        """Book what was used without being reserved."""
        async with self._transaction() as connection:
            now = await clock(connection)
            for account in sorted(used, key=lambda account: account.name):
                place = account.name, account.period(now)
                await _spent(connection, account, place)
                await _book(connection, *place, used[account])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._database.aclose()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._database.transaction(writes=True) as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise LedgerError(await asyncio.to_thread(self._database.failure, error)) from error


def _row(name: str, period: str) -> Select[Any]:
    return select(_ACCOUNTS.c.spent).where(_ACCOUNTS.c.name == name, _ACCOUNTS.c.period == period)


async def _spent(connection: AsyncConnection, account: Account, place: tuple[str, str]) -> int:
    """Return what is spent, and hold the row until the transaction ends; a new window begins with nothing."""
    row = _row(*place).with_for_update()
    spent = (await connection.execute(row)).scalar()
    if spent is None:
        try:
            async with connection.begin_nested():
                await connection.execute(insert(_ACCOUNTS).values(name=place[0], period=place[1], spent=0))
        except IntegrityError:
            pass  # another process began the window in the same moment
        if account.window == "minute":  # what a minute saw nobody asks for later
            before = delete(_ACCOUNTS).where(_ACCOUNTS.c.name == place[0], _ACCOUNTS.c.period < place[1])
            await connection.execute(before)
        spent = (await connection.execute(row)).scalar_one()
    return int(spent)


async def _held(connection: AsyncConnection, place: tuple[str, str], now: float) -> int:
    name, period = place
    all_of_it = select(func.sum(_HOLDS.c.amount))
    counts = all_of_it.where(_HOLDS.c.name == name, _HOLDS.c.period == period, _HOLDS.c.expires > now)
    return int((await connection.execute(counts)).scalar() or 0)


async def _was_there(connection: AsyncConnection, hold: Hold, rest: Hold | None) -> bool:
    """Take away what was reserved, or put the rest in its place; tell whether it was there."""
    if rest is None:
        return (await connection.execute(delete(_HOLDS).where(_HOLDS.c.id == hold.id))).rowcount > 0
    there = 0
    for (name, period), amount in rest.amounts.items():
        row = update(_HOLDS).where(_HOLDS.c.id == hold.id, _HOLDS.c.name == name, _HOLDS.c.period == period)
        there += (await connection.execute(row.values(id=rest.id, amount=amount))).rowcount
    return there > 0


async def _book(connection: AsyncConnection, name: str, period: str, amount: int) -> None:
    row = update(_ACCOUNTS).where(_ACCOUNTS.c.name == name, _ACCOUNTS.c.period == period)
    await connection.execute(row.values(spent=_ACCOUNTS.c.spent + amount))
