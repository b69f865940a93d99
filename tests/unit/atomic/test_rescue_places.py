"""Wherever foreign code is called, not only in tools, what holds the event loop is interrupted before a run is late."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, field_validator

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseLLMWrapper, BaseMemory, BaseTool, LLMResponse, ToolCall, tool
from shared_libs.atomic.errors import BadRequest
from shared_libs.atomic.events import RunFinished
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.rescue import SIGNAL
from shared_libs.atomic.types import LLMChunk

pytestmark = pytest.mark.skipif(SIGNAL is None, reason="the system has no such signal")

WAIT_S = 20
LIMIT_S = 0.2
"""Far below WAIT_S, for which what is not interrupted would block."""

ENDED = []


def holds_on():
    threading.Event().wait(WAIT_S)
    ENDED.append("held on")


class Answers(BaseLLMWrapper):
    """A model of somebody's own."""

    def __init__(self, say="done"):
        super().__init__("m")
        self.say = say

    async def _chat(self, messages, tools, **options):
        if tools and messages[-1].role != "tool":
            return LLMResponse(tool_calls=(ToolCall("c1", tools[0].name, {"given": {"a": 1}}),))
        return LLMResponse(text=self.say() if callable(self.say) else self.say)


class Streams(Answers):
    async def _stream(self, messages, tools, **options):
        yield LLMChunk("text", "I ")
        holds_on()


class Given(BaseModel):
    a: int

    @field_validator("a")
    def checked(cls, a):  # noqa: N805 - a class method, says pydantic
        holds_on()
        return a


@dataclass
class Made:
    a: int

    def __post_init__(self):
        holds_on()


@tool
def takes(given: Given) -> str:
    return "taken"


class Slow(list):
    def __iter__(self):
        holds_on()
        return super().__iter__()


class Remembers(BaseMemory):
    name = "slow"

    def __init__(self, load=list, store=list):
        self.load, self.store = load, store

    async def _load(self, session_id, limit):
        return self.load()

    async def _store(self, session_id, messages):
        self.store()


class Failing(Exception):
    def __str__(self):
        holds_on()
        return "said"


def fails():
    raise Failing


def holds(event):
    if event.seq > 1:
        holds_on()


class Going:
    def __del__(self):
        holds_on()


@tool
async def fails_with_what_goes_late(given: dict) -> str:
    going = Going()
    raise ValueError(f"held: {type(going).__name__}")


@tool
async def is_cut_off_with_what_goes_late(given: dict) -> str:
    going = Going()
    await asyncio.sleep(WAIT_S)
    return type(going).__name__


class Refuses(Answers):
    async def _chat(self, messages, tools, **options):
        going = Going()
        raise BadRequest(f"held: {type(going).__name__}")


class Text(str):
    __slots__ = ()

    def isascii(self):
        holds_on()
        return super().isascii()

    def __len__(self):
        holds_on()
        return super().__len__()


@tool
async def says(given: dict) -> str:
    return Text("said")


class CallsOnTheLoop(BaseTool):
    """A sync tool over an async client of the loop, as many are."""

    name, description = "calls_on_the_loop", "Call."

    def __init__(self, calls):
        self.loop, self.calls = asyncio.get_running_loop(), calls

    def execute(self, given: dict) -> str:
        return self.calls(self.loop)


async def held_on():
    holds_on()


def awaits_there(loop):
    return asyncio.run_coroutine_threadsafe(held_on(), loop).result(WAIT_S)


def leaves_there(loop):
    loop.call_soon_threadsafe(holds_on)
    return "left"


class HoldsOn(logging.Handler):
    """A handler whose other end takes nothing any more, as one over a socket does."""

    def emit(self, record):
        holds_on()


SLOW_LOG = logging.getLogger("tests.slow")
SLOW_LOG.addHandler(HoldsOn())
SLOW_LOG.propagate = False


@tool
async def logs(given: dict) -> str:
    SLOW_LOG.error("said")
    return "logged"


