"""
One model: its breaker, and its retries by tenacity on the loop's clock.

The first attempt runs bare; tenacity is called in only when it has failed, so a healthy call does not pay for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import (
    CircuitOpen,
    DeadlineExceeded,
    LLMConnectionError,
    LLMError,
    LLMTimeout,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.events import BreakerChanged, LimitWaited, RetryScheduled
from shared_libs.atomic.in_place import within
from shared_libs.atomic.loading import load
from shared_libs.atomic.resilience.attempt import Model, ModelCall, run_attempt
from shared_libs.atomic.resilience.health import BreakerState
from shared_libs.atomic.resilience.limiter import Place
from shared_libs.atomic.resilience.policy import RateLimit, Resilience
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.types import LLMResponse

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")

TOLD_WAIT_S = 0.001
"""Seconds from which a wait for our own limit is told: a look into a shared store takes less."""

MAX_LESSONS = 8
"""How many things one attempt may learn of a server before its refusal counts as one."""


async def run_route(model: Model, policy: Resilience, call: ModelCall[T], *, others: int) -> T:
    """
    Ask one model until it answers, cannot, or is not worth another try.

    Args:
        model: who is asked.
        policy: retry, breaker and timeouts.
        call: what is asked.
        others: how many models could still answer instead.

    Raises:
        LLMError: the last failure of this model.

    """
    model.health.retries.earn()
    before = 0 if call.tried is None else call.tried.get(model, 0)  # of a contest that it lost, and nobody won
    left = max(1, policy.retry.attempts - before)
    numbers = count(before + 1)
    try:
        return await _taught(model, policy, call, numbers, waited_s=0.0, share=others + 1)
    except LLMError as error:
        if left == 1 or not _worth_retrying(error, others):
            raise
        first = error.with_traceback(None)  # which would hold this frame, and so itself

    return await _retried(model, policy, call, numbers, first, left=left, others=others)


async def _retried(
    model: Model,
    policy: Resilience,
    call: ModelCall[T],
    numbers: Iterator[int],
    first: LLMError,
    *,
    left: int,
    others: int,
) -> T:
    """Go on after the first failure. Apart from `run_route`: what the retries share would cost every call its cells."""
    try:
        with within(call.loop, Expiry(call.deadline.at, "")):
            await load("tenacity")  # the first attempt may have ended before that did; an import here would wait for it
    except DeadlineExceeded:
        raise first from None
    import tenacity

    waited, tries = 0.0, 0

    async def again() -> T:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise first
        return await _taught(model, policy, call, numbers, waited_s=waited, share=others + 1)

    def announce(state: tenacity.RetryCallState) -> None:
        nonlocal waited
        waited = state.upcoming_sleep
        error = _error_of(state).with_traceback(None)
        told = bool(error.retry_after_s) and not isinstance(error, CircuitOpen)  # which is our own word
        current_scope().emit(
            RetryScheduled(provider=model.provider, model=model.model, wait_s=waited, why=str(error), told=told)
        )
        call.listener.restart(str(error))

    return await tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: _worth_retrying(error, others)),
        wait=_wait(policy),
        stop=_stop(model, left, call),
        sleep=asyncio.sleep,
        before_sleep=announce,
        reraise=True,
    )(again)


def _worth_retrying(error: BaseException, others: int) -> bool:
    if not isinstance(error, LLMError) or not error.retryable or not error.replay_safe:
        return False
    # a silent model has already cost its whole timeout, and an open circuit has nothing to offer before its reset:
    # another model is the better bet
    return not (isinstance(error, LLMTimeout | CircuitOpen) and others)


def _wait(policy: Resilience) -> Callable[[tenacity.RetryCallState], float]:
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=policy.retry.base_s, max=policy.retry.max_s)

    def wait(state: tenacity.RetryCallState) -> float:
        told = _error_of(state).retry_after_s
        return backoff(state) if told is None else told

    return wait


def _stop(model: Model, tries: int, call: ModelCall[T]) -> Callable[[tenacity.RetryCallState], bool]:
    """Stop after the last try, when the wait would outlast the deadline, or when the model has had its retries."""
    import tenacity

    last_try = tenacity.stop_after_attempt(tries)

    def stop(state: tenacity.RetryCallState) -> bool:
        now = asyncio.get_running_loop().time()
        fits = now + state.upcoming_sleep < call.deadline.at
        return last_try(state) or not fits or not model.health.retries.spend(now)

    return stop


def _error_of(state: tenacity.RetryCallState) -> LLMError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, LLMError)
    return error


async def _taught(
    model: Model, policy: Resilience, call: ModelCall[T], numbers: Iterator[int], *, waited_s: float, share: int
) -> T:
    """Make one attempt; and another at once for each thing that its refusal taught: that is no retry of the same."""
    if call.tried is not None:
        call.tried[model] = call.tried.get(model, 0) + 1
    for _ in range(MAX_LESSONS):
        try:
            return await _guarded(model, policy, call, number=next(numbers), waited_s=waited_s, share=share)
        except LLMError as error:
            if not error.learnt:
                raise
            waited_s = 0.0
            call.listener.restart(str(error))
            current_scope().emit(RetryScheduled(provider=model.provider, model=model.model, wait_s=0.0, why=str(error)))
    return await _guarded(model, policy, call, number=next(numbers), waited_s=waited_s, share=share)


async def _guarded(
    model: Model, policy: Resilience, call: ModelCall[T], *, number: int, waited_s: float, share: int
) -> T:
    """Make one attempt past the model's breaker and within our own limit, and tell both how it went."""
    health, now, tokens = model.health, call.loop.time, 0
    if call.deadline.at <= now():
        raise LLMTimeout("not asked: no time is left", provider=model.provider, model=model.model)
    if current_scope().stale:
        raise _given_up(model)
    state = _admitted(model, policy, now())
    place: Place | None = None
    failed = learnt = False
    try:
        if policy.rate_limit is not None:
            place = await _enter(model, policy.rate_limit, call)
        try:
            result = await run_attempt(model, policy, call, number=number, waited_s=waited_s, share=share)
        except LLMError as error:
            # an impatient caller says nothing of the model; a refusal of this very request says that it is well
            learnt = call.deadline.remaining() > 0 or not isinstance(error, LLMTimeout)
            failed = error.retryable and not _told_to_wait(error)
            raise
        learnt = True
        tokens = result.usage.total_tokens if isinstance(result, LLMResponse) else 0
        if policy.rate_limit is not None:
            await health.book(policy.rate_limit, tokens, call.deadline)
        return result
    finally:
        before = health.breaker.state  # others may have moved it since this attempt was admitted
        if not learnt:
            if state == "half_open":  # only the probe has a place to give back
                health.breaker.cancelled()
        elif failed:
            health.breaker.failed(policy.breaker, now())
        else:
            health.breaker.succeeded(policy.breaker)
        if place is not None:
            health.leave(place, tokens)
        if health.breaker.state != before:
            _tell(model, health.breaker.state)


