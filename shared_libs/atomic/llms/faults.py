"""
What a provider's refusal means: HTTP status, error object and headers become the `LLMError` that states the facts.

The formats of OpenAI, Anthropic, Ollama and the servers that imitate them are read alike: `reasons.py` gathers what is
said, `meanings.py` says what it means, `waits.py` how long to wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec

from shared_libs.atomic.errors import (
    BadRequest,
    ContentFiltered,
    LLMError,
    MalformedResponse,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.llms.meanings import meaning_of
from shared_libs.atomic.llms.reasons import MAX_REASON_CHARS, Reason, read_reason
from shared_libs.atomic.llms.waits import wait_told

_KEY_LIKE = re.compile(
    r"\b(?:(?:sk|pk|gsk|xai|nvapi|pplx)-[\w*.-]{6,}|gsk_\w{6,}|hf_\w{10,}|AIza[\w-]{20,}|(?<![\w-])eyJ[\w-]{10,}\.[\w-]+\.[\w-]+)"
)
_MASK = "[key]"
_LONG_ENOUGH = 8
"""A shorter key is a placeholder ("x", "none", "ollama", "test"): its letters stand in ordinary words."""

_MAY_TELL_A_WAIT = frozenset({429, 503, 529})
"""The statuses whose words may tell how long to wait: in others a number of seconds means something else."""

_FAILURES = frozenset({"detail", "errors", "fault", "error_code", "error_msg", "error_message", "errorMessage"})
"""The fields of an event that only a failure has."""
_FAILED = re.compile(r"error|fail|exception|^(?!0+$|200$)\d+$")
"""What a code or type of one has in it; a number, but for those of success, is a vendor's own."""

_USER = re.compile(r"//[^/@]*@")
_HAS_VERSION = re.compile(r"/v\d")


def refusal(status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str], where: str) -> LLMError:
    """
    The error for an answer that is not a success.

    Args:
        status: the HTTP status.
        headers: of the answer; names are looked up in lower case.
        body: of the answer, whatever it is.
        secrets: what must not be repeated, should the provider echo it.
        where: the address asked, for the text.

    """
    if 300 <= status < 400:
        place = _USER.sub("//", headers.get("location", "nowhere").partition("?")[0])
        return ProviderUnavailable(
            f"HTTP {status}: {where} redirects to {redacted(place, secrets)}; set base_url to the final address",
            status_code=status,
            retryable=False,
        )
    reason = read_reason(body)
    error = _said(status, reason, headers, f"HTTP {status}: {_clean(reason, secrets) or 'without a reason'}")
    if isinstance(error, ModelNotFound):
        error.args = (f"{error} (asked at {where}{_missing_version(where, reason)})",)
    told = headers.get("x-should-retry")
    if told == "false":
        error.retryable = False
    elif told == "true" and not isinstance(error, BadRequest | ContentFiltered | RateLimited):
        error.retryable = True  # those say by themselves whether a wait can help
    return error


def error_event(payload: bytes, secrets: Iterable[str]) -> LLMError:
    """The error for an error object that came as an answer, or inside one, after its status was already 200."""
    reason = read_reason(payload)
    text = _clean(reason, secrets) or ", ".join(sorted(reason.codes)) or "without a reason"
    error = _said(reason.status, reason, {}, f"the provider broke off: {text}")
    if isinstance(error, ModelNotFound):
        error.args = (f"{error} (is base_url right? It usually ends in /v1)",)
    return error


def says_error(value: Any) -> bool:
    """Whether an `error` field of a successful answer says anything: some servers always send one, empty."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def refused(payload: bytes, secrets: Iterable[str]) -> LLMError | None:
    """The error for an event that has nothing of an answer, if it says that the provider has failed; else None."""
    try:
        event = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    reason = read_reason(payload)
    failed = (reason.status or 0) >= HTTPStatus.BAD_REQUEST or event.get("success") is False
    failed = failed or not _FAILURES.isdisjoint(event) or any(_FAILED.search(code) for code in reason.codes)
    return error_event(payload, secrets) if failed and reason.text else None


def no_answer(payload: bytes, secrets: Iterable[str], missing: str) -> LLMError:
    """
    The error for a document that came in the place of an answer: what it says, or that something is missing.

    Servers say with status 200, and without an `error`, that they refuse.
    """
    reason = read_reason(payload)
    if reason.text and (reason.codes or reason.status):
        return error_event(payload, secrets)
    return MalformedResponse(f"the answer has no {missing}{f': {_clean(reason, secrets)}' if reason.text else ''}")


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, and without whatever else looks like a key."""
    for secret in secrets:
        if len(secret) >= _LONG_ENOUGH:
            text = text.replace(secret, _MASK)
    return _KEY_LIKE.sub(_MASK, text)


def _said(status: int | None, reason: Reason, headers: Mapping[str, str], text: str) -> LLMError:
    wait_s = wait_told(headers, reason.wait_told)
    clock = {"date": headers.get("date") or ""}  # the server's own
    if wait_s is None and reason.headers:
        wait_s = wait_told({**clock, **reason.headers})
    if wait_s is None and (status is None or status in _MAY_TELL_A_WAIT):
        wait_s = wait_told(clock, words=reason.text)
    error = meaning_of(status, reason, wait_s).says(text, status)
    error.retry_after_s = wait_s
    if isinstance(error, BadRequest):
        error.field = reason.field
    return error


def _missing_version(where: str, reason: Reason) -> str:
    about_model = "model" in reason.text.lower()
    return "" if about_model or _HAS_VERSION.search(urlsplit(where).path) else "; does base_url lack its /v1?"


def _clean(reason: Reason, secrets: Iterable[str]) -> str:
    text = reason.text
    if reason.field and reason.field not in text:
        text = f"{text} ({reason.field})"
    text = redacted(" ".join(text.split()), secrets)
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]} ..."
