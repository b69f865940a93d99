"""What holds the event loop is interrupted where it stands: the loop goes on, and so does the run."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseEvaluator, BaseMemory, tool
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.events import LoopBlocked
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.rescue import SIGNAL
from shared_libs.tools.agent import AgentTool
from tests.unit.atomic.blocking import (
    ENDED,
    LIMIT_S,
    LOOPS,
    OVER,
    WAIT_S,
    blocking_by,
    on,
    pieces,
    polite,
    reads,
    run_with,
    runs,
    spins,
    told,
    waits,
)

pytestmark = pytest.mark.skipif(SIGNAL is None, reason="the system has no such signal")


@pytest.mark.promise("loop-rescued")
@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("block", [waits, reads, spins, runs])
def test_an_async_tool_that_blocks_is_interrupted_at_its_limit(block, new_loop):
    ENDED.clear()
    heard = []
    result = on(new_loop, run_with(blocking_by(block), observers=[heard.append]))
    rescued = [event.tool for event in heard if isinstance(event, LoopBlocked) and event.interrupted]
    assert rescued == [action.tool for action in result.steps[0].actions]
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
