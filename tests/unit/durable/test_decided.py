"""What people do to a run, from any process: they decide on its calls, and cancel it."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic import MisuseError, tool
from shared_libs.durable.database import ask
from tests.unit.durable.cast import LEASE_S, agent, by_length, ended, opened, submit, turn, until, working


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
