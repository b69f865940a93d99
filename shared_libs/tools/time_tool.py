"""The `time` tool: what time it is somewhere, the same moment elsewhere, and how long it is between two."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.tools.base import BaseTool

_ISO = "ISO 8601, such as 2026-03-29T14:30, 2026-03-29T14:30+02:00, 2026-03-29, or 14:30 for today"
_PARTS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class TimeTool(BaseTool):
    """
    Tells, converts and subtracts times, by the rules of the IANA time zones.

    Args:
        zone: the IANA zone that is meant where the model names none, such as Europe/Rome.
        now: gives the current time, with its zone; the wall clock, by default.

    Raises:
        MisuseError: there is no such zone.

    """

    name = "time"
    timeout_s = 5.0
    idempotent = True

    def __init__(self, *, zone: str = "UTC", now: Callable[[], datetime] = _wall_clock) -> None:
        try:
            self._zone = _zone(zone).key
        except ToolError as error:
            raise MisuseError(f"zone: {error}") from None
        self._now = now
        self.description = (
            "Tells the current time, or what is said about `time`. With `to_zone` the same moment there; "
            f"with `until` how long it is from `time` to that. Where no zone is given, {self._zone} is meant."
        )
        self.parameters = _PARAMETERS

    def execute(
        self, zone: str | None = None, time: str | None = None, to_zone: str | None = None, until: str | None = None
    ) -> dict[str, Any]:
        """Work it out; a thread reads the zones, which are files."""
        home = _zone(zone or self._zone)
        notes: list[str] = []
        try:
            moment = self._moment(time, home, notes)
            told: dict[str, Any] = _described(moment)
            if to_zone is not None:
                told["to"] = _described(moment.astimezone(_zone(to_zone)))
            if until is not None:
                end = self._moment(until, home, notes)
                seconds = (end.astimezone(UTC) - moment.astimezone(UTC)).total_seconds()
                told |= {"until": _described(end), "difference": _length(seconds), "difference_s": seconds}
        except OverflowError:
            raise ToolError("that is too near to the year 1 or 9999 to be reckoned with") from None
        return told | ({"notes": notes} if notes else {})

    def _moment(self, text: str | None, zone: ZoneInfo, notes: list[str]) -> datetime:
        if text is None or text.strip().lower() == "now":
            return self._now().astimezone(zone)
        written = _read(text.strip(), self._now().astimezone(zone))
        if written.tzinfo is not None:
            return written.astimezone(zone)
        moment = written.replace(tzinfo=zone)
        if moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != written:
            notes.append(f"{text} does not exist in {zone.key}: the clocks are put forward; the time after it is taken")
            return moment.astimezone(UTC).astimezone(zone)
        if moment.utcoffset() != moment.replace(fold=1).utcoffset():
            notes.append(f"{text} comes twice in {zone.key}: the clocks are put back; the first is taken")
        return moment


_PARAMETERS = {
    "type": "object",
    "properties": {
        "zone": {"type": "string", "description": "An IANA time zone, such as America/New_York."},
        "time": {"type": "string", "description": f"{_ISO}; now, if left out."},
        "to_zone": {"type": "string", "description": "The IANA time zone to convert to."},
        "until": {"type": "string", "description": "The end of the time to measure; written like `time`, or now."},
    },
    "additionalProperties": False,
}


def _read(text: str, now: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        of_day = time.fromisoformat(text)
    except ValueError:
        raise ToolError(f"{text!r:.100} is no time; write it in {_ISO}") from None
    today = datetime.combine(now.date(), of_day)
    return today.replace(tzinfo=of_day.tzinfo)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # a path, a folder, no name of a file at all
        pass
    known = sorted(zoneinfo.available_timezones())
    if not known:
        raise ToolError("this machine has no time zones: pip install tzdata")
    near = _nearest(name, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else ", such as Europe/Rome, America/New_York or UTC"
    raise ToolError(f"{name!r:.100} is no IANA time zone{hint}")


def _nearest(name: str, known: list[str]) -> list[str]:
    """The zones whose name or place is like it; `new york` is America/New_York."""
    wanted = name.strip().lower().replace(" ", "_")[:100]
    places: dict[str, list[str]] = {}
    for key in known:
        for part in {key.lower(), key.lower().rpartition("/")[2]}:
            places.setdefault(part, []).append(key)
    for part in (wanted, wanted.rpartition("/")[2]):
        if part in places:
            return places[part][:3]
    found = names_like(wanted, places, 3)
    return list(dict.fromkeys(key for part in found for key in places[part]))[:3]


def _described(moment: datetime) -> dict[str, str]:
    zone = moment.tzinfo
    return {
        "time": moment.isoformat(timespec="seconds"),
        "zone": zone.key if isinstance(zone, ZoneInfo) else str(zone),
        "abbreviation": moment.tzname() or "",
        "weekday": moment.strftime("%A"),
    }


def _length(seconds: float) -> str:
    """Write a number of seconds in days, hours, minutes and seconds of the clock."""
    left, parts = round(abs(seconds)), []
    for word, size in _PARTS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {word}{'s' if count > 1 else ''}")
    return f"{', '.join(parts) or '0 seconds'}{' earlier' if seconds < 0 else ''}"
