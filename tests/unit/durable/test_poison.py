"""Runs that kill their workers, and agents that cannot be made: what stands beside them goes on."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic import LLMResponse
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.scope import current_scope
from shared_libs.durable.database import open_database
from shared_libs.durable.holding import Holder
from shared_libs.durable.keeping import Fact
from tests.unit.durable.cast import agent, answers, ended, opened, submit, until, working


@pytest.mark.promise("durable-queue")
def test_a_run_that_kills_its_workers_is_a_dead_letter_with_its_reason(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            for death in range(4):
                database = open_database(url)
                holder = Holder(database, f"w{death}")
                (claim,) = await holder.claim(1)  # it has never beaten: as good as dead
                if death == 0:
                    await holder.keep(claim, [Fact("model.1", "{}")], [])
                assert await holder.reap() == 1
                await database.aclose()
            async with working(url, answers(), deaths=3):
                job = await until(store.get, "r", wanted=ended)
            assert (await store.events("r"))[-1]["result"]["status"] == "failed"
            return job

    job = asyncio.run(main())
    assert (job.status, job.result["stop_reason"]) == ("failed", "error")
    assert job.why == "dead letter: 3 executions died one after the other behind model.1"


@pytest.mark.promise("durable-queue")
def test_those_that_died_beside_a_run_that_kills_its_workers_are_not_given_up_with_it(url):
    """Nobody knows which of them it was: they go one by one, each alone until it has kept a fact."""
    begun = []

    async def main():
        proceed = asyncio.Event()

        class Thinking(BaseLLMWrapper):
            async def _chat(self, messages, tools, **options):
                begun.append(current_scope().run_id)
                await proceed.wait()
                return LLMResponse(text="done")

        async with opened(url) as store:
            names = ["r0", "r1", "r2"]
            for name in names:
                await submit(store, name)
            for death in range(4):
                holder = Holder(store.database, f"w{death}")
                assert len(await holder.claim(3)) == 3  # it has never beaten: as good as dead
                assert await holder.reap() == 3
            await submit(store, "new", priority=9)
            async with working(url, agent(Thinking("slow"))):
                await until(lambda: asyncio.sleep(0, begun))
                alone = [job.run_id for job in await store.find(statuses=["running"])]
                proceed.set()
                jobs = [await until(store.get, name, wanted=ended) for name in [*names, "new"]]
            return alone, [job.status for job in jobs]

    alone, statuses = asyncio.run(main())
    assert len(alone) == 1
    assert statuses == ["answered"] * 4
    assert begun[-1] == "new"
