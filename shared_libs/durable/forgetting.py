"""Durable runs are deleted: those that ended long ago, and those of a session that is to be forgotten."""

from __future__ import annotations

from shared_libs.durable.database import Database, Script, ask


def drop(which: str, *values: object) -> Script[int]:
    """Delete 500 of these runs at the most, with all that belongs to them; return how many."""
    rows = yield ask(f"SELECT run_id FROM factory_jobs WHERE {which} ORDER BY ended_at LIMIT 500", *values)
    for row in rows:
        for table in ("facts", "events", "decisions", "jobs"):
            yield ask(f"DELETE FROM factory_{table} WHERE run_id = $1", row["run_id"])
    yield ask(
        """DELETE FROM factory_definitions WHERE used_at < CLOCK - 86400
           AND hash NOT IN (SELECT definition FROM factory_jobs)"""
    )
    return len(rows)


_OF_SESSION = "team = $1 AND agent = $2 AND session_id = $3"


async def open_in_session(database: Database, team: str, agent: str, session_id: str) -> list[str]:
    """Return the runs of a session that have not ended, ten at the most."""
    found = f"SELECT run_id FROM factory_jobs WHERE {_OF_SESSION} AND ended_at IS NULL LIMIT 10"
    return [row["run_id"] for row in await database.one(ask(found, team, agent, session_id))]


async def forget_session(database: Database, team: str, agent: str, session_id: str) -> int:
    """Delete the runs of a session that have ended; return how many."""
    count, which = 0, f"{_OF_SESSION} AND ended_at IS NOT NULL"
    while some := await database.run(lambda: drop(which, team, agent, session_id)):
        count += some
    return count
