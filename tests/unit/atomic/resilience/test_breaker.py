"""The breaker, the backoff and the retry budget at their edges; on virtual time."""

from __future__ import annotations

import asyncio
import math

import pytest

from shared_libs.atomic import Deadline, LLMError, Resilience
from shared_libs.atomic.errors import BadRequest, CircuitOpen, ProviderUnavailable
from shared_libs.atomic.events import BreakerChanged, RetryScheduled
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.resilience.health import RETRY_RESERVE, CircuitBreaker, RetryBudget
from shared_libs.atomic.resilience.policy import Breaker
from shared_libs.atomic.scope import Scope, use_deadline, use_scope
from tests.support import run_virtual

DOWN = ProviderUnavailable("down")
TWICE = Breaker(failures=2, reset_s=30)


def llm(script, *fallbacks, attempts=1, failures=2, **policy):
    resilience = Resilience(retry={"attempts": attempts}, breaker={"failures": failures, "reset_s": 30}, **policy)
    return ScriptedLLM(script, model="a", fallbacks=fallbacks, resilience=resilience)


def now():
    return asyncio.get_running_loop().time()


async def ask(model, times=1):
    outcomes = []
    for _ in range(times):
        try:
            outcomes.append((await model.async_chat("x")).text)
        except LLMError as error:
            outcomes.append(error.kind)
    return outcomes


def test_each_wait_is_drawn_between_zero_and_its_bound():
    async def main():
        waits = []
        scope = Scope(emit=lambda event: waits.append(event.wait_s) if isinstance(event, RetryScheduled) else None)
        with use_scope(scope):
            for _ in range(30):
                await ask(llm([DOWN] * 5, attempts=5, failures=99))
        return [waits[number::4] for number in range(4)]

    for bound, waits in zip([1, 2, 4, 8], run_virtual(main()), strict=True):
        assert 0 <= min(waits) < bound / 2 < max(waits) <= bound
        assert len(set(waits)) == 30


def test_the_longest_wait_is_capped():
    async def main():
        await ask(llm([DOWN] * 40, attempts=20, failures=99))
        return now()

    assert run_virtual(main()) <= 1 + 2 + 4 + 16 * 8


@pytest.mark.promise("breaker-probe")
def test_an_open_circuit_is_not_waited_for_while_a_fallback_is_left():
    async def main():
        model = llm([DOWN] * 9, ScriptedLLM(["b"] * 9, model="b"), attempts=5)
        first = await ask(model)
        began = now()
        return first + await ask(model, 3), now() - began, len(model.requests)

    answers, took, asked = run_virtual(main())
    assert (answers, took, asked) == (["b"] * 4, 0, 2)


def test_an_open_circuit_alone_is_an_error_that_says_when_it_is_probed():
    async def main():
        model = llm([DOWN] * 9)
        await ask(model, 2)
        await asyncio.sleep(10)
        with pytest.raises(CircuitOpen, match="probed again in 20 s") as caught:
            await model.async_chat("x")
        return caught.value.retry_after_s, caught.value.attempts, len(model.requests)

    assert run_virtual(main()) == (20, (), 2)


@pytest.mark.promise("breaker-probe")
def test_of_many_calls_at_once_one_is_the_probe():
    async def main():
        model = llm([DOWN, DOWN, Turn(text="well", delay_s=5), "more"], ScriptedLLM(["b"] * 19, model="b"))
        await ask(model, 2)
        await asyncio.sleep(31)
        answers = [asyncio.create_task(ask(model)) for _ in range(18)]
        await asyncio.sleep(1)
        asked = len(model.requests)
        got = [(await answer)[0] for answer in answers]
        return asked, sorted(got), await ask(model)

    assert run_virtual(main()) == (3, ["b"] * 17 + ["well"], ["more"])


@pytest.mark.promise("breaker-probe")
def test_a_cancelled_call_from_before_takes_no_place_from_the_probe():
    async def main():
        model = llm([Turn(delay_s=999), DOWN, DOWN, Turn(text="well", delay_s=20)], attempt_timeout_s=9999)
        early = asyncio.create_task(ask(model))
        await asyncio.sleep(0.1)
        await ask(model, 2)
        await asyncio.sleep(31)
        probe = asyncio.create_task(ask(model))
        await asyncio.sleep(1)
        early.cancel()
        await asyncio.wait([early])
        return await ask(model), len(model.requests), await probe, model.health.breaker.state

    assert run_virtual(main()) == (["circuit_open"], 4, ["well"], "closed")


