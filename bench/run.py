"""
What an agent costs, measured in one run: read the ratios, not the milliseconds.

`python -m bench.run` prints
1. CPU of this process per three-call run over loopback HTTP: a loop by hand on aiohttp, our agent and the bare SDK
   loop, alone, 50 and 500 at once;
2. the framework's own cost of a step, with a model in the process: a step, less the model call, less the tool call;
3. the share of the perfect throughput with a model of 50 ms in the process, 50 and 1,000 at once;
4. import times beside `python -c pass`.

`--quick` makes it short and rough; `--profile` prints where a step's time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from bench.clients import ByHand, Ours, Sdk
from bench.harness import crowd, server
from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import LLMResponse, Message, ToolCall, tool
from shared_libs.atomic.llms import BaseLLMWrapper

STEPS = 10


async def over_http(rounds: int, runs: int) -> None:
    print("1. CPU per three-call run over HTTP (ms), medians of interleaved rounds\n")
    print(f"{'':28}{'by hand':>8}{'ours':>8}{'SDK':>8}{'ours/hand':>11}{'ours/SDK':>10}{'runs/s ours':>13}")
    for at_once, delay_s, port in ((1, 0.0, 18080), (50, 0.05, 18081), (500, 0.05, 18082)):
        with server(port, delay_s) as url:
            for stream in (False, True):
                makers = {"hand": ByHand, "ours": Ours, "SDK": Sdk}
                contestants = {name: make(url, stream=stream) for name, make in makers.items()}
                taken: dict[str, list] = {name: [] for name in contestants}
                for contestant in contestants.values():
                    await crowd(contestant.run, at_once, max(at_once, 5))
                gc.collect()  # of imports and warming up: it would fall on whoever makes garbage next, 60 ms for a run
                for _ in range(rounds):
                    for name, contestant in contestants.items():
                        taken[name].append(await crowd(contestant.run, at_once, max(runs, 2 * at_once)))
                cpu = {name: [1000 * row[0] for row in rows] for name, rows in taken.items()}
                hand, ours, sdk = (statistics.median(cpu[name]) for name in makers)
                to_hand = statistics.median(a / b for a, b in zip(cpu["ours"], cpu["hand"], strict=True))
                rate = 1 / statistics.median(row[1] for row in taken["ours"])
                label = f"{at_once} at once{', streaming' if stream else ''}"
                print(f"{label:28}{hand:8.2f}{ours:8.2f}{sdk:8.2f}{to_hand:11.2f}{ours / sdk:10.2f}{rate:13.0f}")
                for contestant in contestants.values():
                    await contestant.aclose()


class InProcess(BaseLLMWrapper):
    """A model in this process: tool calls until the conversation is long enough, then an answer."""

    provider = "bench"

    def __init__(self, steps: int = STEPS, delay_s: float = 0.0) -> None:
        super().__init__("bench")
        self._length = 2 + 2 * (steps - 1)
        self._delay_s = delay_s

    async def _chat(self, messages, tools, **options):
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if len(messages) >= self._length:
            return LLMResponse(text="done")
        return LLMResponse(text="why", tool_calls=(ToolCall(f"c{len(messages)}", "add", {"a": 1, "b": len(messages)}),))


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def own_cost(rounds: int, runs: int, *, profile: bool) -> None:
    model = InProcess()
    agent = ReActAgent(llm=model, tools=[add], limits=Limits(max_steps=STEPS))
    question = [Message("user", "x")]

    async def per_call(call: Callable[[], Awaitable[object]], count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            await call()
        return 1e6 * (time.process_time() - started) / count

    rows = []
    for _ in range(rounds):
        step = await per_call(lambda: agent.async_run("go"), runs) / STEPS
        chat = await per_call(lambda: model.async_chat(question), runs * STEPS)
        bare = await per_call(lambda: model._chat(question, ()), runs * STEPS)  # noqa: SLF001 - the model alone
        acting = await per_call(lambda: add.async_run({"a": 1, "b": 2}), runs * STEPS)
        rows.append((step, chat, bare, acting, step - chat - acting * (STEPS - 1) / STEPS))
    best = [min(column) for column in zip(*rows, strict=True)]
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    print("\n2. a step with a model in the process (µs of CPU), median and best of the rounds\n")
    names = ("whole step", "model call with the onion", "model alone", "tool call supervised", "the loop's own cost")
    for name, median, least in zip(names, middle, best, strict=True):
        print(f"{name:28}{median:8.0f}{least:8.0f}")
    if profile:
        profiler = cProfile.Profile()
        profiler.enable()
        await per_call(lambda: agent.async_run("go"), runs)
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


async def throughput(seconds: float) -> None:
    print("\n3. share of the perfect throughput, model of 50 ms in the process\n")
    for at_once in (50, 1000):
        agent = ReActAgent(llm=InProcess(steps=3, delay_s=0.05), tools=[add])
        runs = max(2, round(seconds / 0.15)) * at_once
        _, wall = await crowd(lambda agent=agent: agent.async_run("go"), at_once, runs)
        print(f"{at_once:5} at once{'':16}{0.15 / at_once / wall:8.1%}   {3 / wall:8.0f} model calls/s")


def imports() -> None:
    print("\n4. start-up (ms), medians of 5\n")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import shared_libs.atomic": [sys.executable, "-c", "import shared_libs.atomic"],
        "factory --help": [sys.executable, "-m", "shared_libs.cli", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            taken[name].append(1000 * (time.perf_counter() - started))
    for name, rows in taken.items():
        print(f"{name:28}{statistics.median(rows):8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    rounds, runs = (3, 30) if arguments.quick else (7, 200)
    asyncio.run(over_http(rounds, runs))
    asyncio.run(own_cost(rounds, runs, profile=arguments.profile))
    asyncio.run(throughput(1.0 if arguments.quick else 5.0))
    imports()


if __name__ == "__main__":
    main()
