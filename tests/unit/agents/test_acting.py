"""The calls of a turn: whatever a model asks for and a tool does, the run goes on and its result can be sent."""

from __future__ import annotations

import json

import msgspec
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import MisuseError, ToolCall, ToolError, tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run


@tool
async def echo(text: str) -> str:
    return text


def outcome_of(turn, *tools, native=True):
    model = ScriptedLLM([turn, "Final Answer: done"], native_tools=native)
    result = run(ReActAgent(llm=model, tools=tools).async_run("go"))
    assert result.status == "answered"
    json.dumps(result.to_dict()).encode()
    msgspec.json.encode(result)
    return result.steps[0].actions, result.steps[0].observations


def ending_in(outcome):
    @tool
    async def t() -> str:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    _, (observation,) = outcome_of(Turn(calls=[("t", {})]), t)
    return observation


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize(
    ("outcome", "content"),
    [
        (MisuseError("an agent inside was asked nothing"), "MisuseError: an agent inside was asked nothing"),
        (ToolError("no such table"), "no such table"),
        (OSError("caf\udce9"), "OSError: caf?"),
        ("caf\udce9", "caf?"),
        (float("nan"), "null"),
        ({(1, 2): b"x"}, '{"(1, 2)":"x"}'),
    ],
)
def test_no_outcome_of_a_tool_ends_the_run(outcome, content):
    observation = ending_in(outcome)
    assert observation.content == content
    assert observation.is_error == isinstance(outcome, Exception)


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ToolCall("1", "ehco", {}), "There is no tool 'ehco'. The tools are: echo. Did you mean echo?"),
        (ToolCall("1", "", {}), "There is no tool ''. The tools are: echo."),
        (ToolCall("1", "x" * 100_000, {}), f"There is no tool '{'x' * 199}. The tools are: echo."),
        (ToolCall.from_json("1", "echo", '{"text": '), 'The arguments of echo are not a JSON object: {"text": '),
        (ToolCall.from_json("1", "echo", "[" * 9999), "The arguments of echo are not a JSON object: " + "[" * 500),
        (ToolCall("1", "echo", {"text": None}), "Invalid arguments for echo: text: Input should be a valid string"),
    ],
)
def test_no_call_of_a_model_ends_the_run(call, said):
    _, (observation,) = outcome_of(Turn(calls=[call]), echo)
    assert observation.content.startswith(said)
    assert observation.is_error


@pytest.mark.promise("run-returns", "react-parse")
@pytest.mark.parametrize(
    "given", ["{'text': ...}", "{'text': {1, 2}}", "{[1]: 2}", "{'text': " + "[" * 9999, "{'text': b'x'}"]
)
def test_no_text_of_a_model_ends_the_run(given):
    (action,), (observation,) = outcome_of(f"Action: echo\nAction Input: {given}", echo, native=False)
    assert action.tool == "echo"
    assert observation.is_error or observation.content
