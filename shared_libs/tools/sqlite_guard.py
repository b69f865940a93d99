"""
A SQLite file that is read and nothing else, in a process that may be ended.

The database refuses what is no reading: the file is opened read-only, an authorizer looks at every action, limits bound
what one value may be. A progress handler stops a statement when its time is over. What goes on between two looks of it,
and how much memory a statement takes, is bounded by the process it runs in: `SQLTool` declares one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shared_libs.atomic.errors import ToolError
from shared_libs.tools.sql_rows import Rows

MAX_VALUE_BYTES = 1_000_000
MAX_QUERY_BYTES = 100_000
MAX_COLUMNS = 200
"""Columns of an answer: with `MAX_VALUE_BYTES` the bound on what one row may weigh."""

STEPS_BETWEEN_LOOKS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock: well under a millisecond."""

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MAX_QUERY_BYTES,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 250_000,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
}
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
_HIDDEN = 1
"""What `table_xinfo` says of the columns of a virtual table that are no data."""


def answer(path: Path, query: str, rows: Rows, over: Callable[[], bool]) -> dict[str, Any]:
    """
    Run one statement; `over` says that its time is.

    Raises:
        ToolError: there is no such file, or the statement returns no rows.
        sqlite3.Error: what the database says.
        MemoryError: it takes more memory than there is.

    """
    with _opened(path, over) as connection, closing(connection.execute(query)) as cursor:
        if cursor.description is None:
            raise ToolError("the statement returns no rows; write one SELECT")
        columns = [column[0] for column in cursor.description]
        # one by one, so that a table of millions costs what is shown of it, and wide rows do not pile up
        for _ in range(rows.most):
            row = cursor.fetchone()
            if row is None or not rows.take(row):
                break
        return rows.answer(columns)


def schema(path: Path, over: Callable[[], bool]) -> str:
    """List tables and views with their columns and types, one a line; raises as `answer` does."""
    with _opened(path, over) as connection:
        listed = connection.execute("PRAGMA table_list").fetchall()
        names = sorted(
            name
            for home, name, kind, *_ in listed
            if home == "main" and kind != "shadow" and not name.startswith("sqlite_")  # a full-text table's index
        )
        return "\n".join(_described(connection, name) for name in names) or "the database has no tables"


def _described(connection: sqlite3.Connection, name: str) -> str:
    try:
        columns = connection.execute("SELECT name, type, hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
    except sqlite3.Error as error:  # a view of a table that is gone
        return f"{name}: {error}"
    shown = (f"{column} {_kind(kind)}".rstrip() for column, kind, hidden in columns if hidden != _HIDDEN)
    return f"{name}({', '.join(shown)})"


def _kind(declared: str) -> str:
    """A declared type; the database's own tables say it the short way."""
    return "integer" if declared.lower() == "int" else declared.lower()


@contextmanager
def _opened(path: Path, over: Callable[[], bool]) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise ToolError(f"there is no database file {path}")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)) as connection:
        connection.text_factory = _text  # what other programs wrote is not all UTF-8
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # whose bound is known, and not the disk's
        if sys.version_info >= (3, 12):  # a name in double quotes that is no column would be read as a text
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, False)  # noqa: FBT003 - its own signature
        for kind, most in _LIMITS.items():
            connection.setlimit(kind, most)
        connection.set_progress_handler(over, STEPS_BETWEEN_LOOKS)
        _open_virtual_tables(connection)
        connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, MAX_COLUMNS)  # wider tables are known by now, and stay
        connection.set_authorizer(_authorize)
        yield connection


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_PRAGMA:
        asks = (first or "").lower() in _READING_PRAGMAS or (first == "read_uncommitted" and second is None)
        return sqlite3.SQLITE_OK if asks else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FILE_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
        return sqlite3.SQLITE_OK  # asked when json_each or another table function is declared; no write gets this far
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


def _open_virtual_tables(connection: sqlite3.Connection) -> None:
    """Let full-text and R-tree tables prepare their statements, writing ones too, before the authorizer looks on."""
    named = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
    for (name,) in connection.execute(named).fetchall():
        quoted = name.replace('"', '""')
        with contextlib.suppress(sqlite3.Error):  # of a module that is not there
            connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 0')  # noqa: S608 - a quoted name
