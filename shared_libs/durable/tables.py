"""The tables of durable runs, and how a database gets their newest form. What they hold is plain, or JSON."""

from __future__ import annotations

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.postgres import HAS_TABLE
from shared_libs.durable.database import Database, Dialect, Script, ask

_LOCK = 0x6475_7261  # whoever makes the tables of a PostgreSQL database holds this advisory lock

_FORMS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE factory_definitions (
            hash TEXT PRIMARY KEY, definition TEXT NOT NULL, file TEXT, used_at DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE factory_jobs (
            run_id TEXT PRIMARY KEY, status TEXT NOT NULL,
            agent TEXT NOT NULL, definition TEXT NOT NULL, question TEXT NOT NULL,
            session_id TEXT, team TEXT NOT NULL, timeout_s DOUBLE PRECISION,
            priority INTEGER NOT NULL, agent_limit INTEGER, team_limit INTEGER,
            submitted_at DOUBLE PRECISION NOT NULL, due_at DOUBLE PRECISION NOT NULL,
            epoch INTEGER NOT NULL DEFAULT 0, executor TEXT, claimed_at DOUBLE PRECISION,
            first_at DOUBLE PRECISION, began_at DOUBLE PRECISION,
            deaths INTEGER NOT NULL DEFAULT 0, facts_then INTEGER NOT NULL DEFAULT -1,
            segment INTEGER NOT NULL DEFAULT 0, state TEXT, pending TEXT,
            cancel_at DOUBLE PRECISION, followed_until DOUBLE PRECISION NOT NULL DEFAULT 0,
            result TEXT, ended_at DOUBLE PRECISION, why TEXT)""",
        """CREATE INDEX factory_jobs_queued ON factory_jobs (priority DESC, due_at, submitted_at)
            WHERE status = 'queued'""",
        "CREATE INDEX factory_jobs_running ON factory_jobs (executor) WHERE status = 'running'",
        "CREATE INDEX factory_jobs_ended ON factory_jobs (ended_at) WHERE ended_at IS NOT NULL",
        """CREATE TABLE factory_facts (
            run_id TEXT NOT NULL, name TEXT NOT NULL, segment INTEGER NOT NULL, value TEXT NOT NULL,
            PRIMARY KEY (run_id, name))""",
        """CREATE TABLE factory_events (
            run_id TEXT NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (run_id, seq))""",
        """CREATE TABLE factory_decisions (
            run_id TEXT NOT NULL, call_id TEXT NOT NULL, decision TEXT NOT NULL, decided_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (run_id, call_id))""",
        """CREATE TABLE factory_workers (
            executor TEXT PRIMARY KEY, name TEXT NOT NULL, started_at DOUBLE PRECISION NOT NULL,
            beat_at DOUBLE PRECISION NOT NULL, lease_s DOUBLE PRECISION NOT NULL,
            concurrency INTEGER NOT NULL, draining INTEGER NOT NULL)""",
        """CREATE TABLE factory_schedules (
            name TEXT PRIMARY KEY, cron TEXT NOT NULL, zone TEXT NOT NULL, template TEXT NOT NULL,
            next_at DOUBLE PRECISION NOT NULL)""",
        """CREATE VIEW factory_queue AS
            SELECT count(*) AS runs FROM factory_jobs
            WHERE status = 'running' OR (status = 'queued' AND due_at <= CLOCK)""",
    ),
    (
        "ALTER TABLE factory_jobs ADD COLUMN asked_by TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE factory_jobs ADD COLUMN key_limit INTEGER",
        "CREATE INDEX factory_jobs_submitted ON factory_jobs (submitted_at)",
    ),
    (
        "DROP INDEX factory_jobs_queued",
        """CREATE INDEX factory_jobs_next ON factory_jobs ((began_at IS NULL), priority DESC, due_at, submitted_at)
            WHERE status = 'queued'""",
        """CREATE INDEX factory_jobs_begun ON factory_jobs (priority DESC, due_at, submitted_at)
            WHERE status = 'queued' AND began_at IS NOT NULL""",
    ),
    ("ALTER TABLE factory_jobs ADD COLUMN extras TEXT",),
    ("CREATE INDEX factory_jobs_waiting ON factory_jobs (run_id) WHERE status = 'waiting'",),
    ("ALTER TABLE factory_jobs ADD COLUMN trace TEXT",),
)
"""
Each form of the tables as the statements that make it from the one before; what has been released stays as it is.

A form takes nothing away but indexes: in a rolling update processes of the version before go on beside it.
"""

VERSION = len(_FORMS)

TABLES = ("definitions", "jobs", "facts", "events", "decisions", "workers", "schedules")


async def open_tables(database: Database) -> None:
    """
    Make the tables, or bring them to their newest form; several processes may do so at once.

    Raises:
        StoreUnavailable: the database does not answer.
        MisuseError: it cannot hold every text.

    """
    if await form_of(database) < VERSION:
        await database.run(lambda: _upgrade(database))


async def form_of(database: Database) -> int:
    """Return the number of the form that the tables have; 0 where there are none."""
    return await database.run(lambda: _version(database.dialect))


def _upgrade(database: Database) -> Script[None]:
    if database.dialect == "postgresql":  # on SQLite a script that writes is alone
        yield ask("SELECT pg_advisory_xact_lock($1)", _LOCK)
        ((encoding,),) = yield ask("SHOW server_encoding")
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise MisuseError(
                f"store of durable runs {database.place}: its encoding {encoding} does not hold every text, and a run "
                "would fail at the first other character; make the database with ENCODING 'UTF8'"
            )
    found = yield from _version(database.dialect)
    if found == 0:
        yield ask("CREATE TABLE IF NOT EXISTS factory_durable_version (version INTEGER NOT NULL)")
        yield ask("INSERT INTO factory_durable_version (version) VALUES (0)")
    for form in _FORMS[found:]:
        for statement in form:
            yield ask(statement)
    yield ask("UPDATE factory_durable_version SET version = $1 WHERE version < $1", VERSION)


def _version(dialect: Dialect) -> Script[int]:
    there = (
        HAS_TABLE.format("factory_durable_version")
        if dialect == "postgresql"
        else "SELECT count(*) AS it FROM sqlite_master WHERE name = 'factory_durable_version'"
    )
    if not (yield ask(there))[0]["it"]:
        return 0
    rows = yield ask("SELECT version FROM factory_durable_version")
    return int(rows[0]["version"]) if rows else 0
