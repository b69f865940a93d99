"""
What is known of a model, shared by everything in the process that uses it: breaker, limiter, latency, retry budget.

Kept per (provider, base URL, model, key). A test that moves the loop's clock may jump back behind a moment seen before;
such a moment belongs to another loop and is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import OrderedDict, deque
from hashlib import blake2b
from itertools import islice
from typing import Literal

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.atomic.resilience.limiter import Limiter, Place, running_loop
from shared_libs.atomic.resilience.policy import Breaker, RateLimit
from shared_libs.atomic.resilience.shared_limiter import SharedLimiter
from shared_libs.atomic.supervise import LeftRunning

BreakerState = Literal["closed", "open", "half_open"]

RETRY_RESERVE = 20.0
"""Retries a quiet model may always have; the reserve fills again by one a second."""

LONGEST_PROBE_S = 600.0
"""What a call may take where nobody says; a probe of which nothing was heard for longer is given up."""

RETRY_SHARE = 0.5
"""Retries every first attempt earns: in a storm the load grows by half at the most, not five times."""


class CircuitBreaker:
    """
    Leaves a failing model alone, and lets exactly one probe through when `reset_s` is over.

    `state` is visible. A cancelled attempt is no failure and no success. A probe whose event loop was closed under it
    will never be heard of, and is given up, as is one that is older than any call may be.
    """

    __slots__ = ("__weakref__", "_failed", "_lock", "_opened_at", "_probed_at", "_prober", "state")

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self._failed: deque[bool] = deque()
        self._opened_at = 0.0
        self._probed_at = 0.0
        self._prober: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # callers may be on several loops in several threads

    def admit(self, policy: Breaker, now: float) -> float:
        """Return 0.0 when an attempt may start (it must then be told how it went), else the seconds to wait."""
        if self.state == "closed":
            return 0.0
        with self._lock:
            if now < self._opened_at:
                self._reset()
                return 0.0
            left_s = self._opened_at + policy.reset_s - now
            if self.state == "half_open" and not self._is_lost(now):
                left_s = max(left_s, 0.001)
            if left_s > 0:
                return max(left_s, 0.001)
            self.state = "half_open"
            self._probed_at, self._prober = now, running_loop()
            return 0.0

    def succeeded(self, policy: Breaker) -> None:
        """Book a success; the one of a probe closes the circuit."""
        if self.state == "closed" and not self._failed:  # it tells nothing but that failures get older
            return
        with self._lock:
            if self.state != "closed":
                self._reset()
            if self._failed:
                self._book(policy, failed=False)

    def failed(self, policy: Breaker, now: float) -> None:
        """Book a failure; the one of a probe, or one too many, opens the circuit."""
        with self._lock:
            self._book(policy, failed=True)
            if self.state == "half_open" or sum(self._failed) >= policy.failures:
                self.state = "open"
                self._opened_at = now
                self._failed.clear()

    def cancelled(self) -> None:
        """Give a probe's place back: nothing was learnt."""
        with self._lock:
            if self.state == "half_open":
                self.state = "open"

    def left_s(self, policy: Breaker, now: float) -> float | None:
        """Return the seconds until a probe may go through; None where nothing is held back."""
        return None if self.state == "closed" else max(0.0, self._opened_at + policy.reset_s - now)

    @property
    def failures(self) -> int:
        """How many of the latest attempts have failed."""
        with self._lock:
            return sum(self._failed)

    def begin_anew(self) -> None:
        """Have a lock of its own in a child: the parent's may have been held."""
        self._lock = threading.Lock()

    def _is_lost(self, now: float) -> bool:
        """Whether nobody will ever tell how the probe went."""
        closed = self._prober is not None and self._prober.is_closed()
        return closed or now - self._probed_at > LONGEST_PROBE_S

    def _book(self, policy: Breaker, *, failed: bool) -> None:
        self._failed.append(failed)
        while len(self._failed) > 2 * policy.failures:
            self._failed.popleft()

    def _reset(self) -> None:
        self.state, self._prober = "closed", None
        self._failed.clear()


