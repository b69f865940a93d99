"""`factory submit` and `factory worker`, and `factory run` of a durable agent: runs that outlive their process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import msgspec

from shared_libs.atomic.errors import FactoryError
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.results import Action, AgentResult
from shared_libs.cli.loop import CommandLoop
from shared_libs.cli.queued import queue_url
from shared_libs.durable import Job, JobStore, Worker, WorkerPolicy
from shared_libs.durable.schedules import put_schedule
from shared_libs.factory import load_agent
from shared_libs.factory.durability import claimed_agent, extended_agent, submission
from shared_libs.observability.printable import presentable
from shared_libs.observability.run_store import RunStore

DAY_S = 86_400.0

OVER_S = 1.0
"""Seconds beyond its time in which a run that was begun at once ends by itself; as many more for what is in flight."""


def submit(arguments: argparse.Namespace) -> int:
    """Put a run into the queue, or a schedule of runs; its id on stdout once it is committed there."""
    made, definition_hash = submission(
        arguments.config,
        arguments.question,
        run_id=arguments.id,
        session_id=arguments.session,
        timeout_s=arguments.timeout,
        priority=arguments.priority,
        delay_s=arguments.delay,
    )

    name = arguments.id or made.agent

    async def main() -> str:
        url = queue_url(arguments)
        async with RunStore(url), JobStore(url) as store:  # `factory runs` looks into both
            if arguments.cron is None:
                await store.submit(made, definition_hash)
                return made.run_id
            kept = await put_schedule(store, name, arguments.cron, arguments.zone, made, definition_hash)
            _say(f"schedule {kept.name}: next at {datetime.fromtimestamp(kept.next_at, UTC):%F %R} UTC")
            return kept.name

    print(asyncio.run(main()), flush=True)
    return 0


def worker(arguments: argparse.Namespace) -> int:
    """Do durable runs until SIGTERM or Ctrl-C; then hand over what is under way."""
    return asyncio.run(_work(arguments))


async def _work(arguments: argparse.Namespace) -> int:
    from shared_libs.cli.worker_health import metrics_or_none, telling_health  # whoever submits needs no server

    url = queue_url(arguments)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        runs = await stack.enter_async_context(RunStore(url, retention_days=arguments.retention or None))
        metrics = None if arguments.health is None else metrics_or_none()

        def record(event: AgentEvent, team: str) -> None:
            runs.record(event, team, "worker")
            if metrics is not None:
                metrics(event)

        works = Worker(
            url,
            claimed_agent,
            extend=extended_agent,
            policy=WorkerPolicy(
                concurrency=arguments.concurrency,
                lease_s=arguments.lease,
                retention_s=arguments.retention * DAY_S,
            ),
            record=record,
        )
        working = loop.create_task(works.run())

        def stop() -> None:
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(name)  # the second one ends the process
            within = f"in {arguments.grace:g} s at most"
            _say(f"worker: drains: {works.busy} runs are handed over at their next boundary, {within}")
            works.drain()
            loop.call_later(arguments.grace, works.cut_off)

        async def told() -> None:
            await works.started.wait()
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, stop)
            most = f"up to {arguments.concurrency} runs at once"
            _say(f"worker: {works.name} does {most}; store {works.store.database.place}")
            if arguments.health is not None:
                await stack.enter_async_context(telling_health(works, arguments.health, metrics))

        telling = loop.create_task(told())
        try:
            await asyncio.wait([working, telling], return_when=asyncio.FIRST_COMPLETED)
            if telling.done():  # a port that is another's: nobody would learn that it cannot be asked how it is
                telling.result()
            await working
        finally:
            for task in (telling, working):
                task.cancel()
            await asyncio.wait([working])
    return 0


def run_here(arguments: argparse.Namespace, question: str, show: Callable[[AgentEvent], None] | None) -> AgentResult:
    """
    Do one run of a durable agent in this process: killed, any worker goes on with it.

    What has not ended when its time is up, counted from now, is left to others: it waits for its turn, or the store is
    away.

    Raises:
        StoreUnavailable: nothing keeps its facts; no model was asked.
        FactoryError: it cannot be done here; it stands in the queue.
        KeyboardInterrupt: a signal stopped it; it stands in the queue.

    """
    url = queue_url(arguments)
    made, definition_hash = submission(
        arguments.config,
        question,
        session_id=arguments.session,
        timeout_s=arguments.timeout,
        followed=show is not None,
    )

    limit_s = arguments.timeout or load_agent(arguments.config).limits.timeout_s

    async def main() -> Job | None:
        async with RunStore(url) as runs, JobStore(url) as store:
            await store.submit(made, definition_hash)

            def record(event: AgentEvent, team: str) -> None:
                runs.record(event, team, "cli")
                if show is not None and event.run_id == made.run_id:
                    show(event)

            works = Worker(url, claimed_agent, extend=extended_agent, record=record, only=made.run_id)
            asyncio.get_running_loop().call_later(limit_s + OVER_S, works.drain)
            asyncio.get_running_loop().call_later(limit_s + 2 * OVER_S, works.cut_off)
            await works.run()
            return await store.get(made.run_id)

    stands = f"run {made.run_id} stands in the queue: `factory worker` goes on with it, `factory runs` cancels it"
    loop = CommandLoop()
    try:
        job = loop.run(main())
    except KeyboardInterrupt:
        _say(stands)
        raise
    finally:
        loop.close()
    assert job is not None
    if job.status == "queued":
        late = (
            "has not ended" if job.epoch else "was not begun: others go on, as many as its agent, team or key may have"
        )
        raise FactoryError(f"{job.why or f'the time of {limit_s:g} s is up, and it {late}'}\n{stands}")
    return ended_result(job)


def ended_result(job: Job) -> AgentResult:
    """Return the result of a run that has ended, or of one that waits for decisions."""
    if job.result is not None:
        result: AgentResult = msgspec.convert(job.result, AgentResult)
        return result
    pending = msgspec.convert(job.pending, tuple[Action, ...])
    return AgentResult(run_id=job.run_id, status="paused", stop_reason="approval", answer=None, pending=pending)


def _say(text: str) -> None:
    print(presentable(text), file=sys.stderr, flush=True)
