"""
How facts are recorded: those that come while others are being written are written together, in one transaction.

A commit is a flush of the database, and a way there and back; with many runs at once they share both. A run waits for
its own fact as before, and of a run that is another's nothing is written, whatever stands beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from shared_libs.durable.database import APART, Database, Script, Statement, StoreUnavailable, ask
from shared_libs.durable.store import RUN_CHANNEL

Events = Sequence[tuple[int, str]]
"""Events to be written: their numbers, and their JSON."""

MOST = 200
"""Facts that are written together, at most."""

LANES = 3
SLOW_S = 0.05
"""
Where a write takes so many seconds, it waits for something that may hold up one run alone: what comes meanwhile is
written beside it, over so many connections at most.
"""

ASKED = "asked "
"""
Begins the names of notes that a model is asked: `asked EPOCH FACT`, and as its value the seconds since the run began.

They are written with events that are written anyway. Where its fact is missing, an answer was paid and lost.
"""

HELD = "run_id = $1 AND epoch = $2 AND executor = $3 AND status = 'running'"

_KEEP = f"""
    WITH given AS (
        SELECT DISTINCT * FROM unnest($2::text[], $3::int[]) AS g (run_id, epoch)),
    mine AS (
        SELECT j.run_id, j.epoch, j.followed_until > CLOCK AS followed FROM given
        JOIN factory_jobs j USING (run_id, epoch) WHERE j.executor = $1 AND j.status = 'running'
        ORDER BY j.run_id FOR NO KEY UPDATE OF j),
    fact AS (
        INSERT INTO factory_facts (run_id, name, segment, value)
        SELECT f.run_id, f.name, f.segment, f.value
        FROM unnest($4::text[], $5::int[], $6::int[], $7::text[], $8::text[]) AS f (run_id, epoch, segment, name, value)
        JOIN mine USING (run_id, epoch) ON CONFLICT DO NOTHING),
    told AS (
        INSERT INTO factory_events (run_id, seq, event)
        SELECT e.run_id, e.seq, e.event
        FROM unnest($9::text[], $10::int[], $11::int[], $12::text[]) AS e (run_id, epoch, seq, event)
        JOIN mine USING (run_id, epoch) ON CONFLICT DO NOTHING)
    SELECT run_id, epoch, CASE WHEN followed THEN pg_notify('{RUN_CHANNEL}' || {APART}, run_id) IS NULL END FROM mine"""


class Fact(msgspec.Struct, frozen=True):
    """A fact to be kept, as JSON."""

    name: str
    value: str


class Entry(NamedTuple):
    """What is to be recorded of a run in its `epoch`: facts, and the events that were told until then."""

    run_id: str
    epoch: int
    segment: int
    facts: Sequence[Fact]
    events: Events


class Keeper:
    """
    Records what comes from the runs of one worker.

    Args:
        database: where.
        executor: the worker's id.

    """

    def __init__(self, database: Database, executor: str) -> None:
        self._database, self._executor = database, executor
        self._waiting: list[_Waiting] = []
        self._lanes: set[asyncio.Task[None] | None] = set()
        self._moved_at = 0.0
        self._looks = False

    async def keep(self, entry: Entry) -> bool:
        """
        Record; False where the run is not this worker's any more.

        Raises:
            StoreUnavailable: the database does not answer; it may have happened, or not.

        """
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, kept))
        if not self._lanes:
            self._open_lane()
        return bool(await kept)

    def _open_lane(self) -> None:
        loop = asyncio.get_running_loop()
        self._lanes.add(loop.create_task(self._write_on(loop)))
        if not self._looks:
            self._looks = True
            loop.call_later(SLOW_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open another lane where something waits and nothing moves."""
        self._looks = False
        if self._waiting and len(self._lanes) < LANES and loop.time() - self._moved_at >= SLOW_S:
            self._open_lane()
        elif self._lanes:
            self._looks = True
            loop.call_later(SLOW_S, self._look, loop)

    async def _write_on(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._moved_at = loop.time()
            await self._write(batch)
        # not by a callback of the task: until that comes, what is to be kept would wait for a lane that has ended
        self._lanes.discard(asyncio.current_task(loop))

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            held = await self._held([entry for entry, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is told to whoever waits for it
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                for one in batch:  # what is wrong with one of them is not the others' business
                    await self._write([one])
                return
            for _, kept in batch:
                if not kept.done():
                    kept.set_exception(error)
            return
        for entry, kept in batch:
            if not kept.done():
                kept.set_result((entry.run_id, entry.epoch) in held)

    async def _held(self, entries: Sequence[Entry]) -> set[tuple[str, int]]:
        """Write, and return the runs, with their epochs, that are this worker's."""
        if self._database.dialect == "postgresql":  # one statement, and so one round trip
            rows = await self._database.one(self._statement(entries))
            return {(row[0], row[1]) for row in rows}
        return await self._database.run(lambda: self._script(entries))

    def _statement(self, entries: Sequence[Entry]) -> Statement:
        runs = [(entry.run_id, entry.epoch) for entry in entries]
        facts = [
            (entry.run_id, entry.epoch, entry.segment, fact.name, fact.value)
            for entry in entries
            for fact in entry.facts
        ]
        events = [(entry.run_id, entry.epoch, seq, text) for entry in entries for seq, text in entry.events]
        return ask(_KEEP, self._executor, *_columns(runs, 2), *_columns(facts, 5), *_columns(events, 4))

    def _script(self, entries: Sequence[Entry]) -> Script[set[tuple[str, int]]]:
        held = set()
        for run_id, epoch, segment, facts, events in entries:
            mine = (run_id, epoch, self._executor)
            if not (yield ask(f"SELECT 1 FROM factory_jobs WHERE {HELD}", *mine)):
                continue
            held.add((run_id, epoch))
            for fact in facts:
                yield ask(
                    """INSERT INTO factory_facts (run_id, name, segment, value) VALUES ($1, $2, $3, $4)
                       ON CONFLICT DO NOTHING""",
                    *(run_id, fact.name, segment, fact.value),
                )
            yield from told(run_id, events)
        return held


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


_Waiting = tuple[Entry, "asyncio.Future[bool]"]


def told(run_id: str, events: Events) -> Script[None]:
    """Write events, as a part of a transaction."""
    for seq, text in events:
        yield ask(
            "INSERT INTO factory_events (run_id, seq, event) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            *(run_id, seq, text),
        )
