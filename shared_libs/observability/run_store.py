"""
The store of runs: what a command, a service, a worker or an application did, to be listed, searched and followed.

A run is a row and its events. SQLite is the default, PostgreSQL is for many machines; any number of processes may write
and read at once.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self, Unpack

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent, EventSink
from shared_libs.observability.record import valid_text
from shared_libs.observability.runs.desk import Desk, Told
from shared_libs.observability.runs.rows import Order, RunPage, RunRow, Source
from shared_libs.observability.runs.shelf import Shelf
from shared_libs.observability.runs.statements import (
    EVENTS,
    LAST_EVENT,
    Params,
    Wanted,
    WantedRuns,
    cursor_behind,
    row_of,
    select_page,
    select_run,
)
from shared_libs.observability.runs.writer import Writer

_log = logging.getLogger("shared_libs.observability")

FLUSH_S = 5.0
"""Seconds a flush waits for what is not written yet."""

CLOSE_S = 10.0
"""Seconds `close` and the end of the program wait for it; a database that is away is not waited for."""

LOOK_S = 0.25
"""Seconds between two looks at a run that another process writes."""


def default_url() -> str:
    """Where runs are kept when nobody says: `FACTORY_RUNS`, else a file in the user's data folder."""
    told = os.environ.get("FACTORY_RUNS")
    if told:
        return told
    folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return f"sqlite:///{folder / 'genai-factory' / 'runs.db'}"


