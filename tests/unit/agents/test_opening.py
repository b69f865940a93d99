"""Ready before the first question: what takes long is done at `aopen`, in threads, and what is missing shows there."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseLLMWrapper, BaseMemory, BaseTool, LLMResponse
from shared_libs.atomic.errors import DeadlineExceeded, MemoryStoreError, MemoryUnavailable
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.loading import load
from shared_libs.atomic.opening import CLOSE_S, OPEN_S
from shared_libs.memory import SQLMemory
from shared_libs.retrieval import Collection
from shared_libs.retrieval.ports import DocumentStore, LexicalIndex, VectorStore
from shared_libs.retrieval.stores import Stores
from tests.support import no_thread, run, run_virtual

FIRST_CALL = """
    import asyncio, sys, threading
    from shared_libs.agents import ReActAgent
    from shared_libs.atomic import Resilience
    from shared_libs.atomic.llms import OpenAILLM

    loaded_by = {}

    class Watch:
        def find_spec(self, name, path=None, target=None):
            loaded_by.setdefault(name, threading.current_thread() is threading.main_thread())

    sys.meta_path.insert(0, Watch())

    async def main():
        once = Resilience(retry={"attempts": 1})
        llm = OpenAILLM("m", base_url="http://127.0.0.1:9/v1", api_key="k", resilience=once)
        agent = ReActAgent(llm=llm)
        if OPENED:
            await agent.aopen()
            before = set(loaded_by)
        result = await agent.async_run("x")
        assert "cannot connect" in result.error, result.error
        if OPENED:
            heavy = {name for name in set(loaded_by) - before if "." not in name}
            assert not heavy & {"aiohttp", "yarl", "tenacity", "multidict"}, heavy
        await agent.aclose()

    asyncio.run(main())
    on_the_loop = {name for name, main in loaded_by.items() if main}
    assert not on_the_loop & {"aiohttp", "yarl", "tenacity"}, on_the_loop
