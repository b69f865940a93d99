"""Awaiting our own code in its caller's task: its time, and who cancelled it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.in_place import within
from tests.support import run_virtual


async def in_place(body, expiry):
    with within(asyncio.get_running_loop(), expiry):
        return await body


async def closes_badly():
    try:
        await asyncio.sleep(100)
    finally:
        raise OSError("the connection does not close")


async def closes_well():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        return "an answer all the same"


@pytest.mark.promise("cancel-wins")
@pytest.mark.parametrize("body", [closes_badly, closes_well])
def test_a_cancellation_from_outside_wins_over_what_the_body_makes_of_it(body):
    async def main():
        task = asyncio.ensure_future(in_place(body(), Expiry(50.0, "late")))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 1


@pytest.mark.promise("cancel-wins")
def test_what_was_cancelled_for_its_time_leaves_its_task_as_it_was():
    async def main():
        task = asyncio.current_task()
        assert await in_place(closes_well(), Expiry(1.0, "late")) == "an answer all the same"
        with pytest.raises(DeadlineExceeded, match="late"):
            await in_place(closes_badly(), Expiry(2.0, "late"))
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(100)

    run_virtual(main())


def test_a_loop_that_is_closed_under_a_call_is_let_go_with_the_next_one():
    loop = asyncio.new_event_loop()
    task = loop.create_task(in_place(asyncio.sleep(100), Expiry(1e9, "")))
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gone = weakref.ref(loop)
    del loop, task
    run_virtual(in_place(asyncio.sleep(0), Expiry(1e9, "")))
    gc.collect()
    assert gone() is None
