"""Durable runs in `factory runs`, `schedules` and `doctor`: how they stand, and what people do to them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.cli.exits import ExitCode
from shared_libs.durable.following import follow
from shared_libs.durable.holding import SET_BACK_S
from shared_libs.durable.jobs import Job, Sizes, WorkerRow
from shared_libs.durable.schedules import remove_schedule, schedules
from shared_libs.durable.store import JobStore
from shared_libs.observability.printable import presentable, printable
from shared_libs.observability.runs.reader import OFF, default_url
from shared_libs.observability.wording import counted, seconds


def queue_url(arguments: argparse.Namespace) -> str:
    """
    Return where durable runs are kept.

    Raises:
        MisuseError: nothing is to be kept.

    """
    url: str = getattr(arguments, "store", None) or default_url()
    if url == OFF:
        raise MisuseError("a durable run has to be kept: FACTORY_RUNS or --store is off; name a store with --store URL")
    return url


@asynccontextmanager
async def queue_of(url: str) -> AsyncIterator[JobStore | None]:
    """Open the queue in a store, to look at it; None where no durable runs are there."""
    store = JobStore(url, connections=1)
    try:
        yield store if await store.is_there() else None
    finally:
        await store.aclose()


async def job_named(store: JobStore | None, name: str) -> Job | None:
    """
    Return a durable run by its id or the beginning of it; None where there is none.

    Raises:
        MisuseError: there are several.

    """
    if store is None or (job := await store.get(name)) is not None:
        return None if store is None else job
    found = await store.find(prefix=name, limit=2)
    if len(found) > 1:
        raise MisuseError(f"{name!r} is the beginning of several runs; give more of the id")
    return await store.get(found[0].run_id) if found else None


async def act(url: str, name: str, *, cancel: bool, decisions: Mapping[str, bool]) -> int:
    """
    Cancel a durable run, or decide on its calls; whoever does the run goes on with what is decided.

    Raises:
        MisuseError: there is no such run, or it is not durable.

    """
    async with queue_of(url) as store:
        job = await job_named(store, name)
        if job is None or store is None:
            raise MisuseError(
                f"there is no durable run {name!r} here; others end with their process, and wait for decisions in the "
                "service (POST /v1/runs/ID/decisions)"
            )
        if cancel:
            told = "is cancelled" if await store.cancel(job.run_id) else f"has ended already: {job.status}"
            _say(f"run {job.run_id} {told}")
        if decisions:
            first = await store.decide(job.run_id, {call: {"approved": yes} for call, yes in decisions.items()})
            counts = await store.decided(job.run_id, decisions)
            for call in decisions:
                before = f"somebody has decided before: {'yes' if counts[call].approved else 'no'}; that counts"
                _say(f"{call}: {'decided' if call in first else before}")
        return ExitCode.ANSWERED


async def followed(url: str, run_id: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a durable run, whoever does it; one that waits for decisions is followed on."""
    async for event in follow(url, run_id):
        if event["type"] != "stream_restarted":
            yield event


def job_lines(job: Job, now: float) -> list[str]:
    """Say how a run stands in the queue: who holds it since when, what it waits for, and why."""
    lines = [f"run {job.run_id}  {job.agent}  {job.status}{', to be cancelled' if job.cancelling else ''}"]
    if job.status == "queued":
        waits = job.due_at - now
        lines.append(f"in the queue for {seconds(max(0.0, now - job.submitted_at))}, priority {job.priority}")
        lines += [f"it may begin in {seconds(waits)}"] if waits > 0 else []
    if job.claimed_at is not None and job.status == "running":
        silent = "silent: no such worker" if job.beat_age_s is None else f"its last beat {seconds(job.beat_age_s)} ago"
        held = f"worker {job.worker or job.executor} holds it for {seconds(max(0.0, now - job.claimed_at))}, {silent}"
        lines.append(held)
    lines += [f"begun {counted(job.epoch, 'time')}"] if job.epoch > 1 else []
    for call in job.pending:
        asked = json.dumps(call["input"], ensure_ascii=False)
        lines.append(f"waits for a decision: {call['tool']} {asked:.300}")
        lines.append(f"  factory runs {job.run_id} --decide {call['call_id']}=yes|no")
    lines += [job.why] if job.why else []
    return [presentable(line) for line in lines]


