"""What is left of a caller's limits of the minute, as its SDK reads it from the headers of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple


class Rate(NamedTuple):
    """A limit of requests or tokens a minute: how many, how many are left, and the seconds until it begins anew."""

    unit: Literal["requests", "tokens"]
    limit: int
    left: int
    resets_in_s: float


Rates = Sequence[Rate]
Headers = list[tuple[str, str]]


def tightest(rates: Iterable[Rate]) -> list[Rate]:
    """Return the one of each unit of which least is left: a key's and its team's bind together."""
    found: dict[str, Rate] = {}
    for rate in rates:
        other = found.get(rate.unit)
        if other is None or rate.left < other.left:
            found[rate.unit] = rate
    return list(found.values())


def openai_rates(rates: Rates) -> Headers:
    """Tell them as OpenAI does: https://platform.openai.com/docs/guides/rate-limits, "Rate limits in headers"."""
    told: Headers = []
    for rate in rates:
        told += [
            (f"x-ratelimit-limit-{rate.unit}", str(rate.limit)),
            (f"x-ratelimit-remaining-{rate.unit}", str(rate.left)),
            (f"x-ratelimit-reset-{rate.unit}", _as_duration(rate.resets_in_s)),
        ]
    return told


def anthropic_rates(rates: Rates) -> Headers:
    """Tell them as Anthropic does: https://docs.anthropic.com/en/api/rate-limits, "Response headers"."""
    told: Headers = []
    for rate in rates:
        at = (datetime.now(UTC) + timedelta(seconds=rate.resets_in_s)).isoformat(timespec="seconds")
        told += [
            (f"anthropic-ratelimit-{rate.unit}-limit", str(rate.limit)),
            (f"anthropic-ratelimit-{rate.unit}-remaining", str(rate.left)),
            (f"anthropic-ratelimit-{rate.unit}-reset", at.replace("+00:00", "Z")),
        ]
    return told


def _as_duration(seconds: float) -> str:
    """Write seconds as "6ms", "1s" or "1m30s"."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1e3))}ms"
    minutes, rest = divmod(round(seconds), 60)
    return (f"{minutes}m" if minutes else "") + (f"{rest}s" if rest or not minutes else "")
