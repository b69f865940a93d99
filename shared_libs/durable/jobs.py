"""What a durable run is to whoever submits, runs or looks at it: plain data."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from shared_libs.atomic.errors import FactoryError

Status = Literal["queued", "running", "waiting", "answered", "partial", "failed", "cancelled"]

ENDED: tuple[Status, ...] = ("answered", "partial", "failed", "cancelled")


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run to be done.

    Args:
        run_id: names the run for good; submitted twice it is one run.
        agent: the agent's name; `agent_limit` is how many runs of it go on at once, over all workers.
        definition: the agent's definition as it is written, variables not expanded.
        file: where that stands; files it names are looked for beside it.
        question: a text, content parts or messages.
        session_id: the conversation to continue.
        timeout_s: seconds from the run's start; None: the definition's.
        team: whose it is (a key's team); `team_limit` is how many of the team's runs go on at once.
        extras: what is wanted of the agent beside its definition, as plain data; whoever makes the agent reads it.
        followed: whether somebody is about to follow it: then its words come live from the first one on.
        asked_by: the key it was asked with; `key_limit` is how many runs of that key go on at once.
        priority: the higher ones are begun first.
        delay_s: seconds until it may begin.

    """

    run_id: str
    agent: str
    definition: dict[str, Any]
    file: str | None = None
    question: Any
    session_id: str | None = None
    timeout_s: float | None = None
    team: str = ""
    priority: int = 0
    delay_s: float = 0.0
    agent_limit: int | None = None
    team_limit: int | None = None
    asked_by: str = ""
    key_limit: int | None = None
    extras: dict[str, Any] = {}
    followed: bool = False


class Unreadable(FactoryError):
    """
    A run that this version of the code cannot read, such as one that a later version wrote.

    Args:
        run_id: the run.
        why: what is wrong with it.

    """

    def __init__(self, run_id: str, why: str) -> None:
        super().__init__(f"it cannot be read here: {why}")
        self.run_id = run_id


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run that this worker holds, until its lease is over: `epoch` is the number of this execution.

    `elapsed_s` is the time since this part of the run began first, by the database's clock. `state` is what an earlier
    part left to go on from, and `decisions` what has been decided of its calls. `followed` is whether somebody does.
    `asked` are notes of questions to a model (`ASKED`). `trace` are the headers of the trace that it was submitted
    in. `lost` says why nobody can do it any more.
    """

    run_id: str
    epoch: int
    agent: str
    definition_hash: str
    definition: dict[str, Any]
    file: str | None
    question: Any
    session_id: str | None
    team: str
    timeout_s: float | None
    elapsed_s: float
    segment: int
    state: dict[str, Any] | None
    decisions: dict[str, Any]
    facts: dict[str, str]
    asked: list[tuple[str, float]]
    events: list[str]
    last_event: int
    cancelled: bool
    followed: bool
    deaths: int
    extras: dict[str, Any] = {}
    trace: dict[str, str] = {}
    lost: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """
    A durable run as anybody sees it. Times are seconds since 1970 by the database's clock.

    `executor` holds it since `claimed_at`; `worker` is that one's name, and `beat_age_s` how long it has been silent.
    `why` tells what keeps it, or how it ended; `extras` are those of its submission.
    """

    run_id: str
    status: Status
    agent: str
    question: Any
    session_id: str | None
    team: str
    priority: int
    submitted_at: float
    due_at: float
    first_at: float | None
    ended_at: float | None
    epoch: int
    executor: str | None
    worker: str | None
    claimed_at: float | None
    beat_age_s: float | None
    cancelling: bool
    pending: list[Any]
    result: dict[str, Any] | None
    why: str | None
    extras: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.status in ENDED


class HeldRun(msgspec.Struct, frozen=True):
    """A run, and the seconds since a worker has taken it."""

    run_id: str
    agent: str
    held_s: float


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the database knows it; `runs` are what it holds, the longest first."""

    executor: str
    name: str
    started_at: float
    beat_age_s: float
    alive: bool
    draining: bool
    concurrency: int
    runs: list[HeldRun]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much a store holds.

    `statuses` counts the runs by how they stand, `oldest_s` is how long the first of those that may begin has waited,
    `size_bytes` what all tables take; of an SQLite file, what the whole file takes.
    """

    statuses: dict[str, int]
    oldest_s: float | None
    facts: int
    events: int
    size_bytes: int


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of an agent that are submitted by `cron` in a time zone; `next_at` is when it is due next."""

    name: str
    cron: str
    zone: str
    next_at: float
    agent: str


class Held(msgspec.Struct, frozen=True):
    """What the database says of a run that a worker holds."""

    run_id: str
    epoch: int
    cancelled: bool
    followed: bool
    held_s: float


class Beaten(msgspec.Struct, frozen=True):
    """
    What the database says to a beat.

    `held` is what it believes the worker to hold, `now` the time by its clock, and `ahead` the beats of before that lie
    ahead of it, by their workers.
    """

    held: list[Held]
    now: float
    ahead: dict[str, float]


class WorkerCounts(msgspec.Struct):
    """
    What a worker has done since it began.

    `new` and `again` are runs it took that nobody, or somebody, had begun, `handed_over` those it left to others;
    `facts` it recorded in `facts_s` seconds of waiting.
    """

    new: int = 0
    again: int = 0
    handed_over: int = 0
    facts: int = 0
    facts_s: float = 0.0


class WorkerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a worker does its runs.

    Args:
        concurrency: how many at once.
        lease_s: seconds of silence after which they are another worker's.
        deaths: how many executions of a run may die one after the other without a new fact.
        retention_s: seconds until a run that has ended is forgotten; 0: never.

    """

    concurrency: int = 8
    lease_s: float = 10.0
    deaths: int = 5
    retention_s: float = 30 * 86_400.0

    @property
    def doubtful(self) -> int:
        """From how many deaths on a run is done with no other beside it that could die of it."""
        return max(1, self.deaths - 2)