class RunStore:
    """
    Keeps runs; secrets are masked.

    Writing never blocks the event loop and never fails a run: events wait in a bounded queue for a thread that writes
    them. What is left is written by `flush`, at the end of an `async with` block, and at the end of the program.

    Args:
        url: `sqlite:///file.db` or `postgresql://user:password@host/database`; the names of drivers SQLAlchemy knows
            (`sqlite+aiosqlite`, `postgresql+asyncpg`) are taken too. None: `default_url()`.
        contents: whether the words of users, models and tools are kept. Without them there are names, times, counts
            and the reasons of failures.
        retention_days: runs that began longer ago are forgotten; None: never.

    Raises:
        MisuseError: the URL or another argument is not valid.

    """

    def __init__(self, url: str | None = None, *, contents: bool = True, retention_days: float | None = 30) -> None:
        if retention_days is not None and not retention_days > 0:
            raise MisuseError(f"retention_days is a positive number, or None for ever, not {retention_days!r}")
        self._shelf = _shelf(default_url() if url is None else url)
        self._desk = Desk(self._shelf, contents=contents, retention_days=retention_days)
        self._writer = Writer(self._desk)
        atexit.register(_close_at_exit, weakref.ref(self))

    def __repr__(self) -> str:
        return f"RunStore({self._shelf.place!r})"

    @property
    def lost(self) -> int:
        """How many events could not be kept by this process."""
        return self._writer.lost

    def observer(self, team: str = "", source: Source = "library") -> EventSink:
        """Return an observer for agents; `team` is whose runs they are, `source` what began them."""
        return lambda event: self.record(event, team, source)

    def record(self, event: AgentEvent, team: str = "", source: Source = "library") -> None:
        """Take an event, at once; whose it is counts with the first event of a run."""
        self._writer.put(Told(_encoded(event), team, source))

    async def async_list(
        self, *, order: Order = "newest", after: str | None = None, limit: int = 50, **wanted: Unpack[WantedRuns]
    ) -> RunPage:
        """
        Return runs, a page at a time.

        Args:
            order: "newest" first, or "slowest" first (of those that have ended).
            after: the `next` of the page before.
            limit: rows of a page, up to 500.
            wanted: which; what is left out, or None, is left open:
                `team` (whose), `agent`, `session_id`;
                `status`: "running", "answered", "partial", "failed", "cancelled", "paused", or "unfinished" (no end is
                on record though its time is over);
                `since`, `until`: those that began then or later, and before;
                `text`: what question, answer or error hold, all of its words; the last letters may be left out;
                `parent`: the run whose sub-agents' runs are wanted; without it, those that nobody's run began.

        Raises:
            MisuseError: an argument is not valid.
            RunStoreError: it cannot be read.

        """
        found = await self._shelf.read(*select_page(Wanted(**wanted), order, after, limit, self._shelf.dialect))
        rows = [row_of(each) for each in found[:limit]]
        return RunPage(rows, cursor_behind(found[limit - 1], order) if len(found) > limit else None)

    async def async_get(self, run_id: str, team: str | None = None) -> RunRow | None:
        """
        Return a run with its result; None where there is none of this name (in this team).

        Where a name was used again it is the newest run of it.

        Raises:
            RunStoreError: it cannot be read.

        """
        found = await self._found(run_id, team)
        if found is None:
            return None
        last = await self._shelf.read(LAST_EVENT, {"id": found[0]})
        result = msgspec.json.decode(last[0][0]).get("result") if last else None
        row = row_of(found)
        if result is None:
            return row
        answer = None if row.answer is None else result["answer"]  # the whole of it, where answers are kept
        return msgspec.structs.replace(row, result=result, answer=answer)

    async def async_events(
        self, run_id: str, after: int = -1, limit: int = 1000, *, team: str | None = None
    ) -> list[dict[str, Any]]:
        """
        Return events of a run in their order, those with a `seq` greater than `after`; none for a run nobody knows.

        Pieces of text that came one after the other are one event, with the number of the first.

        Raises:
            RunStoreError: they cannot be read.

        """
        found = await self._found(run_id, team)
        return [] if found is None else await self._events(found[0], after, limit)

    async def follow(self, run_id: str, after: int = -1, *, team: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """
        Yield the events of a run, those there are and those to come, until it ends, whichever process it is in.

        Raises:
            MisuseError: nobody knows the run.
            RunStoreError: it cannot be read.

        """
        await self.flush()
        while True:
            found = await self._found(run_id, team)
            if found is None:
                raise MisuseError(f"there is no run {run_id!r} in {self._shelf.place}")
            ended = row_of(found).status != "running"  # looked at first: what comes between is read below
            news = self._desk.hub.of(found[0])
            while events := await self._events(found[0], after, 1000):
                for event in events:
                    yield event
                after = events[-1]["seq"]
            if ended:
                return
            await news.wait(LOOK_S)

    async def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until what this process has recorded is written, at most so many seconds; tell whether it is."""
        return await asyncio.to_thread(self._writer.flush, timeout_s)

    async def prune(self) -> int:
        """
        Forget the runs that are older than `retention_days`, some at a time; return how many.

        The writer does so by itself when it begins, and every hour.

        Raises:
            RunStoreError: the database failed; what was forgotten is.

        """
        count = 0
        while some := await asyncio.wrap_future(self._writer.call(self._desk.prune_some)):
            count += some
        return count

    async def aopen(self) -> None:
        """
        Make the file and its tables, or bring them to their newest form.

        Raises:
            RunStoreError: it cannot be opened; says why.

        """
        await asyncio.wrap_future(self._writer.call(self._shelf.open))

    async def aclose(self) -> None:
        """Write what is left and close; using the store afterwards opens it again."""
        await asyncio.to_thread(self.close)
        await self._shelf.aclose()

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Write what is left, at most so many seconds, where no event loop runs; tell whether all of it is."""
        done = self._writer.close(timeout_s)
        if not done or self.lost:
            _log.warning("run store %s is not complete: %d events are lost", self._shelf.place, self.lost)
        return done

    async def __aenter__(self) -> Self:
        await self.aopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _found(self, run_id: str, team: str | None) -> Any:
        found = await self._shelf.read(*select_run(run_id, team))
        return found[0] if found else None

    async def _events(self, id: int, after: int, limit: int) -> list[dict[str, Any]]:
        values: Params = {"id": id, "after": after, "limit": limit}
        return [msgspec.json.decode(event) for _, event in await self._shelf.read(EVENTS, values)]


def _shelf(url: str) -> Shelf:
    scheme, mark, rest = url.partition("://")
    if mark and scheme in ("sqlite", "sqlite+aiosqlite") and rest.startswith("/") and rest[1:] not in ("", ":memory:"):
        from shared_libs.observability.runs.sqlite import SQLiteShelf

        return SQLiteShelf(rest[1:].partition("?")[0])
    if mark and scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
        from shared_libs.observability.runs.postgres import PostgresShelf

        return PostgresShelf(f"postgresql{mark}{rest}")
    raise MisuseError(
        "run store: allowed are sqlite:///file.db and postgresql://user:password@host/database"
        + ("" if mark else f", not {url[:40]!r}")
    )


def _encoded(event: AgentEvent) -> bytes:
    try:
        return msgspec.json.encode(event, enc_hook=repr)
    except UnicodeEncodeError:  # half a character
        return msgspec.json.encode(valid_text(msgspec.to_builtins(event, enc_hook=repr)))


def _close_at_exit(store: weakref.ref[RunStore]) -> None:
    found = store()
    if found is not None:
        found.close()
