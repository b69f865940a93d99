"""
What a request is refused with: one kind of error that says why, and when to come back.

A `Problem` states facts; each face writes them in its clients' dialect. The service's own routes answer with problem
details (RFC 9457).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from shared_libs.atomic.addresses import without_addresses
from shared_libs.atomic.errors import (
    DeadlineExceeded,
    FactoryError,
    LLMError,
    MemoryConflict,
    MemoryStoreError,
    MisuseError,
    RetrievalError,
    RetrievalUnavailable,
    RunStoreError,
)
from shared_libs.durable import StoreUnavailable
from shared_libs.service.rates import Rates, openai_rates

_log = logging.getLogger("shared_libs.service")


class Kind(NamedTuple):
    """What every problem of a code has in common; `retry` is whether the same request may succeed later."""

    status: int
    title: str
    retry: bool = False


KINDS: dict[str, Kind] = {
    "invalid_request": Kind(400, "The request is not valid"),
    "unsupported_parameter": Kind(400, "This is not supported"),
    "context_length_exceeded": Kind(400, "The conversation is too long for the model"),
    "content_filtered": Kind(400, "The provider's filter refused the content"),
    "unauthorized": Kind(401, "A valid key is needed"),
    "forbidden": Kind(403, "The key does not allow this"),
    "not_found": Kind(404, "There is no such thing"),
    "model_not_found": Kind(404, "There is no such agent or model"),
    "method_not_allowed": Kind(405, "The method is not allowed here"),
    "body_timeout": Kind(408, "The body did not come in time"),
    "conflict": Kind(409, "The state does not allow this"),
    "body_too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body is not JSON"),
    "headers_too_large": Kind(431, "The headers are too large"),
    "idempotency_mismatch": Kind(422, "The idempotency key belongs to another request"),
    "rate_limited": Kind(429, "The limit of the key is reached", retry=True),
    "budget_exhausted": Kind(429, "The budget is spent"),
    "upstream_rate_limited": Kind(429, "The provider's limit is reached", retry=True),
    "upstream_quota_spent": Kind(429, "What the provider allows is spent"),
    "too_many_failures": Kind(429, "Too many wrong keys", retry=True),
    "internal": Kind(500, "Something went wrong here"),
    "run_failed": Kind(500, "The run failed"),
    "store_failed": Kind(502, "A store refuses what is asked"),
    "answer_replaced": Kind(502, "The answer cannot go on", retry=True),
    "upstream_failed": Kind(502, "The model could not be asked"),
    "upstream_unavailable": Kind(503, "No model is available", retry=True),
    "overloaded": Kind(503, "There is more to do than can be done in time", retry=True),
    "server_busy": Kind(503, "This server has more to do than it can", retry=True),
    "stopping": Kind(503, "This server stops", retry=True),
    "deadline_unreachable": Kind(503, "The answer would come too late", retry=True),
    "store_unavailable": Kind(503, "A store does not answer", retry=True),
    "deadline_exceeded": Kind(504, "The time is over"),
}
"""Every way in which a request can be refused."""


class Problem(FactoryError):
    """
    A request is refused, or has failed.

    Args:
        code: one of `KINDS`.
        detail: what happened, what is allowed and what to do; never a secret.
        retry_after_s: seconds after which the same request may succeed; None: nobody knows.
        param: the field of the request that is meant.
        facts: further members of the problem, JSON-ready.

    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.param = param
        self.facts = dict(facts or {})
        self.rates: Rates = ()

    @property
    def kind(self) -> Kind:
        """What all problems of this code have in common."""
        return KINDS[self.code]

    def headers(self, left_s: float = math.inf) -> list[tuple[str, str]]:
        """
        Tell an SDK whether and when to come back; `left_s` is how much time the client has itself.

        A wait that outlasts the client's patience is no reason to try again.
        """
        kind, wait_s = self.kind, self.retry_after_s
        if kind.status not in (408, 409, 429) and kind.status < 500:
            return []  # no SDK repeats these by itself
        again = kind.retry and (wait_s or 0.0) < left_s
        told = [("x-should-retry", "true" if again else "false")]
        if wait_s is not None and again:
            told += [
                ("retry-after", str(max(1, math.ceil(wait_s)))),
                ("retry-after-ms", str(max(1, int(wait_s * 1e3)))),
            ]
        return told


