"""
What a caller may ask of the resilience onion: plain, frozen, validated; the keys of the YAML `llm` block.

Every default is finite, so that a call without any policy still ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.errors import MisuseError

Strategy = Literal["sequential", "hedged", "race"]
P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    How often a model is asked again.

    Args:
        attempts: tries, the first included.
        base_s: the first wait, in seconds; each further one doubles. The real wait is drawn evenly from zero to that
            ("full jitter"), so that many callers do not come back at once.
        max_s: the longest wait of ours; a provider's `Retry-After` is not capped by it.

    """

    attempts: int = 5
    base_s: float = 1.0
    max_s: float = 8.0

    def __post_init__(self) -> None:
        _check_whole("retry.attempts", self.attempts)
        _check_seconds("retry.base_s", self.base_s, zero=True)
        _check_seconds("retry.max_s", self.max_s, zero=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """
    When a model is left alone.

    Args:
        failures: failed attempts among the last 2 x `failures` that open the circuit.
        reset_s: seconds until one probe is let through.

    """

    failures: int = 5
    reset_s: float = 30.0

    def __post_init__(self) -> None:
        _check_whole("breaker.failures", self.failures)
        _check_seconds("breaker.reset_s", self.reset_s)


@runtime_checkable
class LimitStore(Protocol):
    """
    Counts the use of models for everybody who has the same store.

    It may fail and it may hang: whoever asks bounds every call, and goes on with the limit of its own process.
    """

    async def take(self, model: str, limit: RateLimit, places: int) -> Sequence[float]:
        """
        Book one request to the model if the limit has room, and return nothing; it has to be sent at once.

        Without room nothing is booked: returned are the seconds until each of the next `places` places opens at the
        earliest, soonest first.
        """

    async def book(self, model: str, tokens: int) -> None:
        """Book the tokens that an answer used."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop; using the store afterwards opens them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """
    How much of a model may be used; None means no limit.

    Args:
        requests_per_minute: requests in any minute.
        tokens_per_minute: tokens in any minute; an answer's count when it has come.
        concurrency: requests at the same time, in this process.
        store: where requests and tokens are counted together with other processes, such as
            `shared_libs.limits.SQLLimitStore(url)`; None: this process counts its own.

    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    store: LimitStore | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            if getattr(self, name) is not None:
                _check_whole(f"rate_limit.{name}", getattr(self, name))
        if self.store is None:
            return
        if not isinstance(self.store, LimitStore):
            raise MisuseError("rate_limit.store is a LimitStore, such as shared_libs.limits.SQLLimitStore(url)")
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise MisuseError("rate_limit.store shares requests_per_minute and tokens_per_minute; give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resilience:
    """
    The whole policy of a model chain. `retry`, `breaker` and `rate_limit` may be given as dicts.

    Args:
        retry: how often a model is asked again.
        breaker: when a model is left alone.
        strategy: "sequential" (the next model when one has failed), "hedged" (the next one also when the first token
            is late) or "race" (all at once).
        hedge_after_s: seconds without a first token after which "hedged" starts the next model; None: the running p95.
        attempt_timeout_s: seconds one attempt may take.
        first_token_timeout_s: seconds a stream may take until its first token.
        idle_timeout_s: seconds a stream may pause between two tokens.
        rate_limit: how much of a model may be used.

    """

    retry: Retry = field(default_factory=Retry)
    breaker: Breaker = field(default_factory=Breaker)
    strategy: Strategy = "sequential"
    hedge_after_s: float | None = None
    attempt_timeout_s: float = 30.0
    first_token_timeout_s: float = 10.0
    idle_timeout_s: float = 10.0
    rate_limit: RateLimit | None = None

    @classmethod
    def of(cls, given: Resilience | Mapping[str, Any]) -> Resilience:
        """
        Take a policy, or a dict of its keys.

        Raises:
            MisuseError: it is neither, or a value is not valid.

        """
        return _as_policy("resilience", given, cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "retry", _as_policy("retry", self.retry, Retry))
        object.__setattr__(self, "breaker", _as_policy("breaker", self.breaker, Breaker))
        if self.rate_limit is not None:
            object.__setattr__(self, "rate_limit", _as_policy("rate_limit", self.rate_limit, RateLimit))
        if self.strategy not in get_args(Strategy):
            raise MisuseError(f"strategy {self.strategy!r}: allowed are {', '.join(get_args(Strategy))}")
        if self.hedge_after_s is not None:
            _check_seconds("hedge_after_s", self.hedge_after_s, zero=True)
        for name in ("attempt_timeout_s", "first_token_timeout_s", "idle_timeout_s"):
            _check_seconds(name, getattr(self, name))


def _as_policy(name: str, value: Any, kind: type[P]) -> P:
    if isinstance(value, kind):
        return value
    allowed = [known.name for known in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(value, Mapping) or not set(value) <= set(allowed):
        raise MisuseError(f"{name} {value!r}: allowed is a {kind.__name__} or a dict of {', '.join(allowed)}")
    return kind(**value)


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MisuseError(f"{name} is a whole number from 1, not {value!r}")


def _check_seconds(name: str, value: Any, *, zero: bool = False) -> None:
    if not is_amount(value, zero=zero):
        raise MisuseError(f"{name} is a {'number' if zero else 'positive number'} of seconds, not {value!r}")
