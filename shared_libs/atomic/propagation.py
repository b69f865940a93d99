"""
What requests to the outside carry of the trace they belong to: W3C `traceparent`, where something traces.

The runtime knows no tracing library: what traces says here, once for the process, how the headers are written.
"""

from __future__ import annotations

from collections.abc import Callable

Carrier = Callable[[dict[str, str]], object]
"""Writes the headers of the current trace into a mapping; it must not block."""

_carriers: list[Carrier] = []


def carry_traces_by(carrier: Carrier) -> None:
    """Let every request of our adapters and tools carry what this writes; saying it twice changes nothing."""
    if carrier not in _carriers:
        _carriers.append(carrier)


def trace_headers() -> dict[str, str]:
    """The headers that a request made here and now carries; none where nothing traces."""
    headers: dict[str, str] = {}
    for carrier in _carriers:
        carrier(headers)
    return headers