def _given_up(model: Model) -> LLMError:
    """What a sub-agent of a call that nobody waits for any more is told, instead of being paid for."""
    error = LLMError("not asked: the call it is for was given up", provider=model.provider, model=model.model)
    error.another_may_answer = False
    return error


def _told_to_wait(error: LLMError) -> bool:
    """Whether the model is well: it has told when it may be asked again, or was not reached and may be at once."""
    if isinstance(error, LLMConnectionError):
        return error.retry_after_s == 0
    return isinstance(error, RateLimited) and error.retry_after_s is not None


def _admitted(model: Model, policy: Resilience, now: float) -> BreakerState:
    """Pass the breaker; the state it is in then tells whether this attempt is the probe."""
    if model.health.left_running.full:
        raise ProviderUnavailable(f"not asked: {model.health.left_running}", provider=model.provider, model=model.model)
    breaker = model.health.breaker
    wait_s = breaker.admit(policy.breaker, now)
    if wait_s:
        raise CircuitOpen(
            f"not asked: it failed too often lately and is probed again in {wait_s:.3g} s",
            provider=model.provider,
            model=model.model,
            retry_after_s=wait_s,
        )
    if breaker.state == "half_open":
        _tell(model, breaker.state)
    return breaker.state


def _tell(model: Model, state: BreakerState) -> None:
    current_scope().emit(BreakerChanged(provider=model.provider, model=model.model, state=state))


async def _enter(model: Model, limit: RateLimit, call: ModelCall[T]) -> Place:
    began_at, place = call.loop.time(), None
    try:
        place = await model.health.enter(limit, call.deadline, call.about_tokens)
    except RateLimited as error:
        error.provider, error.model = model.provider, model.model
        raise
    finally:
        waited_s = call.loop.time() - began_at
        if waited_s >= TOLD_WAIT_S:
            held = "" if place is None else place.held
            waited = LimitWaited(provider=model.provider, model=model.model, waited_s=waited_s, limit=held)
            current_scope().emit(waited)
    return place
