"""
Whether runs are slowed by others whose sync tool blocks its thread: `python -m bench.beside`.

Fifty runs ask a model of 50 ms three times, without company and beside fifty runs that use a sync tool of 0.2 s all the
time; printed are p50 and p95 of the fifty, medians of interleaved rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.run import InProcess, add
from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import LLMResponse, ToolCall, tool
from shared_libs.atomic.llms import BaseLLMWrapper

AT_ONCE, RUNS, ROUNDS = 50, 400, 5


@tool
def block(number: int) -> str:
    """Block a thread."""
    time.sleep(0.2)
    return str(number)


class Blocking(BaseLLMWrapper):
    """A model that calls the blocking tool for ever."""

    provider = "bench"

    async def _chat(self, messages, tools, **options):
        return LLMResponse(tool_calls=(ToolCall(f"c{len(messages)}", "block", {"number": len(messages)}),))


async def measure(agent: ReActAgent) -> tuple[float, float]:
    """Return p50 and p95 of the time of a run, in ms, fifty at a time."""
    taken: list[float] = []
    left = iter(range(RUNS))

    async def worker() -> None:
        for _ in left:
            started = time.perf_counter()
            await agent.async_run("go")
            taken.append(1000 * (time.perf_counter() - started))

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    taken.sort()
    return taken[len(taken) // 2], taken[int(len(taken) * 0.95)]


async def main() -> None:
    quick = ReActAgent(llm=InProcess(steps=3, delay_s=0.05), tools=[add])
    limits = Limits(timeout_s=600, max_steps=100_000, max_tool_calls=None)
    slow = ReActAgent(llm=Blocking("blocking"), tools=[block], limits=limits)
    await measure(quick)
    rows: dict[str, list[tuple[float, float]]] = {"alone": [], "beside": []}
    for _ in range(ROUNDS):
        rows["alone"].append(await measure(quick))
        company = [asyncio.create_task(slow.async_run("go")) for _ in range(AT_ONCE)]
        await asyncio.sleep(0.3)
        rows["beside"].append(await measure(quick))
        for task in company:
            task.cancel()
        await asyncio.wait(company)
    for name, taken in rows.items():
        p50, p95 = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"{name:8} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms")
    await slow.aclose()


if __name__ == "__main__":
    asyncio.run(main())
