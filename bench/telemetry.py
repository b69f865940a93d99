"""
What listening costs: `python -m bench.telemetry` prints the CPU of a step with each observer, in interleaved rounds.

The model and the tool are in this process and do nothing, so what is left is the runtime and who listens: on the event
loop's thread, and in the whole process with the threads that record points and export. The exporter throws away what it
is given. "The SDK alone" begins and ends the same spans and records the same points with attributes that are there
already.

`python -m bench.telemetry --runs 100000` does so many runs of two steps with nobody, with OpenTelemetry exporting, and
with Prometheus beside it, each in a process of its own, and prints how much memory and how many objects
there are on the way. Exit code 1 where the second half of the runs has left more than a megabyte.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bench.run import STEPS, InProcess, add
from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import events
from shared_libs.observability import OpenTelemetry, PrometheusMetrics

ROUNDS, RUNS = 9, 100


class _Nowhere(SpanExporter):
    def export(self, spans):
        return SpanExportResult.SUCCESS


ABOUT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "bench", "gen_ai.request.model": "bench"}
AT_START = {**ABOUT, "gen_ai.agent.name": "agent", "factory.attempt": 1}
AT_END = {
    "gen_ai.usage.input_tokens": 0,
    "gen_ai.usage.output_tokens": 0,
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.response.model": "bench",
    "gen_ai.response.time_to_first_chunk": 0.1,
}
POINTS = {events.AttemptFinished: 2, events.ToolFinished: 1}
STARTS = {events.StepStarted: {"factory.step": 1}, events.AttemptStarted: AT_START, events.ToolStarted: AT_START}
ENDS = {events.ModelFinished: AT_END, events.ToolFinished: None}


class _TheSdk:
    """The spans and points of a step by the SDK itself: step, request and tool, two durations, a first chunk."""

    def __init__(self, tracers, meters):
        self._tracer = tracers.get_tracer("bench")
        self._seconds = meters.get_meter("bench").create_histogram("seconds", "s")
        self._step, self._open = None, None

    def __call__(self, event):
        kind = type(event)
        for _ in range(POINTS.get(kind, 0)):
            self._seconds.record(0.1, ABOUT)
        if kind in ENDS:
            if ENDS[kind]:
                self._open.set_attributes(ENDS[kind])
            self._open.end(2)
        elif kind in STARTS:
            started = self._tracer.start_span("span", attributes=STARTS[kind], start_time=1)
            if kind is not events.StepStarted:
                self._open = started
                return
            if self._step is not None:
                self._step.end(2)
            self._step = started


def _providers():
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return tracers, MeterProvider(metric_readers=[InMemoryMetricReader()])


def _listeners():
    return {
        "nobody": [],
        "a function that does nothing": [lambda event: None],
        "OpenTelemetry, no provider": [OpenTelemetry()],
        "OpenTelemetry, exporting": [OpenTelemetry(*_providers())],
        "the SDK alone, exporting": [_TheSdk(*_providers())],
        "Prometheus": [PrometheusMetrics()],
    }


KEPT = ("nobody", "OpenTelemetry, exporting", "and Prometheus")
GROWN = 1 << 20
"""Bytes that the second half of the runs may leave: pages of the allocator, not objects of runs."""


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def memory(who: str, runs: int) -> int:
    """Do so many runs, and tell on the way what is held."""
    listeners = _listeners() | {KEPT[2]: [OpenTelemetry(*_providers()), PrometheusMetrics()]}
    agent = ReActAgent(llm=InProcess(2), tools=[add], observers=listeners[who])
    looks, held = [runs // 10, runs // 2, runs], []
    for number in range(1, runs + 1):
        await agent.async_run("go")
        if number in looks:
            await asyncio.sleep(6)  # longer than a batch of spans waits
            gc.collect()
            held.append((_resident(), len(gc.get_objects())))
    print(f"{who:28}" + "".join(f"{size / 1e6:10.1f} MB {count:8,}" for size, count in held), flush=True)
    return 1 if held[2][0] - held[1][0] > GROWN else 0


def flat(runs: int) -> int:
    """Look at memory over many runs, with each listener in a process of its own."""
    heads = "".join(f"{f'after {count:,}':>22}" for count in (runs // 10, runs // 2, runs))
    print(f"{'who listens':28}{heads}", flush=True)
    command = [sys.executable, "-m", "bench.telemetry", "--runs", str(runs), "--who"]
    return max(subprocess.run([*command, who], check=False).returncode for who in KEPT)


async def main() -> None:
    agents = {
        name: ReActAgent(llm=InProcess(), tools=[add], limits=Limits(max_steps=STEPS), observers=observers)
        for name, observers in _listeners().items()
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in agents}
    for _ in range(ROUNDS):
        for name, agent in agents.items():
            gc.collect()
            loop, whole = time.thread_time(), time.process_time()
            for _ in range(RUNS):
                await agent.async_run("go")
            spent = time.thread_time() - loop, time.process_time() - whole
            taken[name].append((1e6 * spent[0] / RUNS / STEPS, 1e6 * spent[1] / RUNS / STEPS))
    print(f"{'who listens, µs a step':32}{'loop':>8}{'more':>8}{'best':>8}{'process':>10}{'more':>8}{'best':>8}")
    nobody = list(zip(*taken["nobody"], strict=True))
    for name, times in taken.items():
        told = ""
        for its, none, width in zip(zip(*times, strict=True), nobody, (8, 10), strict=True):
            more, best = statistics.median(its) - statistics.median(none), min(its) - min(none)
            told += f"{statistics.median(its):{width}.0f}{more:8.0f}{best:8.0f}"
        print(f"{name:32}{told}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--who", choices=KEPT)
    asked = parser.parse_args()
    if asked.who:
        sys.exit(asyncio.run(memory(asked.who, asked.runs)))
    sys.exit(flat(asked.runs) if asked.runs else asyncio.run(main()))
