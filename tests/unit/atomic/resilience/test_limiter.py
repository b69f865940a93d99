"""Our own limits: kept in any minute, the nearest deadline first, refused early when the wait cannot fit."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.agents import Limits, LimitWaited, ReActAgent
from shared_libs.atomic import Resilience, Usage
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.observability.attribution import attribute
from tests.support import run_virtual


def limited(script, **limit):
    return ScriptedLLM(script, resilience=Resilience(retry={"attempts": 1}, rate_limit=limit))


async def timed(llm, log, *, timeout=None, name=None):
    response = await llm.async_chat("x", timeout=timeout)
    log.append((asyncio.get_running_loop().time() if name is None else name, response.attempts[-1].started_s))


@pytest.mark.promise("limit-kept")
def test_never_more_than_allowed_in_any_minute():
    async def main():
        llm, starts = limited([lambda _: "x"] * 200, requests_per_minute=50), []
        loop = asyncio.get_running_loop()

        async def one(delay):
            await asyncio.sleep(delay)
            await llm.async_chat("x")
            starts.append(loop.time())

        await asyncio.gather(*(one(number % 7 * 13.7) for number in range(200)))
        return starts

    starts = sorted(run_virtual(main()))
    assert len(starts) == 200
    assert max(sum(1 for other in starts if start <= other < start + 60) for start in starts) == 50


@pytest.mark.promise("limit-kept")
def test_requests_at_once_are_bounded():
    async def main():
        llm = limited([Turn(text="x", delay_s=1)] * 9, concurrency=3)
        await asyncio.gather(*(llm.async_chat("x") for _ in range(9)))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"requests_per_minute": 1}, "1 request a minute"),
        ({"tokens_per_minute": 1500, "concurrency": 9}, "1,500 tokens a minute"),
        ({"concurrency": 1, "requests_per_minute": 60}, "1 request at once"),
    ],
)
def test_who_waits_is_told_for_which_limit(limit, says):
    turns = [Turn(text="x", delay_s=1, usage=Usage(700, 400, 0, 1100))] * 3
    agent = ReActAgent(limited(turns, **limit), limits=Limits(timeout_s=200))

    async def told():
        return [event async for event in agent.async_stream("x")]

    async def main():
        await agent.async_run("x")  # which takes up the minute
        return await asyncio.gather(told(), told())

    runs = run_virtual(main())
    assert {event.limit for run in runs for event in run if isinstance(event, LimitWaited)} == {says}
    assert f"for our own limit of {says}" in attribute(runs[1]).why


@pytest.mark.promise("limit-kept")
def test_tokens_used_count_for_a_minute():
    async def main():
        llm = limited([Turn(text="x", usage=Usage(60, 40, 0, 100))] * 3, tokens_per_minute=200)
        for _ in range(3):
            await llm.async_chat("x")
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 60


@pytest.mark.promise("limit-kept")
def test_the_nearest_deadline_is_served_first():
    async def main():
        llm, log = limited(["x"] * 4, requests_per_minute=1), []
        await llm.async_chat("x")
        await asyncio.gather(*(timed(llm, log, timeout=left, name=left) for left in (1000, 130, 500)))
        return [name for name, _ in log]

    assert run_virtual(main()) == [130, 500, 1000]


@pytest.mark.promise("limit-kept")
def test_a_wait_that_cannot_fit_is_refused_at_once():
    async def main():
        llm = limited(["x", "x"], requests_per_minute=1)
        await llm.async_chat("x")
        with pytest.raises(RateLimited, match="our own limit of ") as caught:
            await llm.async_chat("x", timeout=10)
        return caught.value, asyncio.get_running_loop().time(), len(llm.requests)

    error, now, requests = run_virtual(main())
    assert (now, requests, error.attempts) == (0, 1, ())
    assert error.retry_after_s == 60


def test_a_place_given_up_goes_to_the_next():
    async def main():
        llm = limited([Turn(text="x", delay_s=10)] * 3, concurrency=1)
        first = asyncio.create_task(llm.async_chat("x"))
        await asyncio.sleep(1)
        second = asyncio.create_task(llm.async_chat("x"))
        third = asyncio.create_task(llm.async_chat("x"))
        await asyncio.sleep(1)
        second.cancel()
        first.cancel()
        await asyncio.wait([first, second, third])
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 12
