"""A forked child: what the parent had in threads and processes is begun anew there, and stays whole in the parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

WAIT_S = 60
ROOT = Path(__file__).parents[3]

START = """
import asyncio, gc, multiprocessing, os, sys, threading, time
from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseEvaluator, InProcessMemory, tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.observability.spool import Spool
from tests.unit.atomic.tools.isolated import double

@tool(timeout_s=20)
def work(n: int) -> int:
    return n + 1

@tool(timeout_s=20, isolation="thread")
async def apart(n: int) -> int:
    return n + 1

MEMORY = InProcessMemory()

def ask(name="work"):
    model = ScriptedLLM([Turn(calls=[(name, {"n": 1})]), "done"])
    agent = ReActAgent(llm=model, tools=[work, apart, double], memory=MEMORY)
    result = asyncio.run(agent.async_run("go", session_id="s"))
    return result.steps[0].observations[0].content

def in_child(then):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            print("child", then(), flush=True)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
"""


def told(script):
    """Run a program in a process of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + script],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.promise("forks")
@pytest.mark.parametrize("name", ["work", "apart", "double"])
def test_a_tool_works_in_a_child_of_a_process_that_has_used_it(name):
    lines = told(f"print(ask({name!r})); in_child(lambda: ask({name!r})); print(ask({name!r}))")
    assert lines == ["2", "child 2", "2"]


@pytest.mark.promise("forks")
def test_a_child_of_multiprocessing_ends_by_itself():
    script = """
def main(): print("child", ask(), ask("double"), flush=True)
print(ask(), ask("double"), flush=True)
child = multiprocessing.get_context("fork").Process(target=main)
child.start(); child.join(); print(child.exitcode)
"""
    assert told(script) == ["2 2", "child 2 2", "0"]


@pytest.mark.promise("forks")
def test_the_workers_of_the_parent_survive_the_end_of_a_child_and_end_with_the_parent():
    script = """
ask("double")
worker = double._placement.workers._idle[0]
in_child(lambda: (ask("double"), asyncio.run(double.aclose()), gc.collect())[0])
print(worker.alive, ask("double"), worker in double._placement.workers._idle)
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:  # it outlives the parent, and holds nothing of the worker
    os.close(1); os.close(2)
    os.read(reading, 1) if os.close(writing) is None else None
    os._exit(0)
print(worker._guard.pid)
sys.stdout.flush()
os.read(0, 1)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
    ) as parent:
        assert parent.stdout.readline() == "child 2\n"
        assert parent.stdout.readline() == "True 2 True\n"
        guard = int(parent.stdout.readline())
        watch = os.pidfd_open(guard) if hasattr(os, "pidfd_open") else None
        parent.kill()
        parent.wait(WAIT_S)
    if watch is not None:
        import select

        ended, _, _ = select.select([watch], [], [], WAIT_S)
        os.close(watch)
        assert ended


@pytest.mark.promise("forks")
def test_a_lock_that_a_thread_held_at_the_fork_is_free_in_the_child():
    script = """
from shared_libs.atomic.watchdog import WATCHDOG
ask()
held, over = threading.Event(), threading.Event()

def hold():
    with work._placement.threads._crew._lock, WATCHDOG._changed:
        held.set(); over.wait()

thread = threading.Thread(target=hold); thread.start(); held.wait()
in_child(ask)
over.set(); thread.join()
"""
    assert told(script) == ["child 2"]


@pytest.mark.promise("forks")
def test_the_watchdog_watches_in_a_child_and_what_is_queued_is_the_parents():
    script = """
from shared_libs.atomic.watchdog import WATCHDOG

def watched():
    async def main():
        running = asyncio.create_task(ReActAgent(llm=ScriptedLLM(["done"])).async_run("go"))
        await asyncio.sleep(0)
        alive = WATCHDOG._thread.is_alive()
        await running
        return alive
    return asyncio.run(main())

ran = []
spool = Spool(ran.append, name="spool")
print(watched())
in_child(watched)
in_child(lambda: (spool.put("child"), spool.flush(20), ran)[1:])
spool.put("parent"); print(spool.flush(20), ran)
"""
    assert told(script) == ["True", "child True", "child (True, ['child'])", "True ['parent']"]


@pytest.mark.promise("forks")
def test_sql_mcp_and_memory_work_in_a_child_of_a_process_that_has_used_them(tmp_path):
    (tmp_path / "a.db").touch()
    script = f"""
from shared_libs.memory.sql import SQLMemory
from shared_libs.tools.mcp import MCPToolset
from shared_libs.tools.sql import SQLTool
sql = SQLTool(url="sqlite:///{tmp_path}/a.db")
memory = SQLMemory(url="sqlite+aiosqlite:///{tmp_path}/m.db")
mcp = MCPToolset(command=[sys.executable, "tests/mcp_raw_server.py", "echo"])

def use():
    async def main():
        model = ScriptedLLM([Turn(calls=[("sql", {{"query": "SELECT 7 AS n"}})]), "done"])
        agent = ReActAgent(llm=model, tools=[sql, mcp], memory=memory)
        result = await agent.async_run("go", session_id="s", timeout=20)
        return result.status, result.steps[0].observations[0].is_error, len(await memory.async_load("s"))
    return asyncio.run(main())

print(use()); in_child(use); print(use())
sys.stdout.flush()
os._exit(0)
"""
    lines = told(script)
    assert lines == [f"{who}('answered', False, {count})" for who, count in (("", 4), ("child ", 8), ("", 12))]
