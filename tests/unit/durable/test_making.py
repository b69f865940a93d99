"""The agents of a worker: what keeps one from being made keeps no other run, no slot and no worker that is to end."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import ConfigError
from shared_libs.durable import Worker, WorkerPolicy
from shared_libs.durable import making as making_module
from shared_libs.durable.making import Agents
from shared_libs.testing.clock import real_time, run_virtual
from tests.unit.durable.cast import LEASE_S, answers, by_length, ended, opened, submit, until, working

ODD_ENDS = [SystemExit(3), StopIteration(), asyncio.CancelledError(), KeyboardInterrupt(), MemoryError()]


def of_definition(hashed):
    return SimpleNamespace(definition_hash=hashed, file=None)


@pytest.mark.promise("durable-queue")
def test_whatever_ends_the_making_of_an_agent_leaves_its_run_to_others_and_says_so(tmp_path):
    url = f"sqlite:///{tmp_path}/durable.db"

    def build(claim, sinks):
        if claim.agent.isdigit():
            raise ODD_ENDS[int(claim.agent)]
        return answers()(claim, sinks)

    async def main():
        async with opened(url) as store, working(url, build):
            for number, _ in enumerate(ODD_ENDS):
                await submit(store, f"r{number}", agent=str(number), definition={"name": str(number)})
            ids = [f"r{number}" for number, _ in enumerate(ODD_ENDS)]
            told = [await until(store.get, run_id, wanted=lambda job: job.why) for run_id in ids]
            await submit(store, "good")
            return told, await until(store.get, "good", wanted=ended)

    told, good = asyncio.run(main())
    assert [job.status for job in told] == ["queued"] * len(ODD_ENDS)
    for job, error in zip(told, ODD_ENDS, strict=True):
        assert type(error).__name__ in job.why
    assert good.status == "answered"


@pytest.mark.promise("durable-drain")
def test_a_worker_that_drains_waits_for_no_agent_that_is_being_made(tmp_path):
    url = f"sqlite:///{tmp_path}/durable.db"
    building, free = threading.Event(), threading.Event()

    def build(claim, sinks):
        building.set()
        free.wait(20)
        return answers()(claim, sinks)

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            try:
                async with asyncio.timeout(10), working(url, build) as worker:
                    await asyncio.to_thread(building.wait, 10)
                    worker.drain()
                job = await store.get("r")
            finally:
                free.set()
            before = Worker(url, build, policy=WorkerPolicy(lease_s=LEASE_S))
            before.drain()  # a signal that comes before it has begun
            async with asyncio.timeout(10):
                await before.run()
            return job, await store.get("r"), before.ready

    job, untouched, ready = asyncio.run(main())
    assert (job.status, job.first_at, untouched.epoch, ready) == ("queued", None, 1, False)
    assert "this worker ends" in job.why


def test_a_slot_waits_for_an_agent_only_so_long_and_who_comes_later_finds_it_made():
    begun, ready = asyncio.Event(), asyncio.Event()

    class Slow(ReActAgent):
        async def aopen(self):
            begun.set()
            await ready.wait()

    async def used(agents):
        async with agents.of(of_definition("slow")):
            return asyncio.get_running_loop().time()

    async def main():
        agents = Agents(lambda claim, sinks: Slow(llm=by_length("x"), observers=sinks), [])
        with pytest.raises(ConfigError, match="not ready within 60 s"):
            with real_time():  # until the thread in which it is made has done so
                first = asyncio.create_task(used(agents))
                await begun.wait()
            await first
        waited_s = asyncio.get_running_loop().time()
        with pytest.raises(ConfigError, match="not ready within 60 s"):  # the second waits no more
            await used(agents)
        again_s = asyncio.get_running_loop().time() - waited_s
        ready.set()
        await asyncio.sleep(1)
        await used(agents)
        return waited_s, again_s

    waited_s, again_s = run_virtual(main())
    assert waited_s >= making_module.READY_S
    assert again_s == 0.0


def test_of_many_definitions_those_used_last_are_kept_and_none_that_is_at_work_is_closed():
    closed = []

    class Watched(ReActAgent):
        async def aclose(self):
            closed.append(self.name)

    async def main():
        agents = Agents(lambda claim, sinks: Watched(llm=by_length("x"), name=claim.definition_hash), [])
        async with agents.of(of_definition("at-work")):
            for number in range(making_module.MOST_KEPT + 5):
                async with agents.of(of_definition(f"a{number}")):
                    pass
        before = list(closed)
        await agents.aclose()
        return before

    before = asyncio.run(main())
    assert before == [f"a{number}" for number in range(6)]
    assert len(closed) == making_module.MOST_KEPT + 6


@pytest.mark.promise("durable-once")
def test_who_records_events_and_fails_takes_no_run_with_it(tmp_path, caplog):
    """What hears beside it are the events and the end of the run itself."""
    url = f"sqlite:///{tmp_path}/durable.db"

    def record(event, team):
        raise OSError("the disk is full")

    async def main():
        async with opened(url) as store, working(url, answers(), record=record):
            await submit(store, "r")
            await submit(store, "unfit", session_id="s")  # without a memory: an end that the run itself does not tell
            jobs = [await until(store.get, run_id, wanted=ended) for run_id in ("r", "unfit")]
            return jobs, [event["type"] for event in await store.events("r")]

    (job, unfit), told = asyncio.run(main())
    assert (job.status, unfit.status, told[0], told[-1]) == ("answered", "failed", "run_started", "run_finished")
    assert "could not record an event of run r" in caplog.text
