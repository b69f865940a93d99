"""
What a worker does with the runs it holds.

Every write names the run, its epoch and the worker: from a worker that has lost the run nothing is taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from shared_libs.durable.database import CLOCK, Database, Script, ask
from shared_libs.durable.folding import kept_name
from shared_libs.durable.jobs import Beaten, Claim, Held, Unreadable, WorkerCounts
from shared_libs.durable.keeping import ASKED, HELD, Entry, Events, Fact, Keeper, told
from shared_libs.durable.store import DECIDED, RUN_CHANNEL, WORKER_CHANNEL, called, read_json

NOW = object()
"""Stands for the time by the database's clock among the changes of a job."""

SET_BACK_S = 2.0
"""Seconds by which clocks may differ: a beat further ahead is of another one, or of before it was set back."""

_CLAIMS = 0x6475_7262  # under this advisory lock limits are counted
_NEVER = 2**31

_DUE = """
    SELECT j.run_id, j.deaths, j.agent, j.agent_limit, j.team, j.team_limit, j.asked_by, j.key_limit,
        COALESCE(a.going, 0) AS agent_going, COALESCE(t.going, 0) AS team_going, COALESCE(k.going, 0) AS asked_by_going
    FROM factory_jobs j
    LEFT JOIN (SELECT agent, count(*) AS going FROM factory_jobs WHERE status = 'running' GROUP BY agent) a
        ON a.agent = j.agent
    LEFT JOIN (SELECT team, count(*) AS going FROM factory_jobs WHERE status = 'running' GROUP BY team) t
        ON t.team = j.team
    LEFT JOIN (SELECT asked_by, count(*) AS going FROM factory_jobs WHERE status = 'running' GROUP BY asked_by) k
        ON k.asked_by = j.asked_by
    WHERE j.status = 'queued' AND j.due_at <= CLOCK {only_those}
        AND (j.agent_limit IS NULL OR COALESCE(a.going, 0) < j.agent_limit)
        AND (j.team_limit IS NULL OR COALESCE(t.going, 0) < j.team_limit)
        AND (j.key_limit IS NULL OR COALESCE(k.going, 0) < j.key_limit)
    ORDER BY j.began_at IS NULL, j.priority DESC, j.due_at, j.submitted_at LIMIT $1 FOR UPDATE OF j SKIP_LOCKED"""

_ALONE = "SELECT pg_advisory_xact_lock($1), set_config('enable_sort', 'off', true)"
"""Who claims is alone; what a server knows of a queue's size is old, and made it sort all that waits for one run."""

_LANES = {"agent": "agent_limit", "team": "team_limit", "asked_by": "key_limit"}
"""What runs are counted by, and the column that says how many may go on at once."""

_TAKE = """
    UPDATE factory_jobs SET status = 'running', executor = $2, epoch = epoch + 1, claimed_at = CLOCK, why = NULL,
        first_at = COALESCE(first_at, CLOCK), began_at = COALESCE(began_at, CLOCK),
        facts_then = CASE WHEN epoch = 0 THEN 0 ELSE facts_then END
    WHERE run_id = $1 RETURNING *, CLOCK - began_at AS elapsed_s, followed_until > CLOCK AS followed"""

_REAP = """
    UPDATE factory_jobs SET status = 'queued', executor = NULL WHERE run_id IN (
        SELECT j.run_id FROM factory_jobs j WHERE j.status = 'running' AND NOT EXISTS (SELECT 1 FROM factory_workers w
        WHERE w.executor = j.executor AND w.beat_at > CLOCK - w.lease_s) {only} FOR UPDATE OF j SKIP_LOCKED)
    RETURNING run_id"""
"""What is locked, as by a transaction of the dead that its server has not missed yet, is left for the next look."""

_SERVER_IS_UP = """
    AND CLOCK - extract(epoch FROM pg_postmaster_start_time())::float8
        > COALESCE((SELECT w.lease_s FROM factory_workers w WHERE w.executor = j.executor), 0)"""
"""A server that has just come back has heard of nobody yet: everybody has one lease to beat again."""


