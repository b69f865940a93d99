"""The database that the servers of one service share: keys, and what was spent."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Double, MetaData, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.atomic.database_url import ALLOWED, database_url
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.places import what_failed
from shared_libs.memory.connections import Database

METADATA = MetaData()
"""Every table of the service; they are made when the database is first used."""

_LOCK = 0x6661_6B65  # any number: whoever makes the tables of a PostgreSQL database holds this advisory lock


async def clock(connection: AsyncConnection) -> float:
    """Look at the clock: PostgreSQL's own, or that of the machine whose processes share an SQLite file."""
    if connection.dialect.name != "postgresql":
        return time.time()
    moment = await connection.execute(select(cast(func.extract("epoch", func.clock_timestamp()), Double)))
    return float(moment.scalar_one())


class ServiceDatabase:
    """
    A database and its tables, on whichever loop it is used.

    Args:
        url: `sqlite:///file.db` or `postgresql://user:password@host/database`.

    Raises:
        MisuseError: the URL is neither.

    """

    def __init__(self, url: str) -> None:
        self._at = database_url(url, "a service's database")
        if not self._at.url.database:
            raise MisuseError(f"a service's database: allowed are {ALLOWED}; it names no database")
        self._of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Database] = weakref.WeakKeyDictionary()
        self._ready = False

    def __repr__(self) -> str:
        return f"ServiceDatabase({self._at.shown!r})"

    async def aopen(self) -> None:
        """Make the tables, where they are not there; the first transaction does so too."""
        async with self.transaction(writes=False):
            pass

    @asynccontextmanager
    async def transaction(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction; one that writes to SQLite is alone."""
        loop = asyncio.get_running_loop()
        database = self._of_loop.get(loop)
        if database is None:
            made = await asyncio.to_thread(Database, self._at, 5)  # the driver takes its time to load
            database = self._of_loop.setdefault(loop, made)
        if not self._ready:
            await self._make_tables(database)
        async with database.transaction(writes=writes) as connection:
            yield connection

    def failure(self, error: Exception) -> str:
        """Say what failed, and where; never with a password. Looks at files, so in a thread."""
        return f"the service's database {self._at.shown}: {what_failed(error, self._at.database)}"

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        database = self._of_loop.pop(asyncio.get_running_loop(), None)
        if database is not None:
            await database.aclose()

    async def _make_tables(self, database: Database) -> None:
        async with database.transaction(writes=True) as connection:
            if connection.dialect.name == "postgresql":  # on SQLite a transaction that writes is alone
                await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            await connection.run_sync(METADATA.create_all)
        self._ready = True
