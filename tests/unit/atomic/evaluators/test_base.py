"""Evaluators: a judgement in any form, a synchronous one never on the event loop."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from shared_libs.atomic import BaseEvaluator, Deadline, Evaluation, MisuseError, ToolError
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.scope import use_deadline
from shared_libs.atomic.supervise import MAX_LEFT_RUNNING
from tests.support import run, run_virtual
from tests.unit.atomic.supervising import absorb


def judge(verdict, *, is_async=False):
    class Fixed(BaseEvaluator):
        if is_async:

            async def evaluate(self, answer, expected=None, result=None):
                return verdict
        else:

            def evaluate(self, answer, expected=None, result=None):
                return verdict

    return run(Fixed().async_evaluate("answer"))


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (True, Evaluation(1.0, passed=True)),
        (False, Evaluation(0.0, passed=False)),
        (0, Evaluation(0.0, passed=False)),
        (1, Evaluation(1.0, passed=True)),
        (0.5, Evaluation(0.5, passed=True)),
        (0.49, Evaluation(0.49, passed=False)),
        (Evaluation(0.2, passed=True, reason="close"), Evaluation(0.2, passed=True, reason="close")),
        (Evaluation(1, passed=True), Evaluation(1.0, passed=True)),
    ],
)
def test_a_judgement_may_be_a_bool_a_score_or_an_evaluation(verdict, expected, is_async):
    assert judge(verdict, is_async=is_async) == expected


def test_a_function_may_hand_out_a_coroutine():
    class Hands(BaseEvaluator):
        def evaluate(self, answer, expected=None, result=None):
            return asyncio.sleep(0, 0.5)

    assert run(Hands().async_evaluate("a")) == Evaluation(0.5, passed=True)


ODD = [Evaluation(*odd) for odd in [(math.nan, True), (2, True), (-1, False), ("1", True), (1, "no")]]


@pytest.mark.parametrize("verdict", [None, "good", 1.01, -0.1, math.nan, math.inf, *ODD])
def test_anything_else_is_misuse(verdict):
    with pytest.raises(MisuseError, match="a score from 0 to 1"):
        judge(verdict)


def test_a_sync_judgement_runs_in_a_thread_and_gets_everything():
    seen = []

    class Look(BaseEvaluator):
        def evaluate(self, answer, expected=None, result=None):
            seen.append((answer, expected, result, threading.current_thread() is threading.main_thread()))
            return answer == expected

    assert run(Look().async_evaluate("a", "a")).passed
    assert seen == [("a", "a", None, False)]


@pytest.mark.parametrize("is_async", [True, False])
def test_an_error_of_the_evaluator_is_raised(is_async):
    class Broken(BaseEvaluator):
        if is_async:

            async def evaluate(self, answer, expected=None, result=None):
                raise ZeroDivisionError
        else:

            def evaluate(self, answer, expected=None, result=None):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Broken().async_evaluate("a"))


def test_async_evaluate_is_final():
    with pytest.raises(MisuseError, match="final"):

        class Own(BaseEvaluator):
            async def async_evaluate(self, answer, expected=None, result=None): ...


def test_a_sync_judgement_is_given_up_when_the_time_is_over():
    never = threading.Event()

    class Stuck(BaseEvaluator):
        def evaluate(self, answer, expected=None, result=None):
            return never.wait(20)

    async def main():
        with use_deadline(Deadline.after(0.01)), pytest.raises(DeadlineExceeded, match="did not finish"):
            await Stuck().async_evaluate("a")
        never.set()

    run(main())


def test_a_judge_that_ignores_its_end_is_asked_only_so_often():
    begun = []

    class Stubborn(BaseEvaluator):
        async def evaluate(self, answer, expected=None, result=None):
            begun.append(answer)
            await absorb(1_000)

    async def main():
        stubborn = Stubborn()
        for number in range(2 * MAX_LEFT_RUNNING):
            with use_deadline(Deadline.after(1)), pytest.raises((DeadlineExceeded, ToolError)) as caught:
                await stubborn.async_evaluate(number)
        await asyncio.sleep(1_000)
        return str(caught.value)

    assert "earlier calls were given up and still run" in run_virtual(main())
    assert len(begun) == MAX_LEFT_RUNNING
