"""A PostgreSQL that is stopped and started again under load."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from shared_libs.atomic import tool
from shared_libs.durable import StoreUnavailable, Worker
from shared_libs.durable.database import ask, open_database, persistently
from tests.unit.durable.cast import agent, answers, by_length, ended, opened, submit, turn, until, working


@pytest.mark.promise("durable-away")
@pytest.mark.parametrize("over", ["socket", "tcp"])
def test_a_database_that_goes_and_comes_back_costs_no_run_and_repeats_nothing(own_postgres, over):
    if over == "tcp":
        own_postgres.stop()
        own_postgres.over_tcp()
        own_postgres.start()
    url = f"postgresql+asyncpg://owner@{own_postgres.place}"
    bodies, gate, inside = [], asyncio.Event(), asyncio.Event()

    @tool
    async def look(amount: int) -> str:
        bodies.append(amount)
        inside.set()
        await gate.wait()
        return f"saw {amount}"

    build = agent(
        lambda: by_length(turn(("a", "look", {"amount": 1})), turn(("b", "look", {"amount": 2})), "x"), [look]
    )

    async def main():
        async with opened(url) as store, working(url, build, concurrency=6):
            for number in range(6):
                await submit(store, f"r{number}")
            await inside.wait()
            await asyncio.to_thread(own_postgres.stop)
            gate.set()  # what they have seen is to be recorded now
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_postgres.start)
            return [await until(store.get, f"r{number}", wanted=ended) for number in range(6)]

    jobs = asyncio.run(main())
    assert [job.status for job in jobs] == ["answered"] * 6
    assert {row["content"] for job in jobs for step in job.result["steps"] for row in step["observations"]} == {
        "saw 1",
        "saw 2",
    }
    assert len(bodies) == 12


@pytest.mark.promise("durable-away")
def test_who_is_cut_off_while_the_server_says_nothing_is_told_so_and_goes_on(new_postgres):
    """A stopped server process: asyncpg takes it ill to be asked to roll back what it could not even begin."""

    async def main():
        async with opened(new_postgres) as store:
            await submit(store, "r")
            database = open_database(new_postgres, connections=1)
            for script in (lambda: (yield ask(MORE)), None):
                ((pid,),) = await database.one(ask("SELECT pg_backend_pid()"))
                os.kill(pid, signal.SIGSTOP)
                try:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await (database.one(ask(MORE)) if script is None else database.run(script))
                finally:
                    os.kill(pid, signal.SIGCONT)
                await persistently(lambda: database.run(lambda: (yield ask(MORE))))
            await database.aclose()
            return (await store.get("r")).priority

    assert 2 <= asyncio.run(main()) <= 4


MORE = "UPDATE factory_jobs SET priority = priority + 1"


def moved(here, there):
    for table in ("jobs", "workers"):
        yield ask(f"ALTER TABLE {here}{table} RENAME TO {there}{table}")


@pytest.mark.promise("durable-away")
def test_a_beat_and_a_claim_that_fail_in_a_way_nobody_foresaw_go_on(url, caplog):
    async def main():
        async with opened(url) as store, working(url, answers()) as worker:
            await worker.started.wait()
            # the worker may hold one of them, and wait for the other
            await persistently(lambda: store.database.run(lambda: moved("factory_", "elsewhere_")))
            await until(lambda: asyncio.sleep(0, not worker.ready))
            await persistently(lambda: store.database.run(lambda: moved("elsewhere_", "factory_")))
            await until(lambda: asyncio.sleep(0, worker.ready))
            await submit(store, "r")
            return await until(store.get, "r", wanted=ended)

    assert asyncio.run(main()).status == "answered"
    assert "could not beat" in caplog.text
    assert "beats again" in caplog.text


@pytest.mark.promise("durable-away")
def test_a_worker_whose_first_beat_never_gets_through_ends_when_it_is_told_to(new_postgres, caplog):
    async def main():
        async with opened(new_postgres) as store:
            await store.database.run(lambda: moved("factory_", "elsewhere_"))
            worker = Worker(new_postgres, answers())
            task = asyncio.create_task(worker.run())
            await until(lambda: asyncio.sleep(0, "could not beat" in caplog.text))
            worker.drain()
            await task

    asyncio.run(main())
    assert "could not sign off" in caplog.text


@pytest.mark.promise("durable-away")
def test_a_column_that_is_added_under_a_worker_at_work_ends_nothing(new_postgres):
    """A migration before the new version's workers come: statements prepared before it do not hold any more."""
    added = "ALTER TABLE factory_jobs ADD COLUMN IF NOT EXISTS x TEXT"

    async def main():
        async with opened(new_postgres) as store, working(new_postgres, answers()):
            for number in range(3):
                await submit(store, f"r{number}")
                await until(store.get, f"r{number}", wanted=ended)
                await store.database.run(lambda: (yield ask(added)))
            return await store.find(statuses=["answered"])

    assert len(asyncio.run(main())) == 3


@pytest.mark.promise("durable-away")
def test_what_is_wrong_with_the_server_is_waited_for_and_told(new_postgres, tmp_path):
    """Such as a table that is just being restored; a fact that is not kept for it must not fail its run."""
    (tmp_path / "notes.db").write_text("these are notes, and no database, however long you look at them " * 10)

    async def asked(url):
        database = open_database(url)
        try:
            await database.one(ask("SELECT * FROM nowhere"))
        finally:
            await database.aclose()

    for url, says in (
        (new_postgres, "nowhere"),
        (new_postgres.replace("/durable_", "/no_durable_"), "does not exist"),
        (new_postgres.replace("owner@", "nobody@"), "nobody"),
        (f"sqlite:///{tmp_path}/notes.db", "not a database"),
    ):
        with pytest.raises(StoreUnavailable, match=says):
            asyncio.run(asked(url))
