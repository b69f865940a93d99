"""The queue: what is submitted is committed, who begins first, how many at once, and what people do to a run."""

from __future__ import annotations

import asyncio
from functools import reduce

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import LLMError, LLMResponse, MisuseError, tool
from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.events import ToolStarted
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.scope import current_scope
from shared_libs.durable import JobStore, StoreUnavailable, Worker, WorkerPolicy
from shared_libs.durable.beat import Beat
from shared_libs.durable.database import ask, open_database
from shared_libs.durable.holding import NOW, Holder
from shared_libs.durable.keeping import Fact
from shared_libs.durable.store import STANDING
from tests.unit.durable.cast import LEASE_S, agent, answers, by_length, ended, opened, submit, turn, until, working


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
    assert begun[0] == "first"
    assert "late" not in begun
    assert sorted(begun) == sorted({*begun})
    assert most == {"a": 2, "b": 1}


@pytest.mark.promise("durable-queue")
def test_a_run_is_left_to_workers_that_have_what_it_needs(url):
    def lacks(claim, sinks):
        raise ConfigError(["a.yaml:3:1: tools[0].use: 'mcp' needs the extra: pip install genai-factory[mcp]"])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, lacks):
                job = await until(store.get, "r", wanted=lambda job: job.why)
                assert (job.status, job.executor) == ("queued", None)
                assert "needs the extra" in job.why
                async with working(url, answers()):
                    return await until(store.get, "r", wanted=ended)

    assert asyncio.run(main()).status == "answered"


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


@pytest.mark.promise("durable-approval")
def test_a_decision_counts_once_and_what_is_not_decided_waits_on_without_a_slot(url):
    paid = []

    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        paid.append(amount)
        return f"paid {amount}"

    build = agent(lambda: by_length(turn(("a", "pay", {"amount": 1}), ("b", "pay", {"amount": 2})), "done"), [pay])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            with pytest.raises(MisuseError, match="it is queued"):
                await store.decide("r", {"a": {"approved": True}})
            async with working(url, build, concurrency=1):
                job = await until(store.get, "r", wanted=lambda job: job.status == "waiting")
                assert [call["call_id"] for call in job.pending] == ["a", "b"]
                assert job.executor is None
                await submit(store, "other", definition={"name": "b"})  # the only slot is free
                await until(store.get, "other", wanted=lambda job: job.status == "waiting")
            # another process, days later; said twice, the first counts
            assert await store.decide("r", {"a": {"approved": True}}) == ["a"]
            assert await store.decide("r", {"a": {"approved": False}}) == []
            async with working(url, build):
                await until(store.get, "r", wanted=lambda job: job.status == "waiting")
            assert paid == [1]
            await submit(store, "unwanted")
            async with working(url, build):
                await until(store.get, "unwanted", wanted=lambda job: job.status == "waiting")
                assert await store.cancel("unwanted")
                with pytest.raises(MisuseError, match="it is cancelled"):
                    await store.decide("unwanted", {"a": {"approved": True}})
                unwanted = await until(store.get, "unwanted", wanted=ended)
                told = await store.events("unwanted")
            assert (unwanted.status, unwanted.pending) == ("cancelled", [])
            assert [e["result"]["status"] for e in told if e["type"] == "run_finished"] == ["paused", "cancelled"]
            with pytest.raises(MisuseError, match="no call 'x' of run r waits"):
                await store.decide("r", {"x": {"approved": True}})
            await store.decide("r", {"b": {"approved": False, "reason": "too much"}})
            async with working(url, build):
                return await until(store.get, "r", wanted=ended)

    job = asyncio.run(main())
    assert (job.status, paid) == ("answered", [1])
    assert "too much" in job.result["steps"][0]["observations"][1]["content"]


