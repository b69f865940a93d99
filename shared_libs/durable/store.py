"""The store of durable runs for whoever submits, looks, decides or cancels; every change is one transaction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

import msgspec

from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.names import is_name
from shared_libs.atomic.propagation import trace_headers
from shared_libs.atomic.results import Decision
from shared_libs.atomic.whole import whole_data
from shared_libs.durable.database import APART, Database, Dialect, Script, ask, open_database
from shared_libs.durable.ends import never_begun
from shared_libs.durable.folding import holes, kept_name, unfolded
from shared_libs.durable.forgetting import drop
from shared_libs.durable.jobs import ENDED, HeldRun, Job, Sizes, Submission, WorkerRow
from shared_libs.durable.tables import TABLES, form_of, open_tables

RUN_CHANNEL = "factory_run"
"""Where the ids of runs are called out of which there is something new to read."""

WORKER_CHANNEL = "factory_worker"
"""Where workers are called: `queued`, `cancel:ID`, `follow:ID`, `tell:ID`."""

_CALL = f"SELECT pg_notify($1 || {APART}, $2)"

FOLLOWED_S = 15.0
"""Seconds a follower counts as one, from when it was last heard of."""

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


def to_json(value: Any) -> str:
    """Return JSON; what has no place in UTF-8 is replaced."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(whole_data(msgspec.to_builtins(value))).decode()


