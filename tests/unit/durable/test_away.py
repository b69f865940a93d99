"""A PostgreSQL that is stopped and started again under load."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from shared_libs.atomic import tool
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


@pytest.mark.promise("durable-away")
def test_a_beat_that_fails_in_a_way_nobody_foresaw_goes_on(url, caplog):
    async def main():
        async with opened(url) as store, working(url, answers()) as worker:
            await worker.started.wait()
            kept = "ALTER TABLE factory_workers RENAME TO elsewhere"
            await store.database.run(lambda: (yield ask(kept)))
            await until(lambda: asyncio.sleep(0, not worker.ready))
            back = "ALTER TABLE elsewhere RENAME TO factory_workers"
            await store.database.run(lambda: (yield ask(back)))
            await until(lambda: asyncio.sleep(0, worker.ready))
            await submit(store, "r")
            return await until(store.get, "r", wanted=ended)

    assert asyncio.run(main()).status == "answered"
    assert "could not beat" in caplog.text
