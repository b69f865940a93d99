"""
The database of durable runs, PostgreSQL or an SQLite file, with one way to use it: a script.

A script is a generator: it yields statements, is sent their rows, and returns a value. It is one transaction, so what
stands in it happens whole or not at all, and it may be played again when the database was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from shared_libs.atomic import postgres
from shared_libs.atomic.database_url import ALLOWED, DatabaseURL, database_url
from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.places import what_failed
from shared_libs.atomic.sqlite import into_wal
from shared_libs.atomic.whole import column_value

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")

Dialect = Literal["postgresql", "sqlite"]
Rows = Sequence[Any]
"""Rows as the drivers give them: each is asked by the names of its columns."""

CLOCK = "CLOCK"
"""In a statement: the time by the database's own clock, in seconds since 1970."""

APART = """COALESCE(CASE WHEN to_regclass('factory_jobs') = to_regclass('public.factory_jobs') THEN ''
    ELSE ' ' || to_regclass('factory_jobs')::oid END, '')"""
"""What ends a channel's name: a channel is the whole database's, and two schemas of it are strangers to each other."""

BUSY_S = 5.0
"""Seconds a statement waits for another writer of an SQLite file."""

STUCK_S = 3.0
"""Seconds a process may hold a transaction open without a word; one that was stopped in it must not hold up others."""

_WHAT = "store of durable runs"
_SETTINGS = {
    "application_name": "genai-factory",
    "idle_in_transaction_session_timeout": str(int(STUCK_S * 1000)),
}
_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_SQLITE_AWAY = (5, 6, 8, 10, 11, 13, 14, 26)  # busy, locked, read-only, I/O, corrupt, full, not opened, no database
_POSTGRES_AWAY = frozenset(
    # connection, a plan of before a migration, login, transaction ended or undone, a pooler's statements, no such
    # database, table or right, resources, not now, operator, I/O, internal: another server, another login or a moment
    # later it may be otherwise
    ("08", "0A", "28", "25", "26", "40", "3D", "42", "53", "55", "57", "58", "XX")
)


class Statement(NamedTuple):
    """A statement with its arguments, `$1` being the first."""

    text: str
    arguments: tuple[Any, ...] = ()


Script = Generator[Statement, Rows, T]


def ask(text: str, *arguments: Any) -> Statement:
    """Make a statement; a text that no column holds is as it would be there, so that what is not there is not found."""
    return Statement(text, tuple(map(column_value, arguments)))


class StoreUnavailable(FactoryError):
    """The database of durable runs does not answer."""


class Database(Protocol):
    """Where durable runs are kept, as one event loop uses it."""

    dialect: Dialect
    place: str
    """The address without secrets."""

    async def is_there(self) -> bool:
        """Whether there is a database to be asked: the file of SQLite is made by who uses it first."""

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """
        Play a script as one transaction.

        Raises:
            StoreUnavailable: the database does not answer; the script may have happened, or not.

        """

    async def one(self, statement: Statement) -> Rows:
        """Play a single statement, which is a transaction of its own."""

    async def listen(self, channel: str, heard: Callable[[str], None]) -> Callable[[], bool]:
        """Hear what others `notify`; what is returned tells whether that still works. SQLite has no such thing."""

    async def aclose(self) -> None:
        """Close the connections; using it afterwards opens them again."""


def open_database(url: str, *, connections: int = 4) -> Database:
    """
    Return the database at an address.

    Args:
        url: the address, as `database_url` takes it.
        connections: to PostgreSQL, at most.

    Raises:
        MisuseError: the address is none of these, or an SQLite in memory, which nobody else could read.

    """
    scheme, _, rest = url.partition("://")
    if scheme.partition("+")[0] == "sqlite":  # as it is everywhere, without the time SQLAlchemy takes to load
        file = rest.removeprefix("/").partition("?")[0]
        if not rest.startswith("/") or file in ("", ":memory:"):
            raise MisuseError(f"{_WHAT}: allowed are {ALLOWED}")
        return _Sqlite(file)
    return _Postgres(database_url(url, _WHAT), connections)


async def persistently(do: Callable[[], Any], *, while_: Callable[[], bool] = lambda: True) -> Any:
    """Do what needs the database again and again until it answers, as long as `while_` says so."""
    for wait_s in _waits():
        try:
            return await do()
        except StoreUnavailable:
            if not while_():
                raise
        await asyncio.sleep(wait_s)
    raise AssertionError


def _waits() -> Generator[float, None, None]:
    yield from _WAITS_S
    while True:
        yield _WAITS_S[-1]


@lru_cache(maxsize=256)
def _in_words_of(dialect: Dialect, text: str) -> str:
    if dialect == "postgresql":
        text = text.replace(CLOCK, "extract(epoch from clock_timestamp())::float8")
        return text.replace("SKIP_LOCKED", "SKIP LOCKED")
    # `$1` would be a named parameter
    text = text.replace("$", "?").replace(CLOCK, "((julianday('now') - 2440587.5) * 86400.0)")
    return text.replace("FOR UPDATE OF j SKIP_LOCKED", "")


