"""The tools and scripts that the tests of the loop share."""

from __future__ import annotations

import asyncio

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.resilience import Resilience

NO_RETRY = Resilience(retry={"attempts": 1})


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def fail(text: str) -> str:
    """Fail."""
    raise ValueError(text)


@tool(name="wait")
async def wait_(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return f"waited {seconds:g}"


def agent(script, *tools, **options):
    llm = script if isinstance(script, ScriptedLLM) else ScriptedLLM(script, resilience=NO_RETRY)
    return ReActAgent(llm=llm, tools=tools, **options)


def call(name, text="", **arguments):
    return Turn(text=text, calls=[(name, arguments)])
