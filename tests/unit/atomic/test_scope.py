"""A call that was given up is shut off: it cannot speak, spend or write any more."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import InProcessMemory, MemoryStoreError, Usage, current_scope, tool
from shared_libs.atomic.budget import Budget
from shared_libs.atomic.errors import StaleCall
from shared_libs.atomic.events import AbandonedEnded, ToolFinished, Warned
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.memory import BaseMemory
from shared_libs.atomic.supervise import MAX_LEFT_RUNNING
from tests.support import run_virtual


async def absorb(seconds):
    until = asyncio.get_running_loop().time() + seconds
    while (left_s := until - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left_s)
        except asyncio.CancelledError:
            continue


def given_up(late, seconds_after=20):
    """Run an agent whose first tool is given up after 1 s and calls `late` at 6 s; the run goes on until 10 s."""

    @tool(timeout_s=1)
    async def stale() -> None:
        scope = current_scope()
        scope.emit(Warned(message="in time"))
        await absorb(6)
        await late(scope)

    @tool
    async def wait() -> None:
        await asyncio.sleep(9)

    async def main():
        seen = []
        model = ScriptedLLM([Turn(calls=[("stale", {})]), Turn(calls=[("wait", {})]), "done"])
        agent = ReActAgent(llm=model, tools=[stale, wait], limits=Limits(timeout_s=60), observers=[seen.append])
        result = await agent.async_run("go")
        await asyncio.sleep(seconds_after)
        return result, seen

    return run_virtual(main())


@pytest.mark.promise("time-fence")
def test_its_events_are_not_heard_while_its_run_goes_on():
    async def late(scope):
        scope.emit(Warned(message="late"))

    result, seen = given_up(late)
    assert result.status == "answered"
    assert [event.message for event in seen if isinstance(event, Warned)] == ["in time"]
    assert [event.is_error for event in seen if isinstance(event, ToolFinished)] == [True, False]
    assert [event.name for event in seen if isinstance(event, AbandonedEnded)] == ["stale"]
    assert result.still_running == ()


@pytest.mark.promise("time-fence")
def test_its_memory_writes_are_refused():
    memory, told = InProcessMemory(), []

    async def late(scope):
        try:
            await memory.async_store("s", [{"role": "user", "content": "late"}])
        except StaleCall as error:
            told.append(str(error))

    async def kept():
        return await memory.async_load("s")

    given_up(late)
    assert told == ["the call that writes to memory in-process was given up, so nothing it says is kept"]
    assert run_virtual(kept()) == []


@pytest.mark.promise("time-fence")
def test_what_an_agent_inside_it_spends_does_not_count():
    async def late(scope):
        inner = Budget(parent=scope.budget, cut_off=lambda: scope.stale)
        inner.charge(Usage(1000, 1000), 1.0)
        inner.grant_tool_calls(5)
        spent.append((inner.usage.input_tokens, inner.tool_calls))

    spent = []
    result, _ = given_up(late)
    assert spent == [(1000, 5)]
    assert result.usage.input_tokens < 1000
    assert result.cost_usd is None


@pytest.mark.promise("time-orphans")
def test_a_store_that_has_left_too_much_running_is_asked_no_more():
    class Hanging(BaseMemory):
        name = "hanging"
        timeout_s = 1

        async def _load(self, session_id, limit):
            await absorb(100)
            return []

    async def main():
        memory = Hanging()
        for _ in range(MAX_LEFT_RUNNING):
            with pytest.raises(MemoryStoreError, match="did not load within 1 s"):
                await memory.async_load("s")
        with pytest.raises(MemoryStoreError, match="was not asked to load: 16 earlier calls were given up"):
            await memory.async_load("s")
        left = memory.still_running
        await asyncio.sleep(100)
        return left, memory.still_running

    assert run_virtual(main()) == (16, 0)
