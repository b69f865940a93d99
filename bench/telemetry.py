"""
What listening costs: `python -m bench.telemetry` prints the CPU of a step with each observer, in interleaved rounds.

The model and the tool are in this process and do nothing, so what is left is the runtime and who listens. The exporter
throws away what it is given; its own thread is part of the figure.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bench.run import STEPS, InProcess, add
from shared_libs.agents import Limits, ReActAgent
from shared_libs.observability import OpenTelemetry, PrometheusMetrics

ROUNDS, RUNS = 9, 100


class _Nowhere(SpanExporter):
    def export(self, spans):
        return SpanExportResult.SUCCESS


def _listeners():
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return {
        "nobody": [],
        "a function that does nothing": [lambda event: None],
        "OpenTelemetry, no provider": [OpenTelemetry()],
        "OpenTelemetry, exporting": [OpenTelemetry(tracers, meters)],
        "Prometheus": [PrometheusMetrics()],
    }


async def main() -> None:
    agents = {
        name: ReActAgent(llm=InProcess(), tools=[add], limits=Limits(max_steps=STEPS), observers=observers)
        for name, observers in _listeners().items()
    }
    taken: dict[str, list[float]] = {name: [] for name in agents}
    for _ in range(ROUNDS):
        for name, agent in agents.items():
            started = time.process_time()
            for _ in range(RUNS):
                await agent.async_run("go")
            taken[name].append(1e6 * (time.process_time() - started) / RUNS / STEPS)
    nobody = statistics.median(taken["nobody"])
    print(f"{'who listens':32}{'µs a step':>10}{'more':>8}")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:32}{median:10.0f}{median - nobody:8.0f}")


if __name__ == "__main__":
    asyncio.run(main())
