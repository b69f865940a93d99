"""
Thousands of runs with random faults in models, tools and memory: none late, none lost, nothing left behind.

`python -m bench.soak [--runs 10000] [--at-once 200] [--seed 1]` checks every run and prints the figures and the worst
case. `--only RUN` does a single run of a seed again and prints its events. Exit code 1 when a promise was broken.

A run may be late by 50 ms beyond what the event loop itself was late at that moment: a sleeper beside the runs measures
that lag, since with 200 runs on one core the loop has a queue of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from shared_libs.agents import AgentResult, ReActAgent
from shared_libs.atomic import (
    BaseMemory,
    BaseTool,
    InProcessMemory,
    LLMChunk,
    LLMResponse,
    Message,
    Resilience,
    ToolCall,
)
from shared_libs.atomic.errors import (
    AuthenticationFailed,
    ContentFiltered,
    LLMConnectionError,
    MalformedResponse,
    MemoryStoreError,
    ProviderUnavailable,
    RateLimited,
    StreamInterrupted,
)
from shared_libs.atomic.events import AgentEvent, RunFinished
from shared_libs.atomic.llms import BaseLLMWrapper
from shared_libs.atomic.types import Attempt, Usage
from shared_libs.memory.sql import SQLMemory

ALLOWED_LATE_S = 0.05
MODEL_FAULTS = (
    "429",
    "503",
    "reset",
    "hang",
    "slow",
    "malformed",
    "cut",
    "stall",
    "401",
    "filtered",
    "stubborn",
    "bug",
)
TOOL_FAULTS = ("slow", "hang", "stubborn", "raise", "exit", "thread", "stuck thread", "huge", "self-cancel")
MEMORY_FAULTS = ("error", "hang", "slow", "stubborn")


class Dice:
    """The faults of a seed: what happens to the n-th call of a run at one place is fixed by its name alone."""

    def __init__(self, seed: int, share: float) -> None:
        self._seed = seed
        self._share = share
        self.thrown: collections.Counter[str] = collections.Counter()

    def fault(self, kinds: tuple[str, ...], *place: object) -> str:
        """Return one of the kinds, or an empty text for none."""
        dice = random.Random(f"{self._seed}/{place}")
        fault = dice.choice(kinds) if dice.random() < self._share else ""
        self.thrown[f"{place[0]}: {fault or 'well'}"] += 1
        return fault

    def number(self, low: float, high: float, *place: object) -> float:
        """Return a number between two."""
        return random.Random(f"{self._seed}/{place}").uniform(low, high)


async def stubborn(seconds: float) -> None:
    """Ignore every cancellation for so long."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)


def run_of(messages: list[Message]) -> str:
    """Return whose conversation this is: every question names its run."""
    return next(message.text for message in reversed(messages) if message.text.startswith("run ")).split()[1]


class Model(BaseLLMWrapper):
    """A model in this process that calls two tools and then answers, where it is let."""

    provider = "soak"

    def __init__(self, model: str, dice: Dice, **options: Any) -> None:
        super().__init__(model, **options)
        self._dice = dice
        self.asked: collections.Counter[str] = collections.Counter()

    async def _stream(self, messages: Any, tools: Any, **options: Any) -> AsyncGenerator[LLMChunk, None]:
        run = run_of(messages)
        self.asked[run] += 1
        fault = self._dice.fault(MODEL_FAULTS, "model", self.model, run, self.asked[run])
        match fault:
            case "429":
                raise RateLimited("slow down", retry_after_s=self._dice.number(0, 2, "after", run))
            case "503":
                raise ProviderUnavailable("busy")
            case "reset":
                raise LLMConnectionError("reset")
            case "401":
                raise AuthenticationFailed("no key")
            case "filtered":
                raise ContentFiltered("no")
            case "malformed":
                raise MalformedResponse("not JSON")
            case "bug":
                raise KeyError("choices")
            case "hang":
                await asyncio.sleep(3600)
            case "stubborn":
                await stubborn(self._dice.number(0.5, 2, "stubborn", run))
            case "slow":
                await asyncio.sleep(self._dice.number(0, 0.5, "slow", run))
        observed = [message for message in messages if message.role == "tool"]
        if not tools or len(observed) >= 2:
            await asyncio.sleep(self._dice.number(0.0, 0.3, "last thought", run))
            answer = f"answer of run {run}"
            yield LLMChunk("text", answer[:6])
            if fault == "cut":
                raise StreamInterrupted("cut")
            if fault == "stall":
                await asyncio.sleep(3600)
            yield LLMChunk("text", answer[6:])
            yield LLMChunk("finished", response=LLMResponse(text=answer, usage=Usage(10, 2, 0, 12)))
            return
        await asyncio.sleep(self._dice.number(0.05, 0.4, "thinking", run, len(observed)))
        calls = tuple(ToolCall(f"c{n}", "work", {"run": run, "number": n}) for n in range(2))
        yield LLMChunk("finished", response=LLMResponse(text="why", tool_calls=calls, usage=Usage(10, 2, 0, 12)))

    async def _chat(self, messages: Any, tools: Any, **options: Any) -> LLMResponse:
        async for chunk in self._stream(messages, tools, **options):
            last = chunk
        assert last.response is not None
        return last.response


