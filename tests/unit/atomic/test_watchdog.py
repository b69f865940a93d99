"""The watchdog: it names the code that blocks the loop, once for each blockage, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import selectors
import subprocess
import sys
import threading

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.deadline import NEVER
from shared_libs.atomic.events import LoopBlocked
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.thread_context import has_threads
from shared_libs.atomic.watchdog import BLOCKED_S, Watchdog
from tests.support import no_thread, run_virtual

WAIT_S = 20


class Released(logging.Handler):
    """Lets the blocking code go on when the watchdog has spoken."""

    def __init__(self):
        super().__init__()
        self.said, self.spoken = [], threading.Event()

    def emit(self, record):
        self.said.append(record.getMessage())
        self.spoken.set()

    def wait(self):
        """Block until the watchdog speaks, then until it has looked at it twice more."""
        assert self.spoken.wait(WAIT_S)
        threading.Event().wait(2 * BLOCKED_S)
        self.spoken.clear()


@pytest.fixture
def released():
    handler = Released()
    log = logging.getLogger("shared_libs.atomic.watchdog")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def blocked_in(run_of):
    """Run an agent, and give its status with the blockages that were heard of."""

    async def main():
        seen = []
        result = await run_of(seen)
        return result.status, [event for event in seen if isinstance(event, LoopBlocked)]

    return asyncio.run(main())


@pytest.mark.promise("loop-watched")
def test_a_tool_that_blocks_the_loop_is_named_once_per_blockage_with_its_stack(released):
    @tool
    async def blocking() -> None:
        released.wait()
        await asyncio.sleep(0.2)
        released.wait()

    def run_of(seen):
        model = ScriptedLLM([Turn(calls=[("blocking", {})]), "done"])
        return ReActAgent(llm=model, tools=[blocking], observers=[seen.append]).async_run("go")

    status, events = blocked_in(run_of)
    assert status == "answered"
    assert [event.tool for event in events] == ["blocking"] * 2
    assert len(released.said) == 2
    assert all(said.startswith("tool blocking has blocked the event loop for 0.") for said in released.said)
    assert all("released.wait()" in event.stack and "in blocking" in event.stack for event in events)
    assert events[0].call_id
    assert all(event.blocked_s >= BLOCKED_S and not event.interrupted for event in events)


@pytest.mark.promise("loop-watched")
def test_code_that_is_no_tool_is_shown_to_every_run_of_the_loop(released):
    def run_of(seen):
        def hold(event):
            if event.seq == 1:
                released.wait()

        return ReActAgent(llm=ScriptedLLM(["done"]), observers=[seen.append, hold]).async_run("go")

    status, (event,) = blocked_in(run_of)
    assert (status, event.tool, event.call_id) == ("answered", "", "")
    assert "released.wait()" in event.stack
    assert event.who == event.place
    assert event.place.startswith("wait (test_watchdog.py:")


class Hearer:
    def __init__(self, deadline=NEVER):
        self.events, self.deadline = [], deadline

    def emit(self, event):
        self.events.append(event)


def test_many_short_pieces_are_no_blockage(released):
    async def main():
        watchdog, hearer = Watchdog(), Hearer()
        watchdog.begin(hearer)

        async def piece():
            threading.Event().wait(0.02)

        await asyncio.gather(*(piece() for _ in range(40)))
        await asyncio.sleep(0)
        watchdog.end(hearer)
        return hearer.events

    assert (asyncio.run(main()), released.said) == ([], [])


def test_it_watches_only_while_there_is_a_run_and_only_real_clocks():
    async def main():
        watchdog, hearer = Watchdog(), Hearer()
        watchdog.begin(hearer)
        watched = [len(loop.owners) for loop in watchdog._loops.values()]
        watchdog.end(hearer)
        return watched, [len(loop.owners) for loop in watchdog._loops.values()]

    assert asyncio.run(main()) == ([1], [])
    assert run_virtual(main()) == ([], [])


def test_a_run_that_is_dropped_is_watched_no_more():
    async def main():
        watchdog, hearer = Watchdog(), Hearer()
        watchdog.begin(hearer)
        del hearer
        watchdog._signal.disarm()  # which the process's own needs in the tests that follow
        return [len(loop.owners) for loop in watchdog._loops.values()]

    assert asyncio.run(main()) == [0]


BUSY = """
def select(self, timeout=None):
    found = super_of(self).select(timeout)
    lock.acquire(timeout=self.held_s)
    self.held_s = 0
    return found
"""


def test_a_loop_that_waits_and_is_not_woken_in_time_is_blocked_by_nobody(released):
    """On a busy machine the loop stands in its selector although somebody has woken it."""

    class Late(selectors.DefaultSelector):
        held_s = 0.0

    lock = threading.Lock()
    lock.acquire()
    names = {"__name__": "selectors", "super_of": lambda it: super(Late, it), "lock": lock}
    exec(BUSY, names)
    Late.select = names["select"]
    selector = Late()

    async def main():
        @tool
        async def rests() -> None:
            selector.held_s = 2 * BLOCKED_S
            await asyncio.sleep(0.01)

        llm = ScriptedLLM([Turn(calls=[("rests", {})]), "done"])
        return await ReActAgent(llm=llm, tools=[rests]).async_run("go")

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert runner.run(main()).answer == "done"
    assert released.said == []


LOOKS = """
import gc
import threading

from shared_libs.atomic.watchdog import frame_of


class Node:
    pass


def waits(begun, over):
    begun.set()
    over.wait()


for allowed in range(1, 60):
    begun, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=waits, args=(begun, over), daemon=True)
    thread.start()
    begun.wait()
    gc.disable()
    node = Node()
    node.itself, node.local = node, threading.local()
    del node
    gc.set_threshold(gc.get_count()[0] + allowed)
    gc.enable()
    assert frame_of(thread.ident) is not None
    assert gc.isenabled()
    gc.set_threshold(700)
    over.set()
    thread.join()
"""
"""Lets a collection that frees a `threading.local` begin at each moment of a look at another thread."""


@pytest.mark.promise("loop-rescued")
def test_a_collection_during_a_look_does_not_stop_the_process():
    done = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class Patient:
    deadline = NEVER

    def emit(self, event):
        raise AssertionError


def test_runs_go_on_unwatched_where_no_thread_can_start_and_the_next_one_is_watched(caplog):
    async def main():
        watchdog, one, other = Watchdog(), Patient(), Patient()
        with no_thread("factory-watchdog"):
            watchdog.begin(one)
        unwatched = watchdog._thread is None
        watchdog.begin(other)
        watched = watchdog._thread is not None
        watchdog.end(one)
        watchdog.end(other)
        return unwatched, watched

    assert asyncio.run(main()) == (True, True)
    assert "no thread could be started" in caplog.text


def test_where_threads_only_take_turns_runs_are_not_watched_and_the_log_says_so_once(monkeypatch, caplog):
    """What gevent and eventlet put into `threading` has numbers of its own, and is no thread that could watch."""
    monkeypatch.setattr(threading, "get_ident", lambda: 4711)
    has_threads.cache_clear()
    agent = ReActAgent(llm=ScriptedLLM([Turn(text="yes")] * 2))
    statuses = [asyncio.run(agent.async_run("q")).status for _ in range(2)]
    has_threads.cache_clear()
    assert statuses == ["answered"] * 2
    assert caplog.text.count("threads take turns here") == 1
