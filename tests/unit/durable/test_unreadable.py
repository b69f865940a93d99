"""Rows that nobody can read, or that a later version wrote: they hold up no other run, and tell what is wrong."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic import MisuseError, tool
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.durable import follow
from shared_libs.durable.database import ask
from shared_libs.durable.schedules import next_at
from shared_libs.observability.run_store import RunStore
from tests.unit.durable.cast import agent, answers, ended, opened, submit, turn, until, working


@pytest.mark.promise("durable-queue")
@pytest.mark.parametrize(
    "spoiled",
    [
        "UPDATE factory_jobs SET question = '{' WHERE run_id = 'odd'",
        "UPDATE factory_jobs SET extras = 'later' WHERE run_id = 'odd'",
        "UPDATE factory_jobs SET state = '{}' WHERE run_id = 'odd'",
        "UPDATE factory_definitions SET definition = 'zstd' WHERE hash LIKE '%odd%'",
        "UPDATE factory_jobs SET state = '{', pending = '{', result = '{' WHERE run_id = 'odd'",
    ],
)
def test_a_run_that_cannot_be_read_keeps_no_other_waiting_and_tells_why(url, spoiled):
    async def main():
        async with opened(url) as store:
            await submit(store, "odd", definition={"name": "odd"}, priority=9)
            await store.database.one(ask(spoiled))
            await submit(store, "r")
            async with working(url, answers()):
                job = await until(store.get, "r", wanted=ended)
                odd = await until(store.get, "odd", wanted=lambda job: job.why)
                return job, odd, await store.find()

    job, odd, found = asyncio.run(main())
    assert (job.status, odd.status, odd.epoch) == ("answered", "queued", 0)
    assert "cannot be read here" in odd.why
    assert len(found) == 2


@pytest.mark.promise("durable-queue")
def test_a_run_whose_definition_is_gone_ends_with_that_and_keeps_no_other_waiting(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "odd", definition={"name": "odd"}, priority=9)
            await store.database.one(ask("DELETE FROM factory_definitions"))
            await submit(store, "r")
            async with working(url, answers()):
                job = await until(store.get, "r", wanted=ended)
                odd = await until(store.get, "odd", wanted=ended)
            return job, odd, [event async for event in follow(url, "odd")]

    job, odd, events = asyncio.run(main())
    assert job.status == "answered"
    assert (odd.status, odd.why) == ("failed", "its definition is not kept any more")
    assert events[-1]["result"]["error"] == odd.why


@pytest.mark.promise("durable-once")
def test_a_run_that_failed_is_never_begun_again_from_its_beginning(url):
    """Submitted once more it is the run that there was; whoever wants another says so by another id."""
    bodies = []

    @tool
    async def shell(amount: int) -> str:
        bodies.append(amount)
        return "done"

    def breaks(messages):
        if any(message.role == "assistant" for message in messages):
            raise ValueError("it breaks")
        return turn(("a", "shell", {"amount": 1}))

    async def main():
        async with opened(url) as store, working(url, agent(lambda: ScriptedLLM([breaks] * 9), [shell])):
            await submit(store, "r")
            first = await until(store.get, "r", wanted=ended)
            assert not await submit(store, "r")
            await submit(store, "another")
            await until(store.get, "another", wanted=ended)
            return first, await store.get("r")

    first, then = asyncio.run(main())
    assert first.status == "failed"
    assert then == first
    assert bodies == [1, 1]  # of the run, and of the other one


@pytest.mark.promise("durable-queue")
def test_a_refused_decision_costs_no_connection(new_postgres):
    pid = ask("SELECT pg_backend_pid() AS pid")

    async def main():
        async with opened(new_postgres) as store:
            before = await store.database.one(pid)
            with pytest.raises(MisuseError, match="no run"):
                await store.decide("nobody", {"a": True})
            return before[0]["pid"], (await store.database.one(pid))[0]["pid"]

    before, after = asyncio.run(main())
    assert before == after


@pytest.mark.promise("durable-scheduled")
@pytest.mark.parametrize("cron", ["* * * * * *", "@daily", "0 7 * *", ""])
def test_a_schedule_of_other_than_five_fields_is_refused(cron):
    with pytest.raises(MisuseError, match="five fields"):
        next_at(cron, "UTC", 0.0)


@pytest.mark.promise("durable-queue")
@pytest.mark.parametrize("more", [{"priority": 1.5}, {"priority": "high"}, {"agent_limit": True}])
def test_a_number_that_no_column_holds_is_refused(tmp_path, more):
    async def main():
        async with opened(f"sqlite:///{tmp_path}/d.db") as store:
            await submit(store, "r", **more)

    with pytest.raises(MisuseError, match="whole number"):
        asyncio.run(main())


@pytest.mark.promise("durable-queue")
def test_who_asks_for_what_no_column_holds_is_told_that_it_is_not_there(url):
    async def look(store, runs, odd):
        for act in (store.cancel(odd), store.decide(odd, {"c": True}), store.decide("r", {odd: True})):
            with pytest.raises(MisuseError, match=r"no run|no call"):
                await act
        found = [await store.get(odd), await store.state(odd), await store.get("r", odd), await runs.async_get(odd)]
        return [*found, *await store.find(prefix=odd), *await store.events(odd), *await store.events("r", 2**70)]

    async def main():
        async with opened(url) as store, RunStore(url) as runs:
            await submit(store, "r")
            return [await look(store, runs, odd) for odd in ("a\0b", "a\ud800b")]

    assert asyncio.run(main()) == [[None] * 4] * 2
