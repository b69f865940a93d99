"""
What a provider's refusal means: HTTP status, error object and headers become the `LLMError` that states the facts.

The formats of OpenAI, Anthropic, Ollama and the servers that imitate them are read alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    LLMError,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.llms.payload import page_title

MAX_REASON_CHARS = 500

_OVERFLOW_CODES = {"context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"}
# most servers that imitate OpenAI, and Anthropic itself, have no code for it: vLLM, llama.cpp, LiteLLM, SGLang
_OVERFLOW_WORDS = re.compile(
    r"maximum context length|context[ _]?(length|window|size|limit)|prompt is too long|input is too long", re.IGNORECASE
)
_FILTER_CODES = {
    *("content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked"),
    *("bio_policy", "misalignment_policy_violation", "image_content_policy_violation"),
}
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
_QUOTA_WORDS = re.compile(r"credit balance is too low|insufficient balance", re.IGNORECASE)
_MODEL_CODES = {"model_not_found", "model_not_available", "invalid_model"}
_MODEL_WORDS = re.compile(
    r"invalid model name|not a valid model|model .{1,200} (not found|does not exist)", re.IGNORECASE
)

_STATUS_OF = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "data_residency_mismatch": 400,
    **dict.fromkeys(
        (
            *(
                "invalid_image",
                "invalid_image_format",
                "invalid_base64_image",
                "invalid_image_url",
                "invalid_image_mode",
            ),
            *("image_too_large", "image_too_small", "image_parse_error", "image_file_too_large", "empty_image_file"),
            *("unsupported_image_media_type", "failed_to_download_image", "image_file_not_found"),
        ),
        400,
    ),
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error without an HTTP status of its own would have had; the types of OpenAI and Anthropic."""

_RETRYABLE_4XX = {408, 409, 425}
_KEY_LIKE = re.compile(r"\b(sk|pk|gsk|xai)-[\w*.-]{6,}")


class Reason(NamedTuple):
    """What the provider itself says."""

    text: str
    codes: frozenset[str] = frozenset()
    status: int | None = None


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
        return ProviderUnavailable(
            f"HTTP {status}: {where} redirects to {headers.get('location', 'nowhere')}; "
            "set base_url to the final address",
            status_code=status,
            retryable=False,
        )
    reason = _read(body)
    error = _classified(status, reason, f"HTTP {status}: {_clean(reason.text, secrets) or 'without a reason'}")
    if status in {404, 405}:
        error.args = (f"{error} (asked at {where})",)
    error.status_code = status
    error.retry_after_s = retry_after_s(headers)
    told = headers.get("x-should-retry")
    if told in {"true", "false"} and error.another_may_answer:
        error.retryable = told == "true"
    return error


def error_event(payload: bytes, secrets: Iterable[str]) -> LLMError:
    """The error for an error object that came as an answer, or inside one, after its status was already 200."""
    reason = _read(payload)
    status = reason.status
    for code in () if status else reason.codes:
        status = _STATUS_OF.get(code, status)
    failure = _classified(
        status or 500, reason, f"the provider broke off: {_clean(reason.text, secrets) or reason.codes}"
    )
    failure.status_code = reason.status
    return failure


def says_error(value: Any) -> bool:
    """Whether an `error` field of a successful answer says anything: some servers always send one, empty."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait (`retry-after-ms`, `retry-after` as seconds or as a date), or None."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            seconds = _until(value, headers.get("date"))
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, and without whatever else looks like a key."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return _KEY_LIKE.sub("[key]", text)


def _until(date: str, now: str | None) -> float:
    """Seconds to an HTTP date; by the server's own clock where it tells it, so that a wrong one here does no harm."""
    try:
        then = parsedate_to_datetime(date)
        since = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max(0.0, (then - since).total_seconds())
    except (TypeError, ValueError):
        return math.nan


def _classified(status: int, reason: Reason, text: str) -> LLMError:
    kind, retryable = _kind(status, reason)
    return kind(text, retryable=retryable)


def _kind(status: int, reason: Reason) -> tuple[type[LLMError], bool | None]:
    """The class of an error, and whether it is retryable where that is not the class's own answer."""
    codes = reason.codes
    if codes & _QUOTA_CODES or status == 402 or (status < 500 and _QUOTA_WORDS.search(reason.text)):
        return RateLimited, False
    if codes & _FILTER_CODES:
        return ContentFiltered, None
    if codes & _OVERFLOW_CODES or (status in {400, 413, 422} and _OVERFLOW_WORDS.search(reason.text)):
        return ContextOverflow, None
    if codes & _MODEL_CODES or status in {404, 405} or (status == 400 and _MODEL_WORDS.search(reason.text)):
        return ModelNotFound, None
    if status in {401, 403, 407}:
        return AuthenticationFailed, None
    if status == 429:
        return RateLimited, None
    if status >= 500 or status in _RETRYABLE_4XX:
        return ProviderUnavailable, status != 501
    return BadRequest, None


def _read(body: bytes) -> Reason:
    """What an error body says: JSON in one of its many shapes, an HTML page, or plain text."""
    try:
        return _reason(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        title = page_title(body)
        if title is not None:
            return Reason(title or "an HTML page without a title")
        return Reason(body[: 4 * MAX_REASON_CHARS].decode("utf-8", "replace"))


def _reason(data: Any) -> Reason:
    if isinstance(data, list) and data:
        return _reason(data[0])
    if not isinstance(data, dict):
        return Reason("" if data is None else str(data))
    inner = data.get("error")
    if isinstance(inner, dict | list):
        return _reason(inner)
    text = inner or data.get("message") or data.get("detail") or data.get("msg") or ""
    codes = [data.get("code"), data.get("type"), inner]
    deeper = data.get("innererror")
    if isinstance(deeper, dict):
        codes.append(deeper.get("code"))
    numbers = [int(code) for code in map(str, codes) if code.isdecimal() and 400 <= int(code) < 600]
    return Reason(
        text if isinstance(text, str) else msgspec.json.encode(text).decode(),
        frozenset(code.lower() for code in codes if isinstance(code, str)),
        numbers[0] if numbers else None,
    )


def _clean(text: str, secrets: Iterable[str]) -> str:
    text = redacted(" ".join(text.split()), secrets)
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]} ..."
