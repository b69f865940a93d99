"""The rehearsal: recorded decisions, live data, and never a doubt about what it is."""

from __future__ import annotations

import json

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import InProcessMemory, MisuseError, tool
from shared_libs.atomic.llms import RehearsalLLM
from tests.support import run

WORST = "Which carrier had the worst average departure delay in 2013?"


def table(**row):
    return json.dumps({"columns": list(row), "rows": [list(row.values())] * 3})


@tool(name="sql")
async def other_data(query: str = "") -> str:
    """Stand in with other data."""
    return table(name="Other Air", carrier="ZZ", delay=99.9, flights=7, month=2) if query else "flights(...)"


def rehearse(*questions, tools=(other_data,), script="flights"):
    agent = ReActAgent(llm=RehearsalLLM(script), tools=tools, memory=InProcessMemory())

    async def main():
        return [await agent.async_run(question, session_id="s") for question in questions]

    return run(main())


def test_the_answer_is_formed_from_what_the_tools_return():
    (result,) = rehearse(WORST)
    assert result.status == "answered"
    assert result.answer.startswith("Other Air (ZZ) had the worst average departure delay in 2013: 99.9 minutes")
    assert result.answer.endswith("(Rehearsal: recorded decisions on live data; no model was asked.)")
    assert (result.attempts[0].provider, result.cost_usd) == ("rehearsal", 0.0)


@pytest.mark.parametrize("asked", ["  which CARRIER had the worst average departure delay in 2013 ", WORST])
def test_case_and_punctuation_do_not_count(asked):
    assert rehearse(asked)[0].answer.startswith("Other Air")


def test_a_follow_up_uses_the_turn_before():
    _, second = rehearse(WORST, "How does its delay change over the year?")
    assert "carrier = 'ZZ'" in second.steps[0].actions[0].input["query"]
    assert second.answer.startswith("For Other Air the worst month was 2")


def test_a_follow_up_without_the_turn_before_says_so():
    (result,) = rehearse("How does its delay change over the year?")
    assert f'needs the one before it in the same session: "{WORST}"' in result.answer


def test_any_other_question_is_told_what_can_be_rehearsed_and_how_to_get_a_model():
    (result,) = rehearse("What is the meaning of life?")
    assert f"- {WORST}" in result.answer
    assert "OPENAI_API_KEY" in result.answer
    assert "Rehearsal" in result.answer


def test_an_observation_that_is_an_error_is_told():
    @tool(name="sql")
    async def broken(query: str = "") -> str:
        raise ValueError("no such table: flights")

    question = "Which destination is the farthest, and how long does it take to fly there?"
    (result,) = rehearse(question, tools=(broken,))
    assert "cannot go on: ValueError: no such table: flights" in result.answer


def test_a_missing_tool_is_told():
    @tool
    async def other() -> str:
        return "x"

    assert "needs the tool sql" in rehearse(WORST, tools=(other,))[0].answer


def test_an_unknown_script_is_misuse():
    with pytest.raises(MisuseError, match="allowed are clock, documents, flights, hello"):
        RehearsalLLM("nope")
