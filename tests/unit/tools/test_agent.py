"""An agent as the tool of another one: one deadline, one budget, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import LLMError, Price, Usage, tool
from shared_libs.atomic.events import RunFinished, RunStarted, ToolStarted
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.tools.agent import MAX_DEPTH, AgentTool
from tests.support import run, run_virtual

ASK = Turn(calls=[("inner", {"question": "what?"})])


def agent_of(script, *tools, name="inner", observers=(), price=None, **limits):
    llm = ScriptedLLM(script, price=price)
    return ReActAgent(llm=llm, tools=tools, name=name, limits=Limits(**limits), observers=observers)


def asking(inner, *, script=(ASK, "done"), observers=(), **limits):
    return agent_of(list(script), AgentTool(inner, description="Knows."), name="outer", observers=observers, **limits)


def seen_by(outer):
    result = run_virtual(outer.async_run("go"))
    assert result.status == "answered"
    return result.steps[0].observations[0]


def test_the_answer_is_the_observation():
    seen = seen_by(asking(agent_of(["because"])))
    assert (seen.content, seen.is_error) == ("because", False)


def test_a_partial_answer_says_so():
    inner = agent_of([Turn(calls=[("nothing", {})]), "so far this"], max_steps=1)
    assert seen_by(asking(inner)).content == "This answer is partial (max_steps):\nso far this"


def test_a_failed_run_is_an_error():
    seen = seen_by(asking(agent_of([LLMError("no such key")])))
    assert seen.is_error
    assert "inner found no answer (error)" in seen.content
    assert "no such key" in seen.content


@pytest.mark.promise("time-total")
def test_the_inner_run_ends_in_time_and_its_best_answer_is_taken():
    @tool
    async def look() -> str:
        return "half of it"

    inner = agent_of([Turn(calls=[("look", {})]), Turn(text="never", delay_s=math.inf), "half"], look)
    outer = asking(inner, timeout_s=10, reserve_s=2)
    result = run_virtual(outer.async_run("go"))
    assert result.elapsed_s <= 10
    assert "half" in result.steps[0].observations[0].content
    assert result.steps[0].observations[0].content.startswith("This answer is partial (deadline)")


@pytest.mark.promise("time-orphans")
def test_what_ignores_its_cancellation_in_the_inner_run_is_on_the_outer_ledger():
    async def main():
        enough = asyncio.Event()

        @tool
        async def stubborn() -> str:
            while not enough.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await enough.wait()
            return "at last"

        inner = agent_of([Turn(calls=[("stubborn", {})]), "gave up"], stubborn, timeout_s=3)
        result = await asking(inner).async_run("go")
        enough.set()
        return result

    result = run_virtual(main())
    assert [left.tool for left in result.still_running] == ["stubborn"]
    assert result.steps[0].observations[0].content.endswith("gave up")


@pytest.mark.promise("budget-shared")
def test_what_the_inner_run_spends_counts_on_the_outer_one():
    spent = Turn(text="because", usage=Usage(input_tokens=300, output_tokens=100, total_tokens=400))
    inner = agent_of([spent], price=Price(input=1.0, output=1.0))
    outer = asking(inner, price=Price(input=0.0, output=0.0))
    result = run_virtual(outer.async_run("go"))
    assert result.usage.total_tokens == 400
    assert result.cost_usd == pytest.approx(400e-6)


@pytest.mark.promise("budget-shared")
def test_the_outer_limits_end_the_inner_run():
    @tool
    async def look() -> str:
        return "something"

    again = Turn(calls=[("look", {})], usage=Usage(input_tokens=40, output_tokens=10, total_tokens=50))
    endless = [again] * 3 + ["what I have"]
    tokens = asking(agent_of(endless, look), max_tokens=150, script=(ASK, "done"))
    result = run_virtual(tokens.async_run("go"))
    assert result.stop_reason == "budget"
    assert result.steps[0].observations[0].content == "This answer is partial (budget):\nwhat I have"

    steps = asking(agent_of(endless, look), max_steps=4)
    result = run_virtual(steps.async_run("go"))
    assert result.stop_reason == "max_steps"
    assert "what I have" in result.steps[0].observations[0].content

    calls = asking(agent_of([again, again, "what I have"], look), max_tool_calls=2)
    result = run_virtual(calls.async_run("go"))
    assert result.stop_reason == "budget"
    assert "what I have" in result.steps[0].observations[0].content


def test_the_inner_run_names_the_run_and_the_call_it_is_for():
    events = []
    run_virtual(asking(agent_of(["because"], observers=[events.append]), observers=[events.append]).async_run("go"))
    outer, inner = (event for event in events if isinstance(event, RunStarted))
    (call,) = (event for event in events if isinstance(event, ToolStarted))
    assert (outer.parent_run_id, outer.parent_call_id) == (None, None)
    assert (inner.parent_run_id, inner.parent_call_id) == (outer.run_id, call.call_id)
    assert [event.run_id for event in events if isinstance(event, RunFinished)] == [inner.run_id, outer.run_id]


def test_agents_that_ask_each_other_without_end_are_stopped():
    class Mirror:
        name = "inner"

        async def async_run(self, question):
            return await asking(self).async_run(question)

    result = run_virtual(asking(Mirror(), max_tool_calls=None, max_steps=50).async_run("go"))
    assert result.status == "answered"

    depths = []

    class Deep(Mirror):
        async def async_run(self, question):
            depths.append(question)
            return await super().async_run(question)

    run_virtual(asking(Deep(), max_steps=50).async_run("go"))
    assert len(depths) == MAX_DEPTH


@pytest.mark.promise("cancel-wins")
def test_cancelling_the_outer_run_ends_the_inner_one():
    async def main():
        events: list = []
        begun = asyncio.Event()
        inner = agent_of([Turn(text="never", delay_s=math.inf)], observers=[events.append, lambda _: begun.set()])
        task = asyncio.ensure_future(asking(inner).async_run("go"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return events[-1].result.status

    assert run(main()) == "cancelled"


def test_the_tool_opens_and_closes_its_agent():
    done = []

    class Doors:
        name = "doors.v2"

        async def async_run(self, question):
            raise NotImplementedError

        async def aopen(self):
            done.append("open")

        async def aclose(self):
            done.append("closed")

    async def main():
        async with agent_of(["x"], AgentTool(Doors(), description="d"), name="outer") as agent:
            return agent.tools[0].spec

    spec = run(main())
    assert done == ["open", "closed"]
    assert spec.name == "doors_v2"


def test_an_approval_inside_is_told_to_the_outer_model():
    @tool(needs_approval=True)
    async def send() -> str:
        """Send."""
        raise AssertionError("nobody approved it")

    inner = agent_of([Turn(calls=[("send", {})]), "never"], send)
    result = run_virtual(asking(inner).async_run("go"))
    assert result.steps[0].observations[0].content == (
        "inner could go no further: nobody can be asked inside it to approve send"
    )
