"""What holds the event loop is interrupted where it stands: the loop goes on, and so does the run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
from contextvars import Context, ContextVar

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseEvaluator, BaseMemory, tool
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.rescue import SIGNAL, SWITCH, Call, Interrupted, Signal, in_progress, may_be_interrupted
from shared_libs.atomic.thread_context import ThreadContext
from shared_libs.atomic.watchdog import WATCHDOG
from shared_libs.tools.agent import AgentTool

pytestmark = pytest.mark.skipif(SIGNAL is None, reason="the system has no such signal")

WAIT_S = 20
LIMIT_S = 0.2
"""Far below WAIT_S, for which what is not interrupted would block."""

OVER = f"blocking did not finish within its {LIMIT_S} s: it blocked the event loop, and was interrupted"
ENDED = []


LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(pytest.param(uvloop.new_event_loop, id="uvloop"))


def on(new_loop, main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def waits():
    threading.Event().wait(WAIT_S)


def reads():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(WAIT_S)
        ours.recv(1)


def spins():
    until = asyncio.get_running_loop().time() + WAIT_S
    while asyncio.get_running_loop().time() < until:
        sum(range(100))


def runs():
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({WAIT_S})"], check=False)


def pieces():
    for _ in range(1000):
        threading.Event().wait(WAIT_S / 1000)
        yield 1


@tool
async def polite() -> None:
    await asyncio.sleep(WAIT_S)


def blocking_by(block, **declarations):
    async def blocking() -> str:
        try:
            block()
        except Exception:
            return "kept"
        ENDED.append(block)
        return "ended"

    return tool(timeout_s=LIMIT_S, **declarations)(blocking)


def run_with(*tools, **options):
    calls = [(each.name, {"question": "?"} if isinstance(each, AgentTool) else {}) for each in tools]
    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=calls), "done"]), tools=tools)
    return agent.async_run("go", **options)


def told(result):
    return [observation.content for observation in result.steps[0].observations]


@pytest.mark.promise("loop-rescued")
@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("block", [waits, reads, spins, runs])
def test_an_async_tool_that_blocks_is_interrupted_at_its_limit(block, new_loop):
    ENDED.clear()
    result = on(new_loop, run_with(blocking_by(block)))
    assert (result.status, told(result), result.still_running, ENDED) == ("answered", [OVER], (), [])


@pytest.mark.promise("loop-rescued")
def test_a_call_outside_any_run_is_rescued_too():
    result = asyncio.run(blocking_by(waits).async_run({}))
    assert (result.content, result.is_error, result.still_running) == (OVER, True, False)


@pytest.mark.promise("loop-rescued")
def test_generators_and_tasks_of_a_tool_are_interrupted_as_the_tool_is():
    @tool(name="blocking", timeout_s=LIMIT_S)
    async def yields():
        for piece in pieces():
            yield piece

    @tool(name="blocking", timeout_s=LIMIT_S)
    async def has_tasks() -> None:
        async def part():
            waits()

        await asyncio.gather(part(), part())

    @tool(name="blocking", timeout_s=LIMIT_S)
    async def has_forgotten_to_wait():
        async def part():
            waits()

        return [part()]

    for made in (yields, has_tasks, has_forgotten_to_wait):
        assert told(asyncio.run(run_with(made))) == [OVER]


class Says:
    def __str__(self):
        waits()
        return "said"

    __repr__ = __str__


class Failing(Exception):
    __str__ = Says.__str__


class Items(dict):
    def items(self):
        waits()
        return super().items()


class Long(list):
    def __len__(self):
        waits()
        return 0


@pytest.mark.promise("loop-rescued")
@pytest.mark.parametrize("of", [Says, lambda: [{"a": Says()}], lambda: {Says(): 1}, Items, Long, Failing])
def test_what_a_result_or_an_error_says_of_itself_is_interrupted_as_the_tool_is(of):
    @tool(name="blocking", timeout_s=LIMIT_S)
    async def tells():
        if of is Failing:
            raise of
        return of()

    assert told(asyncio.run(run_with(tells))) == [OVER]


@pytest.mark.promise("loop-rescued")
@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_neighbour_comes_back_by_its_deadline(new_loop):
    @tool
    async def hog() -> None:
        await asyncio.sleep(0.05)  # the other run has begun
        waits()

    async def main():
        return await asyncio.gather(run_with(hog, timeout=WAIT_S), run_with(polite, timeout=0.5))

    first, second = on(new_loop, main())
    why = "hog was interrupted: it blocked the event loop, and the time of a run there was nearly over"
    assert (first.status, told(first)) == ("answered", [why])
    assert (second.status, second.stop_reason) == ("partial", "deadline")


@pytest.mark.promise("loop-rescued")
def test_what_keeps_the_interrupt_is_interrupted_again_and_cleans_up_first():
    cleaned = []

    @tool(timeout_s=LIMIT_S)
    async def stubborn() -> str:
        for _ in range(3):
            try:
                waits()
            except BaseException:
                cleaned.append("kept")
            finally:
                cleaned.append("cleaned")
        return "at last"

    result = asyncio.run(run_with(stubborn))
    assert told(result) == ["at last"]
    assert cleaned == ["kept", "cleaned"] * 3


@pytest.mark.promise("loop-rescued")
def test_what_keeps_every_interrupt_is_named_and_left(caplog):
    kept = []

    @tool(timeout_s=LIMIT_S)
    async def immune() -> str:
        while len(kept) < 30 and not any("after 10 interrupts" in text for text in caplog.messages):
            try:
                threading.Event().wait(WAIT_S / 10)
            except BaseException:
                kept.append(1)
        return "at last"

    with caplog.at_level(logging.ERROR):
        assert told(asyncio.run(run_with(immune))) == ["at last"]
    assert len(kept) == 10
    assert "tool immune goes on after 10 interrupts; isolation 'process' can end it" in caplog.messages


@pytest.mark.promise("loop-rescued")
def test_whatever_foreign_code_makes_of_the_interrupt_it_is_told_as_one():
    @tool(timeout_s=LIMIT_S)
    async def blocking() -> None:
        try:
            waits()
        except BaseException as error:
            raise ValueError("the driver is broken") from error

    assert told(asyncio.run(run_with(blocking))) == [OVER]


@pytest.mark.promise("loop-rescued")
def test_the_innermost_call_is_blamed():
    inner = ReActAgent(
        llm=ScriptedLLM([Turn(calls=[("blocking", {})]), "I tried"]), tools=[blocking_by(waits)], name="inner"
    )
    result = asyncio.run(run_with(AgentTool(inner, description="Asks another.")))
    assert (result.status, told(result)) == ("answered", ["I tried"])


@pytest.mark.promise("loop-rescued")
def test_a_memory_that_blocks_is_interrupted():
    class Store(BaseMemory):
        name = "slow"

        async def _store(self, session_id, messages):
            waits()
            ENDED.append("store")

        async def _load(self, session_id, limit):
            return []

    ENDED.clear()
    agent = ReActAgent(llm=ScriptedLLM(["done"]), memory=Store())
    result = asyncio.run(agent.async_run("go", session_id="s", timeout=0.5))
    assert (result.answer, ENDED) == ("done", [])
    assert "it blocked the event loop" in result.error


@pytest.mark.promise("loop-rescued")
def test_an_evaluator_that_blocks_is_interrupted_for_the_runs_beside_it():
    class Judge(BaseEvaluator):
        name = "judge"

        async def evaluate(self, answer, expected=None, result=None):
            waits()

    async def main():
        run = asyncio.create_task(run_with(polite, timeout=0.5))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match="judge was interrupted: it blocked the event loop"):
            await Judge().async_evaluate("x")
        return await run

    assert asyncio.run(main()).stop_reason == "deadline"


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


def test_threads_that_move_on_and_end_while_they_are_looked_at_are_seen_in_a_context_or_in_none():
    made, seen = [], set()

    def move_on():
        for _ in range(200):
            Context().run(made.append, ThreadContext())

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
