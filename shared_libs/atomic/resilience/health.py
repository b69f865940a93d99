"""
What is known of a model, shared by everything in the process that uses it: breaker, limiter, latency, retry budget.

Kept per (provider, base URL, model). A test that moves the loop's clock may jump back behind a moment seen before;
such a moment belongs to another loop and is forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from shared_libs.atomic.resilience.policy import Breaker
from shared_libs.atomic.resilience.shared import SharedLimiter

BreakerState = Literal["closed", "open", "half_open"]

RETRY_RESERVE = 20.0
"""Retries a quiet model may always have; the reserve fills again by one a second."""

RETRY_SHARE = 0.5
"""Retries every first attempt earns: in a storm the load grows by half at the most, not five times."""


class CircuitBreaker:
    """
    Leaves a failing model alone, and lets exactly one probe through when `reset_s` is over.

    `state` is visible. A cancelled attempt is no failure and no success.
    """

    __slots__ = ("_failed", "_opened_at", "state")

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self._failed: deque[bool] = deque()
        self._opened_at = 0.0

    def admit(self, policy: Breaker, now: float) -> float:
        """Return 0.0 when an attempt may start (it must then be told how it went), else the seconds to wait."""
        if self.state == "closed":
            return 0.0
        if now < self._opened_at:
            self._reset()
            return 0.0
        left = self._opened_at + policy.reset_s - now
        if self.state == "half_open" or left > 0:
            return max(left, 0.001)
        self.state = "half_open"
        return 0.0

    def succeeded(self, policy: Breaker) -> None:
        """Book a success; the one of a probe closes the circuit."""
        if self.state != "closed":
            self._reset()
        if self._failed:  # a success tells nothing but that failures get older
            self._book(policy, failed=False)

    def failed(self, policy: Breaker, now: float) -> None:
        """Book a failure; the one of a probe, or one too many, opens the circuit."""
        self._book(policy, failed=True)
        if self.state == "half_open" or sum(self._failed) >= policy.failures:
            self.state = "open"
            self._opened_at = now
            self._failed.clear()

    def cancelled(self) -> None:
        """Give a probe's place back: nothing was learnt."""
        if self.state == "half_open":
            self.state = "open"

    def _book(self, policy: Breaker, *, failed: bool) -> None:
        self._failed.append(failed)
        while len(self._failed) > 2 * policy.failures:
            self._failed.popleft()

    def _reset(self) -> None:
        self.state = "closed"
        self._failed.clear()


class RetryBudget:
    """Stops retry storms: retries are paid from what first attempts earn (Google SRE book, "Handling Overload")."""

    __slots__ = ("_balance", "_seen_at")

    def __init__(self) -> None:
        self._balance = RETRY_RESERVE
        self._seen_at = 0.0

    def earn(self) -> None:
        """Book a first attempt."""
        self._balance = min(self._balance + RETRY_SHARE, 10 * RETRY_RESERVE)

    def spend(self, now: float) -> bool:
        """Pay for one retry, if there is enough."""
        if self._balance < RETRY_RESERVE:
            self._balance = min(RETRY_RESERVE, self._balance + max(0.0, now - self._seen_at))
        self._seen_at = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


class Latency:
    """How long a model usually takes to its first token: the last 100 answers."""

    __slots__ = ("_seen_s",)

    def __init__(self) -> None:
        self._seen_s: deque[float] = deque(maxlen=100)

    def book(self, seconds: float) -> None:
        """Book one answer."""
        self._seen_s.append(seconds)

    def p95(self) -> float | None:
        """The 95th percentile, in seconds; None before 20 answers."""
        if len(self._seen_s) < 20:
            return None
        return sorted(self._seen_s)[int(0.95 * len(self._seen_s))]


class ModelHealth:
    """Everything the process knows of one model; `name` is that of the model where others count it too."""

    __slots__ = ("breaker", "latency", "limiter", "retries")

    def __init__(self, name: str = "") -> None:
        self.breaker = CircuitBreaker()
        self.latency = Latency()
        self.limiter = SharedLimiter(name)
        self.retries = RetryBudget()


_known: dict[tuple[str, str, str], ModelHealth] = {}


def health_of(provider: str, base_url: str, model: str) -> ModelHealth:
    """The one record of this model in this process."""
    return _known.setdefault((provider, base_url, model), ModelHealth(f"{provider} {model} at {base_url}"))
