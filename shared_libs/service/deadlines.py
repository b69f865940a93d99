"""How long a client waits, read from what clients send anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from shared_libs.service.problems import Problem

SDK_MARGIN_S = 0.25
SDK_MARGIN_SHARE = 0.02
"""An answer leaves this long before an SDK gives up: the larger of both, but never more than half of its time."""

KEEP_ALIVE_S = 15.0
"""The longest silence on a stream: less than the idle limits of common load balancers (60 s)."""


class Patience(NamedTuple):
    """How long the client waits: `seconds` (None: it does not say), and which header said so."""

    seconds: float | None
    source: str


def patience(headers: Mapping[str, str], *, streams: bool) -> Patience:
    """
    Return the shortest time that a request's headers give it.

    An SDK's read timeout bounds an answer that comes in one piece; on a stream it only says how often to show a sign
    of life.

    Args:
        headers: the request's, names in lower case.
        streams: whether the answer comes as a stream.

    Raises:
        Problem: a header that a person wrote is no positive number.

    """
    found = []
    for name, unit_s in (("x-request-timeout", 1.0), ("x-envoy-expected-rq-timeout-ms", 1e-3)):
        if (text := headers.get(name)) is not None:
            found.append(Patience(_positive(name, text) * unit_s, name))
    if not streams and (read_s := _sdk_patience(headers)) is not None:
        margin_s = max(SDK_MARGIN_S, read_s * SDK_MARGIN_SHARE)
        found.append(Patience(max(read_s - margin_s, read_s / 2), "x-stainless-read-timeout"))
    return min(found, default=Patience(None, "limits"), key=lambda told: told.seconds or math.inf)


def keep_alive_s(headers: Mapping[str, str]) -> float:
    """Return after how many silent seconds a stream shows that it lives."""
    read_s = _sdk_patience(headers)
    return KEEP_ALIVE_S if read_s is None else min(KEEP_ALIVE_S, max(0.05, read_s / 3))


def _positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)) or "_" in text:  # which Python alone reads
        raise Problem("invalid_request", f"{name} is a positive number, not {text[:40]!r}", param=name)
    return value


def _sdk_patience(headers: Mapping[str, str]) -> float | None:
    """Read what the vendors' SDKs send; they write words where their user gave no number."""
    try:
        value = float(headers.get("x-stainless-read-timeout", ""))
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None
