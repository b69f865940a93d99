"""A run that was kept is played again: from a scenario alone, and from a cassette, with the same answer."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic.llms.dialect import forget
from shared_libs.atomic.types import ToolCall
from shared_libs.cli import main
from shared_libs.factory import load_agent
from shared_libs.observability import RunStore
from shared_libs.testing import (
    Cut,
    FaultServer,
    FieldRefused,
    Healthy,
    MalformedBody,
    RateLimited,
    ServerError,
    Silence,
    Unauthorized,
    load_scenarios,
    play,
)
from tests.support import run

pytestmark = pytest.mark.promise("runs-saved")

DEFINITION = """\
name: clerk
instructions: |
  You reckon.
llm:
  chain:
    - {{provider: openai, model: first, base_url: "{openai}", api_key: x}}
    - {{provider: anthropic, model: second, base_url: "{anthropic}", api_key: x}}
  retry: {{attempts: 2, base_s: 0.01, max_s: 0.02}}
  first_token_timeout_s: 1.5
tools: [calculator]
memory: {{url: "memory:"}}
limits: {{timeout_s: 20}}
"""


def calls(*expressions, wrong=False):
    name = "expresion" if wrong else "expression"
    made = (ToolCall(f"id-{n}", "calculator", {name: text}) for n, text in enumerate(expressions))
    return Healthy("I reckon.", tool_calls=tuple(made))


UNKNOWN = Healthy("I ask.", tool_calls=(ToolCall("id-9", "nobody", {}),))
DONE = Healthy('It is 42, and "\N{SNOWMAN}".\nTwo: lines, \x7f and \u2028.')
LIVES = {
    "a tool": {"first": [calls("6*7"), DONE]},
    "two tools, one of which fails": {"first": [calls("6*7", "6*"), DONE]},
    "a Retry-After": {"first": [RateLimited(retry_after_s=0.05), calls("6*7"), DONE]},
    "a fallback": {"first": ServerError(status=503), "second": [calls("6*7"), DONE]},
    "a refused key": {"first": Unauthorized(), "second": [DONE]},
    "silence": {"first": [Silence(), calls("6*7"), DONE]},
    "a stream that was cut": {"first": [Cut(after_bytes=400), DONE]},
    "nonsense": {"first": [MalformedBody(), DONE]},
    "tools that are not asked": {"first": [calls("6*7", wrong=True), UNKNOWN, DONE]},
    "a contest": {"first": [Silence()] * 3, "second": [calls("6*7"), DONE]},
    "no answer at all": {"first": ServerError(), "second": ServerError()},
}


async def lived(folder, scripts, *, stream=True, questions=("What is 6 * 7?",), contents=True):
    """Run the agent against servers that do as told; its runs are kept."""
    store = RunStore(f"sqlite:///{folder}/runs.db", contents=contents)
    async with FaultServer({"second": DONE} | scripts) as server:
        definition = folder / "clerk.yaml"
        hedged = "strategy: hedged\n  hedge_after_s: 0.05\n  retry:" if scripts is LIVES["a contest"] else "retry:"
        text = DEFINITION.replace("retry:", hedged).format(
            openai=server.url("openai"), anthropic=server.url("anthropic")
        )
        await asyncio.to_thread(definition.write_text, text)
        async with await asyncio.to_thread(load_agent, definition, observers=[store.observer()]) as agent:
            for number, question in enumerate(questions):
                given = {"run_id": f"r{number}", "session_id": "s" if len(questions) > 1 else None}
                if stream:
                    ended = [event async for event in agent.async_stream(question, **given)]
                    result = ended[-1].result
                else:
                    result = await agent.async_run(question, **given)
    await store.aclose()
    return result


def saved(folder, name="r0", *, cassette=True):
    """Save a run by the command line, and read what was saved."""
    files = ["--scenario", str(folder / "again.scenario.yaml"), "--agent", str(folder / "clerk.yaml")]
    files += ["--cassette", str(folder / "again.cassette.yaml")] if cassette else []
    assert main(["trace", name, "--store", f"sqlite:///{folder}/runs.db", *files]) == 0
    (scenario,) = load_scenarios(folder / "again.scenario.yaml")
    return scenario


@pytest.mark.parametrize("name", LIVES)
def test_a_run_is_saved_and_plays_again_with_the_same_end_from_a_cassette_and_from_a_script(tmp_path, name):
    result = run(lived(tmp_path, LIVES[name], stream=len(name) % 2 == 0))
    again = play(saved(tmp_path))
    assert again.differences == []
    assert (again.result.status, again.result.answer) == (result.status, result.answer)
    attempts = [[(one.model, one.outcome) for one in found.attempts] for found in (again.result, result)]
    assert sorted(attempts[0]) == sorted(attempts[1])
    assert again.result.usage == result.usage
    scripted = play(saved(tmp_path, cassette=False))
    assert scripted.differences == []
    assert (scripted.result.status, scripted.result.answer) == (result.status, result.answer)


def test_that_a_model_takes_no_tools_is_known_to_the_cassette_of_its_run(tmp_path):
    turns = (
        'Thought: I reckon.\nAction: calculator\nAction Input: {"expression": "6*7"}',
        "Thought: I know.\nFinal Answer: 42.",
    )
    run(lived(tmp_path, {"first": [FieldRefused("tools"), *map(Healthy, turns)]}))
    forget()  # another process plays it
    again = play(saved(tmp_path))
    assert (again.differences, again.result.answer) == ([], "42.")


def test_a_turn_of_a_conversation_has_what_stood_before_it(tmp_path):
    script = {"first": [calls("6*7"), Healthy("It is 42."), Healthy("Still 42.")]}
    run(lived(tmp_path, script, questions=("What is 6 * 7?", "And now?")))
    scenario = saved(tmp_path, "r1")
    assert [message.role for message in scenario.spec.session.history] == ["user", "assistant", "tool", "assistant"]
    again = play(scenario)
    assert (again.differences, again.result.answer) == ([], "Still 42.")


def test_what_was_not_kept_is_said_and_nothing_is_written(tmp_path, capsys):
    run(lived(tmp_path, LIVES["a tool"], contents=False))
    store = f"sqlite:///{tmp_path}/runs.db"
    assert main(["trace", "r0", "--store", store, "--cassette", str(tmp_path / "a.yaml")]) == 2
    assert "without contents" in capsys.readouterr().err
    assert main(["trace", "r0", "--store", store, "--scenario", str(tmp_path / "a.yaml")]) == 2
    assert "without contents" in capsys.readouterr().err
    assert not (tmp_path / "a.yaml").exists()
