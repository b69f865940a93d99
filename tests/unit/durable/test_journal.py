"""What one execution of a run keeps and finds again: time, segments, sizes, and the gate before an effect."""

from __future__ import annotations

import asyncio
import json
import math

import msgspec
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, InProcessMemory, Message, tool
from shared_libs.atomic.errors import RunInterrupted
from shared_libs.atomic.events import RunFinished, Thought
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.types import LLMResponse, ToolCall, ToolResult
from shared_libs.durable import journal as journal_module
from shared_libs.durable.database import ask, open_database
from shared_libs.durable.holding import Holder
from shared_libs.durable.journal import FactJournal
from shared_libs.durable.keeping import Fact
from shared_libs.durable.store import to_json
from shared_libs.tools.agent import AgentTool
from tests.unit.durable.cast import agent, by_length, ended, looks_twice, opened, submit, turn, until, working

AGAIN = "UPDATE factory_jobs SET status = 'queued', executor = NULL"
"""As when a worker dies: another one is to go on."""

NO_LIMITS = {"max_steps": 1000, "max_tool_calls": None, "max_repeats": 999}


class Pulse:
    """A worker's heart, as the test says."""

    def __init__(self, *, fresh=True):
        self.fresh, self.beat = fresh, asyncio.Event()

    async def beaten(self):
        await self.beat.wait()
        self.beat.clear()


async def claimed(url, run_id="r"):
    database = open_database(url)
    holder = Holder(database, "w")
    await holder.beat("w", 60, 1, draining=False)
    (claim,) = await holder.claim(1, only=run_id)
    return database, holder, claim


async def one():
    return LLMResponse(text="one")


@pytest.mark.promise("durable-fence")
def test_a_worker_whose_beat_is_old_begins_nothing_until_it_knows_what_it_has_lost(url):
    begun = []

    async def effect():
        begun.append(1)
        return ToolResult("done")

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            database, holder, claim = await claimed(url)
            pulse = Pulse(fresh=False)
            journal = FactJournal(claim, holder, pulse)
            asking = asyncio.create_task(journal.once("tool.a", ToolResult, effect))
            pulse.beat.set()  # a beat that came too late is none
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (begun, asking.done()) == ([], False)
            journal.lost = True
            pulse.fresh = True
            pulse.beat.set()
            with pytest.raises(RunInterrupted, match="another worker's"):
                await asking
            await database.aclose()

    asyncio.run(main())
    assert begun == []


