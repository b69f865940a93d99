"""
Requests under an `Idempotency-Key`, as all servers of a service know them.

Whoever begins one claims it in the database that the servers share. Where it comes again, another server waits for what
becomes of it, and another body under its key is refused. A claim ends with the time its request has, so that the work
of a server that was killed can be begun anew. While the database is away each server knows its own alone.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from sqlalchemy import Column, Double, LargeBinary, String, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.service.database import METADATA, ServiceDatabase, clock
from shared_libs.service.problems import Problem
from shared_libs.service.repeats import FRESH_S, MOST_BYTES, Asked, other_body
from shared_libs.service.streams import encode

_log = logging.getLogger("shared_libs.service")

_CLAIMS = Table(
    "factory_claims",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("body", String(32), nullable=False),
    Column("until", Double, nullable=False, index=True),  # seconds since 1970, by the clock of the database
    Column("answer", LargeBinary),  # null: it is under way
)

MOST_CLEARED = 100
"""How many claims that are over one that ends takes away with it."""

LOOKS_S = (0.05, 1.0)
"""How soon, and how seldom at last, it is looked whether another server has answered."""

CLOSE_S = 2.0


class Claimed(NamedTuple):
    """What stands of a request that came before; `answer` is None while it is under way."""

    answer: bytes | None


class Claims:
    """
    Claims requests.

    Args:
        database: that the servers share.

    """

    def __init__(self, database: ServiceDatabase) -> None:
        self._database = database
        self._telling: set[asyncio.Task[None]] = set()

    async def take(self, asked: Asked, lasts_s: float) -> Claimed | None:
        """
        Claim a request; None where it is the first, or has no key.

        Args:
            asked: the request.
            lasts_s: seconds in which it has ended.

        Raises:
            Problem: its key belongs to a request with another body.

        """
        if not asked.has_key:
            return None
        try:
            async with self._database.transaction(writes=True) as connection:
                return await _taken(connection, asked, lasts_s)
        except (SQLAlchemyError, OSError) as error:
            said = await asyncio.to_thread(self._database.failure, error)
            _log.warning("requests under a key are known to this server alone: %s", said)
            return None

    async def outcome(self, asked: Asked) -> bytes | None:
        """
        Wait for what another server answers; None where it has given up, or its time is over.

        Raises:
            Problem: the database does not answer.

        """
        pause_s, most_s = LOOKS_S
        while True:
            try:
                async with self._database.transaction(writes=False) as connection:
                    found = (await connection.execute(_one(asked))).one_or_none()
                    if found is None or found.until <= await clock(connection):
                        return None
            except (SQLAlchemyError, OSError) as error:
                said = await asyncio.to_thread(self._database.failure, error)
                raise Problem("store_unavailable", said, retry_after_s=1.0) from error
            if found.answer is not None:
                return bytes(found.answer)
            await asyncio.sleep(pause_s)
            pause_s = min(most_s, 2 * pause_s)

    def settle(self, asked: Asked, told: Any) -> None:
        """
        Say what became of a request, for whoever asks within `FRESH_S`; None: it may be begun anew.

        That goes for what is too long to be kept, too.
        """
        if asked.has_key:
            answer = None if told is None else encode(told)
            if answer is not None and len(answer) > MOST_BYTES:
                answer = None
            task = asyncio.get_running_loop().create_task(self._tell(asked, answer))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def aclose(self) -> None:
        """Write what is left to write."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=CLOSE_S)

    async def _tell(self, asked: Asked, answer: bytes | None) -> None:
        mine = _CLAIMS.c.name == asked.claim
        try:
            async with self._database.transaction(writes=True) as connection:
                await _clear(connection)
                if answer is None:
                    await connection.execute(delete(_CLAIMS).where(mine))
                else:
                    until = await clock(connection) + FRESH_S
                    await connection.execute(update(_CLAIMS).where(mine).values(answer=answer, until=until))
        except (SQLAlchemyError, OSError) as error:
            said = await asyncio.to_thread(self._database.failure, error)
            _log.warning("what became of a request is known to this server alone: %s", said)


def _one(asked: Asked) -> Any:
    return select(_CLAIMS.c.body, _CLAIMS.c.until, _CLAIMS.c.answer).where(_CLAIMS.c.name == asked.claim)


async def _clear(connection: AsyncConnection) -> None:
    """Take away what is over, some at a time, and nothing that another has in hand."""
    over = select(_CLAIMS.c.name).where(_CLAIMS.c.until <= await clock(connection))
    some = over.limit(MOST_CLEARED).with_for_update(skip_locked=True)
    await connection.execute(delete(_CLAIMS).where(_CLAIMS.c.name.in_(some)))


async def _taken(connection: AsyncConnection, asked: Asked, lasts_s: float) -> Claimed | None:
    now = await clock(connection)
    mine = {"body": asked.body, "until": now + lasts_s, "answer": None}
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    first = insert(_CLAIMS).values(name=asked.claim, **mine).on_conflict_do_nothing()
    while True:
        if (await connection.execute(first)).rowcount:
            return None
        found = (await connection.execute(_one(asked))).one_or_none()
        if found is None:
            continue  # it has just been given up
        if found.until > now:
            if found.body != asked.body:
                raise other_body()
            return Claimed(None if found.answer is None else bytes(found.answer))
        old = (_CLAIMS.c.name == asked.claim) & (_CLAIMS.c.until == found.until)
        if (await connection.execute(update(_CLAIMS).where(old).values(mine))).rowcount:
            return None
