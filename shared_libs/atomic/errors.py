"""
The error tree.

::

    FactoryError
    ├── MisuseError               the caller's mistake; raised at once (also a ValueError)
    │   ├── ConfigError           a definition that does not hold; one line per problem, with its place
    │   └── NotInstalled          a library or a model that is optional is wanted, and missing
    ├── DeadlineExceeded          the time for a call was over (also a TimeoutError)
    ├── ToolError                 raised by a tool to tell the model what was wrong
    ├── MemoryStoreError          a memory store failed
    │   ├── MemoryUnavailable     it cannot be reached, or did not answer in time
    │   ├── MemoryConflict        another writer was faster; nothing of this write was kept
    │   └── StaleCall             a tool call that was given up tried to write; nothing was kept
    ├── RetrievalError            a store of documents, or a search in it, failed
    │   └── RetrievalUnavailable  it cannot be reached, or did not answer in time
    ├── LimitStoreError           the store of a shared rate limit failed
    ├── RunStoreError             the store of runs failed
    │   └── RunStoreUnavailable   it cannot be reached or opened for now
    └── LLMError                  a model call failed
        ├── LLMConnectionError    refused, reset, DNS, TLS
        ├── LLMTimeout            connect, first token, idle or total time was over
        ├── RateLimited           429
        ├── ProviderUnavailable   5xx, overloaded
        ├── MalformedResponse     an answer that is not what the protocol says
        ├── StreamInterrupted     a stream that ended before its end
        ├── AuthenticationFailed  401, 403, no key
        ├── ModelNotFound         404, unknown model
        ├── BadRequest            the request is refused as such
        │   └── ContextOverflow   longer than the model's context
        ├── ContentFiltered       refused by the provider's filter; reported, never routed around
        └── CircuitOpen           not tried: the model's breaker is open

    A BaseException of its own is `RunInterrupted`: a journal says that this process has to leave the run.

An `LLMError` states facts (`retryable`, `retry_after_s`, `replay_safe`, `response_started`, `provider`, `model`,
`attempt`); what follows from them is decided in `resilience/`, never by reading the text. All errors pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shared_libs.atomic.misuse import FactoryError as FactoryError  # noqa: PLC0414 - it is had from here
from shared_libs.atomic.misuse import MisuseError as MisuseError  # noqa: PLC0414

if TYPE_CHECKING:
    from shared_libs.atomic.types import Attempt, Usage


MAX_REASONS = 5
"""How many of the errors in a group are told."""


class ConfigError(MisuseError):
    """
    A definition does not hold.

    `problems` has one line per problem: `file:line:column: key: what is wrong; what is allowed`. `needs` is what has to
    be installed, where nothing else is wrong.
    """

    def __init__(self, problems: Sequence[str], needs: Sequence[str] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.needs = tuple(needs)


class NotInstalled(MisuseError, ImportError):
    """
    Something optional is wanted, and missing; the text says how to install it, `needs` what, for pip.

    An `ImportError` as well: so `except ImportError` goes on telling whether there is such a thing here.
    """

    def __init__(self, message: str, *needs: str) -> None:
        super().__init__(message)
        self.needs = needs


class DeadlineExceeded(FactoryError, TimeoutError):
    """The time for a call was over. `still_running` tells that what was called ignored its cancellation."""

    def __init__(self, message: str, *, still_running: bool = False) -> None:
        super().__init__(message)
        self.still_running = still_running


class RunInterrupted(BaseException):
    """
    Raised by a journal: this process has to go no further with the run, which is another's now, or is to be.

    No `Exception`, so that nothing on its way takes it for a failure of the run. Nobody is told that the run has ended.
    """


class ToolError(FactoryError):
    """Raised by a tool; its text reaches the model verbatim, so say what was wrong and what is valid."""


class MemoryStoreError(FactoryError):
    """A memory store failed or did not answer in time; nothing of the write was kept."""


class MemoryUnavailable(MemoryStoreError):
    """A memory store cannot be reached, or does not answer in time; the same call may succeed later."""


class MemoryConflict(MemoryStoreError):
    """Another writer of the same session was faster; load again and write again."""


class StaleCall(MemoryStoreError):
    """A tool call whose time is over tried to write to a memory; nothing was kept."""


class RetrievalError(FactoryError):
    """A store of documents, or a search in it, failed; the text says which and why."""


class RetrievalUnavailable(RetrievalError):
    """A store of documents cannot be reached, or does not answer in time; the same call may succeed later."""


class LimitStoreError(FactoryError):
    """The store of a shared rate limit failed; nothing was booked."""


class RunStoreError(FactoryError):
    """The store of runs failed; nothing of the call was kept."""


class RunStoreUnavailable(RunStoreError):
    """The store of runs cannot be reached or opened for now; the same call may succeed later."""


class LLMError(FactoryError):
    """
    A model call failed.

    Args:
        message: what happened, with the provider's own reason.
        provider, model, attempt: who was asked, and which try it was (from 1).
        status_code: HTTP status, where there was one.
        retryable: the same request may succeed later.
        retry_after_s: seconds the provider asked to wait, or None.
        replay_safe: sending the request again repeats no side effect.
        response_started: bytes of an answer had come before it failed.
        usage: tokens the provider had counted before it failed; None where it had said nothing.
        text: what the model had said before it failed.
        attempts: the ledger of the whole call, filled in when every route has failed.
        causes: the error of every attempt, in order.

    """

    kind: ClassVar[str] = "error"
    default_retryable: ClassVar[bool] = False
    another_may_answer: bool = True
    """
    Whether a fallback is worth asking: what one provider refuses as such, the next refuses too. Set on an error where
    only this model, its server or its key is meant.
    """
    learnt: bool = False
    """Whether the adapter has learnt from it how to ask: the next request is another one, and worth sending at once."""
    of_tools: bool = False
    """Whether it is tools as such that the model does not take: told of them in words, it may answer."""

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        model: str = "",
        status_code: int | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        replay_safe: bool = True,
        response_started: bool = False,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status_code = status_code
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.replay_safe = replay_safe
        self.response_started = response_started
        self.attempt = 0
        self.usage: Usage | None = None
        self.text = ""
        self.attempts: tuple[Attempt, ...] = ()
        self.causes: tuple[LLMError, ...] = ()


class LLMConnectionError(LLMError):
    """Refused, reset, DNS or TLS: no answer came."""

    kind = "connection"
    default_retryable = True


class LLMTimeout(LLMError, TimeoutError):
    """Connect, first token, idle or total time was over: the route is silent."""

    kind = "timeout"
    default_retryable = True


class RateLimited(LLMError):
    """The provider refuses for now (429)."""

    kind = "rate_limited"
    default_retryable = True


class ProviderUnavailable(LLMError):
    """The provider failed or is overloaded (5xx)."""

    kind = "unavailable"
    default_retryable = True


class MalformedResponse(LLMError):
    """The answer is not what the protocol says: not JSON, an error page, no choices."""

    kind = "malformed"
    default_retryable = True


class StreamInterrupted(LLMError):
    """A stream ended before its end marker."""

    kind = "interrupted"
    default_retryable = True


class AuthenticationFailed(LLMError):
    """No key, a wrong one, or one without the right (401, 403)."""

    kind = "authentication"


class ModelNotFound(LLMError):
    """The provider does not know the model (404)."""

    kind = "model_not_found"


class BadRequest(LLMError):
    """The provider refuses the request as such (400, 422). `field` is the part of the request that it names, if any."""

    kind = "bad_request"
    another_may_answer = False
    field: str = ""


class ContextOverflow(BadRequest):
    """
    The conversation is longer than the model's context; only another model can help.

    `of_the_window` is False where a limit of the server is meant (tokens a minute, bytes), which says nothing of how
    much the model itself takes.
    """

    kind = "context_overflow"
    another_may_answer = True
    of_the_window: bool = True


class ContentFiltered(LLMError):
    """The provider's filter refused; reported and not routed around."""

    kind = "content_filter"
    another_may_answer = False


class CircuitOpen(LLMError):
    """Not tried, because the model failed too often lately; `retry_after_s` says when it is probed again."""

    kind = "circuit_open"
    default_retryable = True


def in_words(error: BaseException) -> str:
    """
    Say an error's kind and text, whatever it is.

    Of a group the inner reasons are told, since its own text is only their number; a text that fails is left out.
    """
    reasons = [error]
    while any(isinstance(reason, BaseExceptionGroup) for reason in reasons):
        reasons = [
            inner
            for reason in reasons
            for inner in (reason.exceptions if isinstance(reason, BaseExceptionGroup) else (reason,))
        ][:MAX_REASONS]
    return "; ".join(dict.fromkeys(_one_in_words(reason) for reason in reasons))


def _one_in_words(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error whose text fails is an error all the same
        return kind
    return f"{kind}: {text}" if text else kind
