"""`factory runs` and `factory trace`: what was run, found in the store of runs or in a run record, and drawn."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from shared_libs.cli.exits import CODES, ExitCode
from shared_libs.observability.runs.reader import OFF, default_url, whole

if TYPE_CHECKING:
    from shared_libs.atomic.events import AgentEvent, ModelAsked
    from shared_libs.observability.run_store import RunStore
    from shared_libs.observability.runs.reader import RunReader
    from shared_libs.observability.runs.rows import RunRow
    from shared_libs.observability.timeline import Timeline

QUEUE = "factory_jobs"
"""The table that is there where runs are durable; what reads it is loaded then only."""

LAST = "last"
"""Names the newest run."""

MOST_DRAWN = 20
"""Runs that are drawn one below the other on a terminal; more are listed."""

CLOSE_S = 0.5
"""Seconds the end of a command waits for what is not written yet."""


def keeping(url: str | None, note: Callable[[str], None]) -> RunStore | None:
    """Open the store that runs are kept in; None, told to `note`, where there is none."""
    from shared_libs.atomic.errors import MisuseError, RunStoreError
    from shared_libs.observability.run_store import RunStore

    try:
        place = default_url() if url is None else url
    except MisuseError as error:
        note(f"this run is not kept: {error}")
        return None
    if place == OFF:
        return None
    store = RunStore(place, contents=os.environ.get("FACTORY_RUNS_CONTENTS") != "0")
    try:
        store.open()
    except RunStoreError as error:
        note(f"this run is not kept: {error} (FACTORY_RUNS={OFF} keeps none)")
        return None
    return store


def runs(arguments: argparse.Namespace) -> int:
    """List runs, or show one."""
    import asyncio

    return asyncio.run(_runs(arguments))


def trace(arguments: argparse.Namespace) -> int:
    """Draw runs: on the terminal, or as one HTML file."""
    if (
        arguments.file == "-"
        or Path(arguments.file).exists()
        or os.sep in arguments.file
        or arguments.file.endswith(".jsonl")
    ):
        from shared_libs.observability.record import read_record, record_of

        def note(text: str) -> None:
            print(f"note: {text}", file=sys.stderr)

        if arguments.file == "-":
            events = record_of(sys.stdin.buffer.read(), "stdin", on_note=note)
        else:
            events = read_record(arguments.file, on_note=note)
    else:
        import asyncio

        events = asyncio.run(_events_of(arguments.store, arguments.file))
    if arguments.run is not None:
        events = _only(events, arguments.run)
    if arguments.scenario is not None or arguments.cassette is not None:
        from shared_libs.cli.saving import save

        return save(events, arguments.scenario, arguments.cassette, arguments.agent)
    return _draw(events, arguments)


async def _runs(arguments: argparse.Namespace) -> int:
    store = _store(arguments.store)
    if arguments.id is not None:
        return await _one(store, arguments)
    if arguments.cancel or arguments.decide or arguments.follow:
        from shared_libs.atomic.errors import MisuseError

        raise MisuseError("--cancel, --decide and --follow want the ID of a run")
    page = await store.async_list(
        order="slowest" if arguments.slowest else "newest",
        after=arguments.after,
        limit=arguments.limit,
        since=arguments.since,
        until=arguments.until,
        status=arguments.status,
        agent=arguments.agent,
        session_id=arguments.session,
        text=arguments.text,
    )
    if arguments.json:
        print(json.dumps(page.to_dict(), ensure_ascii=False))
        return ExitCode.ANSWERED
    from shared_libs.cli.columns import laid_out

    for line in laid_out(page.rows, shutil.get_terminal_size().columns, colours=_colours()):
        print(line)
    if page.next is not None:
        print(f"more: --after {page.next}", file=sys.stderr)
    if await store.has_table(QUEUE):
        from shared_libs.cli import queued

        for line in await queued.queue_lines(arguments.store or default_url()):
            print(line, file=sys.stderr)
    return ExitCode.ANSWERED


async def _one(store: RunReader, arguments: argparse.Namespace) -> int:
    """Show or follow a run, or do something to a durable one."""
    if not (arguments.cancel or arguments.decide or arguments.follow or await store.has_table(QUEUE)):
        return await _show(store, await _row(store, arguments.id), as_json=arguments.json)
    import time

    import msgspec

    from shared_libs.cli import queued

    url = arguments.store or default_url()
    if arguments.cancel or arguments.decide:
        return await queued.act(url, arguments.id, cancel=arguments.cancel, decisions=dict(arguments.decide or ()))
    async with queued.queue_of(url) as queue:
        job = await queued.job_named(queue, arguments.id)
    if arguments.follow:
        if job is not None:
            return await _follow(queued.followed(url, job.run_id))
        return await _follow(store.follow((await _row(store, arguments.id)).run_id))
    if job is None:
        return await _show(store, await _row(store, arguments.id), as_json=arguments.json)
    row = await store.async_get(job.run_id)
    if arguments.json:
        told = {} if row is None else row.to_dict()
        print(json.dumps(told | {"durable": msgspec.to_builtins(job)}, ensure_ascii=False))
        return ExitCode.ANSWERED
    for line in queued.job_lines(job, time.time()):
        print(line)
    return ExitCode.ANSWERED if row is None else await _show(store, row, as_json=False)


def _store(url: str | None) -> RunReader:
    from shared_libs.atomic.errors import MisuseError
    from shared_libs.observability.runs.reader import RunReader

    place = default_url() if url is None else url
    if place == OFF:
        raise MisuseError("no runs are kept: FACTORY_RUNS or --store is off; name a store with --store URL")
    return RunReader(place)


async def _row(store: RunReader, name: str) -> RunRow:
    """Find a run by its id, or by the beginning of it; `last` is the newest."""
    from shared_libs.atomic.errors import MisuseError

    row = await store.async_get(name)
    if row is not None:
        return row
    newest = name == LAST
    page = await store.async_list(limit=1) if newest else await store.async_list(prefix=name, limit=3)
    if not page.rows:
        raise MisuseError(f"there is no run {name!r} in {store.place}; `factory runs` lists them")
    if len(page.rows) > 1:
        some = ", ".join(each.run_id for each in page.rows)
        raise MisuseError(f"{name!r} is the beginning of several runs: {some}, …; give more of the id")
    found = await store.async_get(page.rows[0].run_id)
    assert found is not None
    return found


async def _events_of(url: str | None, name: str) -> list[AgentEvent]:
    store = _store(url)
    row = await _row(store, name)
    return await _events(store, row.run_id)


async def _events(store: RunReader, run_id: str) -> list[AgentEvent]:
    """
    All events of a run, what models were asked before the rest; and those of the runs that its agents began for it.

    Theirs stand behind its own.
    """
    from shared_libs.atomic.events import Event

    found: list[AgentEvent] = [Event.from_dict(each) for each in await store.async_record(run_id)]  # type: ignore[misc]
    inner = await store.async_list(parent=run_id, limit=100)
    for row in reversed(inner.rows):
        found += await _events(store, row.run_id)
    return found


async def _show(store: RunReader, row: RunRow, *, as_json: bool) -> int:
    usual = await store.async_usual(row)
    if as_json:
        told = row.to_dict() | {"usual": None if usual is None else usual.to_dict()}
        told["requests"] = await whole(store.async_requests, row.run_id)
        print(json.dumps(told, ensure_ascii=False))
        return ExitCode.ANSWERED
    from shared_libs.observability.timeline import timelines

    drawn = timelines(await _events(store, row.run_id))
    if usual is not None:
        drawn[0].usual_s, drawn[0].usual_runs = usual.elapsed_s, usual.runs
    _on_terminal(drawn)
    return ExitCode.ANSWERED


def _only(events: Sequence[AgentEvent], name: str) -> list[AgentEvent]:
    """
    The events of the runs whose id begins so, and of those that they began; `last` is the newest of a record.

    Raises:
        MisuseError: there is none.

    """
    from shared_libs.atomic.errors import MisuseError
    from shared_libs.atomic.events import RunStarted

    begun = [event for event in events if isinstance(event, RunStarted)]
    own = [event.run_id for event in begun if event.parent_run_id is None]
    wanted = set(own[-1:]) if name == LAST else {event.run_id for event in begun if event.run_id.startswith(name)}
    if not wanted:
        raise MisuseError(f"there is no run {name!r} in this record; without --run it says which there are")
    for event in begun:  # a run begins before those that it makes, and they stand in this order
        if event.parent_run_id in wanted:
            wanted.add(event.run_id)
    return [event for event in events if event.run_id in wanted]


def _list(drawn: Sequence[Timeline], file: str) -> int:
    """List runs as `factory runs` does: so many timelines are read by nobody."""
    from shared_libs.cli.columns import laid_out
    from shared_libs.observability.runs.rows import RunRow

    rows = [
        RunRow(
            run_id=run.run_id,
            agent=run.agent,
            session_id=run.session_id,
            question=run.question,
            status=run.status,
            started_at=run.started_at,
            elapsed_s=run.elapsed_s,
            cost_usd=run.cost_usd,
            longest=run.spent.parts[0].label if run.spent.parts else "",
            longest_s=run.spent.parts[0].seconds if run.spent.parts else None,
        )
        for run in drawn
    ]
    for line in laid_out(rows, shutil.get_terminal_size().columns, colours=_colours()):
        print(line)
    print(f"{len(rows):,} runs; factory trace {file} --run ID draws one of them, or the last", file=sys.stderr)
    return ExitCode.ANSWERED


def _sent(events: Sequence[AgentEvent]) -> dict[str, list[ModelAsked]]:
    """
    What models were asked, by the run in which they were.

    Raises:
        MisuseError: it was not kept of any.

    """
    from shared_libs.atomic.errors import MisuseError
    from shared_libs.atomic.events import ModelAsked

    found: dict[str, list[ModelAsked]] = {}
    for event in events:
        if isinstance(event, ModelAsked):
            found.setdefault(event.run_id, []).append(event)
    if not found:
        raise MisuseError(
            "what models were asked is not kept of this run: it made no request, was recorded by an older version, or "
            "without contents (FACTORY_RUNS_CONTENTS=0, or `contents: false` of a service)"
        )
    return found


def _on_terminal(drawn: Sequence[Timeline], *, sent: Mapping[str, Sequence[ModelAsked]] = MappingProxyType({})) -> None:
    from rich.console import Console

    from shared_libs.observability.terminal import draw_requests, draw_timeline

    console = Console()
    for number, run in enumerate(drawn):
        if number:
            console.print()
            console.rule(style="bright_black")
        draw_timeline(run, console)
        draw_requests(sent.get(run.run_id, ()), console)


async def _follow(events: AsyncIterator[dict[str, Any]]) -> int:
    from shared_libs.atomic.events import Event, RunFinished
    from shared_libs.cli.plain import PlainView
    from shared_libs.observability.printable import presentable

    view = PlainView(sys.stderr)
    code = ExitCode.FAILED
    async for data in events:
        event: Any = Event.from_dict(data)
        view(event)
        if isinstance(event, RunFinished):
            code = CODES[event.result.status]
            print(presentable(event.result.answer or event.result.error or ""), flush=True)
    return code


def _draw(events: Sequence[AgentEvent], arguments: argparse.Namespace) -> int:
    from shared_libs.atomic.errors import MisuseError
    from shared_libs.atomic.secrets import private
    from shared_libs.observability.timeline import timelines

    drawn = timelines(events)
    if arguments.html is None:
        if len(drawn) > MOST_DRAWN:
            return _list(drawn, arguments.file)
        _on_terminal(drawn, sent=_sent(events) if arguments.sent else {})
        return ExitCode.ANSWERED
    from shared_libs.observability.run_file import run_page

    if str(arguments.html) == "-":
        print(run_page(events))
        return ExitCode.ANSWERED
    if arguments.html.exists() and Path(arguments.file).exists() and arguments.html.samefile(arguments.file):
        raise MisuseError(f"{arguments.html} is the run record itself; name another file for the page")
    try:
        with open(arguments.html, "w", encoding="utf-8", opener=private) as page:
            page.write(run_page(events))
    except OSError as error:
        raise MisuseError(f"{arguments.html} cannot be written: {error.strerror or error}") from error
    print(arguments.html)
    return ExitCode.ANSWERED


def _colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") not in ("dumb", "unknown")