PLACES = {
    "a model": lambda: {"llm": Answers(holds_on)},
    "a model that streams": lambda: {"llm": Streams()},
    "what a model's error says": lambda: {"llm": Answers(fails)},
    "a memory that loads": lambda: {"memory": Remembers(holds_on)},
    "what a memory has loaded": lambda: {"memory": Remembers(Slow)},
    "what a memory's error says": lambda: {"memory": Remembers(store=fails)},
    "a validator of the answer": lambda: {"llm": Answers('{"a": 1}'), "output_schema": Given},
    "a dataclass as the answer": lambda: {"llm": Answers('{"a": 1}'), "output_schema": Made},
    "a validator of arguments": lambda: {"tools": [takes]},
    "a validator before an approval": lambda: {"tools": [tool(takes.function, name="pay", needs_approval=True)]},
    "an observer": lambda: {"observers": [holds]},
    "a text of somebody's own kind": lambda: {"tools": [says]},
    "what goes as a tool fails": lambda: {"tools": [fails_with_what_goes_late]},
    "what goes as a tool is cut off": lambda: {"tools": [is_cut_off_with_what_goes_late]},
    "what goes as a model refuses": lambda: {"llm": Refuses()},
    "a handler of the log": lambda: {"tools": [logs]},
    "what a thread awaits on the loop": lambda: {"tools": [CallsOnTheLoop(awaits_there)]},
    "what a thread has left to the loop": lambda: {"tools": [CallsOnTheLoop(leaves_there)]},
}


@pytest.mark.promise("loop-rescued")
@pytest.mark.filterwarnings("ignore:Exception ignored (in|while)")  # so Python tells what is raised as an object goes
@pytest.mark.parametrize("place", PLACES)
def test_what_blocks_where_any_foreign_code_is_called_is_interrupted_before_the_deadline_of_the_run(place):
    async def main():
        agent = ReActAgent(**{"llm": Answers(), **PLACES[place]()})
        asked = agent.async_stream("go", timeout=1.5 * LIMIT_S, session_id=None if agent.memory is None else "s")
        return [event async for event in asked]

    ENDED.clear()
    events = asyncio.run(main())
    assert (type(events[-1]), ENDED) == (RunFinished, [])


@pytest.mark.promise("loop-rescued")
def test_a_run_that_begins_right_after_an_interrupted_one_is_watched_too():
    async def main():
        agent = ReActAgent(llm=Answers(holds_on))
        return [await agent.async_run("go", timeout=LIMIT_S) for _ in range(3)]

    ENDED.clear()
    assert ([result.stop_reason for result in asyncio.run(main())], ENDED) == (["deadline"] * 3, [])


def test_an_observer_that_was_interrupted_hears_no_more_of_its_run():
    heard = []

    def hold(event):
        heard.append(event.seq)
        holds_on()

    agent = ReActAgent(llm=ScriptedLLM(["done"]), observers=[hold])
    asyncio.run(agent.async_run("go", timeout=LIMIT_S))
    assert heard == [1]


class Raises(logging.Handler):
    def emit(self, record):
        raise ConnectionError("the server of the logs is away")


@pytest.fixture
def log_of_runs():
    log, added = logging.getLogger("shared_libs.agents.run"), []

    def add(handler):
        log.addHandler(handler)
        added.append(handler)

    yield add
    for handler in added:
        log.removeHandler(handler)


def breaks(event):
    raise ValueError("an observer fails, and so there is something to log")


@pytest.mark.promise("loop-rescued")
def test_a_handler_of_our_own_log_that_blocks_is_interrupted_though_the_watchdog_would_log_too(log_of_runs):
    log_of_runs(HoldsOn())
    ENDED.clear()
    agent = ReActAgent(llm=Answers(), observers=[breaks])
    assert (asyncio.run(agent.async_run("go", timeout=1.5 * LIMIT_S)).stop_reason, ENDED) == ("deadline", [])


def test_a_handler_of_our_own_log_that_fails_ends_no_run(log_of_runs):
    log_of_runs(Raises())
    agent = ReActAgent(llm=Answers(), observers=[breaks])
    assert asyncio.run(agent.async_run("go")).answer == "done"


@pytest.mark.promise("loop-rescued")
def test_python_code_is_interrupted_though_it_has_taken_the_signal_for_itself():
    @tool
    async def takes_the_signal(given: dict) -> str:
        signal.signal(SIGNAL, signal.SIG_IGN)
        until = asyncio.get_running_loop().time() + WAIT_S
        while asyncio.get_running_loop().time() < until:
            sum(range(100))
        ENDED.append("spun")
        return "spun"

    ENDED.clear()
    agent = ReActAgent(llm=Answers(), tools=[takes_the_signal])
    try:
        assert (asyncio.run(agent.async_run("go", timeout=1.5 * LIMIT_S)).stop_reason, ENDED) == ("deadline", [])
    finally:
        signal.signal(SIGNAL, signal.SIG_DFL)
