"""Evaluators: judge an answer. A synchronous judgement never runs on the event loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any, final

import msgspec

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import current_deadline
from shared_libs.atomic.supervise import LeftRunning, supervise
from shared_libs.atomic.threads import Threads


class Evaluation(msgspec.Struct, frozen=True):
    """A judgement: `score` from 0 to 1, whether it passed, and why."""

    score: float
    passed: bool
    reason: str = ""


async def _awaited(answer: Awaitable[Any]) -> Any:
    """Wait for an answer, and for what it has to be waited for itself: a function may hand out a coroutine."""
    found = await answer
    return await found if inspect.isawaitable(found) else found


class BaseEvaluator:
    """
    Judges an answer. Implement `evaluate(answer, expected=None, result=None)`, sync or async.

    `answer` is the text, `expected` what a good answer is compared with, `result` the whole run where there was one.
    Return an `Evaluation`, a bool or a score from 0 to 1.
    """

    name: str = "evaluator"

    _threads: Threads | None = None
    _left_running: LeftRunning | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "async_evaluate" in vars(cls):
            raise MisuseError(f"{cls.__name__} overrides async_evaluate, which is final; write `evaluate` instead")

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Any:
        """Judge one answer."""
        raise NotImplementedError

    @final
    async def async_evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        """
        Judge one answer; a sync `evaluate` runs in a thread.

        Raises:
            DeadlineExceeded: the time of whoever asks was over, or the judge blocked the event loop too long.
            ToolError: it was not asked, as too much that it has begun still runs, or no thread could be started.
            MisuseError: `evaluate` returned something that is no judgement.

        """
        if self._left_running is None:
            self._left_running = LeftRunning()
        if self._left_running.full:
            raise ToolError(f"evaluator {self.name} was not asked: {self._left_running}")
        given = {"answer": answer, "expected": expected, "result": result}
        job = None
        if not inspect.iscoroutinefunction(self.evaluate):
            if self._threads is None:
                self._threads = Threads(self.name)
            job = self._threads.submit(self.evaluate, given)
        verdict = await supervise(
            self.evaluate(**given) if job is None else _awaited(job.result()),
            Expiry(current_deadline().at, f"evaluator {self.name} did not finish before the time was over"),
            what="evaluator",
            name=self.name,
            elsewhere=job,
            left_running=self._left_running,
        )
        if isinstance(verdict, bool):
            return Evaluation(float(verdict), verdict)
        if _is_score(verdict):
            return Evaluation(float(verdict), verdict >= 0.5)
        if isinstance(verdict, Evaluation) and _is_score(verdict.score) and isinstance(verdict.passed, bool):
            return msgspec.structs.replace(verdict, score=float(verdict.score))
        raise MisuseError(
            f"{self.name}.evaluate returned {verdict!r}; allowed: an Evaluation, a bool, a score from 0 to 1"
        )


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
