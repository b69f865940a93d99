"""Runs that are submitted again and again: schedules by cron, beside the queue; every worker attends to them."""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.loading import importing
from shared_libs.atomic.names import is_name
from shared_libs.durable.database import Script, ask
from shared_libs.durable.jobs import Schedule, Submission
from shared_libs.durable.store import JobStore, to_json

if TYPE_CHECKING:
    from cronsim import CronSim

_log = logging.getLogger("shared_libs.durable")

_FOR_UPDATE = {"postgresql": "FOR UPDATE SKIP LOCKED", "sqlite": ""}


class _Template(msgspec.Struct, frozen=True):
    submission: Submission
    hash: str


async def put_schedule(
    store: JobStore, name: str, cron: str, zone: str, submission: Submission, definition_hash: str
) -> Schedule:
    """
    Keep a schedule, in the place of one of the same name.

    Each of its runs is called `NAME-` and the moment it was due, in UTC; so two workers submit it once. Where nobody
    worked when it was due, it is submitted once when somebody does, however often it was due.

    Args:
        store: the queue.
        name: the schedule's.
        cron: when, in five fields: minute, hour, day, month, weekday.
        zone: in which time zone, such as "Europe/Berlin".
        submission: what is submitted; its id counts for nothing.
        definition_hash: of its definition.

    Raises:
        MisuseError: `cron` or `zone` is not valid.
        NotInstalled: the extra `durable` is missing.

    """
    if not is_name(name, 100) or "/" in name:
        raise MisuseError(f"a schedule's name is up to 100 printable characters without '/', not {name[:40]!r}")
    template = to_json(_Template(submission, definition_hash))

    def script() -> Script[float]:
        ((now,),) = yield ask("SELECT CLOCK")
        due_at = next_at(cron, zone, now)
        yield ask(
            """INSERT INTO factory_schedules (name, cron, zone, template, next_at) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone,
                   template = excluded.template, next_at = excluded.next_at""",
            *(name, cron, zone, template, due_at),
        )
        return due_at

    next_at(cron, zone, 0.0)  # what is wrong shows before the database is asked
    due_at = await store.database.run(script)
    return Schedule(name=name, cron=cron, zone=zone, next_at=due_at, agent=submission.agent)


async def schedules(store: JobStore) -> list[Schedule]:
    """Return all schedules, the next one to be due first."""
    rows = await store.database.one(ask("SELECT * FROM factory_schedules ORDER BY next_at, name"))
    return [
        Schedule(
            name=row["name"],
            cron=row["cron"],
            zone=row["zone"],
            next_at=row["next_at"],
            agent=_agent(row["template"]),
        )
        for row in rows
    ]


def _agent(template: str) -> str:
    try:
        return msgspec.json.decode(template, type=_Template).submission.agent
    except msgspec.DecodeError as error:  # it hides no other
        return f"(cannot be read: {error})"


async def remove_schedule(store: JobStore, name: str) -> bool:
    """Forget a schedule; False where there is none."""
    rows = await store.database.one(ask("DELETE FROM factory_schedules WHERE name = $1 RETURNING name", name))
    return bool(rows)


async def submit_due(store: JobStore, told: dict[str, str] | None = None) -> list[str]:
    """
    Submit what is due; return the ids of the runs.

    Args:
        store: the queue.
        told: why schedules are left to others, by their names, as far as it has been told: each is told once.

    """
    if not await store.database.one(ask("SELECT 1 FROM factory_schedules WHERE next_at <= CLOCK LIMIT 1")):
        return []
    return await store.database.run(lambda: _submit_due(store, {} if told is None else told))


def _submit_due(store: JobStore, told: dict[str, str]) -> Script[list[str]]:
    rows = yield ask(
        f"SELECT *, CLOCK AS now FROM factory_schedules WHERE next_at <= CLOCK {_FOR_UPDATE[store.database.dialect]}"
    )
    made = []
    for row in rows:
        try:
            template = msgspec.json.decode(row["template"], type=_Template)
            due_at = max(row["next_at"], _last_at(row["cron"], row["zone"], row["now"]))
            following = next_at(row["cron"], row["zone"], row["now"])
        except (FactoryError, msgspec.DecodeError) as error:  # such as a zone: others know it, or it is put anew
            if told.get(row["name"]) != str(error):
                told[row["name"]] = str(error)
                _log.warning("schedule %s is not attended to: %s", row["name"], error)
            continue
        run_id = f"{row['name']}-{datetime.fromtimestamp(due_at, UTC):%Y%m%dT%H%MZ}"
        try:
            yield from store.submitting(msgspec.structs.replace(template.submission, run_id=run_id), template.hash)
            made.append(run_id)
        except MisuseError as error:  # such as another run of this name; the next one is due all the same
            _log.warning("schedule %s: %s is not submitted: %s", row["name"], run_id, error)
        yield ask("UPDATE factory_schedules SET next_at = $2 WHERE name = $1", row["name"], following)
    return made


_FIELDS = "five fields say when (minute hour day month weekday), such as '0 7 * * 1-5'"


def next_at(cron: str, zone: str, now: float) -> float:
    """
    Return when it is due next, in seconds since 1970; infinity where it never is again.

    Raises:
        MisuseError: `cron` or `zone` is not valid.
        NotInstalled: the extra `durable` is missing.

    """
    moment = next(_moments(cron, zone, now), None)
    return math.inf if moment is None else moment.timestamp()


def _last_at(cron: str, zone: str, now: float) -> float:
    moment = next(_moments(cron, zone, now + 1, reverse=True), None)
    return -math.inf if moment is None else moment.timestamp()


def _moments(cron: str, zone: str, now: float, *, reverse: bool = False) -> CronSim:
    from zoneinfo import ZoneInfo

    with importing("cronsim", "a schedule"):
        from cronsim import CronSim, CronSimError
    try:
        place = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise MisuseError(f"{zone[:60]!r} is no time zone; allowed are names such as UTC or Europe/Berlin") from None
    if len(cron.split()) != 5:  # with six the first one counts seconds, and a run is called by its minute
        raise MisuseError(f"{cron[:60]!r} is no schedule: {_FIELDS}")
    try:
        return CronSim(cron, datetime.fromtimestamp(now, place), reverse=reverse)
    except CronSimError as error:
        raise MisuseError(f"{cron[:60]!r} is no schedule: {error}; {_FIELDS}") from None
