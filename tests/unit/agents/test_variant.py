"""An agent as one request wants it: tools of the caller, whose calls pause the run."""

from __future__ import annotations

import pytest

from shared_libs.agents import Decision, ReActAgent
from shared_libs.agents.variant import ClientTools, variant
from shared_libs.atomic import tool
from shared_libs.atomic.events import ToolFinished
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import Message, ToolCall, ToolResult, ToolSpec
from tests.support import is_valid_history, run

THEIRS = ToolSpec("weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


@tool
async def weather() -> str:
    """The agent's own weather."""
    return "ours"


@pytest.mark.promise("face-client-tools")
def test_a_caller_s_call_pauses_and_its_result_goes_on_as_what_was_observed():
    async def main():
        seen = []
        llm = ScriptedLLM([Turn(calls=[("weather", {"city": 3})]), "It rains."])
        agent = ReActAgent(llm=llm, instructions="Be brief.")
        asked = variant(agent, client_tools=ClientTools([THEIRS]), instructions="In French.", observers=[seen.append])
        paused = await asked.async_run("How is it?")
        [call] = paused.pending
        decision = Decision(approved=True, result=ToolResult("rain", is_error=True))
        result = await asked.async_resume(paused.state, {call.call_id: decision})
        assert (result.answer, result.steps[0].observations[0].content) == ("It rains.", "rain")
        assert result.steps[0].observations[0].is_error
        assert [event.content for event in seen if isinstance(event, ToolFinished)] == ["rain"]
        assert "In French." in llm.requests[0][0].text
        assert (agent.tools, agent.observers) == ((), ())

    run(main())


@pytest.mark.promise("face-client-tools")
def test_the_agent_s_own_tool_wins():
    async def main():
        llm = ScriptedLLM([Turn(calls=[("weather", {})]), "Fine."])
        asked = variant(ReActAgent(llm=llm, tools=[weather]), client_tools=ClientTools([THEIRS]))
        result = await asked.async_run("How is it?")
        assert result.steps[0].observations[0].content == "ours"
        assert [spec.description for spec in llm.tools[0]] == ["The agent's own weather."]

    run(main())


@pytest.mark.promise("face-client-tools")
def test_a_run_may_begin_behind_calls_that_have_been_made():
    async def main():
        call = ToolCall("call_1_1", "weather", {})
        llm = ScriptedLLM([Turn(calls=[ToolCall("call_1_1", "weather")]), "Fine."])
        agent = ReActAgent(llm=llm, tools=[weather])
        said = [
            Message("user", "Hi."),
            Message("assistant", "Hello."),
            Message("user", "How is it?"),
            Message("assistant", tool_calls=(call,)),
            Message("tool", "rain", tool_call_id="call_1_1"),
        ]
        result = await agent.async_run(said)
        assert result.answer == "Fine."
        assert all(is_valid_history(request[1:]) for request in llm.requests)
        assert result.steps[0].actions[0].call_id != "call_1_1"

    run(main())
