"""Where a tool's code runs: on the loop, in a thread, on a loop in a thread; what it yields, and its end there."""

from __future__ import annotations

import asyncio
import functools
import math
import threading

import pytest

from shared_libs.atomic import BaseTool, current_deadline
from shared_libs.atomic import tool as as_tool
from tests.support import run


def call(function, arguments=None, **declarations):
    made = function if isinstance(function, BaseTool) else as_tool(name="t", **declarations)(function)
    return run(made.async_run(arguments or {}))


def test_sync_code_runs_in_a_thread_and_async_code_on_the_loop():
    @as_tool
    def sync() -> bool:
        return threading.current_thread() is threading.main_thread()

    @as_tool
    async def on_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    @as_tool(isolation="loop")
    def quick() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert [call(made).content for made in (sync, on_loop, quick)] == ["false", "true", "true"]


@pytest.mark.parametrize("isolation", [None, "loop"])
def test_a_sync_function_over_an_async_one_is_awaited(isolation):
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    @functools.wraps(work)
    def retried(n: int):
        return work(n)

    assert call(retried, {"n": 1}, isolation=isolation).content == "2"
    assert call(functools.partial(work, n=4)).content == "5"


@pytest.mark.promise("time-total")
def test_what_a_thread_returned_to_be_awaited_is_under_the_same_timeout():
    async def never():
        await asyncio.sleep(math.inf)

    assert (
        call(functools.partial(lambda start: start(), never), timeout_s=0.05).content
        == "t did not finish within its 0.05 s"
    )


def test_what_a_tool_yields_is_a_list():
    def generator():
        yield from "ab"

    async def async_generator():
        yield "a"
        yield "b"

    for isolation in (None, "thread", "loop"):
        assert call(generator, isolation=isolation).content == '["a","b"]'
        assert call(async_generator, isolation=isolation).content == '["a","b"]'


def test_a_tool_that_never_stops_yielding_is_cut():
    closed = []

    def generator():
        try:
            while True:
                yield 7
        finally:
            closed.append("sync")

    async def async_generator():
        try:
            while True:
                yield 7
        finally:
            closed.append("async")

    for function in (generator, async_generator):
        result = call(function, max_observation_chars=5)
        assert result.content == "[7,7,\n[cut: 6 of 11 characters are not shown]"
    assert closed == ["sync", "async"]


@pytest.mark.promise("time-orphans")
def test_a_generator_in_a_thread_ends_when_its_call_is_given_up():
    wanted, told = threading.Event(), threading.Event()

    @as_tool(timeout_s=0.2)
    def generator() -> None:
        try:
            while True:
                wanted.wait(20)
                yield 7
        finally:
            told.set()

    async def main():
        result = await generator.async_run({})
        wanted.set()
        assert await asyncio.to_thread(told.wait, 20)
        while generator.still_running:  # noqa: ASYNC110 - the thread tells the loop in its own time
            await asyncio.sleep(0.001)
        await generator.aclose()
        return result

    result = run(main())
    assert (result.content, result.still_running) == ("generator did not finish within its 0.2 s", True)


def test_async_code_that_blocks_may_have_a_loop_in_a_thread():
    loops = []

    @as_tool(isolation="thread", timeout_s=0.3)
    async def blocking(seconds: float) -> str:
        loops.append(asyncio.get_running_loop())
        threading.Event().wait(0.01)
        await asyncio.sleep(seconds)
        return f"{0 < current_deadline().remaining() <= 0.3}"

    async def main():
        results = [await blocking.async_run({"seconds": seconds}) for seconds in (0, 100)]
        while blocking.still_running:  # noqa: ASYNC110 - the thread tells the loop in its own time
            await asyncio.sleep(0.001)
        return results, asyncio.get_running_loop() in loops

    (fine, late), here = asyncio.run(main())  # where it may block is its own affair
    assert (fine.content, here) == ("True", False)
    assert late.content == "blocking did not finish within its 0.3 s"


@pytest.mark.parametrize("seconds", [0.05, 60])
def test_one_clock_ends_async_code_in_a_thread(seconds):
    @as_tool(isolation="thread", timeout_s=0.05)
    async def obedient(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main():
        results = [await obedient.async_run({"seconds": seconds}) for _ in range(20)]
        while obedient.still_running:  # noqa: ASYNC110 - the thread tells the loop in its own time
            await asyncio.sleep(0.001)
        return results

    results = run(main())
    told = {result.content for result in results if result.is_error}
    assert told <= {"obedient did not finish within its 0.05 s"}
    assert seconds < 1 or all(result.is_error for result in results)
    assert not all(result.still_running for result in results)


def test_async_code_in_a_thread_that_cancels_itself():
    @as_tool(isolation="thread")
    async def restless() -> None:
        raise asyncio.CancelledError

    result = run(restless.async_run({}))
    assert (result.content, result.is_error) == ("restless was cancelled from within", True)
