"""The outermost layer: the models of a chain, one after the other or at once, until one has answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from shared_libs.atomic.errors import ContextOverflow, LLMError
from shared_libs.atomic.events import FellBack
from shared_libs.atomic.resilience.attempt import Model, ModelCall
from shared_libs.atomic.resilience.hedge import run_hedged
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.resilience.route import run_route
from shared_libs.atomic.scope import current_scope

T = TypeVar("T")
M = TypeVar("M", bound=Model)


async def run_chain(routes: Sequence[tuple[M, Resilience]], call: ModelCall[T]) -> tuple[T, M]:
    """
    Return the first answer, and the model that gave it.

    Raises:
        LLMError: nobody answered; it carries the ledger and every cause, and its text names each model and its reason.

    """
    failures: dict[int, LLMError] = {}
    if routes[0][1].strategy != "sequential" and len(routes) > 1:
        call.tried = {}
        found = await run_hedged(routes, call, failures)
        if found is not None:
            return found
    for index, (model, policy) in enumerate(routes):
        if index in failures:
            continue
        if failures and not _may_go_on(call, failures):
            break
        window = _overflown(routes, failures) if failures else 0
        if window and model.context_window and model.context_window <= window:
            failures[index] = _no_larger(model, window)
            continue
        if failures:
            _fall_back(call, failures, model)
        others = len(routes) - len(failures) - 1
        try:
            return await run_route(model, policy, call, others=others), model
        except LLMError as error:
            failures[index] = error.with_traceback(None)  # which would hold this frame, and so itself
    raise _summary(list(failures.values()), call)


def _may_go_on(call: ModelCall[Any], failures: dict[int, LLMError]) -> bool:
    """Whether another model may still answer, and has the time to."""
    return all(error.another_may_answer for error in failures.values()) and not call.deadline.expired


def _overflown(routes: Sequence[tuple[Model, Resilience]], failures: dict[int, LLMError]) -> int:
    """The largest context, in tokens, that this conversation is known not to fit in; 0 for none."""
    overflowed = [
        index for index, error in failures.items() if isinstance(error, ContextOverflow) and error.of_the_window
    ]
    return max((routes[index][0].context_window or 0 for index in overflowed), default=0)


def _no_larger(model: Model, window: int) -> ContextOverflow:
    return ContextOverflow(
        f"not asked: its context of {model.context_window} tokens is no larger than the {window} that were too few",
        provider=model.provider,
        model=model.model,
    )


def _fall_back(call: ModelCall[Any], failures: dict[int, LLMError], following: Model) -> None:
    """Say that the next model is asked after the last failure."""
    last = list(failures.values())[-1]
    current_scope().emit(
        FellBack(
            provider=last.provider,
            model=last.model,
            next_provider=following.provider,
            next_model=following.model,
            why=str(last),
        )
    )
    call.listener.restart(str(last))


def _summary(failures: Sequence[LLMError], call: ModelCall[Any]) -> LLMError:
    kinds = {type(failure) for failure in failures}
    kind = kinds.pop() if len(kinds) == 1 else LLMError
    last = failures[-1]
    parts = []
    for failure in failures:
        tries = sum(row.provider == failure.provider and row.model == failure.model for row in call.attempts)
        after = f" after {tries} attempts" if tries > 1 else ""
        parts.append(f"{failure.provider}/{failure.model}{after}: {failure}")
    # what one of them would answer later is worth sending again, as soon as the first says
    waits = [failure.retry_after_s for failure in failures if failure.retryable and failure.retry_after_s]
    summary = kind(
        "no model answered: " + "; ".join(parts),
        provider=last.provider,
        model=last.model,
        status_code=last.status_code,
        retryable=any(failure.retryable for failure in failures),
        retry_after_s=min(waits, default=None),
        replay_safe=all(cause.replay_safe for cause in call.causes),
        response_started=any(cause.response_started for cause in call.causes),
    )
    summary.another_may_answer = last.another_may_answer
    summary.attempt = last.attempt
    summary.attempts = tuple(call.attempts)
    summary.causes = tuple(call.causes) or tuple(failures)
    summary.__cause__ = last
    return summary
