"""Ways to hold an event loop, and the tools and agents that the tests of the rescue run with them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.tools.agent import AgentTool

WAIT_S = 20
LIMIT_S = 0.2
"""Far below WAIT_S, for which what is not interrupted would block."""

OVER = f"blocking did not finish within its {LIMIT_S} s: it blocked the event loop, and was interrupted"
ENDED = []


LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(pytest.param(uvloop.new_event_loop, id="uvloop"))


def on(new_loop, main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def waits():
    threading.Event().wait(WAIT_S)


def reads():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(WAIT_S)
        ours.recv(1)


def spins():
    until = asyncio.get_running_loop().time() + WAIT_S
    while asyncio.get_running_loop().time() < until:
        sum(range(100))


def runs():
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({WAIT_S})"], check=False)


def pieces():
    for _ in range(1000):
        threading.Event().wait(WAIT_S / 1000)
        yield 1


@tool
async def polite() -> None:
    await asyncio.sleep(WAIT_S)


def blocking_by(block, **declarations):
    async def blocking() -> str:
        try:
            block()
        except Exception:
            return "kept"
        ENDED.append(block)
        return "ended"

    return tool(timeout_s=LIMIT_S, **declarations)(blocking)


def run_with(*tools, observers=(), **options):
    calls = [(each.name, {"question": "?"} if isinstance(each, AgentTool) else {}) for each in tools]
    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=calls), "done"]), tools=tools, observers=observers)
    return agent.async_run("go", **options)


def told(result):
    return [observation.content for observation in result.steps[0].observations]
