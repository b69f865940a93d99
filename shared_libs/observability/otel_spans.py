"""
The spans of OpenTelemetry at the price of a run's hot path.

The SDK's own span costs some 25 µs. The span of a run is the SDK's, so that it decides whether the trace is sampled;
those below are `RunSpan`, which its processors get as they get its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared_libs.atomic.loading import importing
from shared_libs.observability.otel_facts import Fact, put_together
from shared_libs.observability.otel_words import SCOPE

with importing("opentelemetry", "OpenTelemetry"):
    from opentelemetry import propagate, trace

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, TracerProvider

MOST_ATTRIBUTES = 64
"""More than any span of ours has; who allows fewer, or cuts their values, gets the SDK's spans."""

_PORTS = {"http": 80, "https": 443}


def carry(headers: dict[str, str], server: str) -> None:
    """Write the current trace into a request's headers; a span of ours tells which model server is asked."""
    propagate.inject(headers)
    span = trace.get_current_span()
    scope = getattr(span, "instrumentation_scope", None)
    if server and scope is not None and scope.name == SCOPE:
        at = urlsplit(server)
        span.set_attributes({"server.address": at.hostname or "", "server.port": at.port or _PORTS.get(at.scheme, 0)})


class Spans:
    """
    Starts spans by a provider, or by the one of the process, whichever that is when a run begins.

    Args:
        provider: whose spans; None: the process's.

    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._given = provider
        self._provider: TracerProvider | None = None
        self._tracer: trace.Tracer
        self._quick: Callable[..., trace.Span] | None = None

    @property
    def provider(self) -> TracerProvider:
        """Whose spans they are now."""
        return trace.get_tracer_provider() if self._given is None else self._given

    def look(self) -> None:
        """Take the provider that there is now."""
        provider = self.provider
        if provider is not self._provider:
            self._provider, self._tracer = provider, provider.get_tracer(SCOPE)
            self._quick = _quick(self._tracer)

    def first(self, name: str, before: Context, attributes: Mapping[str, Any], start_ns: int) -> trace.Span:
        """Start the span of a run, by its provider's own means."""
        self.look()
        return self._tracer.start_span(name, before, attributes=attributes, start_time=start_ns)

    def start(
        self, name: str, before: Context, parent: trace.Span, kind: SpanKind, fact: Fact, start_ns: int
    ) -> trace.Span:
        """Start a span below `parent`, the one that is current in `before`."""
        if self._quick is not None and parent.is_recording():
            return self._quick(name, before, parent, kind, [fact], start_ns)
        return self._tracer.start_span(name, before, kind, put_together([fact]), start_time=start_ns)


def _quick(tracer: trace.Tracer) -> Callable[..., trace.Span] | None:
    """
    Return what starts spans without the SDK's price, None where these are not for this tracer.

    They are not where it is not the SDK's, where a sampler decides by more than the trace, and where somebody has
    narrowed what a span may hold.
    """
    try:
        from opentelemetry.sdk.trace import SpanLimits, Tracer, sampling

        from shared_libs.observability.otel_run_span import RunSpan
    except ImportError:
        return None
    limits, sampler = getattr(tracer, "_span_limits", None), getattr(tracer, "sampler", None)
    if type(sampler) is sampling.ParentBased:  # of a trace that is sampled here it asks this one
        sampler = getattr(sampler, "_local_parent_sampled", None)
    if type(tracer) is not Tracer or not isinstance(limits, SpanLimits):
        return None
    by_trace = type(sampler) in (sampling.StaticSampler, sampling.TraceIdRatioBased)
    narrow = limits.max_span_attribute_length is not None or (limits.max_span_attributes or 0) < MOST_ATTRIBUTES
    return None if narrow or not by_trace else partial(RunSpan, tracer)
