"""Reading the store of runs: lists, one run, its events as they come, and what is usual for its agent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from statistics import median
from typing import Any, Unpack

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.places import data_folder
from shared_libs.observability.runs.rows import Order, RunPage, RunRow, UsualRun
from shared_libs.observability.runs.shelf import Shelf
from shared_libs.observability.runs.statements import (
    EVENTS,
    LAST_EVENT,
    LIKE_IT,
    REQUESTS,
    Params,
    Wanted,
    WantedRuns,
    cursor_behind,
    decoded,
    row_of,
    select_page,
    select_run,
)

OFF = "off"
"""What `FACTORY_RUNS`, `store` and `--store` say where no run is to be kept."""

LOOK_S = 0.25
"""Seconds between two looks at a run that another process writes."""


def default_url() -> str:
    """
    Where runs are kept when nobody says: `FACTORY_RUNS`, else a file in the user's data folder.

    Raises:
        MisuseError: there is no such folder.

    """
    told = os.environ.get("FACTORY_RUNS")
    return told or f"sqlite:///{data_folder(f'FACTORY_RUNS to an address (or to {OFF})') / 'runs.db'}"


async def whole(
    read: Callable[..., Awaitable[list[dict[str, Any]]]], run_id: str, team: str | None = None
) -> list[dict[str, Any]]:
    """Return all of a run that `async_events` or `async_requests` of a reader give in pages."""
    told: list[dict[str, Any]] = []
    while some := await read(run_id, told[-1]["seq"] if told else -1, team=team):
        told += some
    return told


class RunReader:
    """
    Reads a store of runs, and makes nothing.

    Args:
        url: as `RunStore` takes it.

    Raises:
        MisuseError: the URL is not valid.

    """

    def __init__(self, url: str | None = None) -> None:
        self._shelf = _shelf(default_url() if url is None else url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r})"

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return self._shelf.place

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
                `parent`: the run whose sub-agents' runs are wanted; without it, those that nobody's run began;
                `prefix`: how the ids of the runs begin, those of sub-agents among them.

        Raises:
            MisuseError: an argument is not valid.
            RunStoreError: it cannot be read.

        """
        found = await self._shelf.read(*select_page(Wanted(**wanted), order, after, limit, self._shelf.dialect))
        rows = [row_of(each) for each in found[:limit]]
        return RunPage(rows, cursor_behind(found[limit - 1], order) if len(found) > limit else None)

    async def async_get(self, run_id: str, team: str | None = None, *, brief: bool = False) -> RunRow | None:
        """
        Return a run with its result; None where there is none of this name (in this team).

        Where a name was used again it is the newest run of it. With `brief` the result is without what the events tell
        anyway: its steps, attempts and state.

        Raises:
            RunStoreError: it cannot be read.

        """
        found = await self._found(run_id, team)
        if found is None:
            return None
        last = await self._shelf.read(LAST_EVENT, {"id": found[0]})
        result = _result_in(last[0][0], brief=brief) if last else None
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
        return [] if found is None else await self._numbered(EVENTS, found[0], after, limit)

    async def async_requests(
        self, run_id: str, after: int = -1, limit: int = 1000, *, team: str | None = None
    ) -> list[dict[str, Any]]:
        """
        Return what models were asked in a run, those with a `seq` greater than `after`; none where it is not kept.

        Each is a `ModelAsked` as data: what the request adds to the one it goes on from. `whole_requests` joins them.

        Raises:
            RunStoreError: it cannot be read.

        """
        found = await self._found(run_id, team)
        return [] if found is None else await self._numbered(REQUESTS, found[0], after, limit)

    async def async_record(self, run_id: str, team: str | None = None) -> list[dict[str, Any]]:
        """
        Return all that is kept of a run: what models were asked in it (`async_requests`), and its events behind that.

        Raises:
            RunStoreError: it cannot be read.

        """
        return [
            *await whole(self.async_requests, run_id, team),
            *await whole(self.async_events, run_id, team),
        ]

    async def follow(self, run_id: str, after: int = -1, *, team: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """
        Yield the events of a run, those there are and those to come, until it ends, whichever process it is in.

        Raises:
            MisuseError: nobody knows the run.
            RunStoreError: it cannot be read.

        """
        async for events in self.follow_pages(run_id, after, team=team):
            for event in map(decoded, events):
                yield event

    async def follow_pages(self, run_id: str, after: int = -1, *, team: str | None = None) -> AsyncIterator[list[str]]:
        """As `follow`; yields as many events at once as there are, up to 1,000, in the JSON in which they are kept."""
        while True:
            found = await self._found(run_id, team)
            if found is None:
                raise MisuseError(f"there is no run {run_id!r} in {self._shelf.place}")
            ended = row_of(found).status != "running"  # looked at first: what comes between is read below
            news = self._listen(found[0])
            while events := await self._rows(EVENTS, found[0], after, 1000):
                yield [told for _, told in events]
                after = events[-1][0]
            if ended:
                return
            await news(LOOK_S)

    async def async_usual(self, row: RunRow) -> UsualRun | None:
        """
        Return the median of the latest runs of the same agent and team that were answered; None where there are none.

        Raises:
            RunStoreError: they cannot be read.

        """
        values = {"agent": row.agent, "team": row.team, "run_id": row.run_id}
        found = await self._shelf.read(LIKE_IT, values)
        if not found:
            return None
        runs = [{(part["kind"], part["name"]): part["seconds"] for part in decoded(each[1])} for each in found]
        names = {name for parts in runs for name in parts}
        usual = {name: median(parts.get(name, 0.0) for parts in runs) for name in names}
        parts = [
            {"kind": kind, "name": name, "seconds": seconds}
            for (kind, name), seconds in sorted(usual.items(), key=lambda item: -item[1])
            if seconds > 0
        ]
        return UsualRun(len(found), median(each[0] for each in found), parts)

    async def has_table(self, name: str) -> bool:
        """
        Whether the database has this table, whoever made it.

        Raises:
            RunStoreError: it cannot be read.

        """
        return bool(await self._shelf.read(self._shelf.dialect.has_table, {"name": name}))

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        await self._shelf.aclose()

    def _listen(self, run: int) -> Callable[[float], Awaitable[None]]:
        """Return what waits for news of a run, so many seconds at the most; from here on nothing is missed."""
        return asyncio.sleep

    async def _found(self, run_id: str, team: str | None) -> Any:
        found = await self._shelf.read(*select_run(run_id, team))
        return found[0] if found else None

    async def _numbered(self, statement: str, id: int, after: int, limit: int) -> list[dict[str, Any]]:
        return [decoded(told) for _, told in await self._rows(statement, id, after, limit)]

    async def _rows(self, statement: str, id: int, after: int, limit: int) -> list[Sequence[Any]]:
        values: Params = {"id": id, "after": after, "limit": limit}
        return await self._shelf.read(statement, values)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _result_in(event: str, *, brief: bool) -> dict[str, Any] | None:
    """Read the result of a run in its last event; of 100,000 steps nothing is made where they are not wanted."""
    if not brief:
        whole: dict[str, Any] | None = decoded(event).get("result")
        return whole
    result = _fields.decode(event).get("result")
    told = {} if result is None else brief_result(_fields.decode(result))
    return {name: msgspec.json.decode(value) for name, value in told.items()} or None


def brief_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without what its run's events tell anyway: of 100,000 steps it is nearly all of it."""
    return {name: value for name, value in result.items() if name not in ("steps", "attempts", "state")}


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
