"""SQLite for all who use it: a connection that ends whole however a call on it is cut off, and an engine of such."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiosqlite
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine


def into_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """
    Bring a file into WAL mode, in a thread.

    SQLite waits for others with every statement but this one: where several open a new file at once, one is refused.

    Raises:
        sqlite3.Error: others hold the file for longer than `busy_s` seconds, or it cannot be written.

    """
    until = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.005)
        else:
            return


def sqlite_connection(connect: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """
    Return a connection to be awaited; `connect` opens it in its thread.

    Its thread keeps no process alive. It can be stopped twice: a call that is cancelled stops it, and so does its own
    end, and the second would wait for a thread that has gone. What was opened for a caller that had left is closed, and
    so is what was under way when the caller's event loop ended.
    """
    import aiosqlite

    opened: list[sqlite3.Connection] = []

    def open_one() -> sqlite3.Connection:
        opened.append(connect())
        return opened[-1]

    class Connection(aiosqlite.Connection):
        def stop(self) -> Any:
            if not self._running:
                return None
            self._tx.put_nowait((None, self._close_what_nobody_took))
            return super().stop()

        def _close_what_nobody_took(self) -> None:
            if self._connection is None:
                close()

    def close() -> None:
        for one in opened:
            one.close()

    def work() -> None:
        try:
            answer_calls()
        except RuntimeError:  # the loop of the call has closed: nobody comes for this answer, nor for another one
            close()

    connection = Connection(open_one, iter_chunk_size=64)
    thread = connection._thread  # noqa: SLF001 - as SQLAlchemy does with the connections it makes
    answer_calls, thread.run = thread.run, work  # type: ignore[method-assign]
    thread.daemon = True
    return connection


def sqlite_engine(url: URL, begin: Callable[[Any], None], *, busy_s: float) -> AsyncEngine:
    """
    Return an engine for an SQLite file that several processes share, in WAL mode.

    A connection is made for each call: none is left to close when a run is cut off, and opening a file is cheap.

    Args:
        url: the file.
        begin: begins a transaction on a connection; the driver does not, when it sees fit.
        busy_s: how long a statement waits for another writer, in its thread, where no cancellation reaches it.

    """
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    def connection(database: str, **settings: Any) -> aiosqlite.Connection:
        def connect() -> sqlite3.Connection:
            made: sqlite3.Connection = sqlite3.connect(database, **settings)
            try:
                into_wal(made, busy_s)
            except sqlite3.Error:
                made.close()
                raise
            return made

        return sqlite_connection(connect)

    settings = {"timeout": busy_s, "async_creator_fn": connection}
    engine = create_async_engine(url, poolclass=NullPool, connect_args=settings)

    @event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    event.listen(engine.sync_engine, "begin", begin)
    return engine
