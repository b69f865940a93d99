"""The innermost layer: one request to one model, under its timeouts, booked in the ledger however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import (
    DeadlineExceeded,
    LLMConnectionError,
    LLMError,
    LLMTimeout,
    MalformedResponse,
    StreamInterrupted,
)
from shared_libs.atomic.events import AttemptFinished, AttemptStarted
from shared_libs.atomic.in_place import within
from shared_libs.atomic.propagation import waited_until
from shared_libs.atomic.resilience.health import ModelHealth
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.scope import Scope, current_scope
from shared_libs.atomic.supervise import NO_FAILURES, BodyCancelled, BodyExited, said_by, supervise
from shared_libs.atomic.types import Attempt, LLMChunk, LLMResponse, Message, ToolSpec, Usage

T = TypeVar("T")
ChunkSink = Callable[[LLMChunk], None]
AskSink = Callable[[Sequence[Message], Sequence[ToolSpec], Mapping[str, Any]], None]


GIVEN_UP = ("no token for", "no first token within", "no answer within", "the answer took too long")
"""How `Watch.why` begins: the request itself had not ended."""


class Model(Protocol):
    """What the onion needs to know of a model; the request itself is in the call."""

    @property
    def provider(self) -> str:
        """The provider's name."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def context_window(self) -> int | None:
        """How many tokens fit in, where that is known."""

    @property
    def health(self) -> ModelHealth:
        """What the process knows of this model."""

    @property
    def obeys(self) -> bool:
        """Whether a request to it is known to end when it is cancelled."""


class Listener:
    """Who listens to the chunks of a call, and whether anything was heard that a new beginning makes void."""

    __slots__ = ("_heard", "_sink")

    def __init__(self, sink: ChunkSink | None = None) -> None:
        self._heard = False
        self._sink = sink

    @property
    def listens(self) -> bool:
        """Whether there is anybody."""
        return self._sink is not None

    def hear(self, chunk: LLMChunk) -> None:
        """Pass a chunk on; an empty text is only a sign of life."""
        if self._sink is not None and (chunk.text or chunk.kind != "text"):
            self._heard = True
            self._sink(chunk)

    def restart(self, reason: str) -> None:
        """Tell that what was heard is void, if anything was."""
        if self._heard and self._sink is not None:
            self._heard = False
            self._sink(LLMChunk("restarted", reason=reason))


class ModelCall(Generic[T]):
    """
    One call on its way through the onion.

    `send(model, watch)` makes one attempt. `attempts` is the ledger, `causes` the error of each failed one. The
    `listener` gets the chunks; `stream` tells whether they come one by one, and so may be waited for one by one.
    `about_tokens` is how many tokens it may take, by the length of what is asked; 0 where nobody limits them.
    `operation` is what is asked for: "chat", "embeddings" or "rerank". `tried` counts the tries of each model where
    one that lost a contest may be asked once more; None where each is asked in one go.
    """

    __slots__ = (
        *("about_tokens", "attempts", "causes", "deadline", "listener", "loop", "operation", "send", "started_at"),
        *("stream", "tried"),
    )

    def __init__(
        self,
        send: Callable[[Any, Watch], Coroutine[Any, Any, T]],
        deadline: Deadline,
        listener: Listener,
        *,
        stream: bool = False,
        about_tokens: int = 0,
        operation: str = "chat",
    ) -> None:
        self.send = send
        self.operation = operation
        self.deadline = deadline
        self.stream = stream
        self.about_tokens = about_tokens
        self.attempts: list[Attempt] = []
        self.causes: list[LLMError] = []
        self.tried: dict[Model, int] | None = None
        self.loop = asyncio.get_running_loop()
        run_began = current_scope().started_at
        self.started_at = self.loop.time() if run_began is None else run_began
        self.listener = listener


class Watch(Expiry):
    """
    One attempt in progress: when it is given up, what that means, and whether it is still heard.

    A stream's moment is moved on by every chunk. An attempt that has ended, or was given up, speaks no more: what it
    still says ends it. `asks` takes what the adapter is given, where somebody keeps that.
    """

    __slots__ = (
        *("_deadline", "_idle_s", "_is_over", "_listener", "_loop", "_total_at", "asks", "began_at", "first_token_at"),
    )

    def __init__(self, policy: Resilience, call: ModelCall[Any], now: float, total_at: float, first_at: float) -> None:
        super().__init__(min(first_at, total_at) if call.stream else total_at, "")
        self.began_at = now
        self._deadline = call.deadline
        self._idle_s = policy.idle_timeout_s
        self._is_over = False
        self._listener = call.listener
        self._loop = call.loop
        self._total_at = total_at
        self.first_token_at: float | None = None
        self.asks: AskSink | None = None

    @property
    def why(self) -> str:
        """Which of the timeouts it is that ends the attempt."""
        if self.first_token_at is not None:
            return f"no token for {self._idle_s:g} s" if self.at < self._total_at else "the answer took too long"
        missing = "first token" if self.at < self._total_at else "answer"
        return f"no {missing} within {max(0.0, self.at - self.began_at):.3g} s"

    def stood_still(self, seconds: float) -> None:
        """Give the model the time in which it could not be heard, up to the deadline: that silence was not its own."""
        self._total_at = min(self._total_at + seconds, self._deadline.at)
        self.at = min(self.at + seconds, self._total_at)

    def close(self) -> None:
        """Hear nothing of this attempt any more."""
        self._is_over = True

    def chunk(self, chunk: LLMChunk) -> None:
        """
        Take a chunk: pass it on, and allow the next one its time.

        Raises:
            StreamInterrupted: the attempt was given up before.
            MalformedResponse: it is no chunk.

        """
        if self._is_over:
            raise StreamInterrupted("this attempt was given up, and nobody listens to it any more")
        if type(chunk) is not LLMChunk or type(chunk.text) is not str:
            raise MalformedResponse(f"the adapter gave a {type(chunk).__name__} where a chunk with a text belongs")
        now = self._loop.time()
        if self.first_token_at is None:
            self.first_token_at = now
        next_at = now + self._idle_s
        self.move(next_at if next_at < self._total_at else self._total_at)  # noqa: FURB136 - a call for every chunk
        self._listener.hear(chunk)

    def wait_for_all(self) -> None:
        """Wait for an answer that comes in one piece: its first token is its last."""
        self.move(self._total_at)

    def whole(self, text: str) -> None:
        """Take an answer that came in one piece."""
        self.first_token_at = self._loop.time()
        if text and self._listener.listens and not self._is_over:
            self._listener.hear(LLMChunk("text", text))


