"""
Real data for the examples: tables from a package, loaded into SQLite once and cached.

The cache is built in a file of its own and renamed when it is whole, so that two processes may load at once and a
killed one leaves nothing half done.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import sqlite3
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.loading import needs
from shared_libs.atomic.places import cache_folder

NAMES = ("nycflights13",)
BATCH = 20_000
STALE_S = 3_600
"""Seconds after which a partial file is what a killed loader left, and is removed."""

_FLIGHTS = "flights"
ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, _FLIGHTS: 336776}
_TEXT = {
    *("carrier", "name", "tailnum", "origin", "dest", "faa", "tz", "dst", "tzone", "time_hour"),
    *("type", "manufacturer", "model", "engine"),
}
_REAL = {"lat", "lon", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"}
_INDEXES = {
    "flights_by_carrier": "flights(carrier)",
    "flights_by_day": "flights(month, day)",
    "flights_by_destination": "flights(dest)",
    "flights_by_plane": "flights(tailnum)",
    "weather_by_hour": "weather(origin, time_hour)",
}


def cache_dir() -> Path:
    """
    Where data sets are kept: `FACTORY_CACHE_DIR`, else the user's cache folder.

    Raises:
        MisuseError: there is no such folder.

    """
    told = os.environ.get("FACTORY_CACHE_DIR")
    return Path(told) if told else cache_folder("FACTORY_CACHE_DIR to a folder")


def _file(name: str) -> Path:
    return cache_dir() / f"{name}-v1.db"


def check(name: str) -> None:
    """
    Refuse a data set that cannot be loaded here, without loading it.

    Raises:
        NotInstalled: it is not in the cache, and its package is missing.

    """
    if not _file(name).is_file():
        needs(name, f"the data set {name}")


def load(name: str) -> Path:
    """
    Return the SQLite file of a data set; load it first if it is not there. Blocks.

    Raises:
        NotInstalled: the package of the data set is missing.
        ToolError: the cache cannot be written.

    """
    path = _file(name)
    if path.is_file():
        return path
    needs(name, f"the data set {name}")
    found = importlib.util.find_spec(name)  # its __init__ would import pandas for nothing
    assert found is not None
    assert found.submodule_search_locations
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, name)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f"{name}-", suffix=".partial")
        os.close(handle)
        try:
            _build(Path(found.submodule_search_locations[0]) / "data", Path(partial))
            with Path(partial).open("rb+") as file:
                os.fsync(file.fileno())  # its content is on the disk before its name is
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        raise ToolError(
            f"the data set {name} cannot be cached in {path.parent}: {error}; set FACTORY_CACHE_DIR to another folder"
        ) from error
    return path


def _sweep(folder: Path, name: str) -> None:
    for left in folder.glob(f"{name}-*.partial"):
        with contextlib.suppress(FileNotFoundError):  # its loader, or another sweeper, was faster
            if time.time() - left.stat().st_mtime > STALE_S:
                left.unlink()


def _build(source: Path, target: Path) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        print("loading nycflights13 into SQLite, once", file=sys.stderr)  # noqa: T201 - a word to whoever waits
    columns = (TextColumn("loading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    database = sqlite3.connect(target)
    database.execute("PRAGMA journal_mode = OFF")  # a load that fails is thrown away whole
    database.execute("PRAGMA synchronous = OFF")
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            for table, rows in ROWS.items():
                task = progress.add_task(table, total=rows)
                for count in _fill(database, table, source):
                    progress.advance(task, count)
        for name, columns_of in _INDEXES.items():
            database.execute(f"CREATE INDEX {name} ON {columns_of}")
        database.execute("ANALYZE")
        database.commit()
    finally:
        database.close()


def _fill(database: sqlite3.Connection, table: str, source: Path) -> Iterator[int]:
    """Copy one CSV file into a table; yield how many rows each batch had."""
    with _opened(source, table) as file:
        reader = csv.reader(file)
        header = next(reader)
        types = ["TEXT" if name in _TEXT else "REAL" if name in _REAL else "INTEGER" for name in header]
        columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(header, types, strict=True))
        database.execute(f'CREATE TABLE "{table}" ({columns})')
        insert = f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(header))})'  # noqa: S608 - names of our own
        batch: list[list[str | None]] = []
        for row in reader:
            batch.append([None if value in ("", "NA") else value for value in row])
            if len(batch) == BATCH:
                database.executemany(insert, batch)
                yield len(batch)
                batch.clear()
        database.executemany(insert, batch)
        yield len(batch)


def _opened(source: Path, table: str) -> IO[str]:
    packed = source / f"{table}.csv.zip"
    if not packed.exists():
        return (source / f"{table}.csv").open(encoding="utf-8", newline="")
    archive = zipfile.ZipFile(packed)
    inside = next(name for name in archive.namelist() if name.endswith(".csv") and not name.startswith("__"))
    return io.TextIOWrapper(archive.open(inside), encoding="utf-8", newline="")
