"""What the store of runs gives: a row for each run, in pages that go on where the one before ended."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.plain_data import PlainData
from shared_libs.atomic.types import Usage

Order = Literal["newest", "slowest"]
Source = Literal["library", "cli", "service", "worker"]

STATUSES = ("running", "answered", "partial", "failed", "cancelled", "paused", "unfinished")
"""What a run may be; "unfinished" is one that has no end though its time is over: its process is gone."""

LATE_S = 60.0
"""Seconds after its deadline until a run without an end counts as unfinished: clocks of machines differ."""

SHOWN = 8_000
"""Characters of question, answer and error that a row has; the events have all of them."""

_CHANCE_BITS = 22

_LAST_ID = 2**63 - 1  # of what databases keep


class RunRow(msgspec.Struct, PlainData, frozen=True, kw_only=True):
    """
    One run.

    `status` is "running" while it is under way. `started_at` is ISO 8601 in UTC, times are in seconds. `longest` names
    what took longest and `longest_s` how long, `why` says in a sentence what the time went on, and `parts` are those of
    its attribution. `question`, `answer` and `error` are their beginnings in a page, and up to 8,000 characters where
    one run is asked for; `result` (then only) is the whole result, as `AgentResult.to_dict` gives it.
    """

    run_id: str
    agent: str
    model: str = ""
    team: str = ""
    source: str = "library"
    session_id: str | None = None
    parent_run_id: str | None = None
    question: str = ""
    status: str = "running"
    stop_reason: str = ""
    answer: str | None = None
    error: str | None = None
    started_at: str = ""
    timeout_s: float = 0.0
    elapsed_s: float | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    longest: str = ""
    longest_s: float | None = None
    why: str = ""
    parts: list[dict[str, Any]] = []
    rehearsal: bool = False
    result: dict[str, Any] | None = None


class RunPage(msgspec.Struct, PlainData, frozen=True):
    """Some runs; `next` is the cursor of the page behind it, None where this is the last one."""

    rows: list[RunRow]
    next: str | None = None


class UsualRun(msgspec.Struct, PlainData, frozen=True):
    """The median of the latest runs of an agent: how many they are, their seconds, and those of each part."""

    runs: int
    elapsed_s: float
    parts: list[dict[str, Any]]


def new_id(at: datetime) -> int:
    """Return a number for a run that sorts by the time it began: milliseconds, and chance behind them."""
    return first_id(at) | secrets.randbits(_CHANCE_BITS)


def first_id(at: datetime) -> int:
    """Return the smallest number that a run which began then may have."""
    return min(max(0, int(at.timestamp() * 1000)) << _CHANCE_BITS, _LAST_ID)


def moment(text: str) -> datetime:
    """Read a time in ISO 8601; now, where it is none: a run is not lost for the sake of its date."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def cursor(order: Order, id: int, elapsed_s: float | None) -> str:
    """Return the cursor behind a run."""
    return f"{id}" if order == "newest" else f"{elapsed_s or 0.0!r}~{id}"


def read_cursor(order: Order, text: str) -> tuple[int, float]:
    """
    Read a cursor: the number of the run before, and its seconds.

    Raises:
        MisuseError: it is none of this order.

    """
    seconds, mark, number = text.rpartition("~")
    try:
        if bool(mark) == (order == "slowest") and int(number) <= _LAST_ID:
            return int(number), float(seconds or 0)
    except ValueError:
        pass
    raise MisuseError(f"after={text[:40]!r} is no cursor of this list; give the `next` of the page before, unchanged")