@pytest.mark.promise("durable-approval")
def test_a_day_in_which_nobody_decides_costs_a_run_none_of_its_time(url):
    """Workers come and go meanwhile; one decision comes twice, from two processes at once."""
    paid = []

    @tool(needs_approval=True)
    async def pay(amount: int) -> str:
        paid.append(amount)
        return f"paid {amount}"

    build = agent(lambda: by_length(turn(("a", "pay", {"amount": 1})), "done"), [pay])
    a_day_ago = """UPDATE factory_jobs SET submitted_at = submitted_at - 86400, due_at = due_at - 86400,
        first_at = first_at - 86400, began_at = began_at - 86400, claimed_at = claimed_at - 86400"""

    async def main():
        async with opened(url) as store, opened(url) as other:
            await submit(store, "r", timeout_s=20.0)
            async with working(url, build):
                await until(store.get, "r", wanted=lambda job: job.status == "waiting")
            await store.database.run(lambda: (yield ask(a_day_ago)))
            async with working(url, build):  # it has nothing to do
                pass
            decisions = await asyncio.gather(*(each.decide("r", {"a": {"approved": True}}) for each in (store, other)))
            async with working(url, build):
                return decisions, await until(store.get, "r", wanted=ended)

    decisions, job = asyncio.run(main())
    assert sorted(decisions) == [[], ["a"]]
    assert (job.status, job.result["answer"], paid) == ("answered", "done", [1])
    assert job.result["elapsed_s"] < 20


@pytest.mark.promise("durable-cancel")
def test_cancelled_from_elsewhere_it_ends_and_says_what_was_done(url):
    @tool
    async def look(amount: int) -> str:
        if amount == 2:
            await asyncio.sleep(60)
        return f"saw {amount}"

    build = agent(
        lambda: by_length(turn(("a", "look", {"amount": 1})), turn(("b", "look", {"amount": 2})), "x"), [look]
    )

    async def main():
        async with opened(url) as store, opened(url) as elsewhere:
            await submit(store, "queued", delay_s=60)
            assert await elsewhere.cancel("queued")
            await submit(store, "r")
            async with working(url, build):
                await until(
                    store.events, "r", wanted=lambda events: sum(e["type"] == "tool_started" for e in events) == 2
                )
                began = asyncio.get_running_loop().time()
                assert await elsewhere.cancel("r")
                job = await until(store.get, "r", wanted=ended)
                took_s = asyncio.get_running_loop().time() - began
            assert not await elsewhere.cancel("r")
            with pytest.raises(MisuseError, match="no run"):
                await elsewhere.cancel("nobody")
            (end,) = await store.events("queued")
            assert (end["type"], end["result"]["status"]) == ("run_finished", "cancelled")
            return job, took_s, await store.get("queued")

    job, took_s, queued = asyncio.run(main())
    assert (job.status, queued.status, queued.result["answer"]) == ("cancelled", "cancelled", None)
    assert [row["content"] for step in job.result["steps"] for row in step["observations"]] == ["saw 1"]
    assert took_s < 2 * LEASE_S


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


@pytest.mark.promise("durable-kept")
def test_what_has_ended_goes_after_its_time_and_nothing_else(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "old")
            async with working(url, answers()):
                await until(store.get, "old", wanted=ended)
            await submit(store, "new")
            assert await store.prune(3600) == 0
            assert await store.prune(0) == 1
            return await store.get("old"), await store.get("new"), await store.sizes()

    old, new, sizes = asyncio.run(main())
    assert old is None
    assert new.status == "queued"
    assert (sizes.statuses, sizes.facts, sizes.events) == ({"queued": 1}, 0, 0)
    assert sizes.size_bytes > 10_000
    assert 0 <= sizes.oldest_s < 60


@pytest.mark.promise("durable-away")
def test_a_store_that_cannot_be_reached_is_told_before_anything_is_asked(tmp_path):
    built = []

    async def main(url):
        with pytest.raises(StoreUnavailable, match="store of durable runs"):
            await JobStore(url).aopen()
        with pytest.raises(StoreUnavailable):
            await Worker(url, lambda *_: built.append(1)).run()

    asyncio.run(main(f"sqlite+aiosqlite:///{tmp_path}/nowhere/durable.db"))
    asyncio.run(main("postgresql+asyncpg://owner:secret@127.0.0.1:1/x"))
    for url in ("sqlite+aiosqlite://", "mysql://x", "nonsense"):
        with pytest.raises(MisuseError, match="allowed are"):
            JobStore(url)
    assert built == []


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


