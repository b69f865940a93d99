"""Evaluation: questions asked of an agent, their answers judged, and what comes of it in figures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec

from shared_libs.agents import ReActAgent
from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.evaluators import BaseEvaluator
from shared_libs.atomic.events import AgentEvent, RunFinished, RunStarted
from shared_libs.atomic.results import AgentResult
from shared_libs.testing.evaluation.comparison import interval, percentile
from shared_libs.testing.evaluation.questions import Check

T = TypeVar("T")

Source = Literal["model", "rehearsal", "script"]


class Question(msgspec.Struct, frozen=True):
    """
    What is asked, and what a good answer is compared with.

    `checks` judge this answer alone, and compare it each with its own.
    """

    question: str
    expected: Any = None
    checks: tuple[Check, ...] = ()


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluator said of an answer; `score` is None where it could not judge, and `reason` says why."""

    name: str
    score: float | None
    passed: bool
    reason: str = ""
    expected: Any = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """
    One question that was asked.

    `problems` say what is not as expected besides the judgements. `result` is None where the run could not begin or did
    not come back. `source` is what answered: a model, a rehearsal, or the scenario's script.
    """

    suite: str
    question: str
    repetition: int
    passed: bool
    result: AgentResult | None
    judgements: tuple[Judgement, ...] = ()
    problems: tuple[str, ...] = ()
    source: Source = "model"

    @property
    def unjudged(self) -> bool:
        """Whether an evaluator could not judge, so that it did not fail either."""
        return any(judgement.score is None for judgement in self.judgements)

    def whys(self) -> Iterator[str]:
        """Say why it did not pass."""
        yield from self.problems
        for judgement in self.judgements:
            if not judgement.passed:
                yield f"{judgement.name}: {judgement.reason or f'score {judgement.score}'}"


