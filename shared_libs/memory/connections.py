"""Connections and transactions of `SQLMemory`: a pool of them to PostgreSQL, one for each call to SQLite."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared_libs.atomic.database_url import DatabaseURL
from shared_libs.atomic.postgres import postgres_engine
from shared_libs.atomic.sqlite import sqlite_engine

BUSY_S = 5.0
"""Seconds a call waits for a writer of another process on SQLite."""

_PAUSES_S = (0.005, 0.025)
_BUSY_CODES = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED


class Database:
    """
    A database as one event loop uses it.

    Args:
        at: where it is, or the application's own engine, which is never closed here.
        pool_size: how many calls use it at the same time; further ones wait.

    """

    def __init__(self, at: DatabaseURL | AsyncEngine, pool_size: int) -> None:
        self._is_lent = isinstance(at, AsyncEngine)
        self._engine = (
            at
            if isinstance(at, AsyncEngine)
            else postgres_engine(at, pool_size=pool_size, max_overflow=0)
            if at.is_postgres
            else _sqlite(at)
        )
        sqlite = self._engine.dialect.name == "sqlite"
        # an application's engine may have one connection to an SQLite database for everybody
        self._turns = asyncio.Semaphore(1 if self._is_lent and sqlite else pool_size)
        self._writer = asyncio.Lock() if sqlite else nullcontext()
        self._begins = self._is_lent and sqlite

    @asynccontextmanager
    async def transaction(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction; what is waited for is waited for here, where a cancellation ends it at once."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + BUSY_S
        async with AsyncExitStack() as stack:
            # one of this process tries at a time: the others need not poll
            await stack.enter_async_context(self._writer if writes else nullcontext())
            await stack.enter_async_context(self._turns)
            while True:
                try:
                    begun = await stack.enter_async_context(self._engine.execution_options(writes=writes).begin())
                    if self._begins and writes and not await _has_begun(begun):
                        await begun.exec_driver_sql("BEGIN IMMEDIATE")
                    break
                except OperationalError as error:
                    if not _is_busy(error) or clock() >= give_up_at:
                        raise
                await asyncio.sleep(random.uniform(*_PAUSES_S))  # noqa: S311 - no secret
            yield begun

    async def aclose(self) -> None:
        """Close the connections, where they are ours."""
        if not self._is_lent:
            await self._engine.dispose()


def _sqlite(at: DatabaseURL) -> AsyncEngine:
    # it waits for nobody, because it would do so in a thread, which no cancellation reaches
    return sqlite_engine(at.url, _begin, busy_s=0)


async def _has_begun(connection: AsyncConnection) -> bool:
    """Whether the application's own settings have begun a transaction in SQLite already; its driver does so late."""
    raw = await connection.get_raw_connection()
    return bool(raw.driver_connection and raw.driver_connection.in_transaction)


def _begin(connection: Any) -> None:
    if connection.get_execution_options().get("writes"):
        # one that reads first and writes later is refused when another has written meanwhile
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")  # it begins with the first read


def _is_busy(error: OperationalError) -> bool:
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _BUSY_CODES