@pytest.mark.promise("durable-takeover")
def test_a_silence_is_noticed_a_lease_and_a_beat_after_the_last_beat(url):
    beats = []

    async def main():
        async with opened(url) as store:
            silent = Holder(store.database, "silent")
            await silent.beat("silent", LEASE_S, 1, draining=False)
            await submit(store, "r")
            assert len(await silent.claim(1)) == 1
            beat = Beat(url, "alive", "alive", WorkerPolicy(lease_s=LEASE_S), lambda *_: beats.append(1))
            await beat.start()
            await until(store.get, "r", wanted=lambda job: job.status == "queued")
            seen = len(beats)
            await beat.stop()
            return seen

    assert 1 <= asyncio.run(main()) <= 5 + 2  # it beats five times a lease


@pytest.mark.promise("durable-queue")
def test_the_time_of_a_run_that_nobody_could_do_yet_has_not_begun(url):
    def refuse(claim, sinks):
        raise ConfigError(["it lacks a tool"])

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, refuse):
                refused = await until(store.get, "r", wanted=lambda job: job.why is not None)
            assert len(await Holder(store.database, "able").claim(1)) == 1
            return refused, await store.get("r")

    refused, job = asyncio.run(main())
    assert (refused.status, refused.first_at) == ("queued", None)
    assert "lacks a tool" in refused.why
    assert job.first_at == pytest.approx(job.claimed_at, abs=1e-3)


ODD_IDS = ["a\0b", "a\ud800", "".join(f"{number:05}" for number in range(1200)), "é/ü"]
"""Ids of calls as servers give them; one carries its model's thoughts, and is longer than a database indexes."""


@pytest.mark.promise("durable-once")
def test_whatever_ids_a_server_gives_its_calls_they_are_recorded_and_decided(url):
    @tool(needs_approval=True)
    async def look(amount: int) -> str:
        return f"saw {amount}"

    def calls():
        return by_length(turn(*[(call_id, "look", {"amount": n}) for n, call_id in enumerate(ODD_IDS)]), "x")

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            async with working(url, agent(calls, [look])):
                job = await until(store.get, "r", wanted=lambda job: job.status == "waiting")
                decided = {call["call_id"]: {"approved": True} for call in job.pending}
                new = await store.decide("r", decided)
                return decided, new, await until(store.get, "r", wanted=ended), await store.events("r")

    decided, new, job, events = asyncio.run(main())
    assert (len(decided), set(new)) == (4, set(decided))
    (step, _) = job.result["steps"]
    assert [row["content"] for row in step["observations"]] == [f"saw {number}" for number in range(4)]
    told = {event["content"] for event in events if event["type"] == "tool_finished"}
    assert told == {f"saw {number}" for number in range(4)}


@pytest.mark.promise("durable-queue")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"priority": 10**12}, "priority is a number from -1,000,000"),
        ({"delay_s": float("nan")}, "delay_s is a number of seconds from 0 on"),
        ({"delay_s": -5.0}, "delay_s is a number"),
        ({"timeout_s": float("inf")}, "timeout_s is a positive number"),
        ({"session_id": "\0"}, "session_id is printable text"),
        ({"agent_limit": 0}, "agent_limit is a number from 1"),
        ({"key_limit": 2**40}, "key_limit is a number from 1"),
        ({"question": object()}, "question, definition and extras are JSON"),
        ({"question": reduce(lambda inner, _: [inner], range(50_000), [])}, "question, definition and extras are JSON"),
        *(({"run_id": run_id}, "a run's id is up to 200") for run_id in ("", "a/b", "x" * 201, "a\nb")),
    ],
)
def test_what_no_database_can_keep_is_refused_before_it_is_accepted(tmp_path, more, says):
    async def main():
        async with opened(f"sqlite:///{tmp_path}/durable.db") as store:
            with pytest.raises(MisuseError, match=says):
                await submit(store, **{"run_id": "r"} | more)
            with pytest.raises(MisuseError, match="the decision on 'a' is True, False or a Decision"):
                await store.decide("r", {"a": "maybe"})

    asyncio.run(main())


