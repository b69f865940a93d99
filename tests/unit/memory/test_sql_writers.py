"""Writers of one session, in several processes: a conflict is told, nothing is lost, nothing is mixed."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseLLMWrapper, InProcessMemory, LLMResponse, MemoryConflict, Message, MisuseError
from shared_libs.atomic.events import Warned
from shared_libs.memory import SQLMemory
from tests.nursery import ROOT, Program

WRITER = """
import asyncio, sys
from shared_libs.atomic import MemoryConflict, Message
from shared_libs.memory import SQLMemory
url, session, name, policy = sys.argv[1:]
async def main():
    memory, conflicts = SQLMemory(url), 0
    for number in range(15):
        exchange = [Message(role, f"{name} {number}") for role in ("user", "assistant", "user", "assistant")]
        while True:
            length = (await memory.async_recall(session)).length if policy == "after" else None
            try:
                await memory.async_store(session, exchange, after=length)
                break
            except MemoryConflict:
                conflicts += 1
    await memory.aclose()
    print(conflicts)
asyncio.run(main())
"""


@pytest.mark.promise("writers")
@pytest.mark.parametrize("policy", ["after", "whenever"])
def test_three_processes_lose_nothing_and_do_not_mix(store_url, session, policy):
    writers = [
        Program(
            ["-c", WRITER, store_url, session, name, policy], cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE
        )
        for name in "abc"
    ]
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        assert policy == "after" or int(out) == 0

    async def load():
        memory = SQLMemory(store_url)
        found = await memory.async_load(session)
        await memory.aclose()
        return found

    texts = [message.text for message in asyncio.run(load())]
    exchanges = [texts[start : start + 4] for start in range(0, len(texts), 4)]
    assert all(len(set(exchange)) == 1 for exchange in exchanges)
    for name in "abc":  # each writer's own stand in its order
        assert [said[0] for said in exchanges if said[0][0] == name] == [f"{name} {number}" for number in range(15)]


@pytest.mark.promise("writers")
def test_a_store_that_comes_late_is_a_conflict_and_stores_nothing(store_url, session):
    async def main():
        memory = SQLMemory(store_url)
        one, two = await memory.async_recall(session), await memory.async_recall(session)
        await memory.async_store(session, [Message("user", "first")], after=one.length)
        with pytest.raises(MemoryConflict, match="it has 1 messages, not 0; nothing was stored"):
            await memory.async_store(session, [Message("user", "second")], after=two.length)
        found = await memory.async_load(session), await memory.async_recall(session)
        await memory.aclose()
        return found

    loaded, recalled = asyncio.run(main())
    assert loaded == recalled.messages == [Message("user", "first")]
    assert (recalled.length, recalled.before) == (1, 0)


class Together(BaseLLMWrapper):
    """Answers when it has been asked twice: by then both runs have loaded the session."""

    def __init__(self):
        super().__init__("together")
        self.asked = asyncio.Barrier(2)

    async def _chat(self, messages, tools, **options):
        await self.asked.wait()
        return LLMResponse(text="ok")


@pytest.mark.promise("writers")
@pytest.mark.parametrize("kind", ["sql", "in-process"])
def test_two_runs_of_one_session_at_once_both_stand_whole_and_the_slower_is_warned(store_url, session, kind):
    async def main():
        memory = SQLMemory(store_url) if kind == "sql" else InProcessMemory()
        seen = []
        agent = ReActAgent(llm=Together(), memory=memory, observers=[seen.append])
        results = await asyncio.gather(*(agent.async_run(f"question {n}", session_id=session) for n in range(2)))
        found = await memory.async_load(session)
        await memory.aclose()
        return results, seen, found

    results, seen, found = asyncio.run(main())
    assert [(result.status, result.error) for result in results] == [("answered", None)] * 2
    assert [message.role for message in found] == ["user", "assistant"] * 2
    warned = [event.message for event in seen if isinstance(event, Warned)]
    assert len(warned) == 1
    assert "stored behind the exchange of another run" in warned[0]


@pytest.mark.parametrize("session_id", ["x" * 256, "a\0b"])
def test_a_session_id_no_database_can_hold_is_misuse(tmp_path, session_id):
    memory = SQLMemory(f"sqlite+aiosqlite:///{tmp_path}/sessions.db")
    for call in (memory.async_load(session_id), memory.async_store(session_id, [Message("user", "q")])):
        with pytest.raises(MisuseError, match="at most 255 characters"):
            asyncio.run(call)