class Holder:
    """
    The runs that one worker holds.

    Args:
        database: where they are; belongs to the event loop that uses it.
        executor: the worker's id, a new one for each start of a process.

    """

    def __init__(self, database: Database, executor: str) -> None:
        self.database = database
        self.executor = executor
        self.counts = WorkerCounts()
        self._keeper = Keeper(database, executor)

    async def claim(
        self,
        most: int,
        refused: Sequence[str] = (),
        only: str | None = None,
        *,
        begun: bool = False,
        doubtful: tuple[int, bool] = (_NEVER, False),
    ) -> list[Claim]:
        """
        Take up to `most` runs from the queue, those first that somebody has begun and lost.

        Args:
            most: how many.
            refused: definitions, and runs, that are left to others.
            only: one run alone, if it is due.
            begun: only those that have been begun.
            doubtful: from how many deaths on a run may be what its workers die of, and whether one may be taken, which
                goes alone: else those that are done beside it would die with it as often, and be given up too.

        Raises:
            Unreadable: there is one among them that cannot be read here; none is taken.

        """
        return await self.database.run(lambda: self._claim(most, refused, only, begun, *doubtful))

    def _claim(
        self, most: int, refused: Sequence[str], only: str | None, begun: bool, doubtful: int, may: bool
    ) -> Script[list[Claim]]:
        if self.database.dialect == "postgresql":  # on SQLite a script that writes is alone
            yield ask(_ALONE, _CLAIMS)
        places = ", ".join(f"${number}" for number, _ in enumerate(refused, 2))
        only_those = f" AND j.definition NOT IN ({places}) AND j.run_id NOT IN ({places})" if refused else ""
        only_those += "" if only is None else f" AND j.run_id = ${len(refused) + 2}"
        only_those += " AND j.began_at IS NOT NULL" if begun else ""
        named = () if only is None else (only,)
        going: dict[tuple[str, str], int] = {}
        taken: list[Claim] = []
        for row in (yield ask(_DUE.format(only_those=only_those), most, *refused, *named)):
            lanes = [(name, row[name]) for name in _LANES]
            for lane in lanes:
                going.setdefault(lane, row[f"{lane[0]}_going"])
            limits = [row[limit] for limit in _LANES.values()]
            if any(limit is not None and going[lane] >= limit for lane, limit in zip(lanes, limits, strict=True)):
                continue
            if (doubted := row["deaths"] + 1 >= doubtful) and (taken or not may):
                break
            for lane in lanes:
                going[lane] += 1
            try:
                taken.append((yield from self._taken(row["run_id"])))
            except (ValueError, TypeError, KeyError) as error:
                raise Unreadable(row["run_id"], str(error)) from error
            if doubted:
                break
        return taken

    def _taken(self, run_id: str) -> Script[Claim]:
        (row,) = yield ask(_TAKE, run_id, self.executor)
        texts = yield ask("SELECT definition, file FROM factory_definitions WHERE hash = $1", row["definition"])
        text = texts[0] if texts else {"definition": "{}", "file": None}
        state = read_json(row["state"])
        before = 0 if state is None else int(state["events"])  # what was told before this part is not told again
        facts: Any = ()
        events: Any = ()
        decisions: Any = ()
        deaths = 0
        if row["epoch"] > 1:
            facts = yield ask(
                "SELECT name, value FROM factory_facts WHERE run_id = $1 AND segment = $2", run_id, row["segment"]
            )
            events = yield ask(
                "SELECT seq, event FROM factory_events WHERE run_id = $1 AND seq > $2 ORDER BY seq", run_id, before
            )
            decisions = yield ask(DECIDED, run_id)
            ((count,),) = yield ask(
                f"SELECT count(*) AS n FROM factory_facts WHERE run_id = $1 AND name NOT LIKE '{ASKED}%'", run_id
            )
            deaths = row["deaths"] + 1 if count == row["facts_then"] else 0
            yield ask("UPDATE factory_jobs SET deaths = $2, facts_then = $3 WHERE run_id = $1", run_id, deaths, count)
        return Claim(
            run_id=run_id,
            epoch=row["epoch"],
            agent=row["agent"],
            definition_hash=row["definition"],
            definition=read_json(text["definition"]),
            file=text["file"],
            question=read_json(row["question"]),
            session_id=row["session_id"],
            team=row["team"],
            timeout_s=row["timeout_s"],
            elapsed_s=max(0.0, row["elapsed_s"]),
            segment=row["segment"],
            state=state,
            decisions={one["call_id"]: read_json(one["decision"]) for one in decisions},
            facts={one["name"]: one["value"] for one in facts if not one["name"].startswith(ASKED)},
            asked=[(one["name"], float(one["value"])) for one in facts if one["name"].startswith(ASKED)],
            events=[one["event"] for one in events],
            last_event=events[-1]["seq"] if events else before,
            cancelled=row["cancel_at"] is not None,
            followed=bool(row["followed"]),
            deaths=deaths,
            extras=read_json(row["extras"]) or {},
            trace=read_json(row["trace"]) or {},
            lost=None if texts else "its definition is not kept any more",
        )

    async def leave_to_others(self, unread: Unreadable, why: str) -> None:
        """Say of a run in the queue why this worker does not take it."""
        await self.database.one(
            ask("UPDATE factory_jobs SET why = $2 WHERE run_id = $1 AND status = 'queued'", unread.run_id, why)
        )

    async def keep(self, claim: Claim, facts: Sequence[Fact], events: Events) -> bool:
        """Record facts and the events that were told until then; False where the run is not this worker's any more."""
        began = time.perf_counter()
        held = await self._keeper.keep(Entry(claim.run_id, claim.epoch, claim.segment, facts, events))
        if facts:
            self.counts.facts += len(facts)
            self.counts.facts_s += time.perf_counter() - began
        return held

    async def move(self, claim: Claim, changes: Mapping[str, Any], events: Events = ()) -> bool:
        """
        Let a run end, pause, go into its next segment, or go back into the queue.

        `changes` are columns of the job and their values; False where the run is not this worker's any more.
        """
        return await self.database.run(lambda: self._move(claim, changes, events))

    def _move(self, claim: Claim, changes: Mapping[str, Any], events: Events) -> Script[bool]:
        words, values = [], []
        for name, value in changes.items():
            values += [] if value is NOW else [value]
            words.append(f"{name} = {CLOCK if value is NOW else f'${len(values) + 3}'}")
        moved = yield ask(
            f"UPDATE factory_jobs SET {', '.join(words)} WHERE {HELD} RETURNING status",
            *(claim.run_id, claim.epoch, self.executor),
            *values,
        )
        if not moved:
            return False
        yield from told(claim.run_id, events)
        if moved[0]["status"] == "waiting":
            yield from self._wait_for_nothing_decided(claim.run_id)
        if moved[0]["status"] != "running":
            yield from called(self.database.dialect, WORKER_CHANNEL, "queued")
        yield from called(self.database.dialect, RUN_CHANNEL, claim.run_id)
        return True

    def _wait_for_nothing_decided(self, run_id: str) -> Script[None]:
        """Queue a run again whose pending call has been decided while others went on, or that was cancelled."""
        ((pending, cancel_at),) = yield ask("SELECT pending, cancel_at FROM factory_jobs WHERE run_id = $1", run_id)
        decided = {row["call_id"] for row in (yield ask(DECIDED, run_id))}
        if cancel_at is not None or decided & {kept_name(call["call_id"]) for call in read_json(pending)}:
            yield ask("UPDATE factory_jobs SET status = 'queued' WHERE run_id = $1", run_id)

    async def give_back(self, run_id: str, epoch: int) -> bool:
        """Queue again a run that the database believes this worker to hold; False where it does not any more."""

        def script() -> Script[bool]:
            rows = yield ask(
                f"UPDATE factory_jobs SET status = 'queued', executor = NULL WHERE {HELD} RETURNING 1",
                *(run_id, epoch, self.executor),
            )
            if rows:
                yield from called(self.database.dialect, WORKER_CHANNEL, "queued")
            return bool(rows)

        return await self.database.run(script)

    async def beat(self, name: str, lease_s: float, concurrency: int, *, draining: bool) -> Beaten:
        """Say that this worker lives; return what the database believes of it, and of the clock."""

        def script() -> Script[Beaten]:
            ahead = yield ask("SELECT executor, beat_at FROM factory_workers WHERE beat_at > CLOCK + $1", SET_BACK_S)
            ((now,),) = yield ask(
                """INSERT INTO factory_workers (executor, name, started_at, beat_at, lease_s, concurrency, draining)
                   VALUES ($1, $2, CLOCK, CLOCK, $3, $4, $5)
                   ON CONFLICT (executor) DO UPDATE SET beat_at = excluded.beat_at, draining = excluded.draining
                   RETURNING beat_at""",
                *(self.executor, name, float(lease_s), concurrency, int(draining)),
            )
            rows = yield ask(
                """SELECT run_id, epoch, cancel_at IS NOT NULL AS cancelled, followed_until > CLOCK AS followed,
                   CLOCK - claimed_at AS held_s FROM factory_jobs WHERE status = 'running' AND executor = $1""",
                self.executor,
            )
            held = [Held(row[0], row[1], bool(row[2]), bool(row[3]), row[4]) for row in rows]
            return Beaten(held, now, {row[0]: row[1] for row in ahead})

        return await self.database.run(script)

    async def reap(self) -> int:
        """Queue again every run whose worker has not beaten for its lease; return how many."""

        def script() -> Script[int]:
            only = _SERVER_IS_UP if self.database.dialect == "postgresql" else ""
            rows = yield ask(_REAP.format(only=only))
            if rows:
                yield from called(self.database.dialect, WORKER_CHANNEL, "queued")
            yield ask("DELETE FROM factory_workers WHERE beat_at < CLOCK - 3600")
            return len(rows)

        return await self.database.run(script)

    async def leave(self) -> None:
        """Say that this worker has ended; what it should still hold may be taken at once."""
        await self.database.one(ask("DELETE FROM factory_workers WHERE executor = $1", self.executor))

    async def count_from_now(self) -> None:
        """
        Bring back what lies ahead: the database's clock has been set back.

        Else nobody would be missed, and nothing begin, until it is as late again.
        """

        def script() -> Script[None]:
            yield ask("UPDATE factory_workers SET beat_at = CLOCK WHERE beat_at > CLOCK")
            yield ask(
                """UPDATE factory_jobs SET
                       submitted_at = CASE WHEN submitted_at > CLOCK THEN CLOCK ELSE submitted_at END,
                       due_at = CASE WHEN epoch > 0 THEN CLOCK ELSE due_at - submitted_at + CLOCK END
                   WHERE ended_at IS NULL AND due_at > CLOCK AND (epoch > 0 OR submitted_at > CLOCK)"""
            )

        await self.database.run(script)
