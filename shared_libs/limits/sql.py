"""
Rate limits in an SQL database, shared by every process that names the same one.

A request is booked before it is sent, and reaches its server later. So a booking counts for the window and `margin_s`
more: of two requests that reach the server within one window, the bookings lie within the window and that margin.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import inspect as inspect_database
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable

from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.errors import LimitStoreError, MisuseError
from shared_libs.atomic.places import what_failed
from shared_libs.atomic.postgres import postgres_engine
from shared_libs.atomic.resilience.policy import RateLimit
from shared_libs.atomic.sqlite import sqlite_engine

MARGIN_S = 8.0
"""2 s for the store to answer, 5 s to connect to the server, and one for the way."""

BUSY_S = 1.5
"""Seconds a writer waits for another one on SQLite."""

_POSTGRES_LOCKS = 0x6C696D74
"""The first half of every advisory lock taken here, so that no other use of such locks is met."""

_metadata = MetaData()
_uses = Table(
    "factory_limits",
    _metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("model", Text, nullable=False),
    Column("expires", Double, nullable=False),  # seconds since 1970, by the clock of the database
    Column("requests", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
)
Index("factory_limits_by_model", _uses.c.model, _uses.c.expires)


class SQLLimitStore:
    """
    Counts requests and tokens for every process with the same store, in any window of a minute.

    The clock is PostgreSQL's own, or that of the one machine whose processes share an SQLite file.

    Args:
        url: `sqlite:///file.db` or `postgresql://user:password@host/database`, as `database_url` reads it.
        window_s: the length of the window; all who share a store have the same.
        margin_s: the longest a request may take from its booking until it is at its server.

    Raises:
        MisuseError: the URL is none of these, or a number is not valid.

    """

    def __init__(self, url: str, *, window_s: float = 60.0, margin_s: float = MARGIN_S) -> None:
        self._at = database_url(url, "limit store")
        if self._at.is_nowhere:
            raise MisuseError("limit store: a database in memory is another one for every connection; name a file")
        if not is_amount(window_s) or not is_amount(margin_s, zero=True):
            raise MisuseError(f"window_s is above 0 seconds, margin_s not below, not {window_s!r} and {margin_s!r}")
        self._counts_s = window_s + margin_s
        # connections belong to the event loop that opened them
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = weakref.WeakKeyDictionary()
        self._ready = False

    def __repr__(self) -> str:
        return f"SQLLimitStore({self._at.shown!r})"

    async def async_open(self) -> None:
        """
        Make the table where there is none; the first use does it as well.

        Raises:
            LimitStoreError: the database failed.

        """
        try:
            async with await self._begin():
                pass
        except (SQLAlchemyError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def take(self, model: str, limit: RateLimit, places: int) -> Sequence[float]:
        """
        Book one request to the model if the limit has room, and return nothing.

        Else return the seconds until each of the next `places` places opens at the earliest, soonest first.

        Raises:
            LimitStoreError: the database failed; nothing is booked.

        """
        try:
            async with await self._begin() as connection:
                now = await _locked(connection, model)
                counting = (_uses.c.model == model) & (_uses.c.expires > now)
                waits = await self._waits(connection, counting, limit, places, now)
                if not waits:
                    await self._book(connection, model, now, requests=1)
                return waits
        except (SQLAlchemyError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def book(self, model: str, tokens: int) -> None:
        """
        Book the tokens that an answer used.

        Raises:
            LimitStoreError: the database failed; nothing is booked.

        """
        try:
            async with await self._begin() as connection:
                await self._book(connection, model, await _locked(connection, model), tokens=tokens)
        except (SQLAlchemyError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def aclose(self) -> None:
        """Close this event loop's connections; using the store afterwards opens them again."""
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()

    async def _waits(
        self, connection: AsyncConnection, counting: Any, limit: RateLimit, places: int, now: float
    ) -> list[float]:
        """When places open; empty when there is one."""
        sums = select(func.sum(_uses.c.requests), func.sum(_uses.c.tokens), func.max(_uses.c.expires))
        requests, tokens, last = (await connection.execute(sums.where(counting))).one()
        if last is not None and last > now + self._counts_s:
            # somebody has set the clock back: what was booked before must not count for as long as that
            await connection.execute(update(_uses).where(counting).values(expires=now + self._counts_s))
        opens = [now] * places
        if limit.requests_per_minute is not None and (requests or 0) >= limit.requests_per_minute:
            ends = select(_uses.c.expires).where(counting, _uses.c.requests > 0).order_by(_uses.c.expires)
            many = min(places, limit.requests_per_minute)
            found = await connection.execute(ends.offset(requests - limit.requests_per_minute).limit(many))
            opens = list(found.scalars())
            # who comes after all of them waits for those who come first to leave
            opens = [opens[n % many] + self._counts_s * (n // many) for n in range(places)]
        if limit.tokens_per_minute is not None and (tokens or 0) >= limit.tokens_per_minute:
            spent = select(_uses.c.expires, _uses.c.tokens).where(counting, _uses.c.tokens > 0)
            excess = tokens - limit.tokens_per_minute
            for expires, count in await connection.execute(spent.order_by(_uses.c.expires)):
                excess -= count
                if excess < 0:
                    opens = [max(at, expires) for at in opens]
                    break
        return [at - now for at in opens] if opens[0] > now else []

    async def _book(
        self, connection: AsyncConnection, model: str, now: float, *, requests: int = 0, tokens: int = 0
    ) -> None:
        await connection.execute(delete(_uses).where(_uses.c.model == model, _uses.c.expires <= now))
        row = {"model": model, "expires": now + self._counts_s, "requests": requests, "tokens": tokens}
        await connection.execute(insert(_uses).values(row))

    async def _begin(self) -> Any:
        """Return a transaction to enter; the first makes the table, and empties it of models nobody asks any more."""
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None:
            made = await asyncio.to_thread(self._connect)  # the driver and the dialect take their time to load
            engine = self._engines.setdefault(loop, made)
        if not self._ready:
            async with engine.begin() as connection:
                now = await _locked(connection, "")
                if not await connection.run_sync(lambda made: inspect_database(made).has_table(_uses.name)):
                    # a role that may not make tables is refused also where there is one
                    await connection.execute(CreateTable(_uses, if_not_exists=True))
                    for index in _uses.indexes:
                        await connection.execute(CreateIndex(index, if_not_exists=True))
                # whoever deletes rows of a model it holds the lock of is not waited for: two that wait are a deadlock
                old = select(_uses.c.id).where(_uses.c.expires <= now).with_for_update(skip_locked=True)
                await connection.execute(delete(_uses).where(_uses.c.id.in_(old)))
            self._ready = True
        return engine.begin()

    def _connect(self) -> AsyncEngine:
        if self._at.is_postgres:
            # each statement has to see what the holder of the lock before has committed
            return postgres_engine(self._at, isolation_level="READ COMMITTED")
        return sqlite_engine(self._at.url, _lock, busy_s=BUSY_S)

    def _failure(self, error: Exception) -> LimitStoreError:
        self._ready = False  # the table may be gone, with its file or its database: the next call looks again
        return LimitStoreError(f"limit store {self._at.shown}: {what_failed(error, self._at.url.database)}")


async def _locked(connection: AsyncConnection, model: str) -> float:
    """Wait until nobody else counts this model, and then look at the clock."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_POSTGRES_LOCKS, func.hashtext(model))))
        clock = await connection.execute(select(cast(func.extract("epoch", func.clock_timestamp()), Double)))
        return float(clock.scalar_one())
    return time.time()


def _lock(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
