"""A span of a step, a request or a call: what the SDK's is to its processors, for a fifth of its price."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.loading import importing
from shared_libs.observability.otel_facts import Fact, put_together

with importing("opentelemetry", "OpenTelemetry"):
    from opentelemetry import trace
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Tracer

MOST = 128
"""Attributes, events and links that others may put on a span, as the SDK allows by default."""


class RunSpan(ReadableSpan, trace.Span):
    """
    A span below a run's.

    What others ask of it while it is the current one, it does as the SDK's does. `facts` are its attributes: to be
    added to by who knows that they are what attributes may be, and made when somebody reads them.
    """

    _context: SpanContext
    _events: tuple[Event, ...] = ()
    _links: tuple[trace.Link, ...] = ()
    _status = Status(StatusCode.UNSET)
    _instrumentation_info = None
    _end_time: int | None = None
    _ended = False

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        before: Context,
        parent: trace.Span,
        kind: SpanKind,
        facts: list[Fact],
        start_ns: int,
    ) -> None:
        """Start one in the trace of its parent; not by `ReadableSpan`'s own, which would set what is set above."""
        above = parent.get_span_context()
        flags, state = above.trace_flags, above.trace_state
        self._context = SpanContext(above.trace_id, tracer.id_generator.generate_span_id(), False, flags, state)  # noqa: FBT003
        self._parent, self._name, self._kind, self._start_time, self.facts = above, name, kind, start_ns, facts
        self._resource = tracer.resource
        self._instrumentation_scope = parent.instrumentation_scope if isinstance(parent, ReadableSpan) else None
        self._to = tracer.span_processor
        self._to.on_start(self, parent_context=before)  # type: ignore[arg-type]  # all that the SDK's can do, it can

    @property
    def _attributes(self) -> dict[str, Any]:  # type: ignore[override]  # where `ReadableSpan` has them
        told = put_together(self.facts)
        if self._ended:  # nothing is added any more; two who read at once find the same
            self.facts = [told]
        return told

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return not self._ended

    def get_span_context(self) -> SpanContext:
        """What names it."""
        return self._context

    def end(self, end_time: int | None = None) -> None:
        """End it, once, and hand it to the processors."""
        if not self._ended:
            self._ended = True
            self._end_time = time.time_ns() if end_time is None else end_time
            self._to.on_end(self)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes of anybody's."""
        if not self._ended:
            room = max(0, MOST - len(self._attributes))
            self.facts.append(dict(BoundedAttributes(room, dict(attributes), immutable=False)))

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
