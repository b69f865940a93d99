"""Durable runs by the seam alone: a journal in memory, killed at every boundary, and nothing recorded is done again."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import BaseMemory, BaseTool, InProcessMemory, LLMError, Message, ToolCall, tool
from shared_libs.atomic.errors import RunInterrupted
from shared_libs.atomic.events import ModelFinished, RunFinished, RunStarted, ToolStarted
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.memory import Compaction
from shared_libs.atomic.scope import Scope, current_scope, use_scope
from shared_libs.tools.agent import AgentTool
from tests.support import run_virtual


class Facts:
    """A journal in memory that kills its process after so many writes."""

    def __init__(self):
        self.kept, self.bodies, self.told = {}, [], 0
        self.started_at, self.pause, self.fuel = None, False, None
        self.replaying, self.events, self.followed = False, 0, False

    def open(self, fuel=None):
        """Begin again in another process."""
        self.fuel, self.replaying, self.events = fuel, bool(self.kept), self.told
        return self

    @property
    def wants_pause(self):
        return self.pause

    def knows(self, name):
        return name in self.kept

    def was_told(self, event):
        return self.replaying

    async def once(self, name, kind, do):
        if name in self.kept:
            return msgspec.json.decode(self.kept[name], type=kind)
        self.replaying = False
        self._burn()
        value = await do()
        self.bodies.append(name)
        self._burn()
        self.kept[name] = msgspec.json.encode(value)
        return value

    def _burn(self):
        if self.fuel is not None:
            self.fuel -= 1
            if self.fuel < 0:
                raise RunInterrupted("killed")


CALLED = []


def tools():
    @tool
    async def pay(amount: int) -> str:
        await asyncio.sleep(amount)
        CALLED.append(current_scope().key)
        return f"paid {amount}"

    @tool
    async def look(amount: int) -> str:
        CALLED.append(current_scope().key)
        return f"saw {amount}"

    return [pay, look]


def by_length(*turns):
    """A model that answers by what it is shown, as a real one does: not by how often it was asked."""

    def answer(messages):
        return turns[sum(message.role == "assistant" for message in messages)]

    return ScriptedLLM([answer] * 500)


def plain():
    return ReActAgent(
        llm=by_length(
            Turn(calls=[ToolCall("a", "pay", {"amount": 2}), ToolCall("b", "look", {"amount": 1})]),
            Turn(calls=[ToolCall("c", "pay", {"amount": 1})]),
            "done",
        ),
        tools=tools(),
        memory=MEMORY,
    )


def with_sub_agents():
    def inner():
        def answer(messages):
            question = next(message.text for message in messages if message.role == "user")
            if messages[-1].role == "user":
                call = ToolCall(f"p{question}", "pay", {"amount": int(question)})
                return Turn(calls=[call], delay_s=float(question) / 10)
            return f"answer to {question}: {messages[-1].text}"

        return ReActAgent(llm=ScriptedLLM([answer] * 500), tools=tools(), name="inner")

    return ReActAgent(
        llm=by_length(
            Turn(calls=[ToolCall("s1", "inner", {"question": "3"}), ToolCall("s2", "inner", {"question": "1"})]), "done"
        ),
        tools=[AgentTool(inner(), description="asks")],
        memory=MEMORY,
    )


MEMORY = InProcessMemory()


def resumed_until_done(make, facts, kill_at):
    """Run with a kill after `kill_at` writes, then again and again until it ends; return the result and all events."""
    events = []

    async def once(fuel):
        agent = make()
        agent.observers = (events.append,)
        with use_scope(Scope(journal=facts.open(fuel))):
            result = await agent.async_run("go", run_id="R", session_id="s")
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    for attempt in range(30):
        try:
            return run_virtual(once(kill_at if attempt == 0 else None)), events
        except RunInterrupted:
            facts.told = max((event.seq for event in events if event.run_id == "R"), default=0)
    raise AssertionError("never done")


@pytest.fixture(autouse=True)
def _fresh():
    CALLED.clear()
    MEMORY.__init__()


@pytest.mark.promise("journal-once")
@pytest.mark.parametrize("make", [plain, with_sub_agents])
def test_killed_at_every_boundary_nothing_recorded_is_done_again(make):
    whole, _ = resumed_until_done(make, Facts(), None)
    keys = set(CALLED)
    for kill_at in range(40):
        CALLED.clear()
        MEMORY.__init__()
        facts = Facts()
        result, events = resumed_until_done(make, facts, kill_at)
        assert result.status == "answered"
        assert [row.content for step in result.steps for row in step.observations] == [
            row.content for step in whole.steps for row in step.observations
        ]
        # what was in flight at the kill may have been done twice, everything else once; and always by the same key
        in_flight = len(facts.bodies) - len(set(facts.bodies))
        assert in_flight <= 2
        assert set(CALLED) == keys
        assert len(CALLED) - len(keys) <= 2
        history = run_virtual(MEMORY.async_load("s"))
        assert [message.role for message in history].count("user") == 1
        seqs = [event.seq for event in events if event.run_id == "R"]
        assert seqs == sorted(set(seqs))
        assert [type(event) for event in events if event.run_id == "R"][-1] is RunFinished


@pytest.mark.promise("journal-once")
def test_what_is_replayed_is_silent_and_the_numbers_go_on():
    facts = Facts()
    _, events = resumed_until_done(plain, facts, 5)
    starts = [event for event in events if isinstance(event, RunStarted)]
    assert [event.resumed for event in starts] == [False, True]
    assert sum(isinstance(event, ModelFinished) for event in events) == 3
    assert [event.call_id for event in events if isinstance(event, ToolStarted)].count("c") == 1


@pytest.mark.promise("journal-once")
def test_a_run_that_was_down_past_its_deadline_comes_back_partial_with_what_it_had():
    facts = Facts()

    async def killed():
        with use_scope(Scope(journal=facts.open(8))):
            await plain().async_run("go", run_id="R", timeout=60)

    with pytest.raises(RunInterrupted):
        run_virtual(killed())
    facts.started_at = time.time() - 3600

    async def again():
        with use_scope(Scope(journal=facts.open())):
            return await plain().async_run("go", run_id="R", timeout=60)

    result = run_virtual(again())
    assert (result.status, result.stop_reason) == ("partial", "deadline")
    assert [row.content for step in result.steps[:1] for row in step.observations] == ["paid 2", "saw 1"]
    assert "paid 2" in result.answer
    assert result.elapsed_s > 3600
    assert result.attempts


@pytest.mark.promise("journal-once")
@pytest.mark.parametrize(
    ("known", "told"),
    [
        (None, ["may have happened"]),
        ("it went through: 17", ["it went through: 17"]),
        (ValueError("the bank is closed"), ["may have happened", "the bank is closed"]),
    ],
)
@pytest.mark.parametrize("sync", [False, True])
def test_a_call_that_must_not_be_made_twice_is_asked_about_instead(known, told, sync):
    made = []

    def find_out(self, key):
        assert key == made[0]
        if isinstance(known, Exception):
            raise known
        return known

    async def find_out_async(self, key):
        return find_out(self, key)

    class Transfer(BaseTool):
        name, description, idempotent = "transfer", "moves money", False

        async def execute(self, amount: int) -> str:
            made.append(current_scope().key)
            await asyncio.sleep(1)
            return f"moved {amount}"

        found_out = find_out if sync else find_out_async

    def agent():
        return ReActAgent(
            llm=by_length(Turn(calls=[ToolCall("t", "transfer", {"amount": 5})]), "done"), tools=[Transfer()]
        )

    facts = Facts()

    async def once(fuel):
        with use_scope(Scope(journal=facts.open(fuel))):
            return await agent().async_run("go", run_id="R")

    with pytest.raises(RunInterrupted):
        run_virtual(once(5))  # in the call: its beginning is known, its end is not
    result = asyncio.run(once(None))
    assert made == ["R/1/t"]
    assert all(words in result.steps[0].observations[0].content for words in told)


@pytest.mark.promise("journal-once")
def test_what_a_call_gave_stands_though_its_tool_has_gone_or_changed_since():
    """A deploy while the run is under way: what the model was told before is what it is told again."""
    paid = []

    class Pay(BaseTool):
        name, description = "pay", "pays"

        async def execute(self, amount: int) -> str:
            paid.append(amount)
            return f"paid {amount}"

    class PayOnce(Pay):
        idempotent = False

    class Asking(Pay):
        needs_approval = True

    async def run(facts, fuel, *tools):
        turns = [Turn(calls=[ToolCall(name, "pay", {"amount": number})]) for number, name in enumerate("ab", 1)]
        with use_scope(Scope(journal=facts.open(fuel))):
            return await ReActAgent(llm=by_length(*turns, "x"), tools=tools).async_run("go", run_id="R")

    def seen(*tools, then=(), fuel=4):
        facts = Facts()
        with pytest.raises(RunInterrupted):
            run_virtual(run(facts, fuel, *tools))
        result = run_virtual(run(facts, None, *then))
        return result.status, [row.content for step in result.steps for row in step.observations]

    gone = "There is no tool 'pay'. The tools are: none."
    assert seen(Pay()) == ("answered", ["paid 1", gone])
    assert seen(Pay(), then=[Asking()]) == ("paused", ["paid 1"])  # the second is asked about, the first was made
    assert paid == [1, 1]
    status, (told, _) = seen(PayOnce(), fuel=5)
    assert (status, "may have happened" in told) == ("answered", True)


@pytest.mark.promise("journal-once")
def test_a_run_is_handed_over_at_its_next_boundary_and_goes_on_elsewhere():
    facts = Facts()
    facts.pause = True

    async def first():
        with use_scope(Scope(journal=facts.open())):
            return await plain().async_run("go", run_id="R")

    paused = run_virtual(first())
    assert (paused.status, paused.stop_reason, paused.pending) == ("paused", "handed_over", ())
    result = run_virtual(plain().async_resume(msgspec.json.encode(paused.state), {}))
    assert (result.status, result.run_id, len(result.steps)) == ("answered", "R", 3)


def test_without_a_journal_nothing_of_it_is_there():
    seen = []

    @tool
    async def look() -> str:
        seen.append((current_scope().journal, current_scope().key))
        return "x"

    llm = ScriptedLLM([Turn(calls=[ToolCall("c", "look", {})]), "done"])
    run_virtual(ReActAgent(llm=llm, tools=[look], limits=Limits()).async_run("go", run_id="R"))
    assert seen == [(None, "R/1/c")]


@pytest.mark.promise("journal-once")
def test_a_store_of_the_same_name_is_the_same_store():
    async def main():
        memory = InProcessMemory()
        for _ in range(2):
            await memory.async_store("s", [Message("user", "x")], batch="b")
        await memory.async_store("s", [Message("user", "y")], batch="c")
        return [message.text for message in await memory.async_load("s")]

    assert run_virtual(main()) == ["x", "y"]


@pytest.mark.promise("journal-once")
def test_agents_that_an_ordinary_tool_asks_have_no_facts_of_their_own():
    def asked(name):
        return ReActAgent(llm=ScriptedLLM([name] * 50), name=name)

    left, right = asked("left"), asked("right")

    @tool
    async def both() -> str:
        answers = [(await agent.async_run("go")).answer for agent in (left, right)]
        return " | ".join(answers)

    def agent():
        return ReActAgent(llm=by_length(Turn(calls=[ToolCall("c", "both", {})]), "done"), tools=[both])

    facts, events = Facts(), []

    async def once(fuel):
        outer = agent()
        outer.observers = (events.append,)
        with use_scope(Scope(journal=facts.open(fuel))):
            return await outer.async_run("go", run_id="R")

    with pytest.raises(RunInterrupted):
        run_virtual(once(3))
    result = run_virtual(once(None))
    assert result.steps[0].observations[0].content == "left | right"
    events.clear()
    again = run_virtual(once(None))  # nothing but facts: its end is told all the same
    assert again.answer == "done"
    assert isinstance(events[-1], RunFinished)


def test_what_fails_to_open_or_to_close_keeps_nothing_open():
    closed = []

    class Part(BaseTool):
        description = "d"

        def __init__(self, name, *, opens=True, closes=True):
            self.name, self._opens, self._closes = name, opens, closes

        async def execute(self) -> str:
            return "x"

        async def aopen(self):
            if not self._opens:
                raise RuntimeError("cannot open")

        async def aclose(self):
            closed.append(self.name)
            if not self._closes:
                raise RuntimeError("cannot close")

    async def main():
        agent = ReActAgent(llm=ScriptedLLM([]), tools=[Part("a"), Part("b", opens=False), Part("c", closes=False)])
        with pytest.raises(RuntimeError):
            async with agent:
                raise AssertionError

    run_virtual(main())
    assert sorted(closed) == ["a", "b", "c"]


@pytest.mark.promise("journal-once")
@pytest.mark.parametrize("fuel", [6, 10])
def test_down_past_the_deadline_what_sub_agents_have_done_comes_back_too(fuel):
    facts, asked = Facts(), []

    async def killed():
        with use_scope(Scope(journal=facts.open(fuel))):
            await with_sub_agents().async_run("go", run_id="R", timeout=60)

    with pytest.raises(RunInterrupted):
        run_virtual(killed())
    known = "s2/tool.p1" in facts.kept
    assert known == (fuel == 10)
    facts.started_at = time.time() - 3600
    CALLED.clear()

    async def again():
        agent = with_sub_agents()
        agent.observers = (asked.append,)
        with use_scope(Scope(journal=facts.open())):
            return await agent.async_run("go", run_id="R", timeout=60)

    result = run_virtual(again())
    assert (result.status, result.stop_reason, CALLED) == ("partial", "deadline", [])
    seen = {row.call_id: row.content for row in result.steps[0].observations}
    assert ("paid 1" in seen["s2"]) == known, seen
    assert "not started" not in seen["s2"]


@pytest.mark.promise("journal-once")
def test_a_summary_that_failed_is_not_asked_for_again_by_who_goes_on():
    asked = []

    class Silent(ScriptedLLM):
        async def _chat(self, *arguments, **more):
            asked.append(1)
            raise LLMError("down")

    memory = InProcessMemory(window=1, compaction=Compaction(Silent([]), max_tokens=50, keep=1))
    run_virtual(memory.async_store("s", [Message("user", "x " * 200), Message("assistant", "y " * 200)]))
    facts = Facts()

    async def once(fuel):
        agent = ReActAgent(llm=by_length(*["done"] * 9), memory=memory)
        with use_scope(Scope(journal=facts.open(fuel))):
            return await agent.async_run("go", run_id="R", session_id="s")

    with pytest.raises(RunInterrupted):
        run_virtual(once(6))  # the summary is a fact, the answer is not yet
    before = len(asked)
    assert before > 0
    assert run_virtual(once(None)).answer == "done"
    assert len(asked) == before


@pytest.mark.promise("journal-once")
def test_the_exchange_is_stored_once_in_a_memory_that_knows_no_names_of_stores():
    kept = []

    class Plain(BaseMemory):
        async def _store(self, session_id, messages):
            kept.extend(message.text for message in messages)

        async def _load(self, session_id, limit):
            return []

    facts = Facts()

    async def once():
        with use_scope(Scope(journal=facts.open())):
            return await ReActAgent(llm=by_length("done"), memory=Plain()).async_run("go", run_id="R", session_id="s")

    for _ in range(2):  # the first one died before it could say how the run ended
        assert run_virtual(once()).answer == "done"
    assert kept == ["go", "done"]
