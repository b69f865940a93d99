"""What the process knows of a model: by key, over several loops and threads, and never for ever."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest

from shared_libs.atomic import LLMError, Resilience, Usage
from shared_libs.atomic.deadline import NEVER, Deadline
from shared_libs.atomic.errors import CircuitOpen, RateLimited
from shared_libs.atomic.llms import OpenAILLM, ScriptedLLM, Turn
from shared_libs.atomic.resilience import health
from shared_libs.atomic.resilience.health import CircuitBreaker, health_of
from shared_libs.atomic.resilience.limiter import Limiter
from shared_libs.atomic.resilience.policy import Breaker, RateLimit
from tests.support import run_virtual

ONCE = {"attempts": 1}


@pytest.mark.promise("health-own")
def test_the_quota_of_one_key_does_not_close_the_model_to_another():
    poor, rich = (OpenAILLM("m", base_url="http://127.0.0.1:1/v1", api_key=key) for key in ("poor", "rich"))
    assert poor.health is not rich.health
    assert poor.health is OpenAILLM("m", base_url="http://127.0.0.1:1/v1", api_key="poor").health


@pytest.mark.promise("health-own")
def test_a_model_that_tells_when_to_come_again_is_not_ill():
    async def main():
        llm = ScriptedLLM(
            [RateLimited("slow down", retry_after_s=60)] * 9 + ["well"],
            resilience=Resilience(retry=ONCE, breaker={"failures": 2}),
        )
        for _ in range(9):
            with pytest.raises(RateLimited):
                await llm.async_chat("x")
        return (await llm.async_chat("x")).text, llm.health.breaker.state

    assert run_virtual(main()) == ("well", "closed")


def test_what_is_known_of_models_has_a_bound(monkeypatch):
    monkeypatch.setattr(health, "MAX_KNOWN", 10)
    monkeypatch.setattr(health, "_known", type(health._known)())
    ill = health_of("p", "address", "ill")
    for _ in range(5):
        ill.breaker.failed(Breaker(), 1.0)
    for number in range(50):
        health_of("p", f"http://host-{number}", "m")
    assert len(health._known) == 10
    assert health_of("p", "address", "ill") is ill  # what is known of an ill model is kept


def test_what_is_known_has_a_bound_where_every_model_is_ill(monkeypatch):
    monkeypatch.setattr(health, "MAX_KNOWN", 10)
    monkeypatch.setattr(health, "_known", type(health._known)())
    for number in range(200):
        ill = health_of("p", f"http://host-{number}", "m")
        for _ in range(5):
            ill.breaker.failed(Breaker(), 1.0)
    assert len(health._known) == 10
    assert health_of("p", "http://host-199", "m") is ill


@pytest.mark.promise("limit-kept")
@pytest.mark.parametrize("strategy", ["hedged", "race"])
def test_models_that_are_asked_at_once_reserve_their_tokens_as_one_alone_does(strategy):
    async def main():
        other = ScriptedLLM([Turn(text="y", delay_s=300)] * 9, model="other")
        answer = Turn(text="x", usage=Usage(60, 40), delay_s=1)
        policy = Resilience(retry=ONCE, strategy=strategy, rate_limit={"tokens_per_minute": 1000})
        llm = ScriptedLLM([answer] * 9, resilience=policy, fallbacks=[other])
        # nothing is known yet of what is usual: a request of about 900 tokens leaves no room for another
        calls = [asyncio.ensure_future(llm.async_chat("word " * 720, timeout=100)) for _ in range(3)]
        await asyncio.sleep(0.5)
        asked = len(llm.requests)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        return asked

    assert run_virtual(main()) == 1


@pytest.mark.promise("health-own")
def test_two_loops_in_two_threads_share_a_limit_and_both_are_served():
    llm = ScriptedLLM(
        [Turn(text="x", delay_s=0.02)] * 40, resilience=Resilience(retry=ONCE, rate_limit={"concurrency": 1})
    )
    served, failed = [], []

    async def some(name):
        served.extend([(name, (await llm.async_chat("x", timeout=20)).text) for _ in range(20)])

    def thread(name):
        try:
            asyncio.run(some(name), debug=True)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=thread, args=(name,)) for name in "ab"]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert failed == []
    assert len(served) == 40


@pytest.mark.promise("breaker-probe")
def test_a_probe_nobody_has_heard_of_is_given_up():
    breaker, policy = CircuitBreaker(), Breaker(failures=1, reset_s=30)
    breaker.failed(policy, 0.0)
    assert breaker.admit(policy, 30.0) == 0.0
    assert 0 < breaker.admit(policy, 100.0) < 1  # it may be slow
    assert breaker.admit(policy, 30.0 + health.LONGEST_PROBE_S + 1) == 0.0
    assert breaker.state == "half_open"


@pytest.mark.promise("breaker-probe")
def test_a_loop_that_is_closed_under_a_probe_does_not_close_the_model_for_ever():
    llm = ScriptedLLM(
        [LLMError("no", retryable=True), Turn(text="never", delay_s=1000), "well"],
        resilience=Resilience(
            retry=ONCE, breaker={"failures": 1, "reset_s": 0.01}, rate_limit={"requests_per_minute": 100}
        ),
    )
    loop = asyncio.new_event_loop()
    with pytest.raises(LLMError):
        loop.run_until_complete(llm.async_chat("x"))

    async def probe():
        await asyncio.sleep(0.02)
        task = asyncio.ensure_future(llm.async_chat("x"))
        await asyncio.sleep(0.02)
        return task

    task = loop.run_until_complete(probe())
    loop.close()  # with the probe pending, as notebooks and some test runners do
    task._log_destroy_pending = False
    del task
    gc.collect()

    async def again():
        while True:
            try:
                return (await llm.async_chat("x")).text
            except CircuitOpen:
                await asyncio.sleep(0.01)

    assert asyncio.run(again()) == "well"


@pytest.mark.promise("limit-kept")
@pytest.mark.parametrize("limit", [RateLimit(concurrency=1), RateLimit(tokens_per_minute=100)])
def test_a_loop_that_is_closed_under_a_call_keeps_no_place(limit):
    limiter, loop = Limiter(), asyncio.new_event_loop()
    given = loop.run_until_complete(limiter.enter(limit, NEVER, 100))
    loop.close()

    async def again():
        place = await limiter.enter(limit, Deadline.after(1), 100)
        limiter.leave(given, 0)  # what was closed is freed late
        with pytest.raises(RateLimited):
            await limiter.enter(limit, Deadline.after(1), 100)
        limiter.leave(place, 0)
        await limiter.enter(limit, Deadline.after(1), 100)

    run_virtual(again())


@pytest.mark.promise("limit-kept")
def test_a_burst_is_bounded_by_the_tokens_its_answers_will_take():
    async def main():
        starts = []
        answer = Turn(text="x", usage=Usage(60, 40), delay_s=1)
        llm = ScriptedLLM([answer] * 30, resilience=Resilience(retry=ONCE, rate_limit={"tokens_per_minute": 1000}))
        await llm.async_chat("x")

        async def one():
            response = await llm.async_chat("x", timeout=600)
            starts.append(asyncio.get_running_loop().time() - 1)
            return response

        await asyncio.gather(*(one() for _ in range(29)))
        return sorted(starts)

    starts = run_virtual(main())
    assert sum(1 for start in starts if start < 60) <= 10  # of 1,000 tokens, 100 each, one request went before


@pytest.mark.promise("work-bounded")
def test_a_limit_costs_the_same_however_many_calls_are_in_its_window():
    async def steps(calls):
        limiter, limit = Limiter(), RateLimit(requests_per_minute=10**6, tokens_per_minute=10**9)
        for _ in range(calls):
            limiter.leave(await limiter.enter(limit, NEVER), 10)
        looked = []
        import sys

        def count(frame, event, argument):
            looked.append(1)
            return count

        sys.settrace(count)
        try:
            limiter.leave(limiter.take(limit), 10)
        finally:
            sys.settrace(None)
        return len(looked)

    few, many = run_virtual(steps(100)), run_virtual(steps(10_000))
    assert many <= few + 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: a fork beside threads, which is what is tested
def test_a_lock_that_was_held_at_a_fork_holds_nobody_in_the_child():
    limiter, limit = Limiter(), RateLimit(concurrency=1)
    limiter._lock.acquire()  # as another thread may
    child = os.fork()
    if child == 0:
        done = threading.Thread(target=lambda: limiter.leave(limiter.take(limit), 0), daemon=True)
        done.start()
        done.join(10)
        os._exit(1 if done.is_alive() else 0)
    limiter._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
