"""Tools of a source: listed by every run, within half of its time, and never at the price of the run."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, ToolError, tool
from shared_libs.atomic.events import Warned
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.supervise import MAX_LEFT_RUNNING
from shared_libs.atomic.tools import Toolset
from tests.support import run_virtual
from tests.unit.atomic.supervising import absorb


@tool
async def echo(text: str) -> str:
    """Say it again."""
    return text


class Source(Toolset):
    """Lists what it is told to: tools, an error, or nothing ever."""

    def __init__(self, name, *outcomes):
        self.name = name
        self.outcomes = list(outcomes)
        self.closed = 0

    async def _list(self):
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            await asyncio.Event().wait()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def aclose(self):
        self.closed += 1


def agent_of(*script, tools=(), **options):
    return ReActAgent(llm=ScriptedLLM(list(script)), tools=tools, **options)


def test_every_run_has_the_tools_there_are_then():
    source = Source("source", [], [echo])
    agent = agent_of("none", Turn(calls=[("echo", {"text": "hi"})]), "done", tools=[source])

    async def main():
        return [await agent.async_run("go") for _ in range(2)]

    _, second = run_virtual(main())
    assert [len(tools) for tools in agent.llm.tools] == [0, 1, 1]
    assert second.steps[0].observations[0].content == "hi"


@pytest.mark.promise("run-returns")
@pytest.mark.parametrize("outcome", [ToolError("it is not there"), KeyError("x"), None, asyncio.CancelledError()])
def test_a_source_that_cannot_list_is_a_warning(outcome):
    events = []
    agent = agent_of("without it", tools=[Source("shelf", outcome), echo], observers=[events.append])
    result = run_virtual(agent.async_run("go", timeout=10))
    assert (result.status, result.answer) == ("answered", "without it")
    assert result.error.startswith("some tools were missing: ")
    assert [event.message for event in events if isinstance(event, Warned)] == [result.error]
    assert [spec.name for spec in agent.llm.tools[0]] == ["echo"]


@pytest.mark.promise("time-total")
def test_silent_sources_cost_half_of_the_time_together():
    agent = agent_of("without", tools=[Source("a", None), Source("b", None)])
    result = run_virtual(agent.async_run("go", timeout=10))
    assert result.status == "answered"
    assert 3 < result.elapsed_s < 5.1


def test_a_source_that_lists_too_slowly_keeps_its_own_limit():
    source = Source("slow", None)
    source.timeout_s = 2.0

    async def main():
        with pytest.raises(ToolError, match="slow did not list its tools in time"):
            await source.async_list()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(2.0, abs=0.05)


def test_opening_an_agent_tells_at_once_what_is_missing():
    with pytest.raises(ToolError, match="it is not there"):
        run_virtual(agent_of(tools=[Source("shelf", ToolError("it is not there"))]).aopen())


def test_two_tools_of_one_name_fail_the_run_and_name_their_sources():
    agent = agent_of("never asked", tools=[Source("a", [echo]), Source("b", [echo])])
    result = run_virtual(agent.async_run("go"))
    assert (result.status, result.stop_reason) == ("failed", "error")
    assert result.error == "two tools are called echo: of a and of b; give one of the sources a `prefix`"


def test_closing_an_agent_closes_its_sources():
    source = Source("a", [echo])

    async def main():
        async with agent_of(tools=[source]):
            pass

    run_virtual(main())
    assert source.closed == 1


@pytest.mark.parametrize("asked", ["async_list", "async_found_out"])
def test_what_ignores_its_end_is_asked_only_so_often(asked):
    begun = []

    class Stubborn(Toolset, BaseTool):
        name, description, timeout_s = "stubborn", "Never ends.", 1

        async def execute(self) -> None: ...

        async def _list(self):
            begun.append(asked)
            await absorb(1_000)

        async def found_out(self, key):
            await self._list()

    async def main():
        stubborn, said = Stubborn(), ""
        for _ in range(2 * MAX_LEFT_RUNNING):
            try:
                said = (
                    await stubborn.async_list()
                    if asked == "async_list"
                    else await stubborn.async_found_out(call_id="c")
                )
            except ToolError as error:
                said = str(error)
        await asyncio.sleep(1_000)
        return str(said)

    assert "earlier calls were given up and still run" in run_virtual(main())
    assert len(begun) == MAX_LEFT_RUNNING
