"""
Kills the process of a worker with SIGKILL, at every boundary or at random moments, and looks at what became of it.

`python -m bench.durable --kills 300 --seed 1` does so on SQLite and on a PostgreSQL of its own. The agents call one
tool a turn, several side by side, one after the other, in two sub-agents at once, in processes, ask for approvals, and
call one that must not be called twice. Their tools write down when a body begins and ends, in a file outside. After the
last kill a worker that nobody kills ends all runs; then nothing may be lost, nothing that was recorded done again, no
content wrong or swapped, and no key another one.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import importlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.harness import child
from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import BaseTool, LLMResponse, Message, ToolCall
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms import BaseLLMWrapper
from shared_libs.atomic.scope import current_scope
from shared_libs.durable import Claim, JobStore, Submission, Worker, WorkerPolicy
from shared_libs.durable.holding import Holder
from shared_libs.tools.agent import AgentTool

LEASE_S = 0.4
RUNS = 6
"""How many runs are submitted at once."""

PACE_S = 0.01
"""What a body takes, and a model, a few times over: so that most lives end in the middle of something."""

LOADED = ("aiosqlite", "asyncpg", "jsonschema", "pydantic", "shared_libs.durable.worker", "shared_libs.tools.agent")
SHAPES = ("plain", "parallel", "sequential", "subagents", "process", "approval", "once")
NOTES = "FACTORY_BENCH_NOTES"


def note(what: str, **more: Any) -> None:
    """
    Write a line into the file outside.

    A kill may cut a write where it crosses a page: what has not been said whole is not said (`said`).
    """
    line = "\n" + json.dumps({"what": what, **more}) + "\n"
    file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


class Pay(BaseTool):
    """Says what it was asked, a moment later."""

    name, description = "pay", "pays"

    async def execute(self, amount: int) -> str:
        key = current_scope().key
        note("begun", key=key)
        await asyncio.sleep(PACE_S * (amount % 5))
        note("ended", key=key)
        return f"{key.split('/')[0]} paid {amount}"


class PayInLine(Pay):
    name, sequential = "pay_in_line", True


class PayOnce(Pay):
    name, idempotent = "pay_once", False


class PayIfAllowed(Pay):
    name, needs_approval = "pay_if_allowed", True


class PayApart(BaseTool):
    """In a process of its own; told who it is by its scope."""

    name, description, isolation = "pay_apart", "pays", "process"

    def execute(self, amount: int) -> str:
        key = current_scope().key
        note("begun", key=key)
        note("ended", key=key)
        return f"{key.split('/')[0]} paid {amount}"


class Model(BaseLLMWrapper):
    """
    Asks `at_once` calls of `tool` a turn, for `turns` turns; answers with all it has seen.

    It is what it is shown.
    """

    tool, turns, at_once = "pay", 3, 2

    async def _chat(self, messages: list[Message], tools: tuple, **options: object) -> LLMResponse:
        done = sum(message.role == "assistant" for message in messages)
        await asyncio.sleep(2 * PACE_S * random.random())
        if done >= self.turns:
            return LLMResponse(text="|".join(message.text for message in messages if message.role == "tool"))
        words = self.tool == "left"
        names = ["left", "right"] if words else [self.tool] * self.at_once
        calls = tuple(
            ToolCall(
                f"c{done}{index}",
                name,
                {"question": str(10 * done + index)} if words else {"amount": done * self.at_once + index},
            )
            for index, name in enumerate(names)
        )
        return LLMResponse(text="", tool_calls=calls, finish_reason="tool_calls")


class Asked(Model):
    """A sub-agent's: it answers with its question, so that a swapped answer shows."""

    async def _chat(self, messages: list[Message], tools: tuple, **options: object) -> LLMResponse:
        question = next(message.text for message in messages if message.role == "user")
        await asyncio.sleep(2 * PACE_S * random.random())
        if messages[-1].role != "user":
            return LLMResponse(text=f"{question}: {messages[-1].text}")
        return LLMResponse(
            text="", tool_calls=(ToolCall("p", "pay", {"amount": int(question)}),), finish_reason="tool_calls"
        )


def model(tool: str, turns: int = 3, at_once: int = 2) -> Model:
    made = Model("bench")
    made.tool, made.turns, made.at_once = tool, turns, at_once
    return made


LIMITS = Limits(timeout_s=3600, max_repeats=99)
"""A run is killed so often that its time would be up."""


