"""Recorded runs: real agents on the virtual clock, their events kept; and empty stores for such."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import InProcessMemory, tool
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import Price, Usage
from tests.support import run_virtual

TABLES = "factory_runs, factory_run_events, factory_run_requests, factory_runs_form"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m"


@tool
async def look(place: str) -> dict:
    """Look something up."""
    await asyncio.sleep(1.0)
    if place == "nowhere":
        raise ValueError("no such place")
    return {"columns": ["place", "hint"], "rows": [[place, HOSTILE]]}


@tool
async def hang() -> str:
    """Ignore every cancellation for a while."""
    for _ in range(3):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue
    return "late"


def _play(script, question, timeout):
    events = []
    agent = ReActAgent(
        llm=ScriptedLLM(script, model="m-1", price=Price(input=1, output=2)),
        tools=[look, hang],
        name="scout",
        memory=InProcessMemory(),
        observers=[events.append],
    )

    async def main():
        async for _ in agent.async_stream(question, timeout=timeout, session_id="s", run_id="run-1"):
            pass
        stuck = asyncio.all_tasks() - {asyncio.current_task()}
        while stuck:
            for task in stuck:
                task.cancel()
            _, stuck = await asyncio.wait(stuck, timeout=1)

    run_virtual(main())
    return events


@pytest.fixture(scope="session")
def answered():
    """Two parallel calls, one failing call, one retry after a 429, an answer: on a clock of its own."""
    return _play(
        [
            Turn(
                text="I look twice.",
                calls=[("look", {"place": "a"}), ("look", {"place": "b"})],
                delay_s=0.5,
                usage=Usage(4, 2, 0, 6),
            ),
            RateLimited("slow down", status_code=429, retry_after_s=2.0),
            Turn(text="And there.", calls=[("look", {"place": "nowhere"})], usage=Usage(6, 3, 0, 9)),
            Turn(text="It is <b>there</b>.", delay_s=0.25, usage=Usage(20, 5, 0, 25)),
        ],
        "Where is it & why?",
        10,
    )


@pytest.fixture(scope="session")
def partial():
    """A tool that does not stop, and a last word."""
    return _play([Turn(text="Hm.", calls=[("hang", {})]), "As far as I saw: nothing."], "What is stuck?", 8)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/kept/runs.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request, url):
    """Give the URL of an empty store of each kind."""
    return url if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def postgres_url(postgres):
    place = f"postgresql://owner@{postgres}"
    asyncio.run(_emptied(place))
    return place


async def _emptied(place):
    connection = await asyncpg.connect(place)
    await connection.execute(f"DROP TABLE IF EXISTS {TABLES}")
    await connection.close()
