"""
A SQLite connection that cannot write, attach, read files, eat the memory or run for ever.

The database enforces all of it: the file is opened read-only, an authorizer refuses what is no reading, limits bound
what one value may be, and a progress handler stops a statement when its time is over. No query text is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import aiosqlite

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.sqlite import sqlite_connection

MAX_VALUE_BYTES = 1_000_000
MAX_QUERY_BYTES = 100_000
MAX_COLUMNS = 200
"""Columns of an answer: with `MAX_VALUE_BYTES` the bound on what one row may weigh."""

STEPS_BETWEEN_LOOKS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock: well under a millisecond."""

_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_READING_PRAGMAS = {
    *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"),
    "data_version",  # asked by full-text tables
}
_FILE_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "lsdir", "fsdir"}


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        asks = (first or "").lower() in _READING_PRAGMAS or (first == "read_uncommitted" and second is None)
        return sqlite3.SQLITE_OK if asks else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FILE_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
        return sqlite3.SQLITE_OK  # asked when json_each or another table function is declared; no write gets this far
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


class Guard:
    """Opens guarded connections to one file, and stops their statements at `deadline`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.deadline: Deadline | None = None

    async def connect(self) -> aiosqlite.Connection:
        """
        Open one connection; for SQLAlchemy's `async_creator`.

        Raises:
            ToolError: there is no such file.

        """
        if not await asyncio.to_thread(self._path.is_file):
            raise ToolError(f"there is no database file {self._path}")
        return await sqlite_connection(self._open(asyncio.get_running_loop().time))

    def _open(self, now: Callable[[], float]) -> Callable[[], sqlite3.Connection]:
        deadline = self.deadline

        def over() -> int:
            return int(deadline is not None and now() >= deadline.at)

        def connect() -> sqlite3.Connection:
            uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=1.0)
            connection.execute("PRAGMA query_only = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_QUERY_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_progress_handler(over, STEPS_BETWEEN_LOOKS)
            _open_virtual_tables(connection)
            connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, MAX_COLUMNS)  # wider tables are known by now, and stay
            connection.set_authorizer(_authorize)
            return connection

        return connect


def _open_virtual_tables(connection: sqlite3.Connection) -> None:
    """Let full-text and R-tree tables prepare their statements, writing ones too, before the authorizer looks on."""
    named = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
    for (name,) in connection.execute(named).fetchall():
        quoted = name.replace('"', '""')
        with contextlib.suppress(sqlite3.Error):  # of a module that is not there
            connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 0')  # noqa: S608 - a quoted name
