"""Responses in the service's database: had again after a restart, and by the other servers of the service."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Double, LargeBinary, String, Table, and_, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.atomic.types import Message
from shared_libs.service.database import METADATA, ServiceDatabase
from shared_libs.service.problems import Problem

MOST_BYTES = 8 * 1024 * 1024
"""A response that is larger than this is had again from the process that made it only."""

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
        ends_by: when a process that has made it until then has been lost, in seconds since 1970; None: it has ended.

    """

    response: dict[str, Any]
    events: list[dict[str, Any]]
    items: list[dict[str, Any]]
    messages: list[Message]
    ends_by: float | None = None

    @property
    def lost(self) -> bool:
        """Whether nobody will end it any more."""
        return self.ends_by is not None and self.ends_by < time.time()


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

    async def put(self, team: str, id: str, body: bytes) -> None:
        """
        Keep a response, in the place of what was kept of it, and none that is too old.

        Args:
            team: whose it is.
            id: its id.
            body: a `Shelved` as JSON.

        Raises:
            Problem: the database does not answer.

        """
        now = time.time()
        until = _FOR_EVER if self._kept_s is None else now + self._kept_s
        async with self._transaction(writes=True) as connection:
            await connection.execute(delete(_RESPONSES).where(_one(team, id) | (_RESPONSES.c.until < now)))
            await connection.execute(insert(_RESPONSES).values(team=team, id=id, until=until, body=body))

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
            raise Problem("store_unavailable", self._database.failure(error), retry_after_s=2.0) from error


def _one(team: str, id: str) -> ColumnElement[bool]:
    return and_(_RESPONSES.c.team == team, _RESPONSES.c.id == id)
