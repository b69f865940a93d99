"""Facts of many runs, recorded together: each run's is its own business."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from shared_libs.durable import StoreUnavailable
from shared_libs.durable.database import ask, open_database
from shared_libs.durable.holding import Holder
from shared_libs.durable.keeping import LANES, Entry, Fact, Keeper
from tests.support import no_thread, run_virtual
from tests.unit.durable.cast import opened, submit


class Watched:
    """A database that counts what is asked of it, and holds back, or fails, what it is told to."""

    def __init__(self, database):
        self.database, self.dialect = database, database.dialect
        self.asked, self.away = 0, False
        self.gate = asyncio.Event()
        self.gate.set()
        self.came = asyncio.Semaphore(0)

    async def one(self, statement):
        return await self._asked(self.database.one, statement)

    async def run(self, script):
        return await self._asked(self.database.run, script)

    async def _asked(self, ask_it, what):
        self.asked += 1
        self.came.release()
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("away")
        return await ask_it(what)


@asynccontextmanager
async def held(url, *run_ids):
    """Runs that a worker holds, what it records with, and the store."""
    async with opened(url) as store:
        holder = Holder(store.database, "w")
        for run_id in run_ids:
            await submit(store, run_id)
            assert len(await holder.claim(1, only=run_id)) == 1
        database = Watched(store.database)
        yield database, Keeper(database, "w"), store


def entry(run_id, name="model.1", epoch=1, seq=1):
    return Entry(run_id, epoch, 0, [Fact(name, '"x"')], [(seq, "{}")])


async def facts(store):
    rows = await store.database.one(ask("SELECT run_id, name FROM factory_facts ORDER BY run_id, name"))
    return [tuple(row) for row in rows]


@pytest.mark.promise("durable-fence")
def test_what_comes_during_a_write_is_written_together_and_nothing_of_a_run_that_is_anothers(url):
    async def main():
        async with held(url, "a", "b", "c", "lost") as (database, keeper, store):
            database.gate.clear()
            first = asyncio.create_task(keeper.keep(entry("a")))
            await database.came.acquire()
            rest = [entry("b"), entry("c"), entry("lost", epoch=2), entry("a", "tool.1", seq=2), entry("nobody")]
            keeping = asyncio.gather(first, *(keeper.keep(one) for one in rest))
            await asyncio.sleep(0)
            database.gate.set()
            kept = await keeping
            (events,) = await store.database.one(ask("SELECT count(*) FROM factory_events"))
            return kept, database.asked, await facts(store), events[0]

    kept, asked, written, events = asyncio.run(main())
    assert kept == [True, True, True, False, True, False]
    assert asked == 2
    assert written == [("a", "model.1"), ("a", "tool.1"), ("b", "model.1"), ("c", "model.1")]
    assert events == 4


@pytest.mark.promise("durable-once")
def test_what_comes_in_the_moment_in_which_a_write_ends_is_written_at_once(tmp_path):
    """A run that is alone has nobody else whose write takes its own along: it would wait for ever."""

    async def main():
        async with held(f"sqlite:///{tmp_path}/durable.db", "a") as (_, keeper, _):
            async with asyncio.timeout(60):  # no time at all on this clock, once nothing moves any more
                return [await keeper.keep(entry("a", f"model.{number}", seq=number)) for number in (1, 2, 3)]

    assert run_virtual(main()) == [True] * 3


@pytest.mark.promise("durable-away")
def test_a_store_that_is_away_is_told_to_each_and_what_is_wrong_with_one_fact_to_that_one(url):
    async def main():
        async with held(url, "a", "b") as (database, keeper, store):
            database.away = True
            told = await asyncio.gather(keeper.keep(entry("a")), keeper.keep(entry("b")), return_exceptions=True)
            database.away = False
            wrong = entry("b", seq=2**70)  # no column holds that
            again = await asyncio.gather(keeper.keep(entry("a")), keeper.keep(wrong), return_exceptions=True)
            late = await keeper.keep(entry("b"))
            return told, again, late, await facts(store)

    told, again, late, written = asyncio.run(main())
    assert [type(error) for error in told] == [StoreUnavailable] * 2
    assert (again[0], late) == (True, True)
    assert isinstance(again[1], Exception)
    assert not isinstance(again[1], StoreUnavailable)  # or it would be tried for ever
    assert written == [("a", "model.1"), ("b", "model.1")]


@pytest.mark.promise("durable-once")
def test_a_run_whose_row_is_locked_holds_up_no_other(new_postgres):
    async def main():
        locking = open_database(new_postgres)
        async with held(new_postgres, "a", "b", "c") as (database, keeper, _):
            locked, free = asyncio.Event(), asyncio.Event()

            async def lock():
                async with locking._connection() as connection, connection.transaction():
                    await connection.execute("SELECT 1 FROM factory_jobs WHERE run_id = 'a' FOR UPDATE")
                    locked.set()
                    await free.wait()

            holding = asyncio.create_task(lock())
            await locked.wait()
            stuck = asyncio.create_task(keeper.keep(entry("a")))
            await database.came.acquire()
            others = await asyncio.gather(keeper.keep(entry("b")), keeper.keep(entry("c")))
            waits = not stuck.done()
            free.set()
            await holding
            await locking.aclose()
            return others, waits, await stuck, database.asked

    others, waits, stuck, asked = asyncio.run(main())
    assert (others, waits, stuck) == ([True, True], True, True)
    assert asked == 2 <= LANES


def test_a_write_for_which_no_thread_can_start_is_refused_for_good(tmp_path):
    made = []

    async def main():
        database = open_database(f"sqlite:///{tmp_path}/durable.db")
        with no_thread("durable-sqlite"), pytest.raises(StoreUnavailable, match="can't start new thread"):
            await database._in_thread(lambda: made.append("told that it failed"))
        await database._in_thread(lambda: made.append("made"))
        await database.aclose()

    asyncio.run(main())
    assert made == ["made"]
