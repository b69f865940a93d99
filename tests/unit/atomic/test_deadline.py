"""Deadlines are only narrowed, budgets only spent."""

from __future__ import annotations

import asyncio
import contextlib
import math

import pytest

from shared_libs.atomic import Budget, Deadline, MisuseError, Usage, current_deadline
from shared_libs.atomic.deadline import NEVER
from shared_libs.atomic.scope import use_deadline
from tests.support import run_virtual


def test_a_deadline_is_a_moment_of_the_loop():
    async def main():
        await asyncio.sleep(10)
        deadline = Deadline.after(5)
        seen = [deadline.at, deadline.remaining(), deadline.expired]
        await asyncio.sleep(5)
        return [*seen, deadline.remaining(), deadline.expired, NEVER.remaining(), Deadline.after(None)]

    assert run_virtual(main()) == [15, 5, False, 0, True, math.inf, NEVER]


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_time_that_is_none_is_misuse(seconds):
    with pytest.raises(MisuseError, match="positive"):
        Deadline.after(seconds)


def test_outside_a_loop_there_is_no_clock():
    with pytest.raises(MisuseError, match="no event loop of asyncio"):
        Deadline.after(1)


def test_a_deadline_is_only_ever_narrowed():
    async def main():
        deadline = Deadline.after(5)
        assert deadline.narrowed(None) is deadline
        assert deadline.narrowed(3).at == 3
        assert deadline.narrowed(9).at == 5
        assert deadline.earlier_by(1).at == 4
        with use_deadline(deadline):
            with use_deadline(Deadline.after(9)):
                assert current_deadline() == deadline
            with use_deadline(Deadline.after(2)):
                assert current_deadline().at == 2
            assert current_deadline() == deadline
        assert current_deadline() == NEVER

    run_virtual(main())


@pytest.mark.promise("limits-exact")
def test_a_budget_grants_exactly_what_is_left():
    budget = Budget(max_tool_calls=5)
    assert [budget.grant_tool_calls(wanted) for wanted in (2, 3)] == [2, 3]
    assert budget.exhausted() is None
    assert budget.grant_tool_calls(2) == 0
    assert budget.exhausted() == "all 5 tool calls are used"
    assert Budget().grant_tool_calls(1000) == 1000
    assert Budget(max_tool_calls=0).grant_tool_calls(1) == 0


@pytest.mark.promise("limits-exact")
def test_a_budget_is_exhausted_when_its_last_token_or_dollar_is_used():
    budget = Budget(max_tokens=100, max_cost_usd=1.0)
    budget.charge(Usage(50, 49, 0, 99), None)
    assert (budget.exhausted(), budget.cost_usd) == (None, None)
    budget.charge(Usage(1, 0, 0, 1), 0.5)
    assert budget.exhausted() == "100 tokens used of 100"
    assert (budget.cost_usd, budget.spent_usd) == (None, 0.5)  # a sum with an unknown part is unknown
    rich = Budget(max_cost_usd=1.0)
    rich.charge(Usage(), 0.5)
    assert rich.exhausted() is None
    rich.charge(Usage(), 0.5)
    assert rich.exhausted() == "1.0000 US dollars spent of 1.0"


@pytest.mark.promise("limits-exact")
def test_calls_under_way_on_a_budget_that_goes_on_hold_what_a_step_took_before_the_pause():
    """Of many sub-agents of a resumed run not all may ask before the first has answered."""
    before = Budget(max_tokens=1000)
    for _ in range(2):
        before.take_step()
        before.charge(Usage(150, 50), None)
    resumed = Budget(max_tokens=1000)
    resumed.go_on_from(before.so_far())
    with contextlib.ExitStack() as calls:
        asked = 0
        while resumed.exhausted() is None:
            calls.enter_context(resumed.reserved())
            asked += 1
        assert asked == 3
    assert resumed.exhausted() is None