@pytest.mark.promise("durable-once")
def test_a_write_that_has_begun_is_not_cut_by_a_cancellation(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            database, holder, claim = await claimed(url)
            held, keep = asyncio.Event(), holder.keep

            async def slowly(*arguments):
                held.set()
                await asyncio.sleep(0.05)
                return await keep(*arguments)

            holder.keep = slowly
            journal = FactJournal(claim, holder, Pulse())
            asking = asyncio.create_task(journal.once("model.1", LLMResponse, one))
            await held.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await journal.settle(ends=False)
            rows = await database.one(ask("SELECT name FROM factory_facts"))
            await database.aclose()
            return [row["name"] for row in rows]

    assert asyncio.run(main()) == ["model.1"]


@pytest.mark.promise("durable-seen")
def test_the_end_is_told_in_the_transaction_that_ends_the_run_and_not_with_a_write_before_it(url):
    """Else who follows it reads an end without a result, and who takes it over an end of a run that goes on."""

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            database, holder, claim = await claimed(url)
            journal = FactJournal(claim, holder, Pulse())
            result = AgentResult(run_id="r", status="answered", stop_reason="final_answer", answer="x")
            journal.hear(Thought(run_id="r", seq=1, at_s=0.0, step=1, text="well"))
            journal.hear(RunFinished(run_id="r", seq=2, at_s=0.0, result=result))
            await journal.once("store", ToolResult, lambda: asyncio.sleep(0, ToolResult("stored")))
            written = [event["type"] for event in await store.events("r")]
            await database.aclose()
            return written, await journal.settle(ends=False), await journal.settle(ends=True)

    written, handed_over, ended = asyncio.run(main())
    assert written == ["thought"]
    assert handed_over == []
    assert [seq for seq, _ in ended] == [2]


@pytest.mark.promise("durable-once")
@pytest.mark.parametrize("name", ["model.1", "call/model.1"])
def test_an_answer_that_was_paid_and_lost_with_its_process_is_booked(url, name):
    """Also a sub-agent's, also after another death, and each once; and to be asked is no progress."""
    deaths = []

    def answer(messages):
        return Turn(text="x", delay_s=0.0 if len(deaths) == 2 else math.inf)

    inner = ReActAgent(llm=ScriptedLLM([answer] * 9), name="inner")
    asks = agent(
        lambda: by_length(turn(("call", "inner", {"question": "?"})), "done"), [AgentTool(inner, description="asks")]
    )
    build = agent(lambda: ScriptedLLM([answer] * 9)) if name == "model.1" else asks

    async def main():
        async with opened(url) as store:
            await submit(store, "r")

            async def noted():
                rows = await store.database.one(ask("SELECT name FROM factory_facts WHERE name LIKE 'asked %'"))
                return [row["name"] for row in rows]

            async with working(url, build):
                for epoch in (1, 2):
                    await until(noted, wanted=lambda names, epoch=epoch: f"asked {epoch} {name}" in names)
                    deaths.append(1)
                    await store.database.run(lambda: (yield ask(AGAIN)))
                job = await until(store.get, "r", wanted=ended)
            (row,) = await store.database.one(ask("SELECT deaths FROM factory_jobs"))
            facts = await store.database.one(ask("SELECT name, value FROM factory_facts"))
            return job, row["deaths"], {fact["name"]: json.loads(fact["value"]) for fact in facts}

    job, died, facts = asyncio.run(main())
    assert (job.status, job.epoch) == ("answered", 3)
    assert sorted(row["outcome"] for row in facts[name]["attempts"]) == ["lost", "lost", "ok"]
    if name == "model.1":
        assert sorted(row["outcome"] for row in job.result["attempts"]) == ["lost", "lost", "ok"]
        assert died == 2


@pytest.mark.promise("durable-once")
def test_a_run_that_was_down_past_its_deadline_ends_partial_with_all_it_had(url):
    async def main():
        async with opened(url) as store:
            await submit(store, "r", timeout_s=30.0)
            database, holder, claim = await claimed(url)
            said = by_length(turn(("a", "look", {"amount": 1})))
            first = await said.async_chat([Message("user", "go")])
            await holder.keep(claim, [Fact("model.1", msgspec.json.encode(first).decode())], [])
            await holder.keep(claim, [Fact("tool.a", '{"content": "saw 1"}')], [])
            await database.run(lambda: (yield ask("UPDATE factory_jobs SET began_at = began_at - 3600")))
            await holder.leave()
            await database.aclose()
            async with working(url, looks_twice()):
                return await until(store.get, "r", wanted=ended)

    job = asyncio.run(main())
    assert (job.status, job.result["stop_reason"]) == ("partial", "deadline")
    assert [row["content"] for step in job.result["steps"] for row in step["observations"]] == ["saw 1"]
    assert job.result["elapsed_s"] > 3600


@pytest.mark.promise("durable-kept")
def test_a_run_that_is_another_s_before_a_segment_is_full_is_cut_into_segments_too(tmp_path):
    turns = [turn((f"c{number}", "look", {"amount": number})) for number in range(260)]
    workers, bodies = [], []

    @tool
    async def look(amount: int) -> str:
        bodies.append(amount)
        if amount == 130 and len(workers) == 1:
            workers[0].drain()
        return f"saw {amount}"

    build = agent(lambda: by_length(*turns, "done"), [look], limits=NO_LIMITS)

    async def main():
        url = f"sqlite:///{tmp_path}/d.db"
        async with opened(url) as store:
            await submit(store, "r", timeout_s=100.0)
            for wanted in (lambda job: job.status == "queued" and job.epoch, ended):
                async with working(url, build) as worker:
                    workers.append(worker)
                    job = await until(store.get, "r", wanted=wanted)
            facts = "SELECT segment, count(*) FROM factory_facts WHERE name NOT LIKE 'asked%' GROUP BY segment"
            return job.status, [tuple(row) for row in await store.database.one(ask(facts))]

    status, segments = asyncio.run(main())
    assert (status, bodies) == ("answered", list(range(260)))
    assert segments == [(0, 500), (1, 21)]


@pytest.mark.promise("durable-kept")
def test_a_long_run_is_cut_into_segments_and_a_takeover_reads_the_last_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/durable.db"
    turns = [turn((f"c{number}", "look", {"amount": number})) for number in range(260)]
    workers = []

    @tool
    async def look(amount: int) -> str:
        if amount == 255 and len(workers) == 1:
            workers[0].drain()
        return f"saw {amount}"

    build = agent(
        lambda: by_length(*turns, "done"),
        [look],
        limits={"max_steps": 1000, "max_tool_calls": None, "max_repeats": 999},
    )

    async def main():
        async with opened(url) as store:
            await submit(store, "r", timeout_s=100.0)
            async with working(url, build) as worker:
                workers.append(worker)
                await until(store.get, "r", wanted=lambda job: job.status == "queued" and job.epoch)
            (claim,) = await (holder := Holder(store.database, "w")).claim(1)
            assert claim.last_event == (await store.last_event("r"))[0]
            await holder.give_back("r", claim.epoch)
            async with working(url, build) as worker:
                workers.append(worker)
                await until(store.get, "r", wanted=ended)
            rows = await store.database.one(
                ask("SELECT segment, count(*) AS facts FROM factory_facts GROUP BY segment ORDER BY segment")
            )
            return (
                claim,
                await store.get("r"),
                [(row["segment"], row["facts"]) for row in rows],
                await store.events("r", limit=9999),
            )

    claim, job, segments, events = asyncio.run(main())
    assert (claim.segment, len(claim.facts)) == (1, 12)
    assert 12 < len(claim.events) < 60
    assert (job.status, len(job.result["steps"])) == ("answered", 261)
    assert segments[0] == (0, journal_module.SEGMENT)
    assert [segment for segment, _ in segments] == [0, 1]
    assert sum(facts for _, facts in segments) == 521
    finished = [event for event in events if event["type"] == "tool_finished"]
    assert [event["content"] for event in finished] == [f"saw {number}" for number in range(260)]
    assert [event["type"] for event in events].count("run_finished") == 1


@pytest.mark.promise("durable-kept")
def test_what_is_enormous_is_cut_once_and_every_column_is_json(url):
    calls = []

    @tool
    async def dump() -> str:
        calls.append(1)
        return "x" * 10_000_000 + "\0\ud800"

    async def main():
        async with opened(url) as store:
            await submit(store, "r", question="\0 \u202e")
            async with working(url, agent(lambda: by_length(turn(("a", "dump", {})), "done"), [dump])):
                job = await until(store.get, "r", wanted=ended)
            facts = await store.database.one(ask("SELECT value FROM factory_facts"))
            events = await store.database.one(ask("SELECT event FROM factory_events"))
            row = (await store.database.one(ask("SELECT question, result FROM factory_jobs")))[0]
            return job, [fact["value"] for fact in facts], [event["event"] for event in events], row

    job, facts, events, row = asyncio.run(main())
    assert (job.status, calls) == ("answered", [1])
    assert "cut" in job.result["steps"][0]["observations"][0]["content"][-300:]
    assert sum(map(len, facts)) < 400_000
    for text in (*facts, *events, row["question"], row["result"]):
        json.loads(text)


@pytest.mark.promise("durable-kept")
def test_three_hundred_steps_of_five_kilobytes_are_less_than_two_megabytes(tmp_path):
    turns = [turn((f"c{number}", "big", {"number": number})) for number in range(150)]

    @tool
    async def big(number: int) -> str:
        return f"{number}:" + "x" * 5_000

    build = agent(lambda: by_length(*turns, "done"), [big], limits=NO_LIMITS)
    url = f"sqlite:///{tmp_path}/durable.db"

    async def main():
        async with opened(url) as store:
            await submit(store, "r", timeout_s=100.0)
            async with working(url, build):
                await until(store.get, "r", wanted=ended)
            return await store.get("r")

    job = asyncio.run(main())
    assert len(job.result["steps"]) == 151
    assert (tmp_path / "durable.db").stat().st_size < 2_000_000


@pytest.mark.promise("durable-once")
def test_an_exchange_is_stored_once_though_its_run_was_ended_twice(url):
    memory = InProcessMemory()

    async def main():
        async with opened(url) as store:
            await submit(store, "r", session_id="s")
            lost = []

            class Outlived(ReActAgent):
                async def async_run(self, question, **more):
                    result = await super().async_run(question, **more)
                    if not lost:  # as if the worker had died before it could say how the run ended
                        lost.append(1)
                        await store.database.run(lambda: (yield ask(AGAIN)))
                    return result

            def build(claim, sinks):
                return Outlived(llm=by_length("done"), memory=memory, observers=sinks)

            async with working(url, build):
                job = await until(store.get, "r", wanted=ended)
            return job, [message.text for message in await memory.async_load("s")]

    job, messages = asyncio.run(main())
    assert (job.status, job.epoch) == ("answered", 2)
    assert messages == ["go", "done"]


@pytest.mark.promise("durable-fence")
@pytest.mark.parametrize("isolation", ["loop", "thread"])
def test_a_process_stopped_between_the_call_and_its_body_begins_no_body(url, isolation):
    begun = []

    class Pay(BaseTool):
        name, description = "pay", "pays"

        async def execute(self, amount: int) -> str:
            begun.append(amount)
            return "paid"

    class Stopped(Pulse):
        """Fresh when it is decided that the call may begin, and old when its body does."""

        def __init__(self):
            self.looks = 0

        @property
        def fresh(self):
            self.looks += 1
            return self.looks <= 2  # before the model's call and before the tool's

    pay = Pay()
    pay.isolation = isolation

    async def main():
        async with opened(url) as store:
            await submit(store, "r")
            database, holder, claim = await claimed(url)
            journal = FactJournal(claim, holder, Stopped())
            agent = ReActAgent(llm=by_length(turn(("a", "pay", {"amount": 1})), "done"), tools=[pay])
            scope = use_scope(Scope(journal=journal, may_begin=journal.may_begin))
            with scope, pytest.raises(RunInterrupted, match="may be another worker's"):
                await agent.async_run("go", run_id="r")
            await database.aclose()
            await agent.aclose()
            return [row["name"] for row in await store.database.one(ask("SELECT name FROM factory_facts"))]

    assert asyncio.run(main()) == ["model.1"]
    assert begun == []


@pytest.mark.promise("durable-kept")
def test_half_a_character_anywhere_in_a_call_is_no_end_of_the_run():
    said = LLMResponse(text="\ud800", tool_calls=(ToolCall("c", "look", {"why": ["\ud800", {"\udfff": 1}]}),))
    kept = msgspec.json.decode(to_json(said), type=LLMResponse)
    assert (kept.text, kept.tool_calls[0].arguments) == ("?", {"why": ["?", {"?": 1}]})
