"""
PostgreSQL, by asyncpg: one connection for the writer, a small pool for each loop that reads.

What only lists runs need not wait for SQLAlchemy to load.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from shared_libs.atomic import postgres
from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.errors import RunStoreError, RunStoreUnavailable
from shared_libs.atomic.whole import column_value
from shared_libs.observability.runs.shelf import newer
from shared_libs.observability.runs.statements import (
    FORM,
    MAKE_FORM,
    POSTGRES,
    SET_FORM,
    Change,
    Dialect,
    Params,
    together,
)

if TYPE_CHECKING:
    import asyncpg

CONNECT_S = 5.0
"""Seconds a connection may take to be made."""

ANSWER_S = 30.0
"""Seconds the server may take for one statement."""

_READERS = 5
_LOCK = 0x7275_6E73  # any number: whoever makes the tables holds this advisory lock
_NAMES = re.compile(r":(\w+)")


class PostgresShelf:
    """
    The tables in a database of PostgreSQL.

    A role that may not make tables can use those that another has made: nothing is changed where they are up to date.

    Args:
        url: `postgresql://user:password@host/database`.

    Raises:
        MisuseError: it is no such URL, or the driver is not installed.

    """

    dialect: Dialect = POSTGRES

    def __init__(self, url: str) -> None:
        self._at = database_url(url, "run store")
        self.begin_anew()

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return self._at.server

    def begin_anew(self) -> None:
        """Forget the connections."""
        self._opened = False
        self._runner: asyncio.Runner | None = None
        self._writer: asyncpg.Connection | None = None
        # connections belong to the event loop that opened them
        self._readers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncpg.Pool] = weakref.WeakKeyDictionary()

    def open(self) -> None:
        """Make the tables where they are not."""
        if not self._opened:
            self._run(self._open)
            self._opened = True

    def write(self, changes: Sequence[Change]) -> None:
        """Make changes in one transaction."""
        self.open()
        self._run(lambda connection: _write(connection, changes))

    def select(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """Read, as whoever writes."""
        self.open()
        found: list[Sequence[Any]] = self._run(lambda connection: _read(connection, statement, values))
        return found

    def close(self) -> None:
        """Close the writer's connection, and its event loop."""
        if self._runner is not None:
            if self._writer is not None:
                self._runner.run(_closed(self._writer))
            self._runner.close()
        self._runner = self._writer = None
        self._opened = False

    async def read(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """Read."""
        try:
            async with (await self._pool()).acquire() as connection:
                return await _read(connection, statement, values)
        except _errors() as error:
            raise self._failure(error) from error

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        pool = self._readers.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            try:
                async with asyncio.timeout(1.0):
                    await pool.close()
            except (TimeoutError, OSError):
                pool.terminate()

    async def _pool(self) -> asyncpg.Pool:
        import asyncpg

        loop = asyncio.get_running_loop()
        if loop not in self._readers:  # which opens none yet, and waits for nothing
            told = {"min_size": 0, "max_size": _READERS, "reset": _nothing_to_reset}
            self._readers[loop] = await asyncpg.create_pool(
                connect=partial(postgres.connect, self._at), **told, **self._where()
            )
        return self._readers[loop]

    def _where(self) -> dict[str, Any]:
        return {"timeout": CONNECT_S, "command_timeout": ANSWER_S} | self._at.options

    def _run(self, use: Any) -> Any:
        """Use the writer's connection in a transaction, on the event loop of the writer's thread."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(self._used(use))
        except _errors() as error:
            raise self._failure(error) from error

    async def _used(self, use: Any) -> Any:
        connection = await self._begun()
        try:
            value = await use(connection)
            await connection.execute("COMMIT")
        except BaseException:
            connection.terminate()  # and with it what was begun
            self._writer = None
            raise
        return value

    async def _begun(self) -> asyncpg.Connection:
        """Return the connection, in a transaction: a new one where the server has closed it meanwhile."""
        if self._writer is not None:
            try:
                await self._writer.execute("BEGIN")
            except _errors():
                self._writer.terminate()
            else:
                return self._writer
        self._writer = None
        connection = await postgres.connect(self._at, **self._where())
        await connection.execute("BEGIN")
        self._writer = connection
        return connection

    async def _open(self, connection: asyncpg.Connection) -> None:
        known = len(self.dialect.steps)
        if await _form(connection) == known:
            return
        await connection.fetch("SELECT pg_advisory_xact_lock($1)", _LOCK)
        form = await _form(connection)  # another process may have been here meanwhile
        if form > known:
            raise newer(self.place, form, known)
        steps = [statement for step in self.dialect.steps[form:] for statement in step]
        for statement in [*([] if form else [MAKE_FORM]), *steps]:
            await connection.execute(statement)
        await _write(connection, [Change(SET_FORM, {"form": known})])

    def _failure(self, error: Exception) -> RunStoreError:
        said = postgres.in_words(error)
        if "factory_runs" in said and "does not exist" in said:
            said = "it holds no runs yet; the first that is kept makes the tables"
        # a value, what has to be unique, a statement: by the class of its SQLSTATE, or before it was sent
        refused = (getattr(error, "sqlstate", None) or "")[:2] in ("22", "23", "42") or isinstance(error, ValueError)
        return (RunStoreError if refused else RunStoreUnavailable)(f"run store {self.place}: {said}")


def _errors() -> tuple[type[Exception], ...]:
    """What asyncpg raises."""
    import asyncpg

    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


async def _nothing_to_reset(_: Any) -> None:
    """A reader leaves nothing behind that the next one would meet; asking costs a round trip each."""


async def _closed(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=1.0)
    except _errors():
        connection.terminate()


async def _form(connection: asyncpg.Connection) -> int:
    if not await connection.fetchval(postgres.HAS_TABLE.format("factory_runs_form")):
        return 0
    return await connection.fetchval(FORM) or 0


async def _write(connection: asyncpg.Connection, changes: Sequence[Change]) -> None:
    for statement, values in together(changes):
        numbered, names = _numbered(statement)
        rows = [tuple(row[name] for name in names) for row in values]
        await connection.executemany(numbered, rows)


async def _read(connection: asyncpg.Connection, statement: str, values: Params) -> list[Sequence[Any]]:
    numbered, names = _numbered(statement)
    rows = await connection.fetch(numbered, *(column_value(values[name]) for name in names))
    return [tuple(row) for row in rows]


@lru_cache(maxsize=256)
def _numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement with `$1` for the first name, and the names in that order."""
    names = tuple(dict.fromkeys(_NAMES.findall(statement)))
    return _NAMES.sub(lambda found: f"${names.index(found[1]) + 1}", statement), names
