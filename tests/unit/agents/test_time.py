"""The loop and time: deadlines, the last word, what hangs, what is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading

import pytest

from shared_libs.agents import Limits
from shared_libs.atomic import BaseMemory, BaseTool, InProcessMemory, MisuseError, tool
from shared_libs.atomic.errors import MemoryStoreError
from shared_libs.atomic.events import (
    Abandoned,
    ToolStarted,
)
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run, run_virtual
from tests.unit.agents.cast import NO_RETRY, add, agent, call, wait_


@pytest.mark.promise("time-reserve")
def test_before_the_deadline_the_model_answers_from_what_it_has():
    script = [call("add", a=1, b=2), call("wait", seconds=1000), "At least 1 + 2 = 3."]

    async def main():
        model = ScriptedLLM(script, resilience=NO_RETRY)
        async with model:
            result = await agent(model, add, wait_, limits=Limits(timeout_s=20, reserve_s=5)).async_run("go")
        return result, model, asyncio.get_running_loop().time()

    result, model, now = run_virtual(main())
    assert (result.status, result.stop_reason, result.answer) == ("partial", "deadline", "At least 1 + 2 = 3.")
    assert now < 20
    assert model.tools[-1] == ()
    assert "no more tools" in model.requests[-1][-1].text
    assert result.steps[1].observations[0].content == "wait did not finish before the time of the run was over"


@pytest.mark.promise("time-total", "time-reserve")
def test_when_not_even_the_last_word_fits_the_run_is_partial_with_what_it_saw():
    script = [call("add", a=1, b=2), Turn(delay_s=math.inf), Turn(delay_s=math.inf)]

    async def main():
        result = await agent(script, add, limits=Limits(timeout_s=3)).async_run("go")
        return result, asyncio.get_running_loop().time()

    result, now = run_virtual(main())
    assert (result.status, result.stop_reason) == ("partial", "deadline")
    assert 'add({"a":1,"b":2}): 3' in result.answer
    assert [attempt.outcome for attempt in result.attempts] == ["ok", "timeout", "timeout"]
    assert result.elapsed_s <= 3
    assert now <= 3


@pytest.mark.promise("time-reserve")
def test_a_last_word_cut_off_by_the_deadline_still_counts():
    script = [call("wait", seconds=100), Turn(text="It is roughly forty two and", chunk_delay_s=0.2)]
    result = run_virtual(agent(script, wait_, limits=Limits(timeout_s=4, reserve_s=1)).async_run("go"))
    assert result.status == "partial"
    assert result.answer == "It is roughly forty"


class Stubborn(BaseTool):
    """Absorbs its cancellation."""

    name = "stubborn"
    description = "Never stops when told."

    def __init__(self):
        self.ended = 0

    async def execute(self) -> str:
        until = asyncio.get_running_loop().time() + 6
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        self.ended += 1
        return "late"


@pytest.mark.promise("time-total", "time-orphans")
def test_a_tool_that_absorbs_its_cancellation_is_left_behind_and_named():
    async def main():
        stubborn = Stubborn()
        events = []
        silent = agent(
            [call("stubborn"), "best so far"], stubborn, limits=Limits(timeout_s=1), observers=[events.append]
        )
        result = await silent.async_run("go")
        returned = asyncio.get_running_loop().time()
        heard = len(events)
        await asyncio.sleep(10)
        return result, returned, stubborn, events, heard

    result, returned, stubborn, events, heard = run_virtual(main())
    assert returned <= 1.0
    assert (result.status, result.answer) == ("partial", "best so far")
    assert [(row.tool, row.call_id) for row in result.still_running] == [("stubborn", "call_1_1")]
    assert [event.name for event in events if isinstance(event, Abandoned)] == ["stubborn"]
    assert stubborn.ended == 1
    assert len(events) == heard


@pytest.mark.promise("time-total", "time-threads")
def test_a_sync_tool_that_hangs_holds_neither_the_run_nor_the_loop():
    release = threading.Event()

    @tool
    def stuck() -> str:
        release.wait(30)
        return "late"

    async def main():
        result = await agent([call("stuck"), "best so far"], stuck, limits=Limits(timeout_s=0.4)).async_run("go")
        release.set()
        return result

    result = run(main())
    assert (result.status, result.answer) == ("partial", "best so far")
    assert [row.tool for row in result.still_running] == ["stuck"]


class ForeverMemory(BaseMemory):
    name = "forever"

    async def _store(self, session_id, messages):
        await asyncio.sleep(math.inf)

    async def _load(self, session_id, limit):
        return []


class StubbornMemory(ForeverMemory):
    async def _store(self, session_id, messages):
        for _ in range(60):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)


@pytest.mark.promise("time-total")
@pytest.mark.parametrize("memory", [ForeverMemory, StubbornMemory])
def test_a_store_that_hangs_costs_no_answer(memory):
    async def main():
        result = await agent(["42"], memory=memory(), limits=Limits(timeout_s=5)).async_run("go", session_id="s")
        return result, asyncio.get_running_loop().time()

    result, now = run_virtual(main())
    assert (result.status, result.answer) == ("answered", "42")
    assert "was not stored" in result.error
    assert now <= 5


class BrokenMemory(ForeverMemory):
    async def _load(self, session_id, limit):
        raise MemoryStoreError("the store is down")


def test_a_history_that_cannot_be_loaded_fails_the_run():
    result = run(agent(["42"], memory=BrokenMemory()).async_run("go", session_id="s"))
    assert (result.status, result.error) == ("failed", "the store is down")


@pytest.mark.promise("cancel-wins", "history-valid")
def test_a_cancellation_from_outside_is_raised_and_leaves_the_session_usable():
    async def main():
        memory = InProcessMemory()
        shared = agent([call("wait", seconds=100), "42"], wait_, memory=memory)
        task = asyncio.create_task(shared.async_run("first", session_id="s"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await shared.async_run("second", session_id="s"), await memory.async_load("s")

    result, history = run_virtual(main())
    assert result.answer == "42"
    assert [message.text for message in history] == ["second", "42"]


def test_closing_the_stream_early_cancels_the_run():
    cancelled = []

    @tool
    async def endless() -> str:
        try:
            await asyncio.sleep(math.inf)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main():
        stream = agent([call("endless")], endless).async_stream("go")
        async for event in stream:
            if isinstance(event, ToolStarted):
                await asyncio.sleep(1)
                break
        await stream.aclose()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert run_virtual(main()) == []
    assert cancelled == [True]


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
def test_a_timeout_is_a_positive_number(timeout):
    with pytest.raises(MisuseError, match="timeout"):
        run(agent(["x"]).async_run("go", timeout=timeout))


def test_the_deadline_of_the_caller_is_inherited_and_never_widened():
    from shared_libs.atomic import Deadline
    from shared_libs.atomic.scope import use_deadline

    async def main():
        with use_deadline(Deadline.after(2)):
            result = await agent([call("wait", seconds=50), "x"], wait_).async_run("go", timeout=60)
        return result, asyncio.get_running_loop().time()

    result, now = run_virtual(main())
    assert result.stop_reason == "deadline"
    assert now <= 2


@pytest.mark.promise("time-freed")
@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_that_has_ended_leaves_nothing_to_the_collector(streamed):
    async def ask(one):
        if not streamed:
            return await one.async_run("What is 1 + 2?")
        return [event async for event in one.async_stream("What is 1 + 2?")]

    async def main():
        one = agent([call("add", a=1, b=2), "3"] * 3)
        await ask(one)  # what is made once is no garbage of a run
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await ask(one)
            await ask(one)
            gc.collect()
            return sorted({type(left).__qualname__ for left in gc.garbage if "shared_libs" in type(left).__module__})
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert run(main()) == []