async def run_attempt(
    model: Model, policy: Resilience, call: ModelCall[T], *, number: int, waited_s: float, share: int
) -> T:
    """
    Make one attempt.

    Args:
        model: who is asked.
        policy: the timeouts.
        call: what is asked; gets the booking.
        number: which try of this model it is, from 1.
        waited_s: seconds waited before it.
        share: how many models still could answer, this one included: the silence of one leaves the others their time.

    Raises:
        LLMError: it failed; carries its facts.
        asyncio.CancelledError: the caller was cancelled.

    """
    now = call.loop.time()
    # to the very deadline where there is nobody to share with: a sum may fall a hair short of it, and what the caller
    # had no time for would count against the model
    share_at = call.deadline.at if share == 1 else now + (call.deadline.at - now) / share
    total_at = min(now + policy.attempt_timeout_s, call.deadline.at if call.stream else share_at)
    watch = Watch(policy, call, now, total_at, min(now + policy.first_token_timeout_s, share_at))
    scope = current_scope()
    began = AttemptStarted(
        provider=model.provider, model=model.model, number=number, operation=call.operation, stream=call.stream
    )
    scope.emit(began)
    if scope.asking is not None and began.seq:  # without a number nobody heard of it
        watch.asks = partial(scope.asking.ask, began)

    book = partial(_book, scope, call, watch, began, waited_s)
    try:
        with waited_until(total_at):
            if model.obeys:
                with within(call.loop, watch):
                    result = await call.send(model, watch)
            else:
                name, left = f"{model.provider}/{model.model}", model.health.left_running
                result = await supervise(call.send(model, watch), watch, what="model", name=name, left_running=left)
    except asyncio.CancelledError:
        book("cancelled")
        raise
    except NO_FAILURES:
        raise
    except BaseException as error:  # noqa: BLE001 - an adapter is foreign code: its bug is this attempt's failure
        failure = _as_failure(error)
    else:
        model.health.latency.book((watch.first_token_at or call.loop.time()) - now)
        book("ok", usage=result.usage if isinstance(result, LLMResponse) else None)
        return result
    finally:
        watch.close()
    failure.provider, failure.model, failure.attempt = model.provider, model.model, number
    failure.response_started = watch.first_token_at is not None
    call.causes.append(failure)
    book(failure.kind, failure, failure.usage)
    raise failure


def _book(
    scope: Scope,
    call: ModelCall[Any],
    watch: Watch,
    began: AttemptStarted,
    waited_s: float,
    outcome: str,
    failure: LLMError | None = None,
    usage: Usage | None = None,
) -> None:
    """Put an attempt on the ledger."""
    attempt = Attempt(
        provider=began.provider,
        model=began.model,
        number=began.number,
        outcome=outcome,
        why="" if failure is None else str(failure),
        status_code=None if failure is None else failure.status_code,
        waited_s=waited_s,
        started_s=watch.began_at - call.started_at,
        first_token_s=None if watch.first_token_at is None else watch.first_token_at - call.started_at,
        ended_s=call.loop.time() - call.started_at,
        usage=usage,
        retryable=None if failure is None else failure.retryable,
        retry_after_s=None if failure is None else failure.retry_after_s,
    )
    call.attempts.append(attempt)
    scope.emit(AttemptFinished(attempt=attempt))


def _as_failure(error: BaseException) -> LLMError:
    """Whatever an adapter ends in but an answer is an `LLMError`."""
    if isinstance(error, LLMError):
        return error
    if isinstance(error, BodyCancelled):
        return LLMConnectionError("the request was cancelled from within")
    if isinstance(error, DeadlineExceeded):
        failure: LLMError = LLMTimeout(str(error))
    else:
        failure = LLMError(f"the adapter failed: {error if isinstance(error, BodyExited) else said_by(error)}")
    failure.__cause__ = error
    return failure