@pytest.mark.promise("durable-queue")
def test_words_that_no_column_holds_end_a_run_or_tell_what_it_lacks(url):
    def say(messages):
        raise LLMError("nothing \0 \ud800 here", provider="p", model="m")

    def lacks(claim, sinks):
        if claim.agent == "lacking":
            raise RuntimeError("it lacks \0 \udcff")
        return agent(lambda: ScriptedLLM([say] * 9))(claim, sinks)

    async def main():
        async with opened(url) as store, working(url, lacks):
            await submit(store, "r")
            await submit(store, "lacking", agent="lacking", definition={"name": "lacking"})
            failed = await until(store.get, "r", wanted=ended)
            return failed, await until(store.get, "lacking", wanted=lambda job: job.why)

    failed, lacking = asyncio.run(main())
    assert (failed.status, lacking.status) == ("failed", "queued")
    assert "nothing" in failed.why
    assert "it lacks" in lacking.why


@pytest.mark.promise("durable-queue")
def test_what_one_run_wants_beside_its_definition_keeps_no_other_from_being_done(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "odd", extras={"of": "another kind"})
            await submit(store, "plain")
            async with working(url, answers()):
                plain = await until(store.get, "plain", wanted=ended)
                return plain, await store.get("odd")

    plain, odd = asyncio.run(main())
    assert (plain.status, odd.status) == ("answered", "queued")
    assert "beside its definition" in odd.why


@pytest.mark.promise("durable-takeover")
def test_a_database_whose_clock_is_set_back_misses_the_dead_all_the_same(url):
    ahead = """UPDATE factory_jobs SET submitted_at = submitted_at + 3600, due_at = due_at + 3600"""

    async def main():
        async with opened(url) as store:
            dead, alive = (Holder(store.database, name) for name in ("dead", "alive"))
            await dead.beat("dead", 2.0, 1, draining=False)
            await submit(store, "begun")
            await dead.claim(1)
            await submit(store, "new")
            await submit(store, "later", delay_s=60)
            await store.database.run(lambda: (yield ask("UPDATE factory_workers SET beat_at = beat_at + 3600")))
            await store.database.run(lambda: (yield ask(ahead)))
            await alive.count_from_now()
            assert await alive.reap() == 0  # from here on it has a lease
            await store.database.run(lambda: (yield ask("UPDATE factory_workers SET beat_at = beat_at - 2")))
            assert await alive.reap() == 1
            return sorted(claim.run_id for claim in await alive.claim(5))

    assert asyncio.run(main()) == ["begun", "new"]


@pytest.mark.promise("durable-takeover")
def test_a_worker_on_whose_file_another_clock_counts_stands_back_and_says_so(tmp_path, caplog):
    url = f"sqlite:///{tmp_path}/durable.db"
    ahead = ask("UPDATE factory_workers SET beat_at = CLOCK + 3600 WHERE executor = 'elsewhere'")

    async def main():
        async with opened(url) as store, working(url, answers()) as worker:
            await worker.started.wait()
            elsewhere = Holder(store.database, "elsewhere")
            await elsewhere.beat("elsewhere", LEASE_S, 1, draining=False)
            await until(store.database.one, ahead, wanted=lambda _: "does nothing" in caplog.text)  # and it beats on
            assert not worker.ready
            await submit(store, "r")
            ages = [row.beat_age_s for row in await store.workers()]
            await elsewhere.leave()
            await until(store.get, "r", wanted=ended)
            return ages

    assert min(asyncio.run(main())) < -3500
    assert "does nothing: another one on this file beats by a clock that is 3600 s ahead" in caplog.text


@pytest.mark.promise("durable-takeover")
def test_a_server_of_another_clock_is_told_and_one_whose_clock_is_set_back_goes_on(new_postgres, caplog):
    """A function of the name that PostgreSQL's own has is the clock of a server that is an hour late."""
    early = "CREATE OR REPLACE FUNCTION other.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"

    async def main():
        first = open_database(new_postgres)
        for statement in (
            "CREATE SCHEMA other",
            f"{early} $$SELECT pg_catalog.clock_timestamp() + interval '1 hour'$$",
            f"ALTER DATABASE {new_postgres.partition('@/')[2].partition('?')[0]} SET search_path = other, pg_catalog",
        ):
            await first.one(ask(statement))
        await first.aclose()
        async with opened(new_postgres) as store, working(new_postgres, answers()) as worker:
            await worker.started.wait()
            await store.database.one(ask(f"{early} $$SELECT pg_catalog.clock_timestamp()$$"))
            await submit(store, "r")
            await until(store.get, "r", wanted=ended)

    asyncio.run(main())
    assert "is 3600 s behind that of the database" in caplog.text


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
