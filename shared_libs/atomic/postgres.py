"""
Connections of asyncpg to a server that may go without a word, or be one of several.

A cable, a firewall that forgets, a machine that is gone: none of them says goodbye, and asyncpg itself sets nothing by
which the system would notice. A line on which nobody speaks would be waited on for ever.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.database_url import DatabaseURL

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.ext.asyncio import AsyncEngine

UNHEARD_S = 10
"""Seconds after which a connection is over whose other end confirms nothing of what it was sent."""

HAS_TABLE = "SELECT count(*) AS it FROM pg_class WHERE relname = '{}' AND pg_table_is_visible(oid)"
"""
Asks whether a table is there, also right behind a lock that was waited for.

`to_regclass` is answered from the connection's cache, which has not heard yet of what the holder of the lock has made:
of those that come to an empty database at once all but one would make the tables again, and fail.
"""

_READ_ONLY = "25006"

_PROBES = {"TCP_KEEPIDLE": UNHEARD_S, "TCP_KEEPINTVL": UNHEARD_S // 2, "TCP_KEEPCNT": 2}


async def connect(at: DatabaseURL, *arguments: Any, **options: Any) -> asyncpg.Connection:
    """
    Connect, as `asyncpg.connect` does; of several hosts to the first that is as `target_session_attrs` says.

    All are asked at once: one whose machine is gone answers nothing, and would use up the time of the others.
    """
    del arguments  # a pool gives the address it was made with
    if not at.hosts:
        return await _connected(at, options)
    each = [asyncio.ensure_future(_connected(one, options)) for one in at.each]
    chosen: asyncpg.Connection | None = None
    try:
        waiting = set(each)
        while waiting and chosen is None:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            chosen = next((task.result() for task in done if task.exception() is None), None)
        if chosen is not None:
            return chosen
        errors = [error for task in each if (error := task.exception()) is not None]
        raise next((error for error in errors if not isinstance(error, OSError)), errors[0])  # who has answered knows
    finally:
        for task in each:
            task.cancel()
            task.add_done_callback(partial(_end_others, chosen))


def engine_arguments(at: DatabaseURL, **options: Any) -> dict[str, Any]:
    """Return the `connect_args` of an engine of SQLAlchemy: its own reading of the address is left out."""

    async def connected(*_: Any, **read: Any) -> asyncpg.Connection:
        del read
        return await connect(at, **at.options, **options)

    return {"async_creator_fn": connected}


def postgres_engine(at: DatabaseURL, **settings: Any) -> AsyncEngine:
    """
    Return an engine whose connections are left when they only read: their server has become a standby.

    Args:
        at: the address.
        settings: what `create_async_engine` takes besides.

    """
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(at.url, pool_pre_ping=True, connect_args=engine_arguments(at), **settings)

    @event.listens_for(engine.sync_engine, "handle_error")
    def _leave(failure: Any) -> None:
        if getattr(failure.original_exception, "sqlstate", None) == _READ_ONLY:
            failure.is_disconnect = True

    return engine


def _end_others(chosen: asyncpg.Connection | None, task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.cancelled() and task.exception() is None and task.result() is not chosen:
        task.result().terminate()


async def _connected(at: DatabaseURL, options: dict[str, Any]) -> asyncpg.Connection:
    import asyncpg

    connection = await asyncpg.connect(at.dsn, **options)
    transport = connection._transport  # noqa: SLF001 - it has no public name
    line = transport.get_extra_info("socket")
    if line is not None and line.family in (socket.AF_INET, socket.AF_INET6):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            if hasattr(socket, name):  # not every system has them all
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNHEARD_S)
    return connection


def in_words(error: BaseException) -> str:
    """Return what went wrong, in a line."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer"
    pooled = getattr(error, "sqlstate", None) in ("26000", "42P05") or "startup parameter" in said
    return said + ("; with PgBouncer in between the address ends in pgbouncer=true" if pooled else "")
