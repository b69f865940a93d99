"""
What requests to the outside carry: the trace they belong to, and how long their answer is waited for.

The trace is W3C `traceparent`, where something traces. The runtime knows no tracing library: what traces says here,
once for the process, how the headers are written. The time is `X-Request-Timeout`, in seconds: a gateway or an agent
behind it may then answer with what it has, and no server need work on what nobody waits for any more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from contextvars import ContextVar

from shared_libs.atomic.context_value import holds

Carrier = Callable[[dict[str, str], str], object]
"""Writes the headers of the current trace into a mapping; is told which model server they go to. It must not block."""

Within = Callable[[Mapping[str, str]], AbstractContextManager[None]]
"""Lets what runs inside belong to the trace that such headers name."""

_carriers: list[tuple[Carrier, Within]] = []


def carry_traces_by(carrier: Carrier, within: Within) -> None:
    """
    Let every request of our adapters and tools carry what `carrier` writes, and what goes on elsewhere read it.

    Saying it twice changes nothing.
    """
    if (carrier, within) not in _carriers:
        _carriers.append((carrier, within))


def trace_headers(server: str = "") -> dict[str, str]:
    """The headers that a request made here and now carries, to a model at the URL `server`; none without a trace."""
    headers: dict[str, str] = {}
    for carrier, _ in _carriers:
        carrier(headers, server)
    return headers


def within_trace(headers: Mapping[str, str]) -> AbstractContextManager[object]:
    """Let what runs inside belong to the trace that headers name, which another process has written."""
    inside = ExitStack()
    for _, within in _carriers if headers else ():
        inside.enter_context(within(headers))
    return inside


PATIENCE = "X-Request-Timeout"
"""The header that tells seconds left, as `factory serve` reads it."""

MARGIN_SHARE = 0.05
MOST_MARGIN_S = 1.0
"""By how much sooner than it is given up an answer is asked for: it has to come back, too."""

LEAST_S = 0.001
"""What is told at the least: nothing is no number of seconds, and would be refused instead of being too late."""

_until: ContextVar[float] = ContextVar("waited_until", default=math.inf)


def waited_until(at: float) -> holds[float]:
    """Tell requests made inside a `with` block until when their answer is waited for, on the loop's clock."""
    return holds(_until, at)


def patience_s() -> float | None:
    """Return the seconds that a request made here and now gives its server; None where nothing bounds it."""
    left_s = _until.get() - asyncio.get_running_loop().time()
    return None if left_s == math.inf else max(LEAST_S, left_s - min(MOST_MARGIN_S, left_s * MARGIN_SHARE))