"""


@pytest.mark.promise("opened")
def test_what_another_call_has_begun_to_load_is_waited_for(tmp_path, monkeypatch):
    gate = SimpleNamespace(begun=threading.Event(), may_end=threading.Event())
    monkeypatch.setitem(sys.modules, "gate_of_the_test", gate)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_to_load.py").write_text("from gate_of_the_test import *\nbegun.set()\nmay_end.wait(30)\n")

    async def main():
        first = asyncio.create_task(load("slow_to_load"))
        assert await asyncio.to_thread(gate.begun.wait, 30)
        second = asyncio.create_task(load("slow_to_load"))
        await asyncio.sleep(0)
        assert not second.done()
        gate.may_end.set()
        await asyncio.wait_for(asyncio.gather(first, second), 30)

    run(main())


@pytest.mark.promise("opened")
@pytest.mark.parametrize("opened", [True, False])
def test_the_first_call_of_a_process_loads_nothing_large_on_its_loop(opened):
    program = textwrap.dedent(FIRST_CALL).replace("OPENED", str(opened))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.promise("opened")
def test_opening_an_agent_opens_its_models_and_its_memory():
    opened = []

    class Model(BaseLLMWrapper):
        provider = "own"

        async def _open(self):
            opened.append(self.model)

        async def _chat(self, messages, tools, **options):
            return LLMResponse(text="x")

    class Memory(BaseMemory):
        async def _open(self):
            opened.append("memory")

    agent = ReActAgent(llm=Model("a", fallbacks=[Model("b")]), memory=Memory())

    async def main():
        async with agent:
            await agent.aopen()
            return await agent.async_run("x")

    assert run_virtual(main()).answer == "x"
    assert opened[:3] == ["a", "b", "memory"]
    assert opened.count("a") == 1


@pytest.mark.promise("opened")
def test_a_store_that_is_down_shows_when_the_agent_is_opened(tmp_path):
    async def main():
        agent = ReActAgent(llm=ScriptedLLM([]), memory=SQLMemory(f"sqlite+aiosqlite:///{tmp_path}/no/file.db"))
        with pytest.raises(MemoryStoreError, match=r"the folder .* does not exist; make it"):
            await agent.aopen()
        away = ReActAgent(llm=ScriptedLLM([]), memory=SQLMemory("postgresql+asyncpg://u:p@127.0.0.1:9/d"))
        with pytest.raises(MemoryUnavailable):
            await away.aopen()

    asyncio.run(main())  # asyncpg itself looks for its files on the loop


async def whatever_is_said():
    for _ in range(20):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)


async def very_long():
    await asyncio.sleep(10_000)


class Stuck(BaseTool):
    """A tool that has a way of its own to get ready and to close."""

    description, execute = "Does nothing.", staticmethod(lambda: "ok")

    def __init__(self, name, opens=None, closes=None):
        self.name, self._opens, self._closes = name, opens, closes

    async def aopen(self):
        if self._opens is not None:
            await self._opens()

    async def aclose(self):
        if self._closes is not None:
            await self._closes()


@pytest.mark.promise("opened")
@pytest.mark.parametrize("stuck", [whatever_is_said, very_long])
def test_what_does_not_get_ready_ends_and_what_does_not_close_holds_nobody(stuck, caplog):
    async def main():
        clock = asyncio.get_running_loop().time
        agent = ReActAgent(llm=ScriptedLLM([]), tools=[Stuck("one", stuck, stuck), Stuck("two", closes=stuck)])
        with pytest.raises(DeadlineExceeded, match="one of agent agent was not ready within 600 s"):
            async with agent:
                raise AssertionError("it cannot be open")
        assert clock() < OPEN_S + CLOSE_S + 0.1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await agent.aopen()
        assert clock() < OPEN_S + CLOSE_S + 1.2

    run_virtual(main())
    left = {f"{name} was not closed within {CLOSE_S:g} s, and is left so" for name in ("one", "two")}
    assert left <= set(caplog.messages)


class Slow(BaseLLMWrapper):
    """A model that never gets ready, and never closes."""

    async def _open(self):
        await whatever_is_said()

    async def _close(self):
        await whatever_is_said()


class NeverClosed(BaseMemory):
    """A memory that never closes."""

    async def aclose(self):
        await whatever_is_said()


class NeverClosedVectors(VectorStore):
    """A store of vectors that never closes."""

    name = "vectors"

    async def aclose(self):
        await whatever_is_said()


@pytest.mark.promise("opened")
def test_what_stands_alone_has_the_same_limits(caplog):
    async def main():
        clock = asyncio.get_running_loop().time
        with pytest.raises(DeadlineExceeded, match="slow was not ready within 600 s"):
            await Slow("slow").aopen()
        assert clock() < OPEN_S + 0.1
        await Slow("slow", fallbacks=[Slow("spare")]).aclose()
        async with NeverClosed():
            pass
        stores = Stores(DocumentStore(), NeverClosedVectors(), LexicalIndex())
        await Collection("c", tenant="t", stores=stores).aclose()
        assert clock() < OPEN_S + 3 * CLOSE_S + 0.3

    run_virtual(main())
    left = {
        f"{name} was not closed within {CLOSE_S:g} s, and is left so"
        for name in ("slow", "spare", "memory", "the stores of collection c")
    }
    assert left <= set(caplog.messages)


@pytest.mark.promise("opened")
def test_what_fails_to_close_keeps_nothing_else_open():
    closed = []

    async def fails():
        raise OSError("the disk is full")

    async def ends():
        closed.append("ended")

    agent = ReActAgent(llm=ScriptedLLM([]), tools=[Stuck("one", closes=fails), Stuck("two", closes=ends)])

    async def main():
        with pytest.raises(OSError, match="the disk is full"):
            await agent.aclose()

    run(main())
    assert closed == ["ended"]


@pytest.mark.promise("opened")
def test_an_opened_memory_has_its_tables(tmp_path):
    async def main():
        memory = SQLMemory(f"sqlite+aiosqlite:///{tmp_path}/file.db")
        await memory.async_open()
        await memory.aclose()

    run(main())
    import sqlite3

    with sqlite3.connect(tmp_path / "file.db") as database:
        assert database.execute("SELECT count(*) FROM factory_messages").fetchone() == (0,)
    database.close()


LATE = """
import asyncio, sys, threading
from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseLLMWrapper

released, loaded = threading.Event(), []


class Late:
    def find_spec(self, name, path=None, target=None):
        if name == "tenacity":
            loaded.append(released.wait(20))


sys.meta_path.insert(0, Late())


class Model(BaseLLMWrapper):
    async def _chat(self, messages, tools, **options):
        raise AssertionError("its libraries are not loaded yet")


async def main():
    result = await ReActAgent(llm=Model("m")).async_run("go", timeout=0.3)
    print(result.status, result.stop_reason, loaded)
    released.set()


asyncio.run(main())
"""


@pytest.mark.promise("time-total")
def test_a_first_run_whose_time_is_over_while_a_library_still_loads_does_not_wait_for_that():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("partial deadline []\n", "")


def test_what_no_thread_can_load_is_loaded_by_the_loop(tmp_path, monkeypatch):
    (tmp_path / "loaded_in_place.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with no_thread("asyncio_"):
        asyncio.run(load("loaded_in_place"))
    assert "loaded_in_place" in sys.modules
