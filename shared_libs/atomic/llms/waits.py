"""
The wait that a provider tells: in headers, in the body, or only in words.

Sources: RFC 9110 (`Retry-After`), the pages on rate limits of OpenAI (`x-ratelimit-reset-*`, durations) and Anthropic
(`anthropic-ratelimit-*-reset`, RFC 3339), Google's `RetryInfo`, IETF draft `ratelimit-headers`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from shared_libs.atomic.patterns import late

_EPOCH_FROM_S = 1e9
"""A number of seconds beyond this is a moment since 1970 and no wait."""
_EPOCH_FROM_MS = 1e12

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_OF = (
    (late(r"ms|milli|msec"), "ms"),
    (late(r"s|秒"), "s"),
    (late(r"m|分"), "m"),
    (late(r"h|小"), "h"),
    (late(r"d"), "d"),
)
_PART = late(
    r"(\d{1,30}+(?:\.\d{1,30}+)?)\s{0,9}(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|秒|分钟|小时)"
    r"(?![a-z])"
    r"[\s,]{0,9}+(?:and\s{1,9})?",
    re.IGNORECASE,
)
_NUMBER = late(r"\d+(?:\.\d+)?")
_TOLD = late(
    r"(?:(?:请在|请于|等待)[^.\d]{0,40}?"
    r"|\b(?:again|retry(?:ing)?(?:[ _-]?after)?|wait(?:ing)?|available|resets?|expires?|refills?|cool(?:ing)? ?down"
    r"|back off)\b[^.\d]{0,40}?"
    r"|(?<!requests )(?<!tokens )(?<!calls )\bin (?:about |around |approximately |another |~)?)(?=\d)",
    re.IGNORECASE,
)
_ONE = late(r"\b(?:an?|one) (?=second|minute|hour|day)", re.IGNORECASE)
_MOMENT = late(r"\b(?:at|until|on|after):? (\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?) ?(Z|UTC|[+-]\d\d:?\d\d)")
"""A moment in words; one without a zone is anybody's guess."""
_WAITS = (
    *(("retry-after-ms", 1000.0), ("x-retry-after-ms", 1000.0), ("x-ms-retry-after-ms", 1000.0)),
    *(("retry-after", 1.0), ("x-retry-after", 1.0), ("x-ratelimit-retry-after", 1.0)),
    *(("llm_provider-retry-after", 1.0), ("msh-cooldown-seconds", 1.0)),  # behind LiteLLM; Moonshot
)
"""The headers that tell a wait, and how many of their units are a second."""
_FIELD = late(r"\b(remaining|reset|r|t)\s*=\s*(\d+)")
"""What the one header `RateLimit` of the IETF's draft holds, of its older and its newer form."""
_RESET = late(r"^(?P<before>[a-z_-]*ratelimit(bysize)?)-(?P<what>.*-)?reset(?P<of>-.*)?$")


def wait_told(headers: Mapping[str, str], told: str = "", words: str = "") -> float | None:
    """
    Seconds to wait, or None where nobody tells.

    Args:
        headers: of the answer; names are looked up in lower case. Those that tell when a limit is filled again count
            where it is used up.
        told: the wait as the body states it, such as `2s`.
        words: the reason in words, such as "Please try again in 1m2s."

    """
    found = retry_after_s(headers)
    if found is None and told:
        found = _wait_of(told, headers.get("date"))
    if found is None and words:
        words = _ONE.sub("1 ", words)
        found = next((s for told in _TOLD.finditer(words) if (s := _duration_at(words, told.end())) is not None), None)
        if found is None and (moment := _MOMENT.search(words)) is not None:
            zone = "Z" if moment[2] == "UTC" else moment[2]
            found = _wait_of(f"{moment[1]}{zone}", headers.get("date"))
    if found is None:
        found = max(_resets(headers), default=None)
    return found


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait (`retry-after-ms`, `retry-after` as seconds or as a date), or None."""
    told = ((value, unit) for name, unit in _WAITS if (value := headers.get(name)) is not None)
    waits = (_wait_of(value, headers.get("date"), unit) for value, unit in told)
    return next((seconds for seconds in waits if seconds is not None), None)


def _wait_of(told: str, date: str | None, unit: float = 1.0) -> float | None:
    """Seconds of a wait told as a number, as a duration, as a date, or as a moment since 1970."""
    try:
        seconds = float(told) / unit
    except ValueError:
        found = duration_s(told)
        seconds = _until(told, date) if found is None else found
    seconds = _from_now(seconds, date)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def duration_s(text: str) -> float | None:
    """Seconds of a duration such as `1.8s`, `1m2s`, `20 seconds`, `6m0s` or `12`; None for what is none."""
    text = text.strip()
    found = _NUMBER.fullmatch(text)
    return float(text) if found else _duration_at(text, 0)


def _duration_at(text: str, start: int) -> float | None:
    """The duration that stands at a place in a text; a number without a unit is seconds, if no date goes on there."""
    seconds, at = 0.0, start
    while part := _PART.match(text, at):
        seconds += float(part[1]) * _UNITS[_unit(part[2])]
        at = part.end()
    if at > start:
        return seconds
    bare = _NUMBER.match(text, start)
    ends = (
        bare is not None and not text[bare.end() :].lstrip()[:1].isalnum() and text[bare.end() :][:1] not in set("-:/")
    )
    return float(bare[0]) if bare is not None and ends else None


def _unit(word: str) -> str:
    return next(unit for begins, unit in _UNIT_OF if begins.match(word.lower()))


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    """The seconds to the moment at which each limit that is used up is filled again."""
    named = ((name.lower().replace("rate-limit", "ratelimit"), value) for name, value in headers.items())
    known = {name: value for name, value in named if "ratelimit" in name}
    told = known.get("ratelimit", "")
    for policy in told.split(",") if ";" in told else (told,):  # the newer form has several
        fields = {name[:3]: float(value) for name, value in _FIELD.findall(policy)}
        reset = fields.get("res", fields.get("t"))
        if reset is not None and not fields.get("rem", fields.get("r", 0.0)):
            yield reset
    for name, value in known.items():
        found = _RESET.match(name)
        if found is None:
            continue
        left = known.get(name.replace("reset", "remaining"))
        if (left is not None and not _is_none(left)) or known.get(name.replace("reset", "status")) == "allowed":
            continue
        seconds = duration_s(value)
        seconds = _until(value, headers.get("date")) if seconds is None else _from_now(seconds, headers.get("date"))
        if math.isfinite(seconds) and seconds >= 0:
            yield seconds


def _is_none(left: str) -> bool:
    try:
        return float(left) <= 0
    except ValueError:
        return False


def _from_now(seconds: float, date: str | None) -> float:
    """A wait as it stands, or the one to a moment since 1970 in seconds or milliseconds."""
    if seconds < _EPOCH_FROM_S or not math.isfinite(seconds):
        return seconds
    moment = seconds / 1000 if seconds >= _EPOCH_FROM_MS else seconds
    return max(0.0, moment - _now(date).timestamp())


def _until(date: str, now: str | None) -> float:
    """Seconds to a date; by the server's own clock where it tells it, so that a wrong one here does no harm."""
    try:
        then = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        try:
            then = datetime.fromisoformat(date.strip())
        except ValueError:
            return math.nan
    try:
        return max(0.0, (then - _now(now)).total_seconds())
    except TypeError:  # one of them has no time zone
        return math.nan


def _now(date: str | None) -> datetime:
    try:
        return parsedate_to_datetime(date) if date else datetime.now(UTC)
    except (TypeError, ValueError):
        return datetime.now(UTC)
