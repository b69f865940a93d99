"""Responses in the service's database: had again after a restart, and by the other servers of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    LargeBinary,
    String,
    Table,
    and_,
    bindparam,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.atomic.types import Message
from shared_libs.service.database import METADATA, ServiceDatabase
from shared_libs.service.problems import Problem

MOST_BYTES = 8 * 1024 * 1024
"""A response that is larger than this is had again from the process that made it only."""

MOST_WAITING = 1000
"""So many responses wait for a shelf that does not answer; the oldest give way."""

AGAIN_S = 2.0
"""After so many seconds it is asked again."""

BUSY_S = 2.0
"""So long is waited for what is being written."""

_log = logging.getLogger("shared_libs.service")

_RESPONSES = Table(
    "factory_responses",
    METADATA,
    Column("team", String(200), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("until", Double, nullable=False, index=True),  # seconds since 1970: what is older is deleted
    Column("body", LargeBinary, nullable=False),
)

_FOR_EVER = 1e18


class Shelved(msgspec.Struct, kw_only=True):
    """
    A response as it is kept.

    Args:
        response: as it stood.
        events: its events so far.
        items: its input.
        messages: the conversation that it ends.
        run_id: the durable run that makes it, whatever becomes of processes; None: it is none.
        ends_by: when a process that has made it until then has been lost, in seconds since 1970; None: it has ended.

    """

    response: dict[str, Any]
    events: list[dict[str, Any]]
    items: list[dict[str, Any]]
    messages: list[Message]
    run_id: str | None = None
    ends_by: float | None = None

    @property
    def lost(self) -> bool:
        """Whether nobody will end it any more."""
        return self.ends_by is not None and self.ends_by < time.time()


Bodies = dict[tuple[str, str], bytes]


class ResponseShelf:
    """
    Keeps responses.

    Args:
        database: where.
        kept_s: for how long, in seconds; None: for ever.

    """

    def __init__(self, database: ServiceDatabase, kept_s: float | None) -> None:
        self._database = database
        self._kept_s = kept_s

    async def put(self, bodies: Bodies) -> None:
        """
        Keep responses, in the place of what was kept of them, and none that is too old.

        Args:
            bodies: each a `Shelved` as JSON, by its team and its id.

        Raises:
            Problem: the database does not answer.

        """
        now = time.time()
        until = _FOR_EVER if self._kept_s is None else now + self._kept_s
        rows = [{"team": key[0], "id": key[1], "until": until, "body": body} for key, body in sorted(bodies.items())]
        before = delete(_RESPONSES).where(_one(bindparam("of_team"), bindparam("of_id")))
        async with self._transaction(writes=True) as connection:
            await connection.execute(delete(_RESPONSES).where(_RESPONSES.c.until < now))
            await connection.execute(before, [{"of_team": row["team"], "of_id": row["id"]} for row in rows])
            await connection.execute(insert(_RESPONSES), rows)

    async def get(self, team: str, id: str) -> Shelved | None:
        """Return a response; None where there is none of that team. Raises as `put` does."""
        alive = and_(_one(team, id), _RESPONSES.c.until >= time.time())
        async with self._transaction(writes=False) as connection:
            body = (await connection.execute(select(_RESPONSES.c.body).where(alive))).scalar()
        return None if body is None else msgspec.json.decode(body, type=Shelved)

    async def remove(self, team: str, id: str) -> None:
        """Keep a response no longer. Raises as `put` does."""
        async with self._transaction(writes=True) as connection:
            await connection.execute(delete(_RESPONSES).where(_one(team, id)))

    @asynccontextmanager
    async def _transaction(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._database.transaction(writes=writes) as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            said = await asyncio.to_thread(self._database.failure, error)
            raise Problem("store_unavailable", said, retry_after_s=2.0) from error


class ShelfWriter:
    """
    Puts responses on a shelf in the background.

    What waits is one transaction, the newest state of each response; a shelf that does not answer is tried again.

    Args:
        shelf: where they go.

    """

    def __init__(self, shelf: ResponseShelf) -> None:
        self._shelf = shelf
        self._waiting: Bodies = {}
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._answers = True

    async def put(self, team: str, id: str, body: bytes, wait_s: float) -> None:
        """Put a response there; returns when that is tried, or after `wait_s`, or at once while the shelf is silent."""
        self._waiting.pop((team, id), None)
        self._waiting[team, id] = body
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        written = self._written
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        if self._answers:
            await asyncio.wait([written], timeout=wait_s)

    async def remove(self, team: str, id: str) -> None:
        """
        Take a response away.

        Raises:
            Problem: the shelf does not answer.

        """
        if self._waiting.pop((team, id), None) is None and self._writing is not None:
            await asyncio.wait([self._writing], timeout=BUSY_S)  # it may be about to come there
        await self._shelf.remove(team, id)

    async def aclose(self) -> None:
        """Write what waits, if the shelf answers."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=BUSY_S if self._answers else 0.0)
            self._writing.cancel()
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            written, self._written = self._written, None
            try:
                await self._shelf.put(batch)
            except Problem as error:
                if self._answers:
                    _log.warning("responses are had again in this process only, until it answers: %s", error)
                self._answers = False
                self._waiting = batch | self._waiting
            else:
                self._answers = True
            if written is not None:
                written.set_result(None)
            if not self._answers:
                await asyncio.sleep(AGAIN_S)


def _one(team: Any, id: Any) -> ColumnElement[bool]:
    return and_(_RESPONSES.c.team == team, _RESPONSES.c.id == id)