async def queue_lines(url: str) -> list[str]:
    """Say in a line or two what stands in the queue; nothing where nothing does."""
    async with queue_of(url) as store:
        if store is None:
            return []
        parts = [f"{count} {status}" for status, count in (await store.standing()).items()]
        return [f"durable: {', '.join(parts)}; `factory doctor` says who holds what"] if parts else []


SHOWN_RUNS = 5
"""How many of a worker's runs `factory doctor` names."""


def examined(url: str) -> list[tuple[bool, str, str]]:
    """Look at the queue for `factory doctor`: rows of whether it is well, what it is, and how it stands."""

    async def look() -> tuple[list[WorkerRow], Sizes, str] | None:
        async with asyncio.timeout(5), queue_of(url) as store:
            return None if store is None else (await store.workers(), await store.sizes(), store.database.place)

    try:
        found = asyncio.run(look())
    except (FactoryError, TimeoutError) as error:
        return [(False, "durable runs", str(error) or "no answer within 5 s")]
    return [] if found is None else list(_examined(*found))


def _examined(workers: list[WorkerRow], sizes: Sizes, place: str) -> Iterator[tuple[bool, str, str]]:
    stand = ", ".join(f"{count} {status}" for status, count in sorted(sizes.statuses.items())) or "none"
    waited = f"; the first waits for {seconds(sizes.oldest_s)}" if sizes.oldest_s else ""
    runs, kept = sum(sizes.statuses.values()), f"{counted(sizes.facts, 'fact')}, {counted(sizes.events, 'event')}"
    yield True, "durable runs", f"{stand}{waited} ({place})"
    yield True, "durable store", f"{counted(runs, 'run')}, {kept}, {sizes.size_bytes / 1e6:.1f} MB"
    for row in workers:
        held = [f"{run.run_id:.40} ({run.agent}) for {seconds(run.held_s)}" for run in row.runs[:SHOWN_RUNS]]
        more = len(row.runs) - len(held)
        holds = "; ".join([*held, f"{more} more"] if more > 0 else held) or "nothing"
        state = "draining" if row.draining else "lives" if row.alive else "is silent: others take its runs"
        beat = f"last beat {seconds(row.beat_age_s)} ago"
        if another := row.beat_age_s < -SET_BACK_S:
            beat = f"its clock is {seconds(-row.beat_age_s)} ahead, and an SQLite file is for workers of one machine"
        stands = f"{state}, {beat}, {len(row.runs)} of {row.concurrency}: {holds}"
        yield row.alive and not another, f"worker {row.name}", stands
    if not any(row.alive for row in workers) and any(sizes.statuses.get(status) for status in ("queued", "running")):
        yield False, "worker", "none lives: nothing of the queue is done; factory worker"


def show_schedules(arguments: argparse.Namespace) -> int:
    """List schedules, or remove one."""

    async def main() -> int:
        async with JobStore(queue_url(arguments), connections=1) as store:
            if arguments.remove:
                if not await remove_schedule(store, arguments.remove):
                    raise MisuseError(f"there is no schedule {arguments.remove!r}; `factory schedules` lists them")
                _say(f"schedule {arguments.remove} is removed; its runs stay")
                return ExitCode.ANSWERED
            found = await schedules(store)
        if arguments.json:
            print(msgspec.json.encode(found).decode())
            return ExitCode.ANSWERED
        if not found:
            _say("there are no schedules; `factory submit CONFIG QUESTION --cron … --id NAME` makes one")
        for one in found:
            when = (
                "never again"
                if one.next_at == float("inf")
                else f"{datetime.fromtimestamp(one.next_at, UTC):%F %R} UTC"
            )
            print(printable(f"{one.name}  {one.cron}  {one.zone}  {one.agent}  next: {when}"))
        return ExitCode.ANSWERED

    return asyncio.run(main())


def _say(text: str) -> None:
    print(presentable(text), file=sys.stderr, flush=True)