class Work(BaseTool):
    """A tool that does a little, where it is let."""

    name = "work"
    description = "Works."
    timeout_s = 0.4

    def __init__(self, dice: Dice, blocking: float) -> None:
        self._dice = dice
        self._blocking = blocking
        self._threads_tool = ThreadWork()

    async def execute(self, run: str, number: int) -> Any:
        fault = self._dice.fault(TOOL_FAULTS, "tool", run, number)
        seconds = self._dice.number(0.01, 1, "tool time", run, number)
        if self._dice.number(0, 1, "blocks", run, number) < self._blocking:
            self._dice.thrown["tool: blocks the loop"] += 1
            time.sleep(3600)  # noqa: ASYNC251 - until it is interrupted
        match fault:
            case "slow":
                await asyncio.sleep(seconds)
            case "hang":
                await asyncio.sleep(3600)
            case "stubborn":
                await stubborn(seconds)
            case "raise":
                raise ValueError("broken")
            case "exit":
                raise SystemExit(3)
            case "thread":
                return await self._threads_tool.async_run({"seconds": min(seconds, 0.05)})
            case "stuck thread":
                return await self._threads_tool.async_run({"seconds": seconds})
            case "huge":
                return "x" * 100_000
            case "self-cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(1)
        return f"{run} saw {number}"

    async def aclose(self) -> None:
        await self._threads_tool.aclose()
        await super().aclose()


