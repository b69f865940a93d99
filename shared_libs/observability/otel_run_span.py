"""A span of a step, a request or a call: what the SDK's is to its processors, for a fifth of its price."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.loading import importing

with importing("opentelemetry", "OpenTelemetry"):
    from opentelemetry import trace
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Tracer

MOST = 128
"""Attributes, events and links that others may put on a span, as the SDK allows by default."""


class RunSpan(ReadableSpan, trace.Span):
    """
    A span below a run's.

    What others ask of it while it is the current one, it does as the SDK's does; `told` are its attributes, to be added
    to by who knows that they are what attributes may be.
    """

    told: dict[str, Any]
    _to: SpanProcessor
    _own: SpanContext
    _ended = False

    @classmethod
    def start(
        cls,
        tracer: Tracer,
        name: str,
        before: Context,
        parent: trace.Span,
        kind: SpanKind,
        attributes: dict[str, Any],
        start_ns: int,
    ) -> RunSpan:
        """Start one in the trace of its parent."""
        above = parent.get_span_context()
        own = SpanContext(
            above.trace_id,
            tracer.id_generator.generate_span_id(),
            is_remote=False,
            trace_flags=above.trace_flags,
            trace_state=above.trace_state,
        )
        span = cls(
            name,
            own,
            above,
            tracer.resource,
            attributes,
            kind=kind,
            start_time=start_ns,
            instrumentation_scope=parent.instrumentation_scope if isinstance(parent, ReadableSpan) else None,
        )
        span.told, span._own, span._to = attributes, own, tracer.span_processor
        span._to.on_start(span, parent_context=before)  # type: ignore[arg-type]  # all that the SDK's can do, it can
        return span

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return not self._ended

    def get_span_context(self) -> SpanContext:
        """What names it."""
        return self._own

    def end(self, end_time: int | None = None) -> None:
        """End it, once, and hand it to the processors."""
        if not self._ended:
            self._ended = True
            self._end_time = time.time_ns() if end_time is None else end_time
            self._to.on_end(self)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes of anybody's."""
        if not self._ended:
            room = max(0, MOST - len(self.told))
            self.told.update(BoundedAttributes(room, dict(attributes), immutable=False))

    def set_attribute(self, key: str, value: Any) -> None:
        """Add an attribute of anybody's."""
        self.set_attributes({key: value})

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event; of very many the first ones stay."""
        if not self._ended and len(self._events) < MOST:
            at_ns = time.time_ns() if timestamp is None else timestamp
            self._events = (*self._events, Event(name, BoundedAttributes(MOST, dict(attributes or {})), at_ns))

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Add a link to another span."""
        if not self._ended and len(self._links) < MOST:
            self._links = (*self._links, trace.Link(context, BoundedAttributes(MOST, dict(attributes or {}))))

    def update_name(self, name: str) -> None:
        """Call it otherwise."""
        if not self._ended:
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went; what was called well stays well."""
        if not self._ended and self._status.status_code is not StatusCode.OK:
            new = status if isinstance(status, Status) else Status(status, description)
            self._status = self._status if new.status_code is StatusCode.UNSET else new

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Add an exception as an event."""
        kind = type(exception)
        told = {"exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.message": str(exception)}
        self.add_event("exception", told | {"exception.escaped": str(escaped)} | dict(attributes or {}), timestamp)
