"""How traces come into this process and leave it: a request's `traceparent`, and export by the variables of OTel."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence

from shared_libs.atomic.loading import importing
from shared_libs.observability.otel import OpenTelemetry
from shared_libs.observability.otel_words import SCOPE

TO_SEND_S = 2.0
"""Seconds at the end of a program to send what is left."""


def telemetry_from_environment() -> OpenTelemetry | None:
    """
    Set up export over OTLP/HTTP for this process, where the variables of OpenTelemetry ask for it.

    It is asked for by OTEL_EXPORTER_OTLP_ENDPOINT or one of its kin for traces and metrics; OTEL_SDK_DISABLED says no.
    Providers that the application has set already are used as they are. What is left to send goes out at exit, for
    which two seconds are taken at most.

    Returns:
        An observer for agents, or None where nobody asks.

    Raises:
        MisuseError: it is asked for, and the extra otel is not installed.

    """
    wanted = {kind for kind in ("TRACES", "METRICS") if _is_asked_for(kind)}
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    with importing("opentelemetry", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider as Meters
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Tracers
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    told = os.environ.get("OTEL_SERVICE_NAME", "") + os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if told else {"service.name": SCOPE})
    ends: list[Callable[[], object]] = []
    if "TRACES" in wanted and not isinstance(trace.get_tracer_provider(), Tracers):
        tracers = Tracers(resource=resource, shutdown_on_exit=False)
        ends.append(tracers.shutdown)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
    if "METRICS" in wanted and not isinstance(metrics.get_meter_provider(), Meters):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        meters = Meters(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
        ends.append(meters.shutdown)
        metrics.set_meter_provider(meters)
    if ends:
        over = threading.Event()
        atexit.register(_end_in_time, over, [(end, _thread(end, over)) for end in ends])
    return OpenTelemetry()


def _thread(end: Callable[[], object], over: threading.Event) -> threading.Thread:
    """A thread that waits for the end of the program: at it 3.12 makes none."""

    def work() -> None:
        over.wait()
        end()

    thread = threading.Thread(target=work, name="factory-otel-end", daemon=True)
    thread.start()
    return thread


def _end_in_time(over: threading.Event, ends: Sequence[tuple[Callable[[], object], threading.Thread]]) -> None:
    """Send what is left; a collector that does not answer, for which the SDK waits half a minute, gets `TO_SEND_S`."""
    over.set()
    until = time.monotonic() + TO_SEND_S
    with contextlib.suppress(RuntimeError):  # a forked child has to make its own, which 3.12 refuses
        threads = [thread if thread.is_alive() else _thread(end, over) for end, thread in ends]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _is_asked_for(kind: str) -> bool:
    exporter = os.environ.get(f"OTEL_{kind}_EXPORTER", "otlp")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{kind}_ENDPOINT")
    return exporter == "otlp" and any(os.environ.get(name) for name in endpoints)