class ThreadWork(BaseTool):
    """Blocks a thread."""

    name = "thread_work"
    description = "Blocks a thread."
    timeout_s = 0.2

    def execute(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"


class Memory(BaseMemory):
    """A memory that fails at times, over a real one; in the process it keeps a session only for its run."""

    def __init__(self, dice: Dice, inner: BaseMemory | None) -> None:
        self._dice = dice
        self._inner = inner
        self._sessions: dict[str, InProcessMemory] = {}

    def _of(self, session_id: str) -> BaseMemory:
        return self._inner or self._sessions.setdefault(session_id, InProcessMemory())

    async def forget(self, session_id: str) -> list[Message]:
        """Return what is kept of a session, and let go of it."""
        kept = await self._of(session_id)._load(session_id, None)  # noqa: SLF001 - however long a busy machine takes
        self._sessions.pop(session_id, None)
        return kept

    async def _fail(self, verb: str, session_id: str) -> None:
        match self._dice.fault(MEMORY_FAULTS, "memory", verb, session_id):
            case "error":
                raise MemoryStoreError("the store is down")
            case "hang":
                await asyncio.sleep(3600)
            case "stubborn":
                await stubborn(self._dice.number(0.1, 1, "memory time", session_id))
            case "slow":
                await asyncio.sleep(self._dice.number(0, 0.2, "memory slow", session_id))

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        await self._fail("store", session_id)
        await self._of(session_id)._store(session_id, messages)  # noqa: SLF001 - it is wrapped

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        await self._fail("load", session_id)
        return await self._of(session_id)._load(session_id, limit)  # noqa: SLF001

    async def _search(self, session_id: str, query: str, k: int) -> list[Message]:
        return await self._of(session_id)._search(session_id, query, k)  # noqa: SLF001

    async def aclose(self) -> None:
        if self._inner is not None:
            await self._inner.aclose()


class LoopLag:
    """How late the event loop is: a sleeper that notes when it was woken too late."""

    def __init__(self) -> None:
        self._notes: collections.deque[tuple[float, float]] = collections.deque(maxlen=4000)
        self.worst_s = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.002
            await asyncio.sleep(0.002)
            late = loop.time() - due
            self._notes.append((loop.time(), late))
            self.worst_s = max(self.worst_s, late)

    def since(self, moment: float) -> float:
        """How late it was in all after a moment, in seconds: the end of a run takes several turns of the loop."""
        return sum(late for at, late in self._notes if at >= moment)


class Soak:
    """The runs of one seed, and what was seen of them."""

    def __init__(self, seed: int, share: float, blocking: float, folder: Path) -> None:
        self.dice = Dice(seed, share)
        policy = Resilience(
            retry={"attempts": 3, "base_s": 0.02},
            breaker={"failures": 1_000_000},  # one that opens would keep the faults from most of the runs
            first_token_timeout_s=0.3,
            idle_timeout_s=0.2,
        )
        self.models = [Model(name, self.dice) for name in ("second", "third")]
        self.models.insert(0, Model("first", self.dice, resilience=policy, fallbacks=self.models))
        self._tool = Work(self.dice, blocking)
        stores = [None, SQLMemory(f"sqlite+aiosqlite:///{folder / 'soak.db'}")]
        self._agents = [
            ReActAgent(llm=self.models[0], tools=[self._tool], memory=Memory(self.dice, store), observers=[self.hear])
            for store in stores
        ]
        self._events: dict[str, list[AgentEvent]] = collections.defaultdict(list)
        self.lag = LoopLag()
        self.ends: collections.Counter[str] = collections.Counter()
        self.left_running = 0
        self.late: list[tuple[float, float, str]] = []
        self.broken: list[str] = []

    def hear(self, event: AgentEvent) -> None:
        self._events[event.run_id].append(event)

    async def one(self, number: int) -> AgentResult:
        """Do one run and check its promises."""
        run = str(number)
        agent = self._agents[number % 8 == 0]
        timeout = self.dice.number(0.3, 3, "timeout", run)
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await agent.async_run(f"run {run} please", timeout=timeout, session_id=f"s{run}", run_id=run)
        took = loop.time() - began
        await asyncio.sleep(0.004)  # so that the sleeper has noted how late the loop is
        late, lag = took - timeout, self.lag.since(began + timeout - 0.05) if took > timeout else 0.0
        self.late.append((late - lag, late, run))
        self.ends[f"{result.status} ({result.stop_reason})"] += 1
        self.left_running += len(result.still_running)
        events = self._events.pop(run)
        self._check(run, late - lag <= ALLOWED_LATE_S, f"late by {late:.3f} s with a loop late by {lag:.3f} s")
        self._check(run, [event.seq for event in events] == list(range(1, len(events) + 1)), "event numbers with holes")
        self._check(run, isinstance(events[-1], RunFinished), "the last event is not the end")
        asked = sum(model.asked.pop(run, 0) for model in self.models)
        known, unheard = len(result.attempts), sum(map(may_be_unheard, result.attempts))
        counted = known - unheard <= asked <= known or (known < asked and bool(result.still_running))
        self._check(run, counted, f"{asked} calls, {known} in the ledger, {unheard} of them perhaps never begun")
        if result.answer is not None and result.status == "answered":
            self._check(run, result.answer == f"answer of run {run}", f"crossed or cut: {result.answer!r}")
        for step in result.steps:
            for seen in step.observations:
                crossed = not seen.is_error and " saw " in seen.content and not seen.content.startswith(f"{run} saw")
                self._check(run, not crossed, f"observed another's: {seen.content!r}")
        assert isinstance(agent.memory, Memory)
        kept = await agent.memory.forget(f"s{run}")
        called = [call.id for message in kept for call in message.tool_calls]
        answered = [message.tool_call_id for message in kept if message.role == "tool"]
        self._check(run, called == answered, f"the history is not valid: {called} called, {answered} observed")
        return result

    def _check(self, run: str, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(f"run {run}: {what}")

    async def aclose(self) -> None:
        for agent in self._agents:
            await agent.aclose()


def may_be_unheard(attempt: Attempt) -> bool:
    """
    Whether an attempt may have ended before the model heard of it, and so be in the ledger alone.

    Before Python 3.12 a task begins in the next turn of the loop. Where that comes later than the attempt's time, as on
    a loop that is held or crowded, the attempt is over before its first step; from 3.12 on the first step is at once.
    """
    cut = attempt.outcome in {"timeout", "cancelled"} and attempt.first_token_s is None
    return cut and sys.version_info < (3, 12)


def memory_mb() -> float:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def files() -> int:
    """The open files and sockets of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def soak(arguments: argparse.Namespace, folder: Path) -> int:
    before = (files(), threading.active_count())
    work = Soak(arguments.seed, arguments.share, arguments.blocking, folder)
    sleeper = asyncio.get_running_loop().create_task(work.lag.watch())
    await work.one(arguments.runs)  # everything is imported now
    gc.collect()
    gc.freeze()  # as docs/deadlines.md advises a service: a full collection stops every run of the process
    numbers = iter(range(arguments.runs))
    memory: list[float] = []
    began = time.perf_counter()

    async def worker() -> None:
        for number in numbers:
            await work.one(number)
            if number % (arguments.runs // 5 or 1) == 0:
                memory.append(memory_mb())
                print(f"{number:7} runs begun, {memory[-1]:.0f} MB", file=sys.stderr)

    await asyncio.gather(*(worker() for _ in range(arguments.at_once)))
    wall = time.perf_counter() - began
    sleeper.cancel()
    await asyncio.wait([sleeper])
    left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    if left:  # what absorbs its cancellation here does so for two seconds at most
        await asyncio.wait(left, timeout=5)
    await work.aclose()
    gc.collect()
    memory.append(memory_mb())
    tasks = len(asyncio.all_tasks()) - 1
    report(work, arguments, wall, memory)
    after = (files(), threading.active_count())
    print(f"left: {tasks} tasks, files {before[0]} -> {after[0]}, threads {before[1]} -> {after[1]}")
    if tasks or after[0] > before[0]:
        work.broken.append("something is left")
    print(f"{len(work.broken)} broken promises")
    for line in work.broken[:20]:
        print(f"  {line}   (again: python -m bench.soak --seed {arguments.seed} --only {line.split()[1].rstrip(':')})")
    return 1 if work.broken else 0


def report(work: Soak, arguments: argparse.Namespace, wall: float, memory: list[float]) -> None:
    """Print what was seen."""
    beyond = sorted(row[0] for row in work.late)
    worst = max(work.late)
    print(f"seed {arguments.seed}: {arguments.runs} runs, {arguments.at_once} at once, {wall:.1f} s")
    for end, count in work.ends.most_common():
        print(f"  {count:6}  {end}")
    print(f"faults thrown: {sum(n for name, n in work.dice.thrown.items() if not name.endswith('well'))}")
    print(f"left running at their run's end, and named: {work.left_running}")
    p99 = beyond[int(len(beyond) * 0.99)]
    print(f"late beyond the loop's own lag, ms: p99 {1000 * p99:.1f}, worst {1000 * worst[0]:.1f}")
    print(f"worst case: run {worst[2]}, {1000 * worst[1]:.1f} ms after its deadline")
    print(f"worst lag of the loop: {1000 * work.lag.worst_s:.1f} ms")
    print(f"memory, MB: {' '.join(f'{value:.0f}' for value in memory)}")


async def again(arguments: argparse.Namespace, folder: Path) -> int:
    """Do one run of a seed again, alone."""
    work = Soak(arguments.seed, arguments.share, arguments.blocking, folder)
    work._agents[arguments.only % 8 == 0].observers += (lambda event: print(f"{event.at_s:7.3f} {event}"),)  # noqa: SLF001
    print(await work.one(arguments.only))
    await work.aclose()
    return 1 if work.broken else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.25, help="of the calls that meet a fault")
    parser.add_argument("--blocking", type=float, default=0.001, help="share of the tool calls that block the loop")
    parser.add_argument("--only", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        what = soak if arguments.only is None else again
        sys.exit(asyncio.run(what(arguments, Path(folder))))


if __name__ == "__main__":
    main()
