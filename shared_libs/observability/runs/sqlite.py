"""A file of SQLite, by the standard library: what only lists runs need not wait for a larger one to load."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from shared_libs.atomic.errors import RunStoreError, RunStoreUnavailable
from shared_libs.atomic.secrets import private
from shared_libs.atomic.sqlite import into_wal
from shared_libs.atomic.whole import column_value
from shared_libs.observability.runs.shelf import newer
from shared_libs.observability.runs.statements import (
    FORM,
    MAKE_FORM,
    SET_FORM,
    SQLITE,
    Change,
    Dialect,
    Params,
    together,
)

BUSY_S = 5.0
"""Seconds to wait for a writer of another process."""


class SQLiteShelf:
    """
    The tables in one file, which its owner alone can read; any number of processes may use it at once.

    Args:
        path: the file; it and its folder are made.

    """

    dialect: Dialect = SQLITE

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._writer: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None

    @property
    def place(self) -> str:
        """Where it is."""
        return str(self.path)

    def open(self) -> None:
        """Make the file and its tables."""
        if self._writer is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.path, "ab", opener=private):
                pass
            connection = self._connected("rwc")
            try:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                into_wal(connection, BUSY_S)
                connection.execute("PRAGMA synchronous = NORMAL")
                if _form(connection) != len(self.dialect.steps):
                    self._upgrade(connection)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error
        self._writer = connection

    def write(self, changes: Sequence[Change]) -> None:
        """Make changes in one transaction."""
        self.open()
        assert self._writer is not None
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in together(changes):
                    if len(values) > 1:
                        self._writer.executemany(statement, values)
                    else:  # which may be no change of rows
                        self._writer.execute(statement, *values)
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # it may be over already
                    self._writer.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            self.close()  # a file that was taken away or replaced is opened anew
            raise self._failure(error) from error

    def select(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """Read, as whoever writes."""
        self.open()
        assert self._writer is not None
        try:
            return self._writer.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise self._failure(error) from error

    def close(self) -> None:
        """Close what the writer used."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def begin_anew(self) -> None:
        """Forget the connection without closing it, which would drop the parent's locks."""
        self._inherited = self._writer
        self._writer = None

    async def read(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """Read, in a thread, on a connection of its own: opening a file is cheap."""
        return await asyncio.to_thread(self.read_now, statement, values)

    def read_now(self, statement: str, values: Params) -> list[Sequence[Any]]:
        """Read, and wait for it."""
        try:
            with closing(self._connected("ro&immutable=1" if self._stands_still else "rw")) as connection:
                asked = {name: column_value(value) for name, value in values.items()}
                return connection.execute(statement, asked).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error

    async def aclose(self) -> None:
        """Nothing is kept for an event loop."""

    @property
    def _stands_still(self) -> bool:
        """Whether the file is another's and nobody has it open: SQLite would want to write its log beside it."""
        writes = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        return not writes and self.path.exists() and not self.path.with_name(f"{self.path.name}-wal").exists()

    def _connected(self, mode: str) -> sqlite3.Connection:
        where = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(where, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            form = _form(connection)  # another process may have been here meanwhile
            if form > len(self.dialect.steps):
                raise newer(self.place, form, len(self.dialect.steps))
            if not form:
                connection.execute(MAKE_FORM)
            for step in self.dialect.steps[form:]:
                for statement in step:
                    connection.execute(statement)
            connection.execute(SET_FORM, {"form": len(self.dialect.steps)})
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _failure(self, error: Exception) -> RunStoreError:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, OSError) or "unable to open" in said or "readonly" in said:
            said += ": allow it to be written, or name another place"
            if not self.path.exists() and os.access(self.path.parent, os.W_OK):
                said = "there is no such file; the first run that is kept makes it"
        elif "no such table: factory_runs" in said:
            said = "it holds no runs yet; the first that is kept makes the tables"
        elif "not a database" in said:
            said = "this file is something else; name another place"
        elif "locked" in said:
            said = f"another process has kept it locked for {BUSY_S:g} s"
        refused = isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError)
        return (RunStoreError if refused else RunStoreUnavailable)(f"run store {self.path}: {said}")


def _form(connection: sqlite3.Connection) -> int:
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'factory_runs_form'").fetchone()
    return int(connection.execute(FORM).fetchone()[0] or 0) if there else 0
