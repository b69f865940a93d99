"""Agents and workers for the tests of durable runs: in this process, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import ToolCall, tool
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.durable import JobStore, Submission, Worker, WorkerPolicy

LEASE_S = 1.0


def by_length(*turns):
    """A model that answers by what it is shown, as a real one does: not by how often it was asked."""

    def answer(messages):
        return turns[sum(message.role == "assistant" for message in messages)]

    return ScriptedLLM([answer] * 500)


def turn(*calls):
    return Turn(calls=[ToolCall(call_id, name, arguments) for call_id, name, arguments in calls])


def agent(model, tools=(), observers=(), **more):
    def build(claim, sinks):
        return ReActAgent(
            llm=model() if callable(model) else model,
            tools=tools,
            observers=[*sinks, *observers],
            **{"limits": Limits()} | more,
        )

    return build


def answers(text="done"):
    """Build agents that answer at once."""
    return agent(lambda: by_length(text))


async def submit(store, run_id, **more):
    given = {"agent": "a", "definition": {"name": "a"}, "question": "go"} | more
    return await store.submit(Submission(run_id=run_id, **given), str(given["definition"]))


@asynccontextmanager
async def working(url, build, record=None, extend=None, **more):
    """A worker at work; it is drained in the end."""
    extends = {} if extend is None else {"extend": extend}
    worker = Worker(url, build, policy=WorkerPolicy(**{"lease_s": LEASE_S} | more), record=record, **extends)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        if not task.done():
            await worker.started.wait()
            worker.drain()
        await task


@asynccontextmanager
async def opened(url):
    async with JobStore(url) as store:
        yield store


async def until(look, *arguments, wanted=bool):
    """Look until it is as wanted; every look asks a real database."""
    async with asyncio.timeout(20):
        while True:
            found = await look(*arguments)
            if wanted(found):
                return found
            await asyncio.sleep(0.02)


def ended(job):
    return job is not None and job.ended


@tool
async def look(amount: int) -> str:
    """Look."""
    return f"saw {amount}"


def looks_twice():
    """Build agents that look twice, and are done."""
    turns = [turn(("a", "look", {"amount": 1})), turn(("b", "look", {"amount": 2})), "done"]
    return agent(lambda: by_length(*turns), [look])
