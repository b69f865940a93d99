"""The time tool: any zone, the moments when clocks change, and clear words about what it cannot read."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from shared_libs.atomic import ConfigError, MisuseError
from shared_libs.factory import agent_from_dict
from shared_libs.tools.time_tool import TimeTool
from tests.support import run

NOW = datetime(2026, 7, 30, 12, 0, 0, tzinfo=UTC)


def ask(home="UTC", **arguments):
    result = run(TimeTool(zone=home, now=lambda: NOW).async_run(arguments))
    return result.content if result.is_error else json.loads(result.content)


def test_the_current_time_is_told():
    rome = {"time": "2026-07-30T14:00:00+02:00", "zone": "Europe/Rome", "abbreviation": "CEST", "weekday": "Thursday"}
    assert ask(zone="Europe/Rome") == rome
    assert ask("Europe/Rome") == rome
    assert ask("Europe/Rome", time="now") == rome
    assert ask()["time"] == "2026-07-30T12:00:00+00:00"


def test_the_wall_clock_is_read():
    before = datetime.now(UTC).replace(microsecond=0)
    told = json.loads(run(TimeTool().async_run({})).content)["time"]
    assert before <= datetime.fromisoformat(told) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("arguments", "time"),
    [
        ({"time": "2026-01-15T09:30", "zone": "America/New_York"}, "2026-01-15T23:30:00+09:00"),
        ({"time": "2026-07-15 09:30", "zone": "America/New_York"}, "2026-07-15T22:30:00+09:00"),
        ({"time": "2026-01-15T09:30+01:00"}, "2026-01-15T17:30:00+09:00"),
        ({"time": "2026-01-15T09:30:00Z"}, "2026-01-15T18:30:00+09:00"),
        ({"time": "20:00"}, "2026-07-31T05:00:00+09:00"),
        ({"time": "23:00", "zone": "Pacific/Auckland"}, "2026-07-31T20:00:00+09:00"),
        ({"time": "2026-01-15"}, "2026-01-15T09:00:00+09:00"),
    ],
)
def test_a_time_is_converted(arguments, time):
    assert ask(**arguments, to_zone="Asia/Tokyo")["to"]["time"] == time


@pytest.mark.parametrize(
    ("start", "end", "seconds", "words"),
    [
        ("2026-03-28T12:00", "2026-03-29T12:00", 82800, "23 hours"),
        ("2026-10-24T12:00", "2026-10-25T12:00", 90000, "1 day, 1 hour"),
        ("2026-01-01", "2026-02-03T01:02:03", 2854923, "33 days, 1 hour, 2 minutes, 3 seconds"),
        ("2026-01-01T00:01", "2026-01-01", -60, "1 minute earlier"),
        ("now", "now", 0, "0 seconds"),
        (None, "15:00", 3600, "1 hour"),
    ],
)
def test_a_difference_is_the_time_that_really_passes(start, end, seconds, words):
    arguments = {"until": end} | ({"time": start} if start else {})
    told = ask("Europe/Rome", **arguments)
    assert (told["difference_s"], told["difference"]) == (seconds, words)


def test_an_hour_that_is_skipped_or_comes_twice_is_told():
    skipped = ask("Europe/Rome", time="2026-03-29T02:30")
    assert skipped["time"] == "2026-03-29T03:30:00+02:00"
    assert skipped["notes"] == [
        "2026-03-29T02:30 does not exist in Europe/Rome: the clocks are put forward; the time after it is taken"
    ]
    twice = ask("Europe/Rome", time="2026-10-25T02:30", until="2026-10-25T02:30+01:00")
    assert twice["time"] == "2026-10-25T02:30:00+02:00"
    assert twice["difference"] == "1 hour"
    assert twice["notes"] == [
        "2026-10-25T02:30 comes twice in Europe/Rome: the clocks are put back; the first is taken"
    ]


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("Europe/Romee", "'Europe/Romee' is no IANA time zone; did you mean Europe/Rome"),
        ("rome", "did you mean Europe/Rome?"),
        ("New York", "did you mean America/New_York?"),
        ("US/Kolkata", "did you mean Asia/Kolkata?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Europe", "is no IANA time zone"),
        ("../../etc/passwd", "is no IANA time zone"),
        ("/etc/localtime", "is no IANA time zone"),
        ("a\0b", "is no IANA time zone"),
        ("é\ud800", "is no IANA time zone"),
        ("x" * 5000, "is no IANA time zone, such as Europe/Rome, America/New_York or UTC"),
        ("+02:00", "is no IANA time zone"),
    ],
)
def test_a_zone_that_is_none_is_told_with_the_nearest(zone, said):
    assert said in ask(zone=zone)
    assert said in ask(to_zone=zone)
    with pytest.raises(MisuseError) as caught:
        TimeTool(zone=zone)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"time": "tomorrow"}, "'tomorrow' is no time; write it in ISO 8601, such as 2026-03-29T14:30"),
        ({"until": "31.12.2026"}, "'31.12.2026' is no time"),
        ({"time": "2026-02-30"}, "'2026-02-30' is no time"),
        ({"time": ""}, "'' is no time"),
        ({"time": "0001-01-01", "to_zone": "America/New_York"}, "too near to the year 1 or 9999"),
        ({"time": "9999-12-31T23:59-12:00"}, "too near to the year 1 or 9999"),
        ({"date": "x"}, "Invalid arguments for time"),
        ({"zone": 5}, "Invalid arguments for time"),
    ],
)
def test_a_wrong_call_is_told(arguments, said):
    assert said in ask(**arguments)


def test_a_wrong_zone_of_a_definition_has_its_place():
    llm = {"provider": "openai", "model": "m", "api_key": "k"}
    with pytest.raises(ConfigError) as caught:
        agent_from_dict({"name": "a", "llm": llm, "tools": [{"use": "time", "zone": "Europe/Pariss"}]})
    (problem,) = caught.value.problems
    assert problem.startswith("tools[0].zone: 'Europe/Pariss' is no IANA time zone; did you mean Europe/Paris")


def test_the_zones_are_there_without_those_of_the_system():
    code = "from shared_libs.tools.time_tool import TimeTool; print(TimeTool(zone='Europe/Rome').name)"
    command = [sys.executable, "-c", f"import zoneinfo; zoneinfo.reset_tzpath([]); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "time\n"
