"""The loop and its limits: steps, calls, tokens, cost, repetition."""

from __future__ import annotations

import pytest

from shared_libs.agents import Limits
from shared_libs.atomic import MisuseError, Price, Usage, tool
from shared_libs.atomic.events import (
    LimitReached,
)
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run
from tests.unit.agents.cast import add, agent, call


@pytest.mark.promise("limits-exact")
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_max_steps_counts_the_turns_with_tools(steps):
    script = [call("add", a=number, b=1) for number in range(steps)] + ["enough"]

    async def main():
        async with ScriptedLLM(script) as model:
            return await agent(model, add, limits=Limits(max_steps=steps)).async_run("go")

    result = run(main())
    assert (result.status, result.stop_reason, result.answer) == ("partial", "max_steps", "enough")
    assert len(result.steps) == steps


@pytest.mark.promise("limits-exact")
def test_max_tool_calls_refuses_what_is_too_much_and_no_more():
    turn = Turn(calls=[("add", {"a": 1, "b": 1}), ("add", {"a": 2, "b": 2}), ("add", {"a": 3, "b": 3})])
    result = run(agent([turn, "enough"], add, limits=Limits(max_tool_calls=2)).async_run("go"))
    assert (result.status, result.stop_reason, result.answer) == ("partial", "budget", "enough")
    assert [obs.content for obs in result.steps[0].observations] == ["2", "4", "[not run: all 2 tool calls are used]"]


def test_using_exactly_the_allowed_tool_calls_is_no_limit_reached():
    result = run(agent([call("add", a=1, b=1), "two"], add, limits=Limits(max_tool_calls=1)).async_run("go"))
    assert (result.status, result.answer) == ("answered", "two")


@pytest.mark.promise("limits-exact")
def test_tokens_and_cost_end_the_exploration():
    turn = Turn(calls=[("add", {"a": 1, "b": 1})], usage=Usage(900, 100, 0, 1000))
    by_tokens = run(agent([turn, "enough"], add, limits=Limits(max_tokens=1000)).async_run("go"))
    assert (by_tokens.stop_reason, by_tokens.answer) == ("budget", "enough")
    last = Turn(text="enough", usage=Usage(100, 10, 0, 110))
    priced = ScriptedLLM([turn, last], price=Price(input=10.0, output=100.0))
    by_cost = run(agent(priced, add, limits=Limits(max_cost_usd=0.01)).async_run("go"))
    assert (by_cost.stop_reason, by_cost.answer) == ("budget", "enough")
    assert by_cost.cost_usd == pytest.approx(0.021)
    unpriced = run(agent([turn, "done"], add, limits=Limits(max_cost_usd=0.01)).async_run("go"))
    assert (unpriced.status, unpriced.cost_usd) == ("answered", None)


@pytest.mark.parametrize("amount", [10**400, 2**63, float("nan"), -1, True, "5"])
def test_an_amount_that_no_clock_counts_is_refused(amount):
    for key in ("timeout_s", "reserve_s", "max_steps", "max_tokens", "max_cost_usd"):
        with pytest.raises(MisuseError, match=f"limits.{key}"):
            Limits(**{key: amount})
    with pytest.raises(MisuseError, match="timeout is"):
        run(agent(["x"]).async_run("go", timeout=amount))


@pytest.mark.promise("loop-guard")
def test_equal_calls_with_equal_observations_are_told_to_the_model_and_then_stopped():
    model = ScriptedLLM([call("add", a=1, b=1)] * 5 + ["two"])
    result = run(agent(model, add, limits=Limits(max_repeats=5)).async_run("go"))
    assert (result.status, result.stop_reason, result.answer) == ("partial", "loop", "two")
    notes = ["3 times running" in request[-1].text for request in model.requests[:5]]
    assert notes == [False, False, False, True, False]
    assert "4 times running" in model.requests[4][-1].text


@pytest.mark.promise("loop-guard")
def test_alternating_calls_are_a_loop_too():
    model = ScriptedLLM([call("add", a=1, b=1), call("add", a=2, b=2)] * 3 + ["enough"])
    result = run(agent(model, add, limits=Limits(max_repeats=3)).async_run("go"))
    assert result.stop_reason == "loop"
    assert len(result.steps) == 6


def test_equal_calls_whose_observation_changes_are_legitimate():
    count = iter(range(100))

    @tool
    async def poll() -> str:
        return f"{next(count)} of 8"

    result = run(agent([call("poll")] * 8 + ["ready"], poll, limits=Limits(max_repeats=3)).async_run("go"))
    assert (result.status, result.answer) == ("answered", "ready")


def test_an_answer_cut_at_the_models_own_limit_is_partial():
    from shared_libs.atomic import LLMResponse

    result = run(agent([LLMResponse(text="It is rou", finish_reason="length")]).async_run("go"))
    assert (result.status, result.stop_reason, result.answer) == ("partial", "budget", "It is rou")


def test_a_limit_is_an_event():
    async def main():
        return [
            event
            async for event in agent([call("add", a=1, b=1), "x"], add, limits=Limits(max_steps=1)).async_stream("go")
        ]

    limit = next(event for event in run(main()) if isinstance(event, LimitReached))
    assert (limit.stop_reason, limit.why) == ("max_steps", "all 1 steps are used")
