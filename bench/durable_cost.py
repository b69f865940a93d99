"""
What a durable step and a durable run cost, beside the same without durability, DBOS, and LangGraph's checkpointer.

`python -m bench.durable_cost` prints a table: wall milliseconds, CPU milliseconds of the workers' processes, and of the
PostgreSQL server's, for each step (a model or a tool call that answers at once), and for each run of one model call
that comes through the queue. Everything is done twice, and the second time counts. `--beside` adds DBOS with a step for
each call (by position), and DBOS as the queue of runs; both need `dbos`. `--langgraph` adds LangGraph's PostgreSQL
checkpointer, a node for each step; it needs `langgraph` and `langgraph-checkpoint-postgres`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import LLMResponse, Message, ToolCall, tool
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms import BaseLLMWrapper
from shared_libs.durable import Claim, JobStore, Submission, Worker, WorkerPolicy

RESULT = "x" * 300
TURNS = 20
STEPS = 2 * TURNS + 1
AT_ONCE = 20


class Model(BaseLLMWrapper):
    """Calls a tool so many turns, then answers; at once."""

    async def _chat(self, messages: list[Message], tools: tuple, **options: object) -> LLMResponse:
        done = sum(message.role == "assistant" for message in messages)
        if messages[0].text.startswith("short") or messages[-1].text.startswith("short") or done >= TURNS:
            return LLMResponse(text="done")
        return LLMResponse(
            text="", tool_calls=(ToolCall(f"c{done}", "look", {"number": done}),), finish_reason="tool_calls"
        )


@tool
async def look(number: int) -> str:
    """Look."""
    return f"{number} {RESULT}"


LIMITS = Limits(timeout_s=600, max_steps=10**6, max_tool_calls=None, max_repeats=10**6)


def agent(sinks: Sequence[EventSink] = ()) -> ReActAgent:
    return ReActAgent(llm=Model("bench"), tools=[look], limits=LIMITS, observers=sinks)


SERVER: list[int] = []
"""The process of the PostgreSQL, and no other."""

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _times(pid: int) -> tuple[int, float, float]:
    """Return a process's parent, its own CPU seconds, and those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, ended = (sum(map(int, fields[begin : begin + 2])) * _TICK_S for begin in (11, 13))
    return int(fields[1]), own, ended


def server_cpu_s() -> float:
    """CPU seconds of the server and all it has ever started."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent, own, ended = _times(int(folder.name))
            total += own + ended if int(folder.name) in SERVER else own if parent in SERVER else 0.0
    return total


class Clock:
    """Wall, CPU and server's milliseconds between two moments, a part each; CPU of this process, or of others."""

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = pids
        self._then = self._now()

    def _now(self) -> tuple[float, float, float]:
        cpu = sum(_times(pid)[1] for pid in self._pids) if self._pids else time.process_time()
        return time.perf_counter(), cpu, server_cpu_s()

    def per(self, parts: int) -> str:
        return " ".join(
            f"{1000 * max(0.0, now - then) / parts:8.2f}" for now, then in zip(self._now(), self._then, strict=True)
        )


async def plain() -> str:
    ours = agent()
    for _ in range(2):
        clock = Clock()
        results = await asyncio.gather(*(ours.async_run("go") for _ in range(AT_ONCE)))
    assert all(len(result.steps) == TURNS + 1 for result in results)
    return clock.per(AT_ONCE * STEPS)


async def until_done(store: JobStore) -> None:
    left: Any = True
    while left:
        await asyncio.sleep(0.05)
        left = await store.find(statuses=("queued", "running"), limit=1)


def build(claim: Claim, sinks: Sequence[EventSink]) -> ReActAgent:
    return agent(sinks)


async def submit(store: JobStore, question: str, runs: int) -> str:
    clock = Clock()
    for _ in range(runs):
        made = Submission(run_id=uuid.uuid4().hex, agent="a", definition={"n": 1}, question=question, timeout_s=600.0)
        await store.submit(made, "h")
    return clock.per(runs)


async def durable(url: str, question: str, runs: int, at_once: int, *, times: int = 2) -> tuple[str, str]:
    """Submit runs and do them; the cost of a submission, and of all the rest, a run each."""
    async with JobStore(url) as store:
        for _ in range(times):
            submitting = await submit(store, question, runs)
            worker = Worker(url, build, policy=WorkerPolicy(concurrency=at_once))
            clock = Clock()
            working = asyncio.create_task(worker.run())
            await until_done(store)
            done = clock.per(runs * (1 if question == "short" else STEPS))
            worker.drain()
            await working
        assert not await store.find(statuses=("failed", "partial"), limit=1)
    return submitting, done


