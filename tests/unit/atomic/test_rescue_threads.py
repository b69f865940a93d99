"""A loop that runs in another thread than the main one: what holds it is interrupted there, where Python code does."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextvars import Context, ContextVar

import pytest

from shared_libs.atomic import tool
from shared_libs.atomic.rescue import SIGNAL
from shared_libs.atomic.thread_context import ThreadContext
from tests.unit.atomic.blocking import (
    ENDED,
    LIMIT_S,
    LOOPS,
    OVER,
    WAIT_S,
    blocking_by,
    on,
    run_with,
    spins,
    told,
)

pytestmark = pytest.mark.skipif(SIGNAL is None, reason="the system has no such signal")


@pytest.mark.promise("loop-rescued")
def test_a_loop_in_another_thread_is_rescued_from_python_code():
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(run_with(blocking_by(spins)))))
    thread.start()
    thread.join(2 * WAIT_S)
    assert told(results[0]) == [OVER]


def spins_on():
    spins()
    ENDED.append(spins_on)


class SpinsAsItGoes:
    def __del__(self):
        spins_on()


async def leaves_a_callback():
    asyncio.get_running_loop().call_soon(spins_on)
    await asyncio.sleep(WAIT_S)


async def is_called_when_done():
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: spins_on())
    future.set_result(None)
    await asyncio.sleep(WAIT_S)


async def has_a_thread_await_it():
    async def there():
        spins_on()

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(there(), loop).result(WAIT_S))


async def fails_with_what_spins():
    going = SpinsAsItGoes()
    raise ValueError(type(going).__name__)


@pytest.mark.promise("loop-rescued")
@pytest.mark.filterwarnings("ignore:Exception ignored (in|while)")
@pytest.mark.parametrize("new_loop", LOOPS)
def test_what_is_no_task_of_a_loop_in_another_thread_is_interrupted_too(new_loop):
    ENDED.clear()
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever)  # for uvloop no frame says here what it calls
    thread.start()
    for leaves in (leaves_a_callback, is_called_when_done, has_a_thread_await_it, fails_with_what_spins):
        run = run_with(tool(leaves), timeout=LIMIT_S)
        result = asyncio.run_coroutine_threadsafe(run, loop).result(2 * WAIT_S)
        assert (result.stop_reason, ENDED) == ("deadline", [])
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("new_loop", LOOPS)
def test_the_context_of_another_thread_is_that_of_what_its_loop_calls(new_loop):
    mark, seen = ContextVar("mark"), []

    def look():
        mark.set("a callback")
        here = ThreadContext()
        seeing = threading.Thread(target=lambda: seen.append(here.get().get(mark)))
        seeing.start()
        seeing.join()

    async def main():
        mark.set("a task")
        await asyncio.to_thread(look)
        asyncio.get_running_loop().call_soon(look)
        await asyncio.sleep(0)
        return mark.get()

    assert (on(new_loop, main()), seen) == ("a task", ["a callback"] * 2)


def test_to_ask_for_a_context_leaves_nothing_that_only_a_collection_frees():
    ThreadContext()  # what is kept for all of them
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            ThreadContext().get()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_threads_that_move_on_and_end_while_they_are_looked_at_are_seen_in_a_context_or_in_none():
    made, seen = [], set()

    def look_around():
        made.append(ThreadContext())
        for _ in range(30):  # calls, at which another thread may have its turn
            len(made)

    def move_on():
        for _ in range(100):
            Context().run(look_around)

    ended = [threading.Thread(target=move_on) for _ in range(20)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in ended:
            thread.start()
        while any(thread.is_alive() for thread in ended):
            seen |= {type(here.get()) for here in made[-50:]}
    finally:
        sys.setswitchinterval(interval)
    assert seen <= {Context, type(None)}
    assert {here.get() for here in made} == {None}
