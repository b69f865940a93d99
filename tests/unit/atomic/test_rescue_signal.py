"""The signal that interrupts: from whom it is taken, where it may raise, and what it leaves alone."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading

import pytest

from shared_libs.atomic import tool
from shared_libs.atomic.rescue import SIGNAL, SWITCH, Call, Interrupted, Signal, in_progress, may_be_interrupted
from shared_libs.atomic.watchdog import WATCHDOG
from tests.unit.atomic.blocking import (
    ENDED,
    LIMIT_S,
    LOOPS,
    OVER,
    WAIT_S,
    blocking_by,
    on,
    polite,
    run_with,
    spins,
    told,
    waits,
)

pytestmark = pytest.mark.skipif(SIGNAL is None, reason="the system has no such signal")


def test_the_signal_is_taken_only_from_nobody_and_given_back(monkeypatch):
    def seen():
        holders = []

        @tool
        async def look() -> None:
            holders.append(signal.getsignal(SIGNAL))

        asyncio.run(run_with(look))
        return holders[0], signal.getsignal(SIGNAL)

    during, after = seen()
    assert (callable(during), after) == (True, signal.SIG_DFL)

    def theirs(*_):
        pass

    before = signal.signal(SIGNAL, theirs)
    try:
        assert seen() == (theirs, theirs)
        assert told(asyncio.run(run_with(blocking_by(spins)))) == [OVER]  # the other way
    finally:
        signal.signal(SIGNAL, before)
    monkeypatch.setenv(SWITCH, "off")
    assert seen() == (signal.SIG_DFL, signal.SIG_DFL)


def test_a_main_thread_without_signals_as_that_of_a_subinterpreter_goes_without(monkeypatch):
    armed = []
    monkeypatch.setattr(threading, "main_thread", threading.current_thread)
    thread = threading.Thread(target=lambda: armed.append(Signal().arm()))
    thread.start()
    thread.join()
    assert armed == [False]


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    ENDED.clear()

    def short():
        threading.Event().wait(2 * LIMIT_S)

    assert told(asyncio.run(run_with(blocking_by(short)))) == ["ended"]
    assert [short] == ENDED


@pytest.mark.promise("loop-rescued")
def test_an_interrupt_that_comes_too_late_is_harmless():
    taken = signal.signal(SIGNAL, signal.SIG_DFL)  # by the process's own watchdog, where a loop ended under it

    async def main():
        line = Signal()
        assert line.arm()
        try:
            line.send(lambda call: None)  # by the time it comes the call is left alone
            for _ in range(1000):
                sum(range(100))
            await asyncio.sleep(0)
        finally:
            line.disarm()
        return True

    try:
        assert asyncio.run(main())
    finally:
        signal.signal(SIGNAL, taken)


def framed(name, block):
    """Call `block` from a frame of a module of that name."""
    exec(compile("def call(): return block()", name, "exec"), {"__name__": name, "block": block}, found := {})
    return found["call"]


class Nested(Call):
    at = 0.0


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("their_library", True),
        ("importlib._bootstrap", False),
        ("logging", True),  # below it is a handler
        ("_weakrefset", False),
        ("pdb", False),
        ("shared_libs.agents.run", False),
    ],
)
def test_where_an_interrupt_may_be_raised(name, may):
    async def main():
        async def theirs():
            return framed(name, lambda: may_be_interrupted(sys._getframe(), asyncio.current_task()))()

        return await asyncio.create_task(theirs())

    assert asyncio.run(main()) is may


@pytest.mark.promise("loop-rescued")
@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_callback_that_a_tool_has_left_to_the_loop_is_interrupted(new_loop):
    ended = []

    def holds():
        waits()
        ended.append(True)

    @tool
    async def leaves() -> str:
        asyncio.get_running_loop().call_soon(holds)
        await asyncio.sleep(WAIT_S)
        return "done"

    assert (on(new_loop, run_with(leaves, timeout=2 * LIMIT_S)).stop_reason, ended) == ("deadline", [])


def test_the_log_itself_which_may_have_a_lock_is_not_interrupted():
    async def main():
        async def theirs():
            return framed("logging", lambda: may_be_interrupted(sys._getframe(1), asyncio.current_task()))()

        return await asyncio.create_task(theirs())

    assert asyncio.run(main()) is False


def test_code_of_the_application_itself_is_never_interrupted():
    async def main():
        run = asyncio.create_task(run_with(polite, timeout=LIMIT_S))
        await asyncio.sleep(0)
        assert in_progress.get() is None
        threading.Event().wait(2 * LIMIT_S)
        return await run

    assert asyncio.run(main()).stop_reason == "deadline"


def test_the_watchdog_outlives_its_own_mistakes(caplog):
    class Broken:
        failed = threading.Event()

        @property
        def deadline(self):
            self.failed.set()
            raise RuntimeError("no deadline today")

        def emit(self, event):
            pass

    async def main():
        broken = Broken()
        WATCHDOG.begin(broken)
        assert await asyncio.to_thread(broken.failed.wait, WAIT_S)
        WATCHDOG.end(broken)
        return await run_with(blocking_by(waits))

    assert told(asyncio.run(main())) == [OVER]
    assert "the watchdog failed at one look; it goes on" in caplog.messages


def test_interrupts_are_no_exceptions():
    assert not issubclass(Interrupted, Exception)