def by_workers(url: str, count: int) -> str:
    """Steps by several workers on one store, each a process of its own, with the same number of runs at once each."""

    async def work() -> None:
        worker = Worker(url, build, policy=WorkerPolicy(concurrency=AT_ONCE))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        await worker.run()

    async def watch(pids: Sequence[int]) -> str:
        async with JobStore(url) as store:
            for _ in range(2):
                clock = Clock(pids)
                await submit(store, "go", AT_ONCE * count)
                await until_done(store)
        return clock.per(AT_ONCE * count * STEPS)

    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            try:
                asyncio.run(work())
            finally:
                os._exit(0)
        pids.append(pid)
    try:
        return asyncio.run(watch(pids))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def dbos(url: str, runs: int, steps: int, at_once: int) -> str:
    """DBOS: a workflow for each run, through its queue; a step by position for each call."""
    from dbos import DBOS, DBOSPortableJSONSerializer

    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "executor_id": uuid.uuid4().hex,
            "application_version": "1",
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
        }
    )

    async def body(number: int) -> str:
        return f"{number} {RESULT}"

    @DBOS.workflow()
    async def run() -> int:
        for number in range(steps):
            await DBOS.run_step_async(None, body, number)
        return steps

    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=at_once, polling_interval_sec=0.1)

    async def main() -> str:
        for _ in range(2):
            clock = Clock()
            handles = [await DBOS.enqueue_workflow_async("bench", run) for _ in range(runs)]
            for handle in handles:
                await handle.get_result(polling_interval_sec=0.1)
        return clock.per(runs * max(1, steps))

    told = asyncio.run(main())
    DBOS.destroy()
    return told


def langgraph(url: str) -> str:
    """LangGraph: a node for each step, its state (the messages so far) checkpointed after each."""
    import operator
    from typing import Annotated, TypedDict

    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.graph import END, StateGraph

    # written so because LangGraph looks its annotations up in the module
    state_type: Any = TypedDict("State", {"messages": Annotated[list[str], operator.add]})

    async def step(state: dict[str, list[str]]) -> dict[str, list[str]]:
        return {"messages": [f"{len(state['messages'])} {RESULT}"]}

    async def main() -> str:
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            graph: Any = StateGraph(state_type)
            graph.add_node("step", step)
            graph.set_entry_point("step")
            graph.add_conditional_edges("step", lambda state: END if len(state["messages"]) >= STEPS else "step")
            compiled = graph.compile(checkpointer=saver)
            for _ in range(2):
                clock = Clock()
                await asyncio.gather(
                    *(
                        compiled.ainvoke(
                            {"messages": []}, {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 999}
                        )
                        for _ in range(AT_ONCE)
                    )
                )
            return clock.per(AT_ONCE * STEPS)

    return asyncio.run(main())


def in_a_child(work: Callable[[], str]) -> str:
    """Do it in a process of its own, so that nothing of one is counted for another."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(pid, 0)
    return said or "  failed"


def grown(file: Path) -> None:
    """How a store grows by 300 steps of 5 KB each: half of them results of tools."""
    global RESULT, TURNS
    RESULT, TURNS = "x" * 5_000, 150
    asyncio.run(durable(f"sqlite:///{file}", "go", 1, 1, times=1))
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("VACUUM")
    connection.close()
    print(f"300 steps, 150 results of 5 KB: {file.stat().st_size / 1e6:.2f} MB on SQLite", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--langgraph", action="store_true")
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    from tests.postgres import running_postgres

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(running_postgres())
        urls = {"SQLite": f"sqlite:///{folder}/ours.db", "PostgreSQL": f"postgresql://owner@{server.place}"}
        SERVER[:] = [int((server.folder / "data" / "postmaster.pid").read_text().split()[0])]
        print(f"{'':44} wall ms   CPU ms  of the server", flush=True)

        def told(what: str, work: Callable[[], str]) -> None:
            print(f"{what:44}{in_a_child(work)}", flush=True)

        told("a step, plain agent", lambda: asyncio.run(plain()))
        for name, url in urls.items():
            told(f"a step, durable, {name}", lambda url=url: asyncio.run(durable(url, "go", AT_ONCE, AT_ONCE))[1])
        for count in (2, 4):
            for name, url in urls.items():
                told(f"a step, {count} workers, {name}", lambda url=url, count=count: by_workers(url, count))
        file, host = f"sqlite:///{folder}/dbos.db", urls["PostgreSQL"].replace("sql://", "sql+psycopg://")
        if arguments.beside:
            told("a step, DBOS by position, SQLite", lambda: dbos(file, AT_ONCE, STEPS, AT_ONCE))
            told("a step, DBOS by position, PostgreSQL", lambda: dbos(host, AT_ONCE, STEPS, AT_ONCE))
        if arguments.langgraph:
            told("a step, LangGraph, PostgreSQL", lambda: langgraph(urls["PostgreSQL"]))
        for name, url in urls.items():
            for part, what in enumerate(("a submission", "a run of one model call")):

                def short(url: str = url, part: int = part) -> str:
                    return asyncio.run(durable(url, "short", arguments.runs, AT_ONCE))[part]

                told(f"{what}, {name}", short)
        if arguments.beside:
            told("an empty run, DBOS, SQLite", lambda: dbos(file, arguments.runs, 0, AT_ONCE))
            told("an empty run, DBOS, PostgreSQL", lambda: dbos(host, arguments.runs, 0, AT_ONCE))
        grown(folder / "grown.db")


if __name__ == "__main__":
    main()
