"""What a worker tells over HTTP: whether it lives and takes runs, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from shared_libs.atomic.errors import MisuseError
from shared_libs.durable import StoreUnavailable, Worker
from shared_libs.observability.prometheus import PrometheusMetrics

if TYPE_CHECKING:
    from prometheus_client import Metric

QUEUE_S = 1.0
"""Seconds in which the store has to say how long the queue is; else its figures are left out."""


def metrics_or_none() -> PrometheusMetrics | None:
    """Return what counts the events of runs; None where prometheus-client is not installed."""
    with suppress(MisuseError):
        return PrometheusMetrics()
    return None


@asynccontextmanager
async def telling_health(works: Worker, port: int, metrics: PrometheusMetrics | None) -> AsyncIterator[None]:
    """
    Answer `/healthz`, `/readyz` and `/metrics` on a port, as long as the context is open.

    It is alive where the loop answers, and ready where the last beat got through; only `/metrics` asks the store.

    Raises:
        MisuseError: the port cannot be listened on.

    """
    figures = WorkerFigures(works)

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "runs": works.busy})

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"ready": works.ready, "runs": works.busy}, status=200 if works.ready else 503)

    async def told(request: web.Request) -> web.Response:
        if metrics is None:
            return web.Response(
                status=501, text="metrics need prometheus-client: pip install 'genai-factory[prometheus]'\n"
            )
        await figures.look_at_the_queue()
        metrics.keep_in_progress(works.held)
        body, kind = metrics.exposition(request.headers.get("accept", ""))
        return web.Response(body=body, headers={"content-type": kind})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", told)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        if metrics is not None:
            metrics.registry.register(figures)
            await stack.enter_async_context(metrics.watching_the_loop())
        site = web.TCPSite(runner, "0.0.0.0", port)  # noqa: S104 - a probe comes from outside the pod
        try:
            await site.start()
        except OSError as error:
            raise MisuseError(f"--health {port} cannot be listened on: {os.strerror(error.errno or 0)}") from error
        yield


class WorkerFigures:
    """The figures of a worker itself, as Prometheus collects them."""

    def __init__(self, works: Worker) -> None:
        self._works = works
        self._queue: tuple[int, float] | None = None

    async def look_at_the_queue(self) -> None:
        """Ask the store how long the queue is, for the next `collect`."""
        self._queue = None
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(QUEUE_S):
                self._queue = await self._works.store.waiting()

    def collect(self) -> Iterator[Metric]:
        """Give the figures as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        works, counts = self._works, self._works.counts

        def gauge(name: str, text: str, value: float) -> Any:
            return GaugeMetricFamily(f"factory_{name}", text, value)

        yield gauge("worker_runs", "Runs that this worker holds", works.busy)
        yield gauge("worker_slots", "Runs that it does at once", works.policy.concurrency)
        yield gauge("worker_beat_age_seconds", "Seconds since its last beat got through", works.beat_age_s)
        yield gauge("worker_draining", "1 while it hands its runs over", float(works.draining))
        claims = CounterMetricFamily("factory_worker_claims", "Runs that it took from the queue", labels=["kind"])
        for kind, count in (("new", counts.new), ("again", counts.again)):
            claims.add_metric([kind], count)
        yield claims
        yield CounterMetricFamily("factory_worker_handed_over", "Runs that it left to others", value=counts.handed_over)
        yield SummaryMetricFamily(
            "factory_fact_seconds", "Writes of a fact", count_value=counts.facts, sum_value=counts.facts_s
        )
        if self._queue is not None:
            yield gauge("queue_waiting", "Runs that could begin, in the whole queue", self._queue[0])
            yield gauge("queue_oldest_seconds", "How long the first of them has waited", self._queue[1])
