"""A PostgreSQL that is stopped and started again under load."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic import tool
from tests.unit.durable.cast import agent, by_length, ended, opened, submit, turn, until, working


@pytest.mark.promise("durable-away")
def test_a_database_that_goes_and_comes_back_costs_no_run_and_repeats_nothing(own_postgres):
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
