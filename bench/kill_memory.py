"""
Kills a process with SIGKILL at random moments while its agent writes history, and looks at what is left.

`python -m bench.kill_memory --kills 200 --seed 1` does so on SQLite, and on a PostgreSQL of its own (`--server ""`
leaves it out). After every kill each session has to load as a valid history, hold every exchange whose run had ended,
whole and in order, and carry the next run. Every 20 kills the database is an empty one, so that the making of the
tables is hit too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.harness import child
from shared_libs.agents import ReActAgent
from shared_libs.atomic import LLMResponse, Message, ToolCall, tool
from shared_libs.atomic.llms import BaseLLMWrapper
from shared_libs.atomic.memory import Compaction
from shared_libs.memory.sql import SQLMemory

SESSIONS = 3
EXCHANGE = ["user", "assistant", "tool", "tool", "assistant"]
LOADED = ("aiosqlite", "alembic.operations", "alembic.script", "asyncpg", "jsonschema", "pydantic")
"""Loaded before the forks, so that their time goes into the writing."""

FRESH_EVERY = 20
LONGEST_S = 0.5


class Model(BaseLLMWrapper):
    """Calls two tools, then answers; sums up whatever it is given."""

    async def _chat(self, messages: list[Message], tools: tuple, **options: object) -> LLMResponse:
        if not tools:
            return LLMResponse(text="a summary")
        if messages[-1].role == "tool":
            return LLMResponse(text=f"answer {messages[-1].text}")
        calls = tuple(ToolCall(f"c{number}", "look", {"number": number}) for number in range(2))
        return LLMResponse(text="", tool_calls=calls, finish_reason="tool_calls")


@tool
async def look(number: int) -> str:
    """Look something up."""
    return f"seen {number} " + "x" * 2_000


def agent(url: str) -> ReActAgent:
    model = Model("bench")
    return ReActAgent(llm=model, tools=[look], memory=SQLMemory(url, window=12, compaction=Compaction(model, keep=4)))


async def write(url: str, prefix: str, life: int, tell: int) -> None:
    """Run and run, in one session after the other; tell of every run that has ended."""
    ours = agent(url)
    for number in range(1_000_000):
        result = await ours.async_run(f"{life}.{number}", session_id=f"{prefix}-{number % SESSIONS}")
        assert (result.status, result.error) == ("answered", None), result
        os.write(tell, struct.pack("i", number))


async def check(url: str, prefix: str, told: dict[int, list[int]]) -> None:
    """Look at every session, and run once more in it. `told` is what each life has told of."""
    ours = agent(url)
    assert ours.memory is not None
    for session in range(SESSIONS):
        name = f"{prefix}-{session}"
        history = await ours.memory.async_load(name)
        roles = [message.role for message in history]
        assert roles == EXCHANGE * (len(history) // len(EXCHANGE)), f"{name} is not valid: {roles}"
        asked = [message.text for message in history[:: len(EXCHANGE)] if message.text != "check"]
        for life, numbers in told.items():
            mine = [number for number in numbers if number % SESSIONS == session]
            found = [int(text.partition(".")[2]) for text in asked if text.startswith(f"{life}.")]
            # the last run may have stored its exchange and not have told so any more
            assert found[: len(mine)] == mine, f"{name} has lost an exchange of life {life}: {found} of {mine}"
            assert len(found) <= len(mine) + 1, f"{name} has more than was written in life {life}: {found}"
        result = await ours.async_run("check", session_id=name)
        assert (result.status, result.error) == ("answered", None), result
    await ours.aclose()


def killed(url: str, prefix: str, life: int, after_s: float) -> list[int]:
    """Let a writer live for so long, kill it, and return the numbers of the runs it told of."""
    told, tell = os.pipe()
    pid = child(lambda: write(url, prefix, life, tell))
    os.close(tell)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"the writer ended by itself, with status {status}"
    with os.fdopen(told, "rb") as file:
        return [number for (number,) in struct.iter_unpack("i", file.read())]


def kill(make_url: Callable[[int], str], kills: int, seed: int) -> str:
    """Kill and look, again and again; return what happened, in words."""
    chance = random.Random(seed)
    runs = early = 0
    url, told = "", {}
    for life in range(kills):
        if life % FRESH_EVERY == 0:
            url, told = make_url(life), {}
        prefix = f"{seed}-{life // FRESH_EVERY}-{os.getpid()}"
        told[life] = killed(url, prefix, life, chance.uniform(0, LONGEST_S))
        runs, early = runs + len(told[life]), early + (not told[life])
        _, status = os.waitpid(child(lambda url=url, prefix=prefix, told=told: check(url, prefix, told)), 0)
        if status:
            sys.exit(f"after kill {life} of seed {seed} a history is not as it should be")
    return f"{kills} kills, {early} before the first run had ended, {runs} runs told of: every history is whole"


def databases(server: str, folder: Path) -> dict[str, Callable[[int], str]]:
    """Give a maker of URLs for each kind of database; a PostgreSQL one begins without our tables."""

    async def empty() -> None:
        import asyncpg

        connection = await asyncpg.connect(user="owner", database="postgres", host=server.partition("host=")[2])
        await connection.execute("DROP TABLE IF EXISTS factory_messages, factory_summaries, factory_schema_version")
        await connection.close()

    def postgresql(_: int) -> str:
        os.waitpid(child(empty), 0)
        return f"postgresql+asyncpg://owner@{server}"

    makers = {"SQLite": lambda life: f"sqlite+aiosqlite:///{folder}/{life}.db"}
    return makers | ({"PostgreSQL": postgresql} if server else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="on each database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", help="the part of a PostgreSQL's URL after user@; by default one is started")
    given = parser.parse_args()
    for library in LOADED:
        importlib.import_module(library)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = given.server
        if server is None:
            from tests.postgres import running_postgres

            server = stack.enter_context(running_postgres()).place
        for kind, make_url in databases(server, folder).items():
            began = time.perf_counter()
            said = kill(make_url, given.kills, given.seed)
            print(f"{kind}: {said} ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
