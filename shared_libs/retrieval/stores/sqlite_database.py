"""One SQLite file for the embedded stores: connections that threads lend each other, and the tables."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from shared_libs.atomic.errors import MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.places import what_failed
from shared_libs.atomic.sqlite import into_wal

File = tuple[int, int] | None
"""What a file is by, whatever it is called; None where there is none."""

BUSY_S = 5.0
"""Seconds a statement waits for a writer of another process."""

FORM = 1
"""The form of the tables; another one is refused."""

MOST_PARAMETERS = 30_000
"""How many parameters a statement may have (SQLite 3.32 and later take 32,766)."""

_TABLES = """
CREATE TABLE IF NOT EXISTS collections (
    key INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    graph INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, name)
);
CREATE TABLE IF NOT EXISTS generations (
    collection INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    embedder TEXT,
    PRIMARY KEY (collection, generation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    collection INTEGER NOT NULL,
    id TEXT NOT NULL,
    row TEXT NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (collection, id)
);
CREATE TABLE IF NOT EXISTS chunks (
    collection INTEGER NOT NULL,
    id TEXT NOT NULL,
    document TEXT NOT NULL,
    state INTEGER NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    heading TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (collection, id)
);
CREATE INDEX IF NOT EXISTS chunks_of_document ON chunks (collection, document);
CREATE INDEX IF NOT EXISTS chunks_to_go ON chunks (collection, id) WHERE state < 0;
CREATE TABLE IF NOT EXISTS vectors (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    id TEXT NOT NULL,
    vector BLOB,
    metadata TEXT NOT NULL,
    UNIQUE (collection, generation, id)
);
CREATE INDEX IF NOT EXISTS vectors_in_order ON vectors (collection, generation, seq);
CREATE TABLE IF NOT EXISTS texts (
    rowid INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL,
    id TEXT NOT NULL,
    words TEXT NOT NULL,
    metadata TEXT NOT NULL,
    UNIQUE (collection, id)
);
CREATE TABLE IF NOT EXISTS entities (
    collection INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    PRIMARY KEY (collection, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entities_by_key ON entities (collection, key);
CREATE TABLE IF NOT EXISTS mentions (
    collection INTEGER NOT NULL,
    entity TEXT NOT NULL,
    chunk TEXT NOT NULL,
    name TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    PRIMARY KEY (collection, entity, chunk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mentions_of_chunk ON mentions (collection, chunk);
CREATE TABLE IF NOT EXISTS relations (
    collection INTEGER NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    chunk TEXT NOT NULL,
    PRIMARY KEY (collection, source, kind, target, chunk)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS relations_of_target ON relations (collection, target);
CREATE INDEX IF NOT EXISTS relations_of_chunk ON relations (collection, chunk);
CREATE TABLE IF NOT EXISTS extractions (
    collection INTEGER NOT NULL,
    chunk TEXT NOT NULL,
    extractor TEXT NOT NULL,
    PRIMARY KEY (collection, chunk)
) WITHOUT ROWID;
"""


class Database:
    """
    An SQLite file as the embedded stores share it; several processes may.

    Everything here blocks and runs in the pool. A connection is lent to one thread at a time. Writers take turns, in
    this process by a lock and among processes by SQLite's own. Who forgets to close it loses nothing: the connections
    end with the object.

    Args:
        path: the file; its folder has to be there. ":memory:" is none: what is indexed should outlive the process.

    """

    def __init__(self, path: str | Path) -> None:
        if str(path) in ("", ":memory:"):
            raise MisuseError("a collection is kept in a file, such as sqlite:///collections.db")
        self.path = Path(path)
        self._idle: list[tuple[File, sqlite3.Connection]] = []
        self.file: File = None
        """Which file it is: another one of the same name is another database."""
        self._writer = threading.Lock()
        self._ready = False
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; what is read inside one statement is of one moment."""
        connection = self._borrow()
        of = self.file
        try:
            yield connection
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            self._idle.append((of, connection))

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection in a transaction that is kept whole or not at all."""
        with self._writer, self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close what is idle; what is lent is closed by the next call of this."""
        _close(self._idle)

    def _borrow(self) -> sqlite3.Connection:
        there = _identity(self.path)
        with suppress(IndexError):
            while True:
                of, idle = self._idle.pop()
                if of == there is not None:
                    return idle
                idle.close()  # somebody has put another file in its place, or none
        self._ready = self._ready and there == self.file
        try:
            connection = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            raise self._failure(error) from error
        try:
            into_wal(connection, BUSY_S)
            connection.execute("PRAGMA synchronous = NORMAL")
            if not self._ready:
                self._make_tables(connection)
            self.file = _identity(self.path)
        except sqlite3.Error as error:
            connection.close()
            raise self._failure(error) from error
        except RetrievalError:
            connection.close()
            raise
        return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        with closing(connection.execute("PRAGMA user_version")) as cursor:
            form = cursor.fetchone()[0]
        if form not in (0, FORM):
            raise RetrievalError(
                f"{self.path} has the form {form}, of another version of genai-factory; this one knows {FORM}. Install "
                "that version, or index into another file"
            )
        if form == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {FORM}; COMMIT;")
        self._ready = True

    def _failure(self, error: sqlite3.Error) -> RetrievalError:
        said = what_failed(error, self.path)
        if "locked" in str(error) or "busy" in str(error):
            return RetrievalUnavailable(f"{self.path} is in use by another process: {said}")
        return RetrievalError(f"{self.path}: {said}")


def _close(idle: list[tuple[File, sqlite3.Connection]]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop()[1].close()


def _identity(path: Path) -> File:
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def marks(count: int) -> str:
    """Return `count` parameters of a statement."""
    return ",".join("?" * count)
