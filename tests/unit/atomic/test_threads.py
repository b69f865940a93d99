"""Threads for synchronous code: reused, bounded, and never in the way of the process's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import weakref
from contextvars import ContextVar

import pytest

from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.supervise import MAX_LEFT_RUNNING
from shared_libs.atomic.threads import MAX_THREADS, Threads
from tests.support import no_thread, run

VALUE: ContextVar[str] = ContextVar("value", default="none")
WAIT_S = 20


def stopped(threads):
    """Close, and wait until its threads have ended."""
    threads.close()
    for thread in threading.enumerate():
        if thread.name == f"factory-{threads._crew._name}":
            thread.join(WAIT_S)
    return not any(thread.name == f"factory-{threads._crew._name}" for thread in threading.enumerate())


def test_calls_one_after_the_other_have_one_thread():
    async def main():
        threads = Threads("reuse")
        idents = {await threads.submit(threading.get_ident, {}).result() for _ in range(500)}
        return idents, stopped(threads)

    idents, ended = run(main())
    assert (len(idents), ended) == (1, True)
    assert threading.get_ident() not in idents


@pytest.mark.promise("time-threads")
def test_no_more_than_the_bound_run_and_the_rest_wait_their_turn():
    async def main():
        threads, release, begun = Threads("bound", 3), threading.Event(), []
        all_begun = threading.Barrier(4)

        def work(number):
            begun.append(number)
            if number < 3:
                all_begun.wait(WAIT_S)
                release.wait(WAIT_S)
            return number

        jobs = [threads.submit(work, {"number": number}) for number in range(8)]
        await asyncio.to_thread(all_begun.wait, WAIT_S)
        alive = sum(thread.name == "factory-bound" for thread in threading.enumerate())
        first = sorted(begun)
        release.set()
        return alive, first, [await job.result() for job in jobs], stopped(threads)

    assert run(main()) == (3, [0, 1, 2], list(range(8)), True)
    assert MAX_THREADS == 32


def test_of_jobs_that_come_at_once_each_begins_though_the_others_wait_for_it():
    async def main():
        threads, jobs = Threads("chain"), []
        for _ in range(3):  # the second time by threads that are asleep
            all_begun = threading.Barrier(6)
            jobs = [threads.submit(all_begun.wait, {"timeout": WAIT_S}) for _ in range(6)]
            for job in jobs:
                await job.result()
            while threads.idle < 6:  # noqa: ASYNC110 - a thread cannot set an event of the loop
                await asyncio.sleep(0)
        return len(threads), stopped(threads)

    assert run(main()) == (6, True)


def test_a_job_no_thread_has_begun_can_be_withdrawn():
    async def main():
        threads, release, ran = Threads("withdraw", 1), threading.Event(), []
        busy = threads.submit(release.wait, {"timeout": WAIT_S})
        waiting = threads.submit(ran.append, {})
        waiting.withdraw()
        release.set()
        await busy.result()
        busy.withdraw()
        return waiting.running, busy.running, ran, stopped(threads)

    assert run(main()) == (False, False, [], True)


def test_cancelling_the_wait_does_not_stop_the_thread():
    async def main():
        threads, release = Threads("cancel"), threading.Event()
        job = threads.submit(release.wait, {"timeout": WAIT_S})
        waiter = asyncio.create_task(job.result())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        running = job.running
        release.set()
        ended = stopped(threads)
        await asyncio.sleep(0)
        return running, job.running, ended

    assert run(main()) == (True, False, True)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (StopIteration(), "StopIteration"),
        (asyncio.CancelledError(), "CancelledError"),
        (GeneratorExit(), "GeneratorExit"),
    ],
)
def test_what_would_end_a_thread_or_confuse_the_loop_is_the_tools_failure(error, text):
    def work():
        raise error

    async def main():
        threads = Threads("exit")
        with pytest.raises(ToolError) as caught:
            await threads.submit(work, {}).result()
        return str(caught.value), await threads.submit(lambda: 1, {}).result(), stopped(threads)

    assert run(main()) == (text, 1, True)


def test_an_ordinary_error_keeps_its_type():
    async def main():
        threads = Threads("error")
        with pytest.raises(ZeroDivisionError):
            await threads.submit(lambda: 1 // 0, {}).result()
        return stopped(threads)

    assert run(main())


def test_context_variables_of_the_caller_are_seen_and_kept_apart():
    async def main():
        threads = Threads("context", 1)
        VALUE.set("a")
        first = threads.submit(VALUE.get, {})
        VALUE.set("b")
        second = threads.submit(VALUE.get, {})
        return await first.result(), await second.result(), stopped(threads)

    assert run(main()) == ("a", "b", True)


def test_a_loop_closed_meanwhile_disturbs_no_thread():
    release, threads, jobs = threading.Event(), Threads("closed"), []

    async def main():
        jobs.append(threads.submit(release.wait, {"timeout": WAIT_S}))

    run(main())
    release.set()

    async def again():
        return await threads.submit(lambda: 2, {}).result()

    assert run(again()) == 2
    assert stopped(threads)
    assert not jobs[0].running


def test_closed_threads_open_again():
    async def main():
        threads = Threads("again")
        first = await threads.submit(lambda: 1, {}).result()
        ended = stopped(threads)
        return first, ended, await threads.submit(lambda: 2, {}).result(), stopped(threads)

    assert run(main()) == (1, True, 2, True)


@pytest.mark.promise("time-threads")
def test_threads_that_have_nothing_to_do_end():
    async def main():
        threads = Threads("bored", idle_s=0.01)
        await asyncio.gather(*(threads.submit(threading.get_ident, {}).result() for _ in range(4)))
        while len(threads):  # noqa: ASYNC110 - a thread cannot set an event of the loop
            await asyncio.sleep(0.001)
        return await threads.submit(lambda: 1, {}).result()

    assert run(main()) == 1


@pytest.mark.promise("time-threads")
def test_threads_of_owners_that_are_gone_end():
    async def main():
        for _ in range(300):  # as an agent built for each request has its tools
            await Threads("dropped").submit(int, {}).result()
        for thread in threading.enumerate():
            if thread.name == "factory-dropped":
                thread.join(WAIT_S)
                assert not thread.is_alive()

    run(main())


def test_an_idle_thread_holds_nothing_of_its_last_call():
    class Big:
        pass

    async def main():
        threads, big = Threads("light"), Big()
        gone = weakref.ref(big)
        await threads.submit(lambda given: None, {"given": big}).result()
        del big
        async with asyncio.timeout(WAIT_S):
            while gone() is not None:  # noqa: ASYNC110 - a thread cannot set an event of the loop
                await asyncio.sleep(0)
        return threads.idle, stopped(threads)

    assert run(main()) == (1, True)


def test_a_call_for_which_no_thread_can_start_is_refused_for_good():
    ran = []

    async def main():
        threads = Threads("full")
        with (
            no_thread("factory-full"),
            pytest.raises(ToolError, match="full was not started: the system gives no further thread"),
        ):
            threads.submit(lambda: ran.append(1), {})
        jobs = [threads.submit(lambda n: ran.append(n) or n, {"n": n}) for n in range(2, 5)]
        for job in jobs:
            await job.result()
        return len(threads), stopped(threads)

    count, ended = run(main())
    assert sorted(ran) == [2, 3, 4]
    assert (count <= 3, ended) == (True, True)


STUCK = """
import asyncio, threading, time
from shared_libs.atomic import tool

@tool(timeout_s=0.5)
def stuck() -> str:
    time.sleep(600)

async def main():
    results = await asyncio.gather(*(stuck.async_run({}) for _ in range(500)))
    print(sum(result.is_error for result in results))
    print(sum(result.still_running for result in results))
    print(sum(thread.name == "factory-stuck" for thread in threading.enumerate()))
    print(stuck.still_running)
    print((await stuck.async_run({})).content)

asyncio.run(main())
"""


@pytest.mark.promise("time-threads")
def test_a_process_with_stuck_threads_ends():
    # the tool sleeps ten minutes: the process ends because it does not wait, or the test fails
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=30, check=True)
    failed, left, threads, booked, refused = done.stdout.splitlines()
    assert (failed, left) == ("500", booked)  # as many as were begun before the time was over: on a slow machine fewer
    assert MAX_LEFT_RUNNING <= int(left) <= int(threads) <= MAX_THREADS
    assert refused == (
        f"stuck was not started: {left} earlier calls were given up and still run; try again when some have ended"
    )
    assert set(done.stderr.splitlines()) == {"tool stuck ignored its cancellation and was left running"}
