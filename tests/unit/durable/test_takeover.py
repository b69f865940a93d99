"""Workers that die, are stopped and come back, or only block: real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared_libs.atomic import postgres
from shared_libs.atomic.database_url import database_url
from shared_libs.durable.database import StoreUnavailable, ask
from shared_libs.durable.holding import Holder
from tests.unit.durable.cast import LEASE_S, answers, ended, opened, submit, until, working
from tests.unit.durable.worker_process import looker

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def elsewhere(url, notes, first_s, blocks=""):
    """A worker in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.durable.worker_process", url, str(notes), str(first_s), blocks, cwd=ROOT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGCONT)
            process.terminate()
        await process.wait()


async def stop(pid, store):
    """Stop a process, but not within a write to an SQLite file, which would keep everybody from it."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            return await store.database.run(lambda: (yield ask("SELECT 1")))
        except StoreUnavailable:
            os.kill(pid, signal.SIGCONT)


async def noted(notes):
    return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


def begun(amount, pid=None):
    return lambda rows: [r for r in rows if r[1:] == ["begun", "r", str(amount)] and pid in (None, int(r[0]))]


@pytest.mark.promise("durable-takeover")
def test_the_run_of_a_killed_worker_is_anothers_after_the_lease(url, tmp_path):
    notes = tmp_path / "notes"

    async def main():
        async with opened(url) as store, elsewhere(url, notes, 60) as process:
            await submit(store, "r")
            await until(noted, notes, wanted=begun(1))
            process.kill()
            async with working(url, looker(notes, 0)):
                return await until(store.get, "r", wanted=ended), await noted(notes)

    job, rows = asyncio.run(main())
    assert (job.status, job.epoch) == ("answered", 2)
    assert (len(begun(1)(rows)), len(begun(2)(rows))) == (2, 1)


@pytest.mark.promise("durable-fence")
def test_a_worker_that_was_stopped_begins_nothing_when_it_comes_back(url, tmp_path):
    notes = tmp_path / "notes"

    async def main():
        async with opened(url) as store, elsewhere(url, notes, 0.3) as process:
            await submit(store, "r")
            await until(noted, notes, wanted=begun(1))
            await stop(process.pid, store)
            async with working(url, looker(notes, 0)):
                job = await until(store.get, "r", wanted=ended)
                events = await store.events("r")
            os.kill(process.pid, signal.SIGCONT)
            await submit(store, "probe")  # it is back, and does what is its own
            assert (await until(store.get, "probe", wanted=ended)).status == "answered"
            assert await store.events("r") == events
            again = await store.get("r")
            return job, again, process.pid, await noted(notes)

    job, again, zombie, rows = asyncio.run(main())
    assert (job.status, again.result, again.epoch) == ("answered", job.result, 2)
    assert len(begun(1, zombie)(rows)) == 1
    assert begun(2, zombie)(rows) == []


@pytest.mark.promise("durable-takeover")
def test_a_row_that_the_dead_still_lock_holds_up_neither_the_others_nor_whoever_looks(new_postgres):
    """A transaction of theirs that the server has not missed, as behind a pooler whose machine is gone."""
    locks = ask("SELECT 1 FROM factory_jobs WHERE run_id = 'locked' FOR UPDATE")

    async def main():
        async with opened(new_postgres) as store:
            dead = Holder(store.database, "dead")
            await dead.beat("dead", LEASE_S, 2, draining=False)
            for run_id in ("locked", "free"):
                await submit(store, run_id)
            await dead.claim(2)
            await dead.leave()
            held, over = asyncio.Event(), asyncio.Event()
            locking = asyncio.create_task(holding(database_url(new_postgres, "it"), locks.text, held, over))
            await held.wait()
            async with working(new_postgres, answers()) as worker:
                free = await until(store.get, "free", wanted=ended)
                locked, ready = await store.get("locked"), worker.ready
                over.set()
                await locking
                return free, locked, ready, await until(store.get, "locked", wanted=ended)

    free, locked, ready, then = asyncio.run(main())
    assert (free.status, locked.status, ready, then.status) == ("answered", "running", True, "answered")


async def holding(at, statement, held, over):
    """Be in the middle of a transaction, and say nothing more."""
    connection = await postgres.connect(at)
    async with connection.transaction():
        await connection.execute(statement)
        held.set()
        await over.wait()
    await connection.close()


@pytest.mark.promise("durable-takeover")
def test_a_loop_that_is_blocked_for_several_leases_is_no_death(tmp_path):
    notes, url = tmp_path / "notes", f"sqlite+aiosqlite:///{tmp_path}/durable.db"

    async def main():
        async with opened(url) as store, elsewhere(url, notes, 2.5 * LEASE_S, "blocks"):
            await submit(store, "r")
            await until(noted, notes, wanted=begun(1))
            async with working(url, looker(notes, 0)):
                return await until(store.get, "r", wanted=ended), await noted(notes)

    job, rows = asyncio.run(main())
    assert (job.status, job.epoch) == ("answered", 1)
    assert len(begun(1)(rows)) == 1
