"""
The spans and points of OpenTelemetry at the price of a run's hot path.

The SDK's own span costs some 25 µs, a point of a histogram 9. The span of a run is the SDK's, so that it decides
whether the trace is sampled; those below are `RunSpan`, which its processors get as they get its own. Points wait until
somebody collects them, or until there are many.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared_libs.atomic.loading import importing
from shared_libs.observability.otel_words import SCOPE

with importing("opentelemetry", "OpenTelemetry"):
    from opentelemetry import propagate, trace

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
    from opentelemetry.trace import SpanKind, TracerProvider

MOST_ATTRIBUTES = 64
"""More than any span of ours has; who allows fewer, or cuts their values, gets the SDK's spans."""

MOST_POINTS = 1_000
"""So many points wait at most; more are recorded by a thread."""

AT_A_TIME = 16
"""So many points a thread records before it lets the event loop go on."""


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
        self,
        name: str,
        before: Context,
        parent: trace.Span,
        kind: SpanKind,
        attributes: dict[str, Any],
        start_ns: int,
    ) -> trace.Span:
        """Start a span below `parent`, the one that is current in `before`."""
        if self._quick is not None and parent.is_recording():
            return self._quick(name, before, parent, kind, attributes, start_ns)
        return self._tracer.start_span(name, before, kind, attributes, start_time=start_ns)


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
    return None if narrow or not by_trace else partial(RunSpan.start, tracer)


class Points:
    """Points of histograms that nobody has collected yet."""

    def __init__(self, meter: Meter) -> None:
        self._waiting: deque[tuple[Histogram, float, dict[str, Any], Context]] = deque()
        self._recording = threading.Lock()
        meter.create_observable_gauge(
            "factory.telemetry.waiting", [self._collected], description="Nothing: asked for, it records what waits."
        )

    def record(self, histogram: Histogram, value: float, attributes: dict[str, Any], context: Context) -> None:
        """Take a point, and the context whose span is its exemplar."""
        self._waiting.append((histogram, value, attributes, context))
        if len(self._waiting) == MOST_POINTS:
            try:  # `Thread.start` waits until it runs, which is milliseconds where the machine is busy
                _thread.start_new_thread(self.settle, ())
            except RuntimeError:  # a program that ends makes no threads
                self.settle()

    def settle(self) -> None:
        """Record what waits."""
        with self._recording:
            done = 0
            while self._waiting:
                histogram, value, attributes, current = self._waiting.popleft()
                histogram.record(value, attributes, current)
                done += 1
                if done % AT_A_TIME == 0:
                    time.sleep(0)

    def _collected(self, _: CallbackOptions) -> Iterable[Observation]:
        """Called by whoever collects, before it reads the histograms."""
        self.settle()
        return ()
