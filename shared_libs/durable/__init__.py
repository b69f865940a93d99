"""Durable runs: facts by name in a fenced store, a queue, and workers. `docs/durable.md` has what is promised."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.durable.database import StoreUnavailable
    from shared_libs.durable.following import follow
    from shared_libs.durable.jobs import Claim, Job, Submission, WorkerPolicy, WorkerRow
    from shared_libs.durable.store import JobStore
    from shared_libs.durable.worker import Worker

_HOMES = {
    "Claim": "jobs",
    "Job": "jobs",
    "JobStore": "store",
    "StoreUnavailable": "database",
    "Submission": "jobs",
    "Worker": "worker",
    "WorkerPolicy": "jobs",
    "WorkerRow": "jobs",
    "follow": "following",
}

__all__ = [
    "Claim",
    "Job",
    "JobStore",
    "StoreUnavailable",
    "Submission",
    "Worker",
    "WorkerPolicy",
    "WorkerRow",
    "follow",
]

__getattr__ = lazy(__name__, _HOMES)
