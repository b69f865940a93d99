"""`factory tables`: what memory, limits, runs, queue and service need in a database, made ahead by who may make it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping

from shared_libs.atomic.database_url import database_url
from shared_libs.cli.exits import ExitCode
from shared_libs.observability.runs.reader import default_url


def tables(arguments: argparse.Namespace) -> int:
    """Make the tables, or bring them to their newest form; it may be done again at any time."""
    url = arguments.url or default_url()
    at = database_url(url, "factory tables")
    names = [what for what in MAKERS if what in (arguments.only or MAKERS)]

    async def make() -> None:
        for what in names:
            await MAKERS[what](url)
            print(f"{what}: ready in {at.shown}")

    asyncio.run(make())
    return ExitCode.ANSWERED


async def _memory(url: str) -> None:
    from shared_libs.memory import SQLMemory

    memory = SQLMemory(url)
    try:
        await memory.async_open()
    finally:
        await memory.aclose()


async def _limits(url: str) -> None:
    from shared_libs.limits import SQLLimitStore

    store = SQLLimitStore(url)
    try:
        await store.async_open()
    finally:
        await store.aclose()


async def _runs(url: str) -> None:
    from shared_libs.observability import RunStore

    async with RunStore(url):
        pass


async def _durable(url: str) -> None:
    from shared_libs.durable import JobStore

    async with JobStore(url):
        pass


async def _service(url: str) -> None:
    from shared_libs.service import audit, key_store, ledger_sql  # noqa: F401 - their tables
    from shared_libs.service.database import ServiceDatabase

    database = ServiceDatabase(url)
    try:
        await database.aopen()
    finally:
        await database.aclose()


MAKERS: Mapping[str, Callable[[str], Awaitable[None]]] = {
    "memory": _memory,
    "limits": _limits,
    "runs": _runs,
    "durable": _durable,
    "service": _service,
}
"""Whoever keeps tables of its own adds a line."""
