"""
The store of runs: what a command, a service, a worker or an application did, to be listed, searched and followed.

A run is a row and its events. SQLite is the default, PostgreSQL is for many machines; any number of processes may write
and read at once.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Self

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import (
    AgentEvent,
    AttemptStarted,
    EventSink,
    ModelAsked,
    RunStarted,
    StepStarted,
    WithRequests,
)
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.runs.desk import Desk, Told
from shared_libs.observability.runs.reader import RunReader, default_url
from shared_libs.observability.runs.rows import Source
from shared_libs.observability.runs.writer import Writer

__all__ = ["RunStore", "default_url"]

_BEGINNINGS = (RunStarted, StepStarted, AttemptStarted, ModelAsked)

_log = logging.getLogger("shared_libs.observability")

FLUSH_S = 5.0
"""Seconds a flush waits for what is not written yet."""

CLOSE_S = 10.0
"""Seconds `close` and the end of the program wait for it; a database that is away is not waited for."""


class RunStore(RunReader):
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
        super().__init__(url)
        self._desk = Desk(self._shelf, contents=contents, retention_days=retention_days)
        self._writer = Writer(self._desk)
        atexit.register(_close_at_exit, weakref.ref(self))

    @property
    def contents(self) -> bool:
        """Whether the words of users, models and tools are kept, and so what models are asked."""
        return self._desk.contents

    @property
    def lost(self) -> int:
        """How many events could not be kept by this process."""
        return self._writer.lost

    def observer(self, team: str = "", source: Source = "library") -> EventSink:
        """Return an observer for agents; `team` is whose runs they are, `source` what began them."""

        def record(event: AgentEvent) -> None:
            self.record(event, team, source)

        return WithRequests(record) if self.contents else record

    def record(self, event: AgentEvent, team: str = "", source: Source = "library") -> None:
        """Take an event, at once; whose it is counts with the first event of a run."""
        self._writer.put(Told(json_bytes(event), team, source), begins=isinstance(event, _BEGINNINGS))

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

    async def async_forget(self, session_id: str, *, agent: str, team: str = "") -> int:
        """
        Forget the runs of an agent in a session, with those of the agents they called; return how many.

        One that is under way goes on, and nothing more of it is kept.

        Raises:
            RunStoreError: the database failed; what was forgotten is.

        """
        count, forget = 0, partial(self._desk.forget_some, team, agent, session_id)
        await self.flush()
        while some := await asyncio.wrap_future(self._writer.call(forget)):
            count += some
        return count

    async def follow_pages(self, run_id: str, after: int = -1, *, team: str | None = None) -> AsyncIterator[list[str]]:
        """As `RunReader.follow_pages`; what this process has recorded so far is written first."""
        await self.flush()
        async for events in super().follow_pages(run_id, after, team=team):
            yield events

    def open(self) -> None:
        """As `aopen`, where no event loop runs."""
        self._writer.call(self._shelf.open).result()

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
        await super().aclose()

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Write what is left, at most so many seconds, where no event loop runs; tell whether all of it is."""
        done = self._writer.close(timeout_s)
        if not done or self.lost:
            late = f"its last events were not written within {timeout_s:g} s"
            why = f"{self.lost} events are lost" if self.lost else late
            _log.warning("run store %s is not complete: %s", self._shelf.place, why)
        return done

    def _listen(self, run: int) -> Callable[[float], Awaitable[None]]:
        return self._desk.hub.of(run).wait

    async def __aenter__(self) -> Self:
        await self.aopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _close_at_exit(store: weakref.ref[RunStore]) -> None:
    found = store()
    if found is not None:
        found.close()
