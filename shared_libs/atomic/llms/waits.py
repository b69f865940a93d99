"""
The wait that a provider tells: in headers, in the body, or only in words.

Sources: RFC 9110 (`Retry-After`), the pages on rate limits of OpenAI (`x-ratelimit-reset-*`, durations) and Anthropic
(`anthropic-ratelimit-*-reset`, RFC 3339), Google's `RetryInfo`, IETF draft `ratelimit-headers`, ISO 8601 and
.NET's `TimeSpan` for durations.
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

_JUST_NOW_S = 60.0
"""A time of day that passed so long ago is now, and not tomorrow."""

_UNITS = {"µ": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_UNIT_OF = (
    (late(r"[µμ]"), "µ"),
    (late(r"ms|milli|msec"), "ms"),
    (late(r"s|秒"), "s"),
    (late(r"m|分"), "m"),
    (late(r"h|小|時"), "h"),
    (late(r"d|天"), "d"),
    (late(r"w"), "w"),
)
_UNIT = (
    r"(?:(?:[µμ]s|milliseconds?|millis|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)"
    r"(?:\(s\))?(?!(?!t\d)[a-z])|秒钟?|分[钟間]?|小时|時間|天)"
)
_PART = late(
    r"(?:\d{1,9}+(?:\.\d{1,9}+)?\s?(?:[-\u2013]|to)\s?(?=\d))?"  # of a range its end
    rf"(\d{{1,3}}(?:,\d{{3}})++|\d{{1,30}}+)(\.\d{{1,30}}+)?\s{{0,9}}({_UNIT})[\s,t]{{0,9}}+(?:and\s{{1,9}})?",
    re.IGNORECASE,
)
_SPAN = late(r"(?:(\d{1,4})\.)?(\d{1,3}):([0-5]\d):([0-5]\d(?:\.\d{1,9})?)(?![\d:])")
"""A duration as hours, minutes and seconds, with days before them."""
_NUMBER = late(r"\d+(?:\.\d+)?")
_TOLD = late(
    r"(?:(?:请在|请于|等待)[^.\d]{0,40}?"
    r"|\b(?:again|retry(?:ing)?(?:[ _-]?(?:after|at))?|wait(?:ing)?|available|resets?(?:[ _]?at)?|expires?|refills?"
    r"|cool(?:ing)? ?down|back off|until|(?:blocked|suspended|banned|limited|locked) for)(?![a-z])[^.\d]{0,40}?"
    # not "5 requests in 10 s"
    r"|(?:^|[.,;:!?])[^.,;:!?\d]{0,80}(?<!requests )(?<!tokens )(?<!calls )\bin "
    r"(?:about |around |approximately |another |~)?"
    rf"|(?=\d[\d.]{{0,9}} ?{_UNIT} ?(?:remaining|left|[后後])))(?<!-)(?=\d)",
    re.IGNORECASE,
)
_ONE = late(r"(?<!half )\b(?:an?|one) (?=second|minute|hour|day|week)", re.IGNORECASE)
_MOMENT = late(
    r"\b(?:at|until|on|after|resets?):? (?:[a-z]{3,9}, )?(\d{4}-\d\d-\d\d|\d{1,2} [a-z]{3,9} \d{4}"
    r"|[a-z]{3,9} \d{1,2},? \d{4})"
    r"(?:T| at |,? )(\d\d:\d\d(?::\d\d(?:\.\d+)?)?) ?\(?(Z\b|UTC|GMT|[+-]\d\d:?\d\d)",
    re.IGNORECASE,
)
"""A moment in words; one without a zone is anybody's guess."""
_TIME_OF_DAY = late(
    r"\b(?:at|until|after|resets?):? (\d\d?:\d\d(?::\d\d)?) ?([ap]\.?m\.?)? ?\(?(?:UTC|GMT|Z)\b", re.IGNORECASE
)
_WAITS = (
    (late(r"retry-after-ms$"), 1000.0),
    (late(r"(?:retry-(?:after|in)|cooldown)(?:-s|-seconds)?$"), 1.0),  # the latter is Moonshot's
)
"""What the headers that tell a wait are called, whoever passes them on, and how many of their units are a second."""
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
        found = _in_words(_ONE.sub("1 ", words).replace("midnight", "00:00"), headers.get("date"))
    if found is None:
        found = max(_resets(headers), default=None)
    return found


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait (`retry-after-ms`, `retry-after` as seconds or as a date), or None."""
    named = [(name.lower(), value) for name, value in headers.items()]
    told = ((value, unit) for called, unit in _WAITS for name, value in named if called.search(name))
    waits = (_wait_of(value, headers.get("date"), unit) for value, unit in told)
    return next((seconds for seconds in waits if seconds is not None), None)


def _wait_of(told: str, date: str | None, unit: float = 1.0) -> float | None:
    """Seconds of a wait told as a number, as a duration, as a date, or as a moment since 1970."""
    told = told.strip(" \"'")
    try:
        seconds = float(told) / unit
    except ValueError:
        found = duration_s(told)
        seconds = _until(told, date) if found is None else found
    seconds = _from_now(seconds, date)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _in_words(words: str, date: str | None) -> float | None:
    """Seconds to the moment that words name, or as long as they say."""
    if (moment := _MOMENT.search(words)) is not None:
        day, time, zone = moment.groups()
        offset = "+00:00" if zone.isalpha() else zone
        return _wait_of(f"{day}T{time}{offset}" if day[:4].isdecimal() else f"{day} {time} {zone}", date)
    if (time_of_day := _TIME_OF_DAY.search(words)) is not None:
        return _until_time(time_of_day[1], time_of_day[2] or "", _now(date))
    waits = (_duration_at(words, told.end(), told[0].endswith(("at ", "after "))) for told in _TOLD.finditer(words))
    found = next((seconds for seconds in waits if seconds is not None), None)
    return None if found is None else _from_now(found, date)


def duration_s(text: str) -> float | None:
    """Seconds of a duration such as `1.8s`, `1m2s`, `20 seconds`, `6m0s`, `PT30S`, `00:01:30` or `12`; or None."""
    text = text.strip().removeprefix("P").removeprefix("T")
    found = _NUMBER.fullmatch(text)
    return float(text) if found else _duration_at(text, 0)


def _duration_at(text: str, start: int, may_be_a_time: bool = False) -> float | None:
    """The duration that stands at a place in a text; a number without a unit is seconds, if no date goes on there."""
    seconds, at = 0.0, start
    while part := _PART.match(text, at):
        seconds += float(part[1].replace(",", "") + (part[2] or "")) * _UNITS[_unit(part[3])]
        at = part.end()
    if at > start:
        return seconds
    if not may_be_a_time and (span := _SPAN.match(text, start)) is not None:
        days, hours, minutes, rest = (float(one or 0) for one in span.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + rest
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
        then = then if then.tzinfo else then.replace(tzinfo=UTC)  # RFC 9110: HTTP's dates are, however they are written
    except (TypeError, ValueError):
        try:
            then = datetime.fromisoformat(date.strip().replace(" UTC", "Z"))
        except ValueError:
            return math.nan
    return max(0.0, (then - _now(now)).total_seconds()) if then.tzinfo else math.nan


def _until_time(time: str, half: str, now: datetime) -> float | None:
    """Seconds to the next time of day, of UTC."""
    hour, minute, *second = (int(part) for part in time.split(":"))
    if half:
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    try:
        then = now.astimezone(UTC).replace(hour=hour, minute=minute, second=next(iter(second), 0), microsecond=0)
    except ValueError:
        return None
    seconds = (then - now).total_seconds()
    return max(0.0, seconds) if seconds > -_JUST_NOW_S else seconds + _UNITS["d"]


def _now(date: str | None) -> datetime:
    try:
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return now if now.tzinfo else now.replace(tzinfo=UTC)