def build(claim: Claim, sinks: Sequence[EventSink]) -> ReActAgent:
    """Make an agent of one of the shapes."""
    shape = claim.definition["shape"]
    if shape == "subagents":
        inner = [
            AgentTool(ReActAgent(llm=Asked("bench"), tools=[Pay()], name=name), description="asks")
            for name in ("left", "right")
        ]
        return ReActAgent(llm=model("left", 2), tools=inner, observers=sinks, limits=LIMITS)
    tool = {
        "plain": Pay,
        "parallel": Pay,
        "sequential": PayInLine,
        "once": PayOnce,
        "approval": PayIfAllowed,
        "process": PayApart,
    }[shape]()
    asks = model(tool.name, 6, 1) if shape == "plain" else model(tool.name)
    return ReActAgent(llm=asks, tools=[tool], observers=sinks, limits=LIMITS)


def died(pid: int) -> bool:
    """Wait for a child; whether a signal ended it."""
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status) and status:
        sys.exit("a worker failed by itself")
    return os.WIFSIGNALED(status)


async def work(url: str, boundary: int | None) -> None:
    """Do runs until all have ended; die by SIGKILL at the write of this number, before it or after it."""
    holder = Holder
    if boundary is not None:
        count = itertools.count()
        keep, move, claim = holder.keep, holder.move, holder.claim

        def deadly(write: Callable[..., Any]) -> Callable[..., Any]:
            async def written(*arguments: Any, **more: Any) -> Any:
                if next(count) == boundary:
                    os.kill(os.getpid(), signal.SIGKILL)
                done = await write(*arguments, **more)
                if done and next(count) == boundary:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

            return written

        holder.keep, holder.move, holder.claim = deadly(keep), deadly(move), deadly(claim)  # type: ignore[method-assign]
    kept = holder.keep

    async def noted(self: Holder, claim: Claim, facts: Any, events: Any) -> bool:
        done = await kept(self, claim, facts, events)
        for fact in facts if done else ():
            note("recorded", run=claim.run_id, name=fact.name)
        return done

    holder.keep = noted  # type: ignore[method-assign]
    worker = Worker(url, build, policy=WorkerPolicy(concurrency=4, lease_s=LEASE_S, deaths=1000))
    working = asyncio.create_task(worker.run())
    store = JobStore(url)
    await store.aopen()
    while not working.done():
        for job in await store.find(statuses=("waiting",), limit=1000):
            for call in job.pending:  # one by one: with the first the run goes on
                await store.decide(job.run_id, {call["call_id"]: {"approved": True}})
        if not await store.standing():
            worker.drain()
            await working
        await asyncio.sleep(0.02)
    working.result()
    await store.aclose()


async def empty(server: str) -> None:
    """Make a database that nobody else uses."""
    import asyncpg

    connection = await asyncpg.connect(user="owner", database="postgres", host=server.partition("host=")[2])
    await connection.execute(f"CREATE DATABASE bench_{os.getppid()}")
    await connection.close()


async def submit(url: str, shapes: Sequence[str], life: int) -> None:
    store = JobStore(url)
    await store.aopen()
    for number in range(RUNS):
        shape = shapes[(life + number) % len(shapes)]
        run_id = f"{life}-{number}-{shape}"
        question = f"go {run_id}"
        await store.submit(
            Submission(run_id=run_id, agent=shape, definition={"shape": shape}, question=question), shape
        )
        note("submitted", run=run_id)
    await store.aclose()


def expected(run_id: str) -> str:
    """What a run answers when nothing is lost and nothing swapped."""
    if run_id.endswith("subagents"):
        pairs = [(done, index) for done in range(2) for index in range(2)]
        return "|".join(f"{10 * d + i}: {run_id} paid {10 * d + i}" for d, i in pairs)
    return "|".join(f"{run_id} paid {amount}" for amount in range(6))


