"""
Several models at once: the next one starts when the first token is late ("hedged"), or all start together ("race").

The first to succeed wins, or with a stream the first to speak; the losers are cancelled, and counted in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, TypeVar

from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.resilience.attempt import Listener, Model, ModelCall
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.resilience.route import run_route
from shared_libs.atomic.supervise import GRACE_S, settle
from shared_libs.atomic.types import LLMChunk, LLMResponse

T = TypeVar("T")
M = TypeVar("M", bound=Model)


async def run_hedged(
    routes: Sequence[tuple[M, Resilience]], call: ModelCall[T], failures: dict[int, LLMError]
) -> tuple[T, M] | None:
    """
    Return the first answer and the model that gave it.

    None means that the models in `failures` (by their place in the chain) failed; the others may still be asked.

    Raises:
        asyncio.CancelledError: the caller was cancelled; so were the models.

    """
    policy = routes[0][1]
    contest = _Contest(call)
    running: dict[asyncio.Task[T], int] = {}
    try:
        for index, (model, own) in enumerate(routes):
            racer: Coroutine[Any, Any, T] = run_route(model, own, contest.entry(index), others=len(routes) - 1)
            task = asyncio.get_running_loop().create_task(racer)
            # of those that end together one is asked how: the error of another is not "never retrieved"
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            running[task] = index
            last = index == len(routes) - 1
            wait_s = None if last else 0.0 if policy.strategy == "race" else _hedge_after(model, policy)
            due = None if wait_s is None else asyncio.get_running_loop().time() + wait_s
            while running:
                done = await contest.news(set(running), due)
                ended = {task: running.pop(task) for task in done}
                if contest.winner is not None:
                    losers = {task for task, racing in running.items() if racing != contest.winner}
                    await _cancel(losers)
                    running = {task: racing for task, racing in running.items() if task not in losers}
                for task, racing in ended.items():
                    if task.exception() is None:
                        contest.tell(task.result())
                        return task.result(), routes[racing][0]
                    failures[racing] = _as_llm_error(task.exception())
                if contest.winner in failures or any(not error.another_may_answer for error in failures.values()):
                    return None
                if contest.winner is None and not last:  # one has failed, or the next one is due
                    break
        return None
    finally:
        await _cancel(set(running))


def _as_llm_error(error: BaseException | None) -> LLMError:
    if isinstance(error, LLMError):
        return error
    assert error is not None
    raise error


def _hedge_after(model: Model, policy: Resilience) -> float:
    """How long a model may be silent: as told, or as it usually is, or half of what it may."""
    if policy.hedge_after_s is not None:
        return policy.hedge_after_s
    usual_s = model.health.latency.p95()
    return policy.first_token_timeout_s / 2 if usual_s is None else usual_s


class _Contest(Generic[T]):
    """Who speaks: the first model to say anything gets the listener, until it fails."""

    def __init__(self, call: ModelCall[T]) -> None:
        self.winner: int | None = None
        self.call = call
        self._spoke = asyncio.Event()

    def entry(self, index: int) -> ModelCall[T]:
        """The call of one model: the same ledger, and a listener only while it speaks first."""
        call = self.call
        lane = _Lane(self, index)
        entry = ModelCall(call.send, call.deadline, lane, stream=call.stream, about_tokens=call.about_tokens)
        entry.attempts, entry.causes, entry.tried = call.attempts, call.causes, call.tried
        return entry

    def is_heard(self, index: int) -> bool:
        """Whether this model, which says something now, has the listener; only a stream can be ahead."""
        if self.winner is None and self.call.stream:
            self.winner = index
            self._spoke.set()
        return self.winner == index

    def tell(self, answer: object) -> None:
        """Let the listener have an answer that came in one piece: nobody could be ahead with it."""
        if not self.call.stream and isinstance(answer, LLMResponse) and answer.text:
            self.call.listener.hear(LLMChunk("text", answer.text))

    async def news(self, running: set[asyncio.Task[T]], due: float | None) -> set[asyncio.Task[T]]:
        """Wait until a model has ended, one has begun to speak, or the next one is due; return the ended."""
        if self.winner is not None:  # nobody else is started any more
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            return done
        spoke = asyncio.ensure_future(self._spoke.wait())
        timeout_s = None if due is None else max(0.0, due - asyncio.get_running_loop().time())
        try:
            watched: set[asyncio.Task[Any]] = {*running, spoke}
            done, _ = await asyncio.wait(watched, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            spoke.cancel()
        return done & running


class _Lane(Listener):
    """What one model of a contest speaks into: it is heard while the listener is its own."""

    __slots__ = ("_contest", "_index")

    def __init__(self, contest: _Contest[Any], index: int) -> None:
        super().__init__()
        self._contest = contest
        self._index = index

    @property
    def listens(self) -> bool:
        """Whether there is anybody."""
        return self._contest.call.listener.listens

    def hear(self, chunk: LLMChunk) -> None:
        """A sign of life is enough to win: a model that begins with a tool call has nothing to show yet."""
        if self._contest.is_heard(self._index):
            self._contest.call.listener.hear(chunk)

    def restart(self, reason: str) -> None:
        """What this model has said is void."""
        if self._contest.winner == self._index:
            self._contest.call.listener.restart(reason)


async def _cancel(losers: set[asyncio.Task[T]]) -> None:
    for task in losers:
        task.cancel()
    cancelled = await settle(losers, 2 * GRACE_S)
    if cancelled is not None:
        raise cancelled
