"""The queue: what is submitted is committed, who begins first, how many at once, and what becomes of it."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import MisuseError, tool
from shared_libs.atomic.events import ToolStarted
from shared_libs.atomic.scope import current_scope
from shared_libs.durable import JobStore
from shared_libs.durable.database import ask, open_database
from shared_libs.durable.forgetting import forget_session, open_in_session
from shared_libs.durable.holding import NOW, Holder
from shared_libs.durable.keeping import Fact
from shared_libs.durable.store import STANDING
from tests.unit.durable.cast import agent, answers, by_length, ended, opened, submit, turn, until, working


def looks():
    return by_length(turn(("a", "look", {"amount": 1})), turn(("b", "look", {"amount": 2})), "x")


def started(events):
    return sum(event["type"] == "tool_started" for event in events)


@pytest.mark.promise("durable-once")
def test_what_was_submitted_ends_and_its_events_are_told_once_in_order(url):
    async def main():
        async with opened(url) as store:
            assert await submit(store, "r", session_id=None, question="wie geht's? \0 🙂")
            assert not await submit(store, "r", question="wie geht's? \0 🙂")
            with pytest.raises(MisuseError, match="another run 'r'"):
                await submit(store, "r", question="another")
            async with working(url, answers("fine")):
                job = await until(store.get, "r", wanted=ended)
            events = await store.events("r")
            return job, events, await store.get("nobody"), await store.get("r", "another team")

    job, events, nobody, hidden = asyncio.run(main())
    assert (job.status, job.result["answer"], job.executor) == ("answered", "fine", None)
    seqs = [event["seq"] for event in events]  # those of pieces of text are not kept
    assert seqs == sorted(set(seqs))
    assert (events[0]["type"], events[-1]["type"]) == ("run_started", "run_finished")
    assert events[-1]["result"]["answer"] == "fine"
    assert nobody is hidden is None


@pytest.mark.promise("durable-queue")
@pytest.mark.parametrize("lane", [{"team": "t", "team_limit": 1}, {"asked_by": "k", "key_limit": 1}])
def test_the_urgent_come_first_the_delayed_later_and_no_more_at_once_than_allowed(url, lane):
    begun, going, most = [], {"a": 0, "b": 0}, {"a": 0, "b": 0}

    class Watched(ReActAgent):
        async def async_run(self, question, **more):
            begun.append(more["run_id"])
            going[self.name] += 1
            most[self.name] = max(most[self.name], going[self.name])
            await asyncio.sleep(0.03)
            going[self.name] -= 1
            return await super().async_run(question, **more)

    def build(claim, sinks):
        return Watched(llm=by_length("x"), observers=sinks, name=claim.agent)

    async def main():
        async with opened(url) as store:
            await submit(store, "late", delay_s=600)
            for number in range(6):
                await submit(store, f"a{number}", agent_limit=2)
            for number in range(4):
                await submit(store, f"b{number}", agent="b", definition={"name": "b"}, **lane)
            await submit(store, "first", priority=5)
            async with working(url, build), working(url, build):
                for run_id in (*(f"a{n}" for n in range(6)), *(f"b{n}" for n in range(4))):
                    await until(store.get, run_id, wanted=ended)

            return await store.get("late")

    assert asyncio.run(main()).status == "queued"
    assert "first" in begun[:3]  # taken first; two of `a` and one of `b` begin at once, each when its agent is made
    assert "late" not in begun
    assert sorted(begun) == sorted({*begun})
    assert most == {"a": 2, "b": 1}


@pytest.mark.promise("durable-fence")
def test_of_a_worker_that_has_lost_a_run_nothing_is_taken(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            databases = [open_database(url) for _ in range(2)]
            old, new = (Holder(database, name) for database, name in zip(databases, ("old", "new"), strict=True))
            await old.beat("old", 0.05, 1, draining=False)
            (claim,) = await old.claim(5)
            assert await old.keep(claim, [Fact("a", "1")], [(1, "{}")])
            await asyncio.sleep(0.1)
            # two reapers at once: one queues it, and nothing of the old one's counts any more, though nobody has it yet
            assert sorted(await asyncio.gather(old.reap(), new.reap())) == [0, 1]
            assert not await old.keep(claim, [Fact("b", "1")], [])
            (again,) = await new.claim(5)
            assert (again.epoch, again.facts, again.last_event) == (2, {"a": "1"}, 1)
            assert not await old.keep(claim, [Fact("b", "1")], [(2, "{}")])
            assert not await old.move(claim, {"status": "answered", "ended_at": NOW})
            await old.give_back("r", claim.epoch)
            job = await store.get("r")
            assert (job.status, job.executor) == ("running", "new")
            assert await new.keep(again, [Fact("b", "2")], [(2, "{}")])
            for database in databases:
                await database.aclose()

    asyncio.run(main())


@pytest.mark.promise("durable-drain")
def test_a_worker_that_drains_lets_what_is_in_flight_be_recorded_and_hands_over(url):
    bodies, gate = [], asyncio.Event()

    @tool
    async def look(amount: int) -> str:
        bodies.append(amount)
        if amount == 1:
            await gate.wait()
        return f"saw {amount}"

    build = agent(
        lambda: by_length(turn(("a", "look", {"amount": 1})), turn(("b", "look", {"amount": 2})), "x"), [look]
    )

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, build) as first:
                await until(store.events, "r", wanted=started)
                first.drain()
                await submit(store, "later")
                gate.set()
            job = await store.get("r")
            assert (job.status, job.executor, bodies) == ("queued", None, [1])
            assert await store.workers() == []
            async with working(url, build):
                return await until(store.get, "r", wanted=ended), await until(store.get, "later", wanted=ended)

    job, later = asyncio.run(main())
    assert (job.status, later.status, sorted(bodies)) == ("answered", "answered", [1, 1, 2, 2])
    assert [row["content"] for step in job.result["steps"] for row in step["observations"]] == ["saw 1", "saw 2"]


@pytest.mark.promise("durable-drain")
def test_a_call_that_is_kept_as_begun_is_made_before_its_run_is_handed_over(url):
    """Else whoever goes on with the run would tell the model that it may have happened, though it has not."""
    bodies, workers = [], []

    @tool(idempotent=False)
    async def pay(amount: int) -> str:
        bodies.append(amount)
        return f"paid {amount}"

    both = turn(("a", "pay", {"amount": 1}), ("b", "pay", {"amount": 2}))
    build = agent(lambda: by_length(both, turn(("begin.c", "pay", {"amount": 3})), "x"), [pay])

    def drain_meanwhile(event, team):
        if isinstance(event, ToolStarted):  # the next thing is the fact that it begins, which takes until later
            asyncio.get_running_loop().call_soon(workers[-1].drain)

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            for _ in range(2):
                async with working(url, build, drain_meanwhile) as worker:
                    workers.append(worker)
                    await until(
                        store.get, "r", wanted=lambda job: ended(job) or (workers[-1].draining and job.executor is None)
                    )
            made = list(bodies)
            async with working(url, build):
                return made, await until(store.get, "r", wanted=ended)

    made, job = asyncio.run(main())
    assert (sorted(made), sorted(bodies), job.status) == ([1, 2, 3], [1, 2, 3], "answered")
    told = [row["content"] for step in job.result["steps"] for row in step["observations"]]
    assert told == ["paid 1", "paid 2", "paid 3"]


@pytest.mark.promise("durable-kept")
def test_what_has_ended_goes_after_its_time_and_nothing_else(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "said", session_id="s")
            await submit(store, "old")
            async with working(url, answers()):
                for name in ("said", "old"):
                    await until(store.get, name, wanted=ended)
            await submit(store, "new", session_id="s")
            job = await store.get("new")
            which = job.team, job.agent, "s"
            assert await store.prune(3600) == 0
            assert await open_in_session(store.database, *which) == ["new"]
            assert await forget_session(store.database, *which[:2], "another's") == 0
            assert await forget_session(store.database, *which) == 1
            assert await store.prune(0) == 1
            return await store.get("old"), await store.get("new"), await store.sizes()

    old, new, sizes = asyncio.run(main())
    assert old is None
    assert new.status == "queued"
    assert (sizes.statuses, sizes.facts, sizes.events) == ({"queued": 1}, 0, 0)
    assert sizes.size_bytes > 10_000
    assert 0 <= sizes.oldest_s < 60


@pytest.mark.promise("durable-takeover")
def test_where_every_slot_is_taken_what_was_lost_goes_on_and_before_what_is_new_and_urgent(url):
    lost = [f"lost{number}" for number in range(3)]
    begun, free = set(), asyncio.Event()

    @tool
    async def look(amount: int) -> str:
        begun.add(current_scope().run_id)
        await free.wait()
        return f"saw {amount}"

    async def going():
        return len(begun)

    async def main():
        async with opened(url) as store:
            dead = Holder(store.database, "dead")
            await dead.beat("dead", 600.0, 3, draining=False)
            async with working(url, agent(looks, [look]), concurrency=1):
                await submit(store, "holds")
                await until(going, wanted=lambda count: count == 1)
                for run_id in lost:
                    await submit(store, run_id)
                    assert len(await dead.claim(1, only=run_id)) == 1
                await submit(store, "new", priority=10)
                await dead.leave()  # as good as dead
                await until(going, wanted=lambda count: count == 3)  # one of its own, and twice as many of others
                statuses = (await store.sizes()).statuses
                free.set()
                for run_id in ("holds", "new", *lost):
                    assert (await until(store.get, run_id, wanted=ended)).status == "answered"
            return statuses

    assert asyncio.run(main()) == {"running": 3, "queued": 2}
    assert "new" in begun


@pytest.mark.promise("durable-seen")
def test_how_the_queue_stands_is_said_without_reading_what_has_ended(tmp_path):
    async def main():
        async with JobStore(f"sqlite:///{tmp_path}/durable.db") as store:
            await submit(store, "queued")
            await submit(store, "over")
            await store.cancel("over")
            plan = await store.database.one(ask(f"EXPLAIN QUERY PLAN {STANDING}"))
            return await store.standing(), [row["detail"] for row in plan if "factory_jobs" in row["detail"]]

    standing, looks = asyncio.run(main())
    assert standing == {"queued": 1}
    assert len(looks) == 3
    assert all("INDEX factory_jobs_" in look for look in looks), looks
