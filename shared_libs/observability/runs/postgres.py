"""PostgreSQL, by SQLAlchemy and asyncpg: one connection for the writer, a small pool for each loop that reads."""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from sqlalchemy import BigInteger, TextClause, bindparam, text
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.errors import MisuseError, RunStoreError, RunStoreUnavailable
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

CONNECT_S = 5.0
"""Seconds a connection may take to be made."""

ANSWER_S = 30.0
"""Seconds the server may take for one statement."""

_READERS = 5
_LOCK = 0x7275_6E73  # any number: whoever makes the tables holds this advisory lock
_NAMES = re.compile(r":(\w+)")
_THERE = "SELECT to_regclass('factory_runs_form')"


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
        if find_spec("asyncpg") is None:
            raise MisuseError("a run store on PostgreSQL needs: pip install 'genai-factory[postgres]'")
        self.begin_anew()

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return self._at.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)

    def begin_anew(self) -> None:
        """Forget the connections."""
        self._opened = False
        self._runner: asyncio.Runner | None = None
        self._writer: AsyncEngine | None = None
        # connections belong to the event loop that opened them
        self._readers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = weakref.WeakKeyDictionary()

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
        if self._runner is not None and self._writer is not None:
            self._runner.run(self._writer.dispose())
            self._runner.close()
        self._runner = self._writer = None
        self._opened = False

    async def read(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """Read."""
        loop = asyncio.get_running_loop()
        engine = self._readers.get(loop)
        if engine is None:
            made = await asyncio.to_thread(self._engine, _READERS)  # the dialect takes its time to load
            engine = self._readers.setdefault(loop, made)
        try:
            async with engine.connect() as connection:
                return await _read(connection, statement, values)
        except (SQLAlchemyError, OSError) as error:
            raise self._failure(error) from error

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        engine = self._readers.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()

    def _run(self, use: Any) -> Any:
        """Use the writer's connection in a transaction, on the event loop of the writer's thread."""
        if self._runner is None or self._writer is None:
            self._runner, self._writer = asyncio.Runner(), self._engine(1)
        try:
            return self._runner.run(_used(self._writer, use))
        except (SQLAlchemyError, OSError) as error:
            raise self._failure(error) from error

    def _engine(self, size: int) -> AsyncEngine:
        told = {"timeout": CONNECT_S, "command_timeout": ANSWER_S} | self._at.connect_args
        return create_async_engine(self._at.url, pool_size=size, max_overflow=0, pool_pre_ping=True, connect_args=told)

    async def _open(self, connection: AsyncConnection) -> None:
        known = len(self.dialect.steps)
        if await _form(connection) == known:
            return
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        form = await _form(connection)  # another process may have been here meanwhile
        if form > known:
            raise newer(self.place, form, known)
        steps = [statement for step in self.dialect.steps[form:] for statement in step]
        for statement in [*([] if form else [MAKE_FORM]), *steps]:
            await connection.execute(text(statement))
        await connection.execute(text(SET_FORM), {"form": known})

    def _failure(self, error: Exception) -> RunStoreError:
        said = str(getattr(error, "orig", None) or error).splitlines()[0] if str(error) else type(error).__name__
        if "factory_runs" in said and "does not exist" in said:
            said = "it holds no runs yet; the first that is kept makes the tables"
        refused = isinstance(error, DataError | IntegrityError | ProgrammingError)
        return (RunStoreError if refused else RunStoreUnavailable)(f"run store {self.place}: {said}")


async def _used(engine: AsyncEngine, use: Any) -> Any:
    async with engine.begin() as connection:
        return await use(connection)


async def _form(connection: AsyncConnection) -> int:
    if (await connection.execute(text(_THERE))).scalar() is None:
        return 0
    return (await connection.execute(text(FORM))).scalar() or 0


async def _write(connection: AsyncConnection, changes: Sequence[Change]) -> None:
    for statement, values in together(changes):
        await connection.execute(_bound(statement, _whole_numbers(values[0])), values)


async def _read(connection: AsyncConnection, statement: str, values: Params) -> list[Sequence[Any]]:
    found = await connection.execute(_bound(statement, _whole_numbers(values)), values)
    return [tuple(row) for row in found]


def _whole_numbers(values: Params) -> frozenset[str]:
    return frozenset(name for name, value in values.items() if type(value) is int)


@lru_cache(maxsize=256)
def _bound(statement: str, numbers: frozenset[str]) -> TextClause:
    """Return a statement whose whole numbers are as long as those of a run."""
    there = numbers & set(_NAMES.findall(statement))
    return text(statement).bindparams(*(bindparam(name, type_=BigInteger()) for name in there))