PROBLEM_JSON = "application/problem+json"


class Dialect(NamedTuple):
    """
    How problems are told to the clients of a face, and what is left of their limits.

    `body` also gets the request's id; `rates` are headers of any answer.
    """

    body: Callable[[Problem, str], dict[str, Any]]
    status: Callable[[Problem], int]
    media_type: str = "application/json"
    rates: Callable[[Rates], list[tuple[str, str]]] = openai_rates


def problem_details(problem: Problem, request_id: str) -> dict[str, Any]:
    """Write a problem as RFC 9457 says."""
    told: dict[str, Any] = {
        "type": f"urn:genai-factory:problem:{problem.code}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.param is not None:
        told["param"] = problem.param
    if problem.retry_after_s is not None:
        told["retry_after_s"] = round(problem.retry_after_s, 3)
    return told | problem.facts


PROBLEM_DETAILS = Dialect(problem_details, lambda problem: problem.kind.status, PROBLEM_JSON)


def problem_of(error: Exception) -> Problem:
    """Say what an error means to a client; what nobody foresaw is logged, and nothing of it is told."""
    match error:
        case Problem():
            return error
        case MisuseError():
            return Problem("invalid_request", str(error))
        case LLMError():
            told, wait_s = str(error), error.retry_after_s
            of_model = problem_of_model(error.kind, told, again=error.retryable, retry_after_s=wait_s)
            if of_model.detail != told:
                _log.warning("a request was not answered: %s", told)
            return of_model
        case DeadlineExceeded():
            return Problem("deadline_exceeded", str(error))
    if (problem := _of_a_store(error)) is not None:
        return problem
    _log.error("a request failed in a way nobody foresaw", exc_info=error)
    return Problem("internal", "an error of this server; its log tells more under the request's id")


_OF_MODELS = {
    "rate_limited": "upstream_rate_limited",
    "content_filter": "content_filtered",
    "timeout": "deadline_exceeded",
    "bad_request": "invalid_request",
    "context_overflow": "context_length_exceeded",
    "authentication": "upstream_failed",
    "model_not_found": "upstream_failed",
    "malformed": "upstream_failed",
}
"""What the kinds of `LLMError` mean to a client."""


def problem_of_model(
    kind: str,
    told: str,
    *,
    again: bool,
    retry_after_s: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Problem:
    """
    Say what it means to a client that no model answered.

    Args:
        kind: of the `LLMError`.
        told: its words; addresses of servers are kept out of what is told.
        again: whether the same request may succeed later.
        retry_after_s: seconds after which.
        facts: further members of the problem.

    """
    code = _OF_MODELS.get(kind, "upstream_unavailable" if again else "upstream_failed")
    if code == "upstream_rate_limited" and not again:
        code = "upstream_quota_spent"
    wait_s = retry_after_s if KINDS[code].retry else None
    return Problem(code, without_addresses(told), retry_after_s=wait_s, facts=facts)


def _of_a_store(error: Exception) -> Problem | None:
    match error:
        case RetrievalError():  # where a collection is kept is nothing to tell a client
            _log.warning("a collection: %s", error)
            if isinstance(error, RetrievalUnavailable):
                return Problem("store_unavailable", "the stores of the collection do not answer; try again")
            return Problem("store_failed", "the stores of the collection cannot do this; the server's log tells more")
        case MemoryConflict():
            return Problem("conflict", str(error))
        case RunStoreError() | StoreUnavailable():
            return Problem("store_unavailable", "the store of runs does not answer; try again", retry_after_s=5.0)
        case MemoryStoreError():
            return Problem("store_unavailable", "the memory of this agent does not answer; try again")
    return None