async def judge(url: str, deaths: int, notes: list[dict[str, Any]]) -> None:
    """Look at what the lives have left, and print it."""
    store = JobStore(url)
    submitted = [row["run"] for row in notes if row["what"] == "submitted"]
    lost = wrong = unsure = 0
    for run_id in submitted:
        job = await store.get(run_id)
        if job is None or not job.ended or job.result is None:
            lost += 1
            continue
        answer = job.result["answer"]
        if run_id.endswith("once"):
            parts = [] if answer is None else answer.split("|")
            unsure += sum("may have happened" in part for part in parts)
            due = expected(run_id).split("|")
            fits = [part == one or "may have happened" in part for part, one in zip(parts, due, strict=False)]
            wrong += not all(fits) or len(parts) != len(due)
        elif answer != expected(run_id):
            wrong += 1
            print(run_id, job.status, answer, job.why, file=sys.stderr)
        events = await store.events(run_id)
        seqs = [event["seq"] for event in events]
        told = collections.Counter(e["call_id"] for e in events if e["type"] == "tool_finished")
        if seqs != sorted(set(seqs)) or set(told.values()) - {1} or len(told) != len(expected(run_id).split("|")):
            wrong += 1
            print(f"{run_id}: events {seqs} {told}", file=sys.stderr)
    begun = collections.Counter(row["key"] for row in notes if row["what"] == "begun")
    ended = collections.Counter(row["key"] for row in notes if row["what"] == "ended")
    twice = sum(count > 1 for count in begun.values())
    once = sum(count > 1 for key, count in begun.items() if "-once/" in key)
    again = _recorded_and_begun_again(notes)
    calls = sum(len(expected(run_id).split("|")) for run_id in submitted)
    print(
        f"{deaths} kills, {len(submitted)} runs: lost {lost}, wrong or swapped {wrong}, recorded and done again {again}"
        f", keys {len(begun)} of {calls}, bodies begun twice {twice} (most {max(begun.values())}), ended twice "
        f"{sum(count > 1 for count in ended.values())}, of those that must not be: {once}, told as unsure {unsure}",
        flush=True,
    )
    if lost or wrong or again or once or len(begun) + unsure < calls or len(begun) > calls:
        sys.exit("not as it should be")
    await store.aclose()


def _recorded_and_begun_again(notes: list[dict[str, Any]]) -> int:
    recorded: set[tuple[str, str]] = set()
    again = 0
    for row in notes:
        if row["what"] == "recorded":
            again += (row["run"], row["name"]) in recorded
            recorded.add((row["run"], row["name"]))
        elif row["what"] == "begun":
            run, *inner, _, call = row["key"].split("/")
            again += (run, "/".join([*inner, f"tool.{call}"])) in recorded
    return again


def said(notes: str) -> Iterator[dict[str, Any]]:
    """Read what the file outside says."""
    for line in filter(None, notes.split("\n")):
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _begun(notes: str) -> int:
    return Path(notes).read_bytes().count(b'"begun"')


def kill(url: str, lives: argparse.Namespace) -> None:
    """Kill and look, again and again."""
    chance = random.Random(lives.seed)
    with tempfile.NamedTemporaryFile(suffix=".notes") as file:
        os.environ[NOTES] = file.name
        deaths = 0
        for life in range(lives.kills):
            if life % lives.every == 0:
                died(child(lambda life=life: submit(url, lives.shapes, life)))
            if lives.boundaries:
                deaths += died(child(lambda life=life: work(url, life)))
            else:
                begun = _begun(file.name)
                pid = child(lambda: work(url, None))
                until = time.monotonic() + 20
                while _begun(file.name) == begun and time.monotonic() < until:
                    time.sleep(0.005)  # until it has something to be killed in
                time.sleep(chance.uniform(0, lives.longest))
                os.kill(pid, signal.SIGKILL)
                deaths += died(pid)
        died(child(lambda: work(url, None)))
        notes = [*said(Path(file.name).read_text())]
        if died(child(lambda: judge(url, deaths, notes))):
            sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--every", type=int, default=1, help="lives from one submission to the next (default: 1)")
    parser.add_argument("--boundaries", action="store_true", help="at each write, instead of at random moments")
    parser.add_argument(
        "--longest", type=float, default=0.4, help="seconds a life may last behind its first effect (default: 0.4)"
    )
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one of the two databases")
    parser.add_argument("--server", help="where a PostgreSQL listens; default: one of its own")
    arguments = parser.parse_args()
    for name in LOADED:
        importlib.import_module(name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {}
        if arguments.only != "postgresql":
            urls["SQLite"] = f"sqlite+aiosqlite:///{folder}/durable.db"
        if arguments.only != "sqlite":
            from tests.postgres import running_postgres

            server = arguments.server or stack.enter_context(running_postgres()).place
            urls["PostgreSQL"] = f"postgresql+asyncpg://owner@{server.replace('/postgres', f'/bench_{os.getpid()}')}"
            died(child(lambda: empty(server)))
        for name, url in urls.items():
            print(name, end=": ", flush=True)
            kill(url, arguments)


if __name__ == "__main__":
    main()
