"""`factory audit`: who did what to keys, definitions, runs and collections, and whether the log is whole."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.cli.exits import ExitCode
from shared_libs.observability.printable import printable
from shared_libs.service.audit import AuditLog, Row
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.settings import load_settings


def audit(arguments: argparse.Namespace) -> int:
    """List the log, or look whether anything in it is another than it was."""
    settings = load_settings(arguments.configs)
    url = arguments.store or settings.shared_url
    return asyncio.run(_look(AuditLog(ServiceDatabase(url), settings.pepper), arguments))


async def _look(log: AuditLog, arguments: argparse.Namespace) -> int:
    try:
        return await (_verify if arguments.action == "verify" else _list)(log, arguments)
    finally:
        await log.aclose()


async def _list(log: AuditLog, arguments: argparse.Namespace) -> int:
    async for row in log.rows(arguments.after):
        print(json.dumps(_shown(row)) if arguments.json else _line(row))
    return ExitCode.ANSWERED


async def _verify(log: AuditLog, arguments: argparse.Namespace) -> int:
    found = await log.verify(_seen(arguments.seen))
    for problem in found.problems:
        print(problem, file=sys.stderr)
    if found.problems:
        if len(found.problems) == found.rows:
            print("if no row fits, `pepper` may be another than the log was written with", file=sys.stderr)
        return ExitCode.FAILED
    print(f"{found.rows} rows follow from each other; note the last: --seen {found.head}")
    return ExitCode.ANSWERED


def _seen(told: str | None) -> tuple[int, str] | None:
    if told is None:
        return None
    number, _, row_hash = told.partition(":")
    if not number.isdecimal() or len(row_hash) != 64:
        raise MisuseError(f"--seen is NUMBER:HASH as `factory audit verify` has told it, not {told[:80]!r}")
    return int(number), row_hash


def _shown(row: Row) -> dict[str, object]:
    return {"seq": row.seq, **msgspec.to_builtins(row.entry), "hash": row.hash}


def _line(row: Row) -> str:
    entry = row.entry
    more = [f"from {entry.source}"] if entry.source else []
    more += [f"{name}={value}" for name, value in entry.facts.items()]
    more += [f"{entry.before or 'nothing'} → {entry.after}"] if entry.after else []
    return printable(" ".join([f"{row.seq:>6}", entry.at[:19], entry.actor, entry.action, entry.object, *more]))