class Report:
    """
    What came of an evaluation: its rows, in the order of the questions, and their figures.

    Args:
        name: whose evaluation it is.
        rows: what was asked so far.

    """

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        self.name = name
        self.rows = tuple(rows)

    @property
    def passed(self) -> int:
        """How many passed."""
        return sum(row.passed for row in self.rows)

    @property
    def failing(self) -> list[Row]:
        """Those that did not pass."""
        return [row for row in self.rows if not row.passed]

    @property
    def pass_rate(self) -> float | None:
        """The share that passed; None of nothing."""
        return self.passed / len(self.rows) if self.rows else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the pass rate; None where questions were repeated, which are no further sample."""
        if not self.rows or any(row.repetition > 1 for row in self.rows):
            return None
        return interval(self.passed, len(self.rows))

    @property
    def pass_rates(self) -> dict[str, float]:
        """How often each question passed, as a share of its repetitions."""
        asked: dict[str, list[bool]] = {}
        for row in self.rows:
            asked.setdefault(f"{row.suite}: {row.question}", []).append(row.passed)
        return {key: sum(passed) / len(passed) for key, passed in asked.items()}

    @property
    def scores(self) -> dict[str, float]:
        """The mean score of each evaluator, over the answers that it could judge."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            for judgement in row.judgements:
                if judgement.score is not None:
                    found.setdefault(judgement.name, []).append(judgement.score)
        return {name: sum(scores) / len(scores) for name, scores in found.items()}

    @property
    def cost_usd(self) -> float | None:
        """What the runs cost in US dollars; None where that of one is unknown. What judges cost is not in it."""
        costs = [row.result.cost_usd for row in self.rows if row.result is not None]
        return None if None in costs or len(costs) < len(self.rows) else sum(cost for cost in costs if cost is not None)

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens of all runs."""
        used = [row.result.usage for row in self.rows if row.result is not None]
        return sum(usage.input_tokens for usage in used), sum(usage.output_tokens for usage in used)

    def count(self, status: str) -> int:
        """How many runs ended so."""
        return sum(row.result is not None and row.result.status == status for row in self.rows)

    def sources(self, source: Source) -> int:
        """How many questions were answered by a model, a rehearsal or a script."""
        return sum(row.source == source for row in self.rows)

    def latency_s(self, share: float) -> float | None:
        """The seconds within which this share of the runs ended; None without a run."""
        return percentile([row.result.elapsed_s for row in self.rows if row.result is not None], share)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        sources: tuple[Source, ...] = ("model", "rehearsal", "script")
        return {
            "name": self.name,
            "questions": len(self.rows),
            "passed": self.passed,
            "pass_rate": self.pass_rate,
            "pass_rate_interval": self.interval,
            "answered_by": {source: self.sources(source) for source in sources},
            "partial": self.count("partial"),
            "failed": self.count("failed"),
            "unjudged": sum(row.unjudged for row in self.rows),
            "scores": self.scores,
            "latency_s": {"p50": self.latency_s(0.5), "p95": self.latency_s(0.95)},
            "tokens": dict(zip(("input", "output"), self.tokens, strict=True)),
            "cost_usd": self.cost_usd,
            "rows": msgspec.to_builtins(self.rows),
        }


async def evaluate(
    agent: ReActAgent,
    questions: Iterable[Question | str],
    evaluators: Sequence[BaseEvaluator] = (),
    *,
    concurrency: int = 4,
    on_row: Callable[[Row], None] | None = None,
) -> Report:
    """
    Ask an agent, several questions at a time, and judge what it answers.

    Args:
        agent: who is asked; it is opened if need be, and left open.
        questions: what is asked.
        evaluators: judge every answer, comparing it with what its question expects.
        concurrency: how many questions are asked at a time.
        on_row: gets each row as it is done.

    Raises:
        MisuseError: nothing is asked.

    """
    asked = [Question(one) if isinstance(one, str) else one for one in questions]
    given: Sequence[Any] = evaluators
    if wrong := [one for one in given if not isinstance(one, BaseEvaluator)]:
        raise MisuseError(f"evaluators are instances of a BaseEvaluator, not {wrong[0]!r:.100}")
    if not asked or not is_amount(concurrency, whole=True):
        raise MisuseError(
            f"at least one question, one at a time; got {len(asked)} questions, {concurrency!r} at a time"
        )

    async def row(question: Question) -> Row:
        checks = [Check(name=one.name, evaluator=one, expected=question.expected) for one in evaluators]
        result, events = await answered(agent, question.question)
        judged = await judgements([*checks, *question.checks], result)
        done = row_of(agent.name, question.question, result, judged, source=source_of(events))
        if on_row is not None:
            on_row(done)
        return done

    return Report(agent.name, await bounded([partial(row, one) for one in asked], concurrency))


async def answered(
    agent: ReActAgent, question: str, timeout: float | None = None, *, stream: bool = True
) -> tuple[AgentResult, list[AgentEvent]]:
    """Ask one question; return how the run ended, and what happened in it."""
    events = [event async for event in agent.async_stream(question, timeout=timeout, stream=stream)]
    last = events[-1]
    assert isinstance(last, RunFinished)
    return last.result, events


async def bounded(jobs: Sequence[Callable[[], Awaitable[T]]], concurrency: int) -> list[T]:
    """Do jobs, so many at a time; return what they return, in their order. The first error ends them all."""
    gate = asyncio.Semaphore(concurrency)

    async def done(job: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await job()

    tasks = [asyncio.ensure_future(done(job)) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def judgements(checks: Iterable[Check], result: AgentResult | None) -> tuple[Judgement, ...]:
    """Judge an answer by each check; no answer scores nothing, and no judge is asked about it."""
    answer = None if result is None else result.answer
    found = []
    for check in checks:
        if answer is None:
            told: dict[str, Any] = {"score": 0.0, "passed": False, "reason": "there is no answer"}
        else:
            told = await _judged(check, answer, result)
        found.append(Judgement(name=check.name, expected=check.expected, **told))
    return tuple(found)


async def _judged(check: Check, answer: str, result: AgentResult | None) -> dict[str, Any]:
    try:
        evaluation = await check.evaluator.async_evaluate(answer, check.expected, result)
    except Exception as error:  # noqa: BLE001 - whatever an evaluator does wrong, the other answers are not lost
        said = str(error) if isinstance(error, FactoryError) else f"{type(error).__name__}: {error}"
        return {"score": None, "passed": False, "reason": f"could not judge: {said}"}
    return {"score": evaluation.score, "passed": evaluation.passed, "reason": evaluation.reason}


def row_of(
    suite: str,
    question: str,
    result: AgentResult | None,
    judged: tuple[Judgement, ...],
    *,
    problems: Sequence[str] = (),
    repetition: int = 1,
    source: Source = "model",
    answers: bool = True,
) -> Row:
    """Make a row; `answers` says whether only a run that answered can pass."""
    found = list(problems)
    if answers and result is not None and result.status != "answered":
        found.insert(
            0, f"the run is {result.status} ({result.stop_reason}){': ' if result.error else ''}{result.error or ''}"
        )
    passed = result is not None and not found and all(judgement.passed for judgement in judged)
    return Row(
        suite=suite,
        question=question,
        repetition=repetition,
        passed=passed,
        result=result,
        judgements=judged,
        problems=tuple(found),
        source=source,
    )


def source_of(events: Iterable[AgentEvent]) -> Source:
    """Tell whether a model answered, or its stand-in."""
    return "rehearsal" if any(isinstance(event, RunStarted) and event.rehearsal for event in events) else "model"