def test_a_call_without_any_time_says_nothing_of_the_model():
    async def main():
        model = llm(["x"])
        await asyncio.sleep(5)
        with use_deadline(Deadline(1.0)):
            outcomes = await ask(model, 5)
        return outcomes, model.health.breaker.state, len(model.requests), await ask(model)

    assert run_virtual(main()) == (["timeout"] * 5, "closed", 0, ["x"])


def test_a_refusal_of_the_request_says_nothing_against_the_model():
    async def main():
        model = llm([BadRequest("no")] * 5 + ["x"])
        return await ask(model, 6)

    assert run_virtual(main()) == ["bad_request"] * 5 + ["x"]


def test_the_states_are_events():
    async def main():
        states = []
        scope = Scope(emit=lambda event: states.append(event.state) if isinstance(event, BreakerChanged) else None)
        with use_scope(scope):
            model = llm([DOWN, DOWN, DOWN, "well"])
            await ask(model, 2)
            for _ in range(2):
                await asyncio.sleep(31)
                await ask(model)
        return states

    assert run_virtual(main()) == ["open", "half_open", "open", "half_open", "closed"]


def test_a_clock_that_jumps_back_belongs_to_another_loop():
    breaker = CircuitBreaker()
    for _ in range(2):
        breaker.failed(TWICE, 1000.0)
    assert breaker.admit(TWICE, 1010.0) == 20
    assert breaker.admit(TWICE, 3.0) == 0
    assert breaker.state == "closed"


def test_failures_are_counted_among_the_last_twice_as_many():
    breaker = CircuitBreaker()
    breaker.failed(TWICE, 0)
    for _ in range(4):
        breaker.succeeded(TWICE)
    breaker.failed(TWICE, 0)
    assert breaker.state == "closed"
    breaker.failed(TWICE, 0)
    assert breaker.state == "open"


def test_a_storm_of_retries_is_stopped_and_the_budget_fills_again():
    budget = RetryBudget()
    assert sum(budget.spend(0.0) for _ in range(100)) == RETRY_RESERVE
    budget.earn()
    budget.earn()
    assert [budget.spend(0.0) for _ in range(2)] == [True, False]
    assert [budget.spend(2.0) for _ in range(3)] == [True, True, False]
    assert sum(budget.spend(1e9) for _ in range(100)) == RETRY_RESERVE


def test_a_retry_budget_does_not_starve_when_the_clock_jumps_back():
    budget = RetryBudget()
    assert sum(budget.spend(1e6) for _ in range(100)) == RETRY_RESERVE
    assert not budget.spend(0.0)
    assert budget.spend(1.0)


def test_a_cancelled_attempt_is_booked():
    async def main():
        rows = []
        scope = Scope(emit=lambda event: rows.append(getattr(event, "attempt", None)))
        with use_scope(scope):
            task = asyncio.create_task(ask(llm([Turn(delay_s=math.inf)])))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [(row.outcome, row.ended_s) for row in rows if row]

    assert run_virtual(main()) == [("cancelled", 1)]


@pytest.mark.parametrize("seconds", [1.24, 0.1, 0.3, 1.1, 2.7])
def test_the_end_of_the_callers_time_is_no_failure_of_the_model_whatever_a_sum_is_rounded_to(seconds):
    async def main():
        model = llm([Turn(text="late", delay_s=9)], failures=1)
        await asyncio.sleep(0.36)
        try:
            await model.async_chat("x", timeout=seconds)
        except LLMError as error:
            return error.kind, model.health.breaker.state

    assert run_virtual(main()) == ("timeout", "closed")


def test_a_success_of_before_the_circuit_opened_closes_it_and_tells():
    told = []
    scope = Scope(emit=lambda event: told.append(event.state) if isinstance(event, BreakerChanged) else None)

    async def main():
        model = llm([Turn(text="slow", delay_s=5), DOWN], failures=1)
        with use_scope(scope):
            slow = asyncio.create_task(ask(model))
            await asyncio.sleep(1)
            return await ask(model), await slow, model.health.breaker.state

    assert run_virtual(main()) == (["unavailable"], ["slow"], "closed")
    assert told == ["open", "closed"]