class _Postgres:
    dialect: Dialect = "postgresql"

    def __init__(self, at: DatabaseURL, connections: int) -> None:
        self.place = at.shown
        self._at, self._options = at, dict(at.options)
        if "statement_cache_size" not in self._options:  # PgBouncer refuses settings
            self._options["server_settings"] = _SETTINGS
        self._options.setdefault("timeout", BUSY_S)
        self._most = connections
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._listener: asyncpg.Connection | None = None

    async def is_there(self) -> bool:
        return True

    async def run(self, script: Callable[[], Script[T]]) -> T:
        import asyncpg

        async with self._connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                value = await self._played(connection, script())
            except Exception:  # who is cancelled says nothing more: the connection goes, and with it what was begun
                with contextlib.suppress(asyncpg.InterfaceError):  # the server has ended it, and said why
                    await transaction.rollback()
                raise
            await transaction.commit()
            return value

    async def _played(self, connection: Any, playing: Script[T]) -> T:
        try:
            statement = next(playing)
            while True:
                statement = playing.send(await self._rows(connection, statement))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # what the generator returns

    async def one(self, statement: Statement) -> Rows:
        async with self._connection() as connection:
            return await self._rows(connection, statement)

    async def listen(self, channel: str, heard: Callable[[str], None]) -> Callable[[], bool]:
        import asyncpg

        try:
            if self._listener is None or self._listener.is_closed():
                self._listener = await postgres.connect(self._at, **self._options)
            listener = self._listener
            apart = await listener.fetchval(f"SELECT {APART}")
            await listener.add_listener(channel + apart, lambda *told: heard(told[3]))
        except (
            *(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError),
            asyncpg.InternalClientError,  # as where the server has just ended the line, which is not closed yet
        ) as error:
            raise self._unavailable(error) from error
        return lambda: not listener.is_closed()

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.terminate()
        if pool is not None:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(1.0):
                    await pool.close()
            pool.terminate()

    async def _rows(self, connection: Any, statement: Statement) -> Rows:
        rows: Rows = await connection.fetch(_in_words_of("postgresql", statement.text), *statement.arguments)
        return rows

    @contextlib.asynccontextmanager
    async def _connection(self) -> Any:
        import asyncpg

        try:
            pool = self._pool or await self._opened()
            connection = await pool.acquire()
            try:
                yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                connection.terminate()  # it has become a standby: another one writes now, and is found anew
                raise
            except (asyncpg.PostgresError, FactoryError):
                raise  # an answer, or a script's own no: it was rolled back
            except BaseException:
                with contextlib.suppress(asyncpg.InterfaceError):  # unless it is gone already
                    connection.terminate()  # it was cut off in the middle of a word
                raise
            finally:
                await pool.release(connection)
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise self._unavailable(error) from error
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] in _POSTGRES_AWAY:
                raise self._unavailable(error) from error
            raise

    async def _opened(self) -> asyncpg.Pool:
        import asyncpg

        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    connect=partial(postgres.connect, self._at),
                    min_size=0,
                    max_size=self._most,
                    command_timeout=30.0,
                    reset=_nothing_to_reset,
                    **self._options,
                )
            return self._pool

    def _unavailable(self, error: BaseException) -> StoreUnavailable:
        return StoreUnavailable(f"{_WHAT} {self.place}: {postgres.in_words(error)}")


async def _nothing_to_reset(_: Any) -> None:
    """A connection of ours leaves nothing behind that the next user would meet; asking costs a round trip each."""


class _Sqlite:
    """All statements run in one thread, a script in one go, so that a process writes without polling itself."""

    dialect: Dialect = "sqlite"

    def __init__(self, file: str) -> None:
        self.place = f"sqlite:///{file}"
        self._file = file
        self._thread: ThreadPoolExecutor | None = None
        self._open: sqlite3.Connection | None = None

    async def is_there(self) -> bool:
        return await self._in_thread(Path(self._file).exists)

    async def run(self, script: Callable[[], Script[T]]) -> T:
        return await self._in_thread(lambda: self._play(script))

    async def one(self, statement: Statement) -> Rows:
        def alone() -> Script[Rows]:
            return (yield statement)

        if statement.text.lstrip()[:6].upper() == "SELECT":
            return await self._in_thread(lambda: self._rows(self._connection(), statement))
        return await self.run(alone)

    async def listen(self, channel: str, heard: Callable[[str], None]) -> Callable[[], bool]:
        del channel, heard
        return lambda: True

    async def aclose(self) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="durable-sqlite")
        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # no thread: what is queued there must not be done later, by a thread that starts
            self._thread = None
            raise StoreUnavailable(f"{_WHAT} {self.place}: {error}") from error
        try:
            return await waiting
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _SQLITE_AWAY:
                raise
            said = await asyncio.to_thread(what_failed, error, self._file)
            raise StoreUnavailable(f"{_WHAT} {self.place}: {said}") from error

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            connection = sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            try:
                into_wal(connection, BUSY_S)
                connection.execute("PRAGMA synchronous = FULL")  # what is recorded outlives the machine, too
            except sqlite3.Error:
                connection.close()
                raise
            self._open = connection
        return self._open

    def _play(self, script: Callable[[], Script[T]]) -> T:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            playing = script()
            try:
                statement = next(playing)
                while True:
                    statement = playing.send(self._rows(connection, statement))
            except StopIteration as end:
                connection.execute("COMMIT")
                return end.value  # type: ignore[no-any-return] # what the generator returns
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _rows(self, connection: sqlite3.Connection, statement: Statement) -> Rows:
        named = {str(place): value for place, value in enumerate(statement.arguments, 1)}  # as 3.12.1 wants it for `?1`
        return connection.execute(_in_words_of("sqlite", statement.text), named).fetchall()

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