class JobStore:
    """
    The store, as one event loop uses it.

    Args:
        url: `sqlite:///file.db` or `postgresql://user:password@host/database`.
        connections: to PostgreSQL, at most.

    Raises:
        MisuseError: the address is none of these.

    """

    def __init__(self, url: str, *, connections: int = 4) -> None:
        self.database: Database = open_database(url, connections=connections)

    async def aopen(self) -> None:
        """
        Make the tables where they are not.

        Raises:
            StoreUnavailable: the database does not answer.

        """
        await open_tables(self.database)

    async def is_there(self) -> bool:
        """
        Whether there are durable runs in that database; makes no file and no table.

        Raises:
            StoreUnavailable: the database does not answer.

        """
        return await self.database.is_there() and await form_of(self.database) > 0

    async def aclose(self) -> None:
        """Close the connections."""
        await self.database.aclose()

    async def __aenter__(self) -> Self:
        await self.aopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def submit(self, submission: Submission, definition_hash: str) -> bool:
        """
        Put a run into the queue; False where it is there already. It is committed when this returns.

        Raises:
            MisuseError: there is another run of this id, or it holds what no database can keep.

        """
        trace = trace_headers()
        return await self.database.run(lambda: self.submitting(submission, definition_hash, trace))

    def submitting(self, job: Submission, definition_hash: str, trace: Mapping[str, str] | None = None) -> Script[bool]:
        """`submit`, as a part of a transaction; `trace` are the headers of the trace that the run is to belong to."""
        _check(job)
        try:
            question, extras = to_json(job.question), to_json(job.extras) if job.extras else None
            definition = to_json(job.definition)
        except (TypeError, RecursionError) as error:
            raise MisuseError(f"run {job.run_id}: question, definition and extras are JSON: {error}") from None
        yield ask(
            """INSERT INTO factory_definitions (hash, definition, file, used_at) VALUES ($1, $2, $3, CLOCK)
               ON CONFLICT (hash) DO UPDATE SET used_at = excluded.used_at""",
            definition_hash,
            definition,
            job.file,
        )
        made = yield ask(
            """INSERT INTO factory_jobs (run_id, status, agent, definition, question, session_id, team, timeout_s,
                   priority, agent_limit, team_limit, asked_by, key_limit, extras, trace,
                   submitted_at, due_at, followed_until)
               VALUES ($1, 'queued', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                   CLOCK, CLOCK + $15, CLOCK + $16)
               ON CONFLICT DO NOTHING RETURNING run_id""",
            *(job.run_id, job.agent, definition_hash, question, job.session_id, job.team, job.timeout_s),
            *(job.priority, job.agent_limit, job.team_limit, job.asked_by, job.key_limit, extras),
            *(to_json(trace) if trace else None, float(job.delay_s)),
            FOLLOWED_S if job.followed else 0.0,
        )
        if made:
            yield from called(self.database.dialect, WORKER_CHANNEL, "queued")
            return True
        there = yield ask("SELECT question, agent, team, extras FROM factory_jobs WHERE run_id = $1", job.run_id)
        if [tuple(row) for row in there] != [(question, job.agent, job.team, extras)]:
            raise MisuseError(f"there is another run {job.run_id!r}: give this one an id of its own")
        return False

    async def get(self, run_id: str, team: str | None = None) -> Job | None:
        """Return a run; None where there is none, or it is another team's."""
        rows = await self.database.one(
            ask(f"{_JOBS} WHERE j.run_id = $1 AND j.team = COALESCE($2, j.team)", run_id, team)
        )
        if not rows:
            return None
        job = _job(rows[0])
        if job.result is None:
            return job
        return msgspec.structs.replace(job, result=(await self._whole(run_id, [job.result]))[0])

    async def state(self, run_id: str, team: str | None = None) -> dict[str, Any] | None:
        """Return what a run that waits goes on from; None where it does not, or is another team's."""
        rows = await self.database.one(
            ask(
                "SELECT state FROM factory_jobs WHERE run_id = $1 AND team = COALESCE($2, team) AND ended_at IS NULL",
                *(run_id, team),
            )
        )
        return read_json(rows[0]["state"]) if rows else None

    async def last_event(self, run_id: str) -> tuple[int, bool]:
        """
        Return the number of the last event of a run, 0 where there is none yet, and whether there comes no more.

        Of a run that has been forgotten there is neither.
        """
        rows = await self.database.one(
            ask(
                """SELECT ended_at, (SELECT max(seq) FROM factory_events WHERE run_id = $1) AS last
                   FROM factory_jobs WHERE run_id = $1""",
                run_id,
            )
        )
        return (rows[0]["last"] or 0, rows[0]["ended_at"] is not None) if rows else (0, True)

    async def find(
        self, *, team: str | None = None, statuses: Sequence[str] = (), prefix: str = "", limit: int = 50
    ) -> list[Job]:
        """Return runs without their results, the newest first; those whose id begins with `prefix`."""
        wanted = ",".join(f"'{status}'" for status in statuses if status.isalpha())
        rows = await self.database.one(
            ask(
                f"""{_LISTED} WHERE j.team = COALESCE($1, j.team) AND substr(j.run_id, 1, length($2)) = $2
                {f"AND j.status IN ({wanted})" if wanted else ""} ORDER BY j.submitted_at DESC LIMIT $3""",
                *(team, prefix, limit),
            )
        )
        return [_job(row) for row in rows]

    async def decide(self, run_id: str, decisions: Mapping[str, Any], team: str | None = None) -> list[str]:
        """
        Enter decisions, by call id, and let the run go on; return the calls of which this was the first decision.

        A decision is True, False, a `Decision` or its JSON.

        Raises:
            MisuseError: there is no such run, no such call of it ever waited, or that is no decision.

        """
        read = {call_id: Decision.read(call_id, given) for call_id, given in decisions.items()}
        return await self.database.run(lambda: self._decide(run_id, read, team))

    async def decided(self, run_id: str, calls: Iterable[str]) -> dict[str, Decision]:
        """Return what has been decided of calls, which is what counts."""
        rows = await self.database.one(ask(DECIDED, run_id))
        kept = {row["call_id"]: Decision.read(row["call_id"], read_json(row["decision"])) for row in rows}
        return {call: kept[kept_name(call)] for call in calls if kept_name(call) in kept}

    def _decide(self, run_id: str, decisions: Mapping[str, Any], team: str | None) -> Script[list[str]]:
        rows = yield ask(
            f"SELECT status, team, pending, cancel_at FROM factory_jobs WHERE run_id = $1 {self._for_update}", run_id
        )
        if not rows or team not in (None, rows[0]["team"]):
            raise MisuseError(f"there is no run {run_id!r}")
        if rows[0]["cancel_at"] is not None:
            raise MisuseError(f"run {run_id} waits for no decision: it is cancelled")
        known = {row["call_id"] for row in (yield ask(DECIDED, run_id))}
        waiting = [call["call_id"] for call in _read_as(list, rows[0]["pending"]) or ()]
        for call_id in decisions:
            if call_id not in waiting and kept_name(call_id) not in known:
                which = f"waiting: {', '.join(waiting)}" if waiting else f"it is {rows[0]['status']}"
                raise MisuseError(f"no call {call_id!r} of run {run_id} waits for a decision; {which}")
        new = []
        for call_id, decision in decisions.items():
            made = yield ask(
                """INSERT INTO factory_decisions (run_id, call_id, decision, decided_at) VALUES ($1, $2, $3, CLOCK)
                   ON CONFLICT DO NOTHING RETURNING call_id""",
                *(run_id, kept_name(call_id), to_json(decision)),
            )
            new += [call_id] if made else []
        if new:
            yield ask(
                """UPDATE factory_jobs SET status = 'queued', due_at = CLOCK, began_at = NULL
                   WHERE run_id = $1 AND status = 'waiting'""",
                run_id,
            )
            yield from called(self.database.dialect, WORKER_CHANNEL, "queued")
        return new

    async def cancel(self, run_id: str, team: str | None = None) -> bool:
        """
        Cancel a run: at once where nobody holds it, else its worker is told. False where it has ended already.

        Raises:
            MisuseError: there is no such run.

        """
        return await self.database.run(lambda: self._cancel(run_id, team))

    def _cancel(self, run_id: str, team: str | None) -> Script[bool]:
        rows = yield ask(f"SELECT status, team, epoch FROM factory_jobs WHERE run_id = $1 {self._for_update}", run_id)
        if not rows or team not in (None, rows[0]["team"]):
            raise MisuseError(f"there is no run {run_id!r}")
        status, epoch = rows[0]["status"], rows[0]["epoch"]
        if status in ENDED:
            return False
        if epoch == 0:
            # it has done nothing: there is nothing to tell
            yield ask(
                """UPDATE factory_jobs SET status = 'cancelled', cancel_at = CLOCK, ended_at = CLOCK, result = $2,
                       why = 'cancelled before it began' WHERE run_id = $1""",
                *(run_id, to_json(never_begun(run_id))),
            )
            end = {"type": "run_finished", "run_id": run_id, "seq": 1, "at_s": 0.0, "result": None}
            yield ask("INSERT INTO factory_events (run_id, seq, event) VALUES ($1, 1, $2)", run_id, to_json(end))
            yield from called(self.database.dialect, RUN_CHANNEL, run_id)
        else:
            # whoever holds it, or takes it up next, ends it with what has been done; it waits for nothing more
            yield ask(
                """UPDATE factory_jobs SET cancel_at = COALESCE(cancel_at, CLOCK), due_at = CLOCK,
                       began_at = CASE WHEN status = 'waiting' THEN NULL ELSE began_at END,
                       status = CASE WHEN status = 'waiting' THEN 'queued' ELSE status END WHERE run_id = $1""",
                run_id,
            )
            yield from called(self.database.dialect, WORKER_CHANNEL, f"cancel:{run_id}")
        return True

    async def events(self, run_id: str, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Return what has happened in a run, whole, behind a number."""
        rows = await self.database.one(
            ask(
                "SELECT event FROM factory_events WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                *(run_id, min(after, _MOST_EVENTS), limit),
            )
        )
        events = [msgspec.json.decode(row["event"]) for row in rows]
        if events and events[-1]["type"] == "run_finished" and events[-1]["result"] is None:
            ends = await self.database.one(ask("SELECT result FROM factory_jobs WHERE run_id = $1", run_id))
            if not ends:
                return []  # it has been forgotten meanwhile
            events[-1]["result"] = read_json(ends[0]["result"])
        return await self._whole(run_id, events)

    async def _whole(self, run_id: str, written: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Fill in what stands in facts."""
        names = sorted({name for data in written for name in holes(data)})
        facts: dict[str, Any] = {}
        for begin in range(0, len(names), 500):
            some = names[begin : begin + 500]
            places = ", ".join(f"${number}" for number, _ in enumerate(some, 2))
            rows = await self.database.one(
                ask(f"SELECT name, value FROM factory_facts WHERE run_id = $1 AND name IN ({places})", run_id, *some)
            )
            facts |= {row["name"]: read_json(row["value"]) for row in rows}
        return [unfolded(data, facts) for data in written]

    async def follow(self, run_id: str, *, anew: bool = False) -> None:
        """Say that somebody follows a run: pieces of text are told for a while, `anew` those of the turn again."""

        def script() -> Script[None]:
            yield ask(
                "UPDATE factory_jobs SET followed_until = CLOCK + $2 WHERE run_id = $1 AND ended_at IS NULL",
                *(run_id, FOLLOWED_S),
            )
            yield from called(self.database.dialect, WORKER_CHANNEL, f"{'tell' if anew else 'follow'}:{run_id}")

        await self.database.run(script)

    async def workers(self) -> list[WorkerRow]:
        """Return the workers and what each holds."""
        rows = await self.database.one(ask("SELECT *, CLOCK - beat_at AS age FROM factory_workers ORDER BY started_at"))
        held = await self.database.one(
            ask(
                """SELECT run_id, agent, executor, CLOCK - claimed_at AS held_s FROM factory_jobs
                   WHERE status = 'running' ORDER BY claimed_at"""
            )
        )
        return [
            WorkerRow(
                executor=row["executor"],
                name=row["name"],
                started_at=row["started_at"],
                beat_age_s=row["age"],
                alive=row["age"] < row["lease_s"],
                draining=bool(row["draining"]),
                concurrency=row["concurrency"],
                runs=[
                    HeldRun(one["run_id"], one["agent"], one["held_s"])
                    for one in held
                    if one["executor"] == row["executor"]
                ],
            )
            for row in rows
        ]

    async def waiting(self) -> tuple[int, float]:
        """Return how many runs could begin now, and for how many seconds the first of them could have."""
        rows = await self.database.one(
            ask(
                """SELECT count(*) AS runs, COALESCE(CLOCK - min(due_at), 0) AS oldest_s
                   FROM factory_jobs WHERE status = 'queued' AND due_at <= CLOCK"""
            )
        )
        return rows[0]["runs"], float(rows[0]["oldest_s"])

    async def standing(self) -> dict[str, int]:
        """Return how many runs have not ended, by status; it reads none of those that have."""
        rows = await self.database.one(ask(STANDING))
        return {row["status"]: row["runs"] for row in rows if row["runs"]}

    async def sizes(self) -> Sizes:
        """Return how much there is of everything."""

        def script() -> Script[Sizes]:
            statuses = yield ask("SELECT status, count(*) AS runs FROM factory_jobs GROUP BY status")
            ((oldest_s, facts, events),) = yield ask(
                """SELECT (SELECT CLOCK - min(due_at) FROM factory_jobs WHERE status = 'queued' AND due_at <= CLOCK),
                   (SELECT count(*) FROM factory_facts), (SELECT count(*) FROM factory_events)"""
            )
            ((size,),) = yield ask(_SIZE[self.database.dialect])
            counted = {row["status"]: row["runs"] for row in statuses}
            return Sizes(statuses=counted, oldest_s=oldest_s, facts=facts, events=events, size_bytes=size)

        return await self.database.run(script)

    async def prune(self, older_s: float) -> int:
        """Delete what ended so long ago; return how many runs."""
        return await self.database.run(lambda: drop("ended_at < CLOCK - $1", older_s))

    async def call(self, channel: str, text: str) -> None:
        """Call whoever listens, where the database can."""
        if self.database.dialect == "postgresql":
            await self.database.one(ask(_CALL, channel, text))

    async def listen(self, channel: str, heard: Callable[[str], None]) -> Callable[[], bool]:
        """Hear what is called out; see `Database.listen`."""
        return await self.database.listen(channel, heard)

    @property
    def _for_update(self) -> str:
        return "FOR UPDATE" if self.database.dialect == "postgresql" else ""


def called(dialect: Dialect, channel: str, text: str) -> Script[None]:
    """Call whoever listens once this is committed, where the database can."""
    if dialect == "postgresql":
        yield ask(_CALL, channel, text)


def read_json(text: str | None) -> Any:
    """Read a column that may be empty."""
    return None if text is None else msgspec.json.decode(text)


def _read_or_raw(text: str | None) -> Any:
    """Read what is only shown: what cannot be read is shown as it stands, and hides no other run."""
    try:
        return read_json(text)
    except msgspec.DecodeError:
        return text


def _read_as(kind: type[T], text: str | None) -> T | None:
    """Read what is only shown and is of a kind, where it can be read."""
    value = _read_or_raw(text)
    return value if isinstance(value, kind) else None


MOST_PRIORITY = MOST_AT_ONCE = 1_000_000

_MOST_EVENTS = 2**31 - 1
"""The highest number of an event that its column holds; whoever asks may name any."""


def check_run_id(run_id: str) -> None:
    """
    Refuse what cannot name a run: `/` stands between a run and its sub-agents'.

    Raises:
        MisuseError: it is none.

    """
    if not is_name(run_id, 200) or "/" in run_id:
        raise MisuseError(f"a run's id is up to 200 printable characters without '/', not {run_id[:40]!r}")


def _check(job: Submission) -> None:
    """Refuse what no database can keep, or what no clock comes to."""
    check_run_id(job.run_id)
    for name in ("agent", "session_id", "team", "asked_by", "file"):
        if (given := getattr(job, name)) and not is_name(given, len(given)):
            raise MisuseError(f"{name} is printable text, not {given[:40]!r}")
    for name in ("priority", "agent_limit", "team_limit", "key_limit"):
        if type(value := getattr(job, name)) not in (int, type(None)):
            raise MisuseError(f"{name} is a whole number, not {value!r:.40}")
    if not -MOST_PRIORITY <= job.priority <= MOST_PRIORITY:
        raise MisuseError(f"priority is a number from -{MOST_PRIORITY:,} to {MOST_PRIORITY:,}, not {job.priority}")
    if not 0 <= job.delay_s < math.inf:
        raise MisuseError(f"delay_s is a number of seconds from 0 on, not {job.delay_s}")
    for name in ("agent_limit", "team_limit", "key_limit"):
        if (limit := getattr(job, name)) is not None and not 0 < limit <= MOST_AT_ONCE:
            raise MisuseError(f"{name} is a number from 1 to {MOST_AT_ONCE:,}, not {limit}")
    if job.timeout_s is not None and not is_amount(job.timeout_s):
        raise MisuseError(f"timeout_s is a positive number of seconds, not {job.timeout_s}")


_SIZE = {
    "postgresql": """SELECT COALESCE(sum(pg_total_relation_size(to_regclass('factory_' || name))), 0)::bigint
        FROM unnest(string_to_array('{}', ',')) AS name""".format(",".join(TABLES)),
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
}

STANDING = " UNION ALL ".join(  # each by an index of its own: ended ones may be millions
    f"SELECT '{status}' AS status, count(*) AS runs FROM factory_jobs WHERE status = '{status}'"
    for status in ("queued", "running", "waiting")
)

DECIDED = "SELECT call_id, decision FROM factory_decisions WHERE run_id = $1"

_SAME = set(Job.__struct_fields__) - {"cancelling", "worker", "beat_age_s"}
"""What of a job is a column of this name; beside them there is its state, as large as its conversation."""

_JOBS = f"""SELECT {", ".join(f"j.{name}" for name in sorted(_SAME))}, j.cancel_at,
    w.name AS worker, CLOCK - w.beat_at AS beat_age_s
    FROM factory_jobs j LEFT JOIN factory_workers w ON w.executor = j.executor"""

_LISTED = _JOBS.replace("j.result", "NULL AS result")


def _job(row: Any) -> Job:
    same = {*_SAME, "worker", "beat_age_s"} - {"question", "pending", "result", "extras"}
    return Job(
        **{name: row[name] for name in same},
        question=_read_or_raw(row["question"]),
        cancelling=row["cancel_at"] is not None and row["ended_at"] is None,
        pending=_read_as(list, row["pending"]) or [],
        result=_read_as(dict, row["result"]),
        extras=_read_as(dict, row["extras"]) or {},
    )
