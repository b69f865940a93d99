"""How traces come into this process and leave it: a request's `traceparent`, and export by the variables of OTel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shared_libs.atomic.errors import MisuseError
from shared_libs.observability.otel import SCOPE, OpenTelemetry


@contextmanager
def continued_from(headers: Mapping[str, str]) -> Iterator[None]:
    """Let what runs inside belong to the trace that a request's headers name (`traceparent`, by lower-case names)."""
    from opentelemetry import context, propagate

    before = context.get_current()
    context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.attach(before)


def telemetry_from_environment() -> OpenTelemetry | None:
    """
    Set up export over OTLP/HTTP for this process, where the variables of OpenTelemetry ask for it.

    It is asked for by OTEL_EXPORTER_OTLP_ENDPOINT or one of its kin for traces and metrics; OTEL_SDK_DISABLED says no.
    Providers that the application has set already are used as they are. What is left to send goes out at exit.

    Returns:
        An observer for agents, or None where nobody asks.

    Raises:
        MisuseError: it is asked for, and the extra otel is not installed.

    """
    wanted = {kind for kind in ("TRACES", "METRICS") if _is_asked_for(kind)}
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider as Meters
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Tracers
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MisuseError(
            "OTEL_EXPORTER_OTLP_ENDPOINT cannot be followed: pip install 'genai-factory[otel]', or unset it"
        ) from None
    told = os.environ.get("OTEL_SERVICE_NAME", "") + os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if told else {"service.name": SCOPE})
    if "TRACES" in wanted and not isinstance(trace.get_tracer_provider(), Tracers):
        tracers = Tracers(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
    if "METRICS" in wanted and not isinstance(metrics.get_meter_provider(), Meters):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metrics.set_meter_provider(Meters(metric_readers=[reader], resource=resource))
    return OpenTelemetry()


def _is_asked_for(kind: str) -> bool:
    exporter = os.environ.get(f"OTEL_{kind}_EXPORTER", "otlp")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{kind}_ENDPOINT")
    return exporter == "otlp" and any(os.environ.get(name) for name in endpoints)
