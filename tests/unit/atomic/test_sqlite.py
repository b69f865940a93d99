"""SQLite files that several open at once."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from shared_libs.atomic.sqlite import into_wal

PATIENCE_S = 60


def test_a_new_file_that_somebody_holds_is_waited_for_and_then_in_wal_mode(tmp_path):
    refused = threading.Event()

    class Connection(sqlite3.Connection):
        def execute(self, *words):
            try:
                return super().execute(*words)
            except sqlite3.OperationalError:
                refused.set()
                raise

    def connect(**more):
        return closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None, timeout=0, **more))

    modes = []

    def come():
        with connect(factory=Connection) as second:
            into_wal(second, PATIENCE_S)
            modes.append(second.execute("PRAGMA journal_mode").fetchone()[0])

    with connect() as first:
        first.execute("BEGIN IMMEDIATE")
        first.execute("CREATE TABLE a (b)")
        with connect() as third, pytest.raises(sqlite3.OperationalError, match="locked"):
            into_wal(third, -1)
        coming = threading.Thread(target=come)
        coming.start()
        assert refused.wait(PATIENCE_S)
        first.execute("COMMIT")
        coming.join(PATIENCE_S)
    assert modes == ["wal"]
