"""The trace of a request or a submission, for what goes on with it here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shared_libs.atomic.loading import importing


@contextmanager
def continued_from(headers: Mapping[str, str]) -> Iterator[None]:
    """Let what runs inside belong to the trace that a request's headers name (`traceparent`, by lower-case names)."""
    with importing("opentelemetry", "OpenTelemetry"):
        from opentelemetry import context, propagate

    before = context.get_current()
    context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.attach(before)
