"""What the tests of the store of runs share: runs that were, and a store to put them into."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from shared_libs.atomic.events import RunFinished, RunStarted
from shared_libs.atomic.results import AgentResult
from shared_libs.observability import RunStore
from tests.support import run

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def told(name="r", *, question="q", answer="a", status="answered", at=NOW, seconds=1.0, error=None, **more):
    """The first and the last event of a run."""
    reason = {"answered": "final_answer", "partial": "deadline", "failed": "error", "paused": "approval"}.get(
        status, status
    )
    given = {"agent": "scout", "model": "m", "protocol": "native", "timeout_s": 60.0} | more
    yield RunStarted(run_id=name, seq=1, question=question, started_at=at.isoformat(), **given)
    result = AgentResult(run_id=name, status=status, stop_reason=reason, answer=answer, error=error, elapsed_s=seconds)
    yield RunFinished(run_id=name, seq=9, at_s=seconds, result=result)


def record(store, *events, **whose):
    for event in events:
        store.record(event, **whose)


def names(page):
    return [row.run_id for row in page.rows]


def in_store(url, use, **options):
    """Open a store, and use it."""

    async def main():
        async with RunStore(url, **options) as store:
            return await use(store)

    # asyncpg looks for a password file on the loop, as it connects
    return asyncio.run(main()) if url.startswith("postgresql") else run(main())
