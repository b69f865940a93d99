"""The ledger in a database: exact over any number of processes, on SQLite and PostgreSQL."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence

from sqlalchemy import BigInteger, Column, Double, String, Table, and_, cast, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.service.database import METADATA, ServiceDatabase
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


class SQLLedger:
    """
    A ledger that processes share.

    A reservation reads and writes in one transaction that nobody else can come between: on SQLite it is alone, on
    PostgreSQL it holds the rows of its accounts, in the order of their names.
    """

    def __init__(self, database: ServiceDatabase) -> None:
        self._database = database
        self._known: set[tuple[str, str]] = set()

    async def reserve(self, wanted: Sequence[tuple[Account, int]], lasts_s: float) -> Hold:
        """Reserve an amount of each account, or of none."""
        try:
            async with self._database.transaction(writes=True) as connection:
                now = await _now(connection)
                hold = Hold(uuid.uuid4().hex, {})
                amounts: dict[tuple[str, str], int] = {}
                for account, amount in sorted(wanted, key=lambda each: each[0].name):
                    place = account.name, account.period(now)
                    spent = await self._spent(connection, place)
                    counting = and_(_HOLDS.c.name == place[0], _HOLDS.c.period == place[1], _HOLDS.c.expires > now)
                    held = int(
                        (await connection.execute(select(func.sum(_HOLDS.c.amount)).where(counting))).scalar() or 0
                    )
                    taken = room(account, amount, spent, held)
                    if taken is None:
                        raise OverLimit(account, spent, held, account.resets_in_s(now))
                    amounts[place] = taken
                rows = [
                    {"id": hold.id, "name": name, "period": period, "amount": amount, "expires": now + lasts_s}
                    for (name, period), amount in amounts.items()
                ]
                await connection.execute(insert(_HOLDS), rows)
                return hold._replace(amounts=amounts)
        except (SQLAlchemyError, OSError) as error:
            raise LedgerError(self._database.failure(error)) from error

    async def settle(self, hold: Hold, used: Mapping[str, int]) -> None:
        """Book what was used, and free what was reserved; what has expired anywhere is cleared away."""
        try:
            async with self._database.transaction(writes=True) as connection:
                for name, period in sorted(hold.amounts):
                    booked = update(_ACCOUNTS).where(_ACCOUNTS.c.name == name, _ACCOUNTS.c.period == period)
                    await connection.execute(booked.values(spent=_ACCOUNTS.c.spent + used.get(name, 0)))
                over = _HOLDS.c.expires <= await _now(connection)
                mine = and_(over, or_(*(_HOLDS.c.name == name for name, _ in hold.amounts)))
                await connection.execute(delete(_HOLDS).where(or_(_HOLDS.c.id == hold.id, mine)))
        except (SQLAlchemyError, OSError) as error:
            raise LedgerError(self._database.failure(error)) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._database.aclose()

    async def _spent(self, connection: AsyncConnection, place: tuple[str, str]) -> int:
        """Return what is spent, and hold the row until the transaction ends; a new window begins with nothing."""
        row = select(_ACCOUNTS.c.spent).where(_ACCOUNTS.c.name == place[0], _ACCOUNTS.c.period == place[1])
        spent = (await connection.execute(row.with_for_update())).scalar()
        if spent is None:
            try:
                async with connection.begin_nested():
                    await connection.execute(insert(_ACCOUNTS).values(name=place[0], period=place[1], spent=0))
            except IntegrityError:
                pass  # another process began the window in the same moment
            spent = (await connection.execute(row.with_for_update())).scalar_one()
        return int(spent)


async def _now(connection: AsyncConnection) -> float:
    """Look at the clock: PostgreSQL's own, or that of the machine whose processes share an SQLite file."""
    if connection.dialect.name != "postgresql":
        return time.time()
    moment = await connection.execute(select(cast(func.extract("epoch", func.clock_timestamp()), Double)))
    return float(moment.scalar_one())