class RetryBudget:
    """Stops retry storms: retries are paid from what first attempts earn (Google SRE book, "Handling Overload")."""

    __slots__ = ("_balance", "_seen_at")

    def __init__(self) -> None:
        self._balance = RETRY_RESERVE
        self._seen_at = 0.0

    def earn(self) -> None:
        """Book a first attempt."""
        if self._balance < 10 * RETRY_RESERVE:
            self._balance += RETRY_SHARE

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

    __slots__ = (
        "__weakref__",
        "_name",
        "_own_limit",
        "_shared_limits",
        "breaker",
        "latency",
        "left_running",
        "retries",
    )

    def __init__(self, name: str = "") -> None:
        self.breaker = CircuitBreaker()
        self.latency = Latency()
        self.left_running = LeftRunning()
        self.retries = RetryBudget()
        self._name = name
        self._own_limit = Limiter()
        self._shared_limits: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SharedLimiter] | None = None
        outside_the_loop(self.breaker)

    async def enter(self, limit: RateLimit, deadline: Deadline, about: int) -> Place:
        """
        Wait for a place within our own limit; give it back by `leave`. `about` is how many tokens it may take.

        Raises:
            RateLimited: no place can be free before the deadline.

        """
        if limit.store is None:
            return await self._own_limit.enter(limit, deadline, about)
        return await self._shared().enter(limit.store, limit, deadline, about)

    def leave(self, place: Place, tokens: int) -> None:
        """Give a place back, and book the tokens that the answer cost; in any thread, also when no loop runs."""
        self._own_limit.leave(place, tokens)

    async def book(self, limit: RateLimit, tokens: int, deadline: Deadline) -> None:
        """Tell those who share the limit what an answer cost."""
        if limit.store is not None:
            await self._shared().book(limit, tokens, deadline)

    def _shared(self) -> SharedLimiter:
        if self._shared_limits is None:
            self._shared_limits = weakref.WeakKeyDictionary()
        loop = asyncio.get_running_loop()
        found = self._shared_limits.get(loop)
        if found is None:
            found = self._shared_limits[loop] = SharedLimiter(self._name, self._own_limit)
        return found

    @property
    def at_rest(self) -> bool:
        """Whether nothing would be lost if it were forgotten but how fast the model usually is."""
        return self.breaker.state == "closed" and not len(self.left_running)


_LOOKED_AT = 64

MAX_KNOWN = 4096
"""Models (by address and key) whose health is kept; beyond that those are forgotten that were used longest ago."""

_known: OrderedDict[tuple[str, str, str, bytes], ModelHealth] = OrderedDict()


def health_of(provider: str, base_url: str, model: str, whose: str = "") -> ModelHealth:
    """
    The one record of this model in this process, as whoever asks it (a key, an organisation) meets it.

    Limits and quotas are a customer's: one whose quota is used up must not close the model to the others.
    """
    name = (provider, base_url, model, blake2b(whose.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    found = _known.get(name)
    if found is None:
        found = _known.setdefault(name, ModelHealth(f"{provider} {model} at {base_url}"))
        if len(_known) > MAX_KNOWN:
            _forget_oldest()
    else:
        with contextlib.suppress(KeyError):  # another thread has just forgotten it
            _known.move_to_end(name)
    return found


def _forget_oldest() -> None:
    """Forget one model: of the few that were used longest ago the first at rest, or else the very oldest."""
    with contextlib.suppress(RuntimeError, StopIteration):  # another thread has just added or forgotten one
        oldest = next(iter(_known))
        few = islice(_known.items(), min(_LOOKED_AT, len(_known) - 1))  # all but the newest
        _known.pop(next((name for name, health in few if health.at_rest), oldest), None)
