"""Sessions in SQL: SQLite by default, PostgreSQL by URL. Every store is one transaction: all of it, or nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import uuid
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, Literal

import msgspec
from sqlalchemy import delete, func, insert, or_, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.database_url import DatabaseURL, database_url
from shared_libs.atomic.errors import MemoryConflict, MemoryStoreError, MemoryUnavailable, MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory, Recollection, checked_count, outrun
from shared_libs.atomic.memory.compaction import Compaction
from shared_libs.atomic.places import why_unopened
from shared_libs.atomic.scope import current_deadline
from shared_libs.atomic.types import Message
from shared_libs.atomic.whole import whole_data, whole_text
from shared_libs.memory.connections import Database
from shared_libs.memory.meaning import Meaning, fused
from shared_libs.memory.outbox import Batch, Outbox
from shared_libs.memory.tables import LONGEST_SESSION_ID, MESSAGES, SUMMARIES, open_tables

DEFAULT_URL = "sqlite+aiosqlite:///factory.db"
QUEUED = 1_000
"""How many messages wait for a store that is out, where they may."""

_MATCHES = 500
"""How many messages that hold a word of the query are ranked."""

_MOST_WORDS = 100
_WORD_CHARS = 200
"""How much of a query is looked for: a longer one is a text and no question, and too complex for a database."""

_TRY_SHARE = 0.5
"""Where messages may wait, a store that does not answer is given this share of the time."""

_CLOSE_S = 1.0

_BATCH_CHARS = 32

_STORED = select(MESSAGES.c.session_id, MESSAGES.c.position, MESSAGES.c.message)

_NO_OUTAGE = re.compile("is not a database|disk image is malformed|readonly database")
"""What an SQLite file says that no waiting mends."""


class SQLMemory(BaseMemory):
    """
    Sessions in an SQL database, shared by any number of processes.

    Args:
        url: `sqlite:///file.db` or `postgresql://user:password@host/database`, as `database_url` reads it; by default
            a file here, `factory.db`.
        engine: the application's own engine instead, on the event loop that uses it; it is not closed with the memory.
        window: how many of the newest messages a run loads; None: all.
        pool_size: how many connections an event loop holds at most; further calls wait for one.
        on_outage: what is done while the database does not answer: "error" fails the store, "queue" keeps up to
            1,000 messages in this process until it answers.
        embedder: a model with embeddings; messages are then searched by meaning.
        compaction: sums up what a run has no room for; None: it is left out.

    Raises:
        MisuseError: the URL is none of these, or another argument is not valid.

    """

    name = "sql"

    def __init__(
        self,
        url: str | None = None,
        *,
        engine: AsyncEngine | None = None,
        window: int | None = None,
        pool_size: int = 10,
        on_outage: Literal["error", "queue"] = "error",
        embedder: BaseLLMWrapper | None = None,
        compaction: Compaction | None = None,
    ) -> None:
        if engine is not None and url is not None:
            raise MisuseError("SQLMemory takes a url or an engine, not both")
        self._where = _address(url or DEFAULT_URL) if engine is None else _lent(engine)
        if not is_amount(pool_size, whole=True):
            raise MisuseError(f"pool_size is a number from 1, not {pool_size!r}")
        if on_outage not in ("error", "queue"):
            raise MisuseError(f"on_outage is 'error' or 'queue', not {on_outage!r}")
        if embedder is not None and not embedder.embeds:
            raise MisuseError(f"embedder: {type(embedder).__name__} has no embeddings; name a model that has")
        self.window = checked_count(window, "window")
        self.compaction = compaction
        self._pool_size = pool_size
        self._outbox = Outbox(self._write, QUEUED) if on_outage == "queue" else None
        self._meaning = None if embedder is None else Meaning(embedder, self._begin)
        # connections belong to the event loop that opened them
        self._databases: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Database] = weakref.WeakKeyDictionary()
        self._ready = False

    def __repr__(self) -> str:
        return f"SQLMemory({self._place!r})"

    async def _open(self) -> None:
        async with self._reading() as connection:
            await connection.execute(select(1))

    async def aclose(self) -> None:
        """Close this event loop's connections; using the memory afterwards opens them again."""
        await super().aclose()
        if self._outbox is not None:
            await self._outbox.aclose(_CLOSE_S)
        if self._meaning is not None:
            await self._meaning.aclose()
            await self._meaning.embedder.aclose()
        database = self._databases.pop(asyncio.get_running_loop(), None)
        if database is not None:
            await database.aclose()

    async def _store(self, session_id: str, messages: list[Message]) -> None:
        await self._append(session_id, messages, None)

    async def _store_after(self, session_id: str, messages: list[Message], after: int) -> None:
        await self._append(session_id, messages, after)

    async def _store_batch(self, session_id: str, messages: list[Message], after: int | None, batch: str) -> None:
        name = batch if len(batch) <= _BATCH_CHARS else blake2b(batch.encode(), digest_size=16).hexdigest()
        await self._append(session_id, messages, after, name)

    async def _append(
        self, session_id: str, messages: list[Message], after: int | None, name: str | None = None
    ) -> None:
        batch = Batch(name or uuid.uuid4().hex, _storable(session_id), messages, waited=name is not None)
        if self._outbox is None:
            await self._write(batch, after)
        elif self._outbox.messages:  # what came first is stored first
            self._outbox.put(batch, f"memory {self._place}: earlier messages wait")
        else:
            try:
                async with asyncio.timeout(current_deadline().narrowed(self.timeout_s).remaining() * _TRY_SHARE):
                    await self._write(batch, after)
            except MemoryUnavailable as error:
                self._outbox.put(batch, str(error))
            except TimeoutError:
                self._outbox.put(batch, f"memory {self._place} does not answer")
        if self._meaning is not None:
            self._meaning.wake(session_id)

    async def _write(self, batch: Batch, after: int | None = None) -> None:
        session_id = batch.session_id
        try:
            async with await self._begin(writes=True) as connection:
                length = await _locked_length(connection, session_id)
                if batch.waited and await _has(connection, batch):
                    return
                if after not in (None, length):
                    raise outrun(session_id, after, length)
                await connection.execute(insert(MESSAGES), _rows(batch, length))
        except IntegrityError as error:  # somebody who does not take part in the lock
            raise MemoryConflict(f"another writer of session {session_id!r} was faster; nothing was stored") from error
        except (DBAPIError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def _load(self, session_id: str, limit: int | None) -> list[Message]:
        await self._settle()
        query = _STORED.where(MESSAGES.c.session_id == _storable(session_id))
        found = await self._read(query.order_by(MESSAGES.c.position.desc()).limit(limit))
        return [_message(row) for row in reversed(found)]

    async def _recall(self, session_id: str, limit: int | None) -> Recollection:
        await self._settle()
        session_id = _storable(session_id)
        summaries = select(SUMMARIES).where(SUMMARIES.c.session_id == session_id)
        found = Recollection(messages=[])
        async with self._reading() as connection:
            length = found.length = await _length(connection, session_id)
            kept = (await connection.execute(summaries)).first() if self.compaction is not None else None
            if kept is not None and kept.messages <= length:  # else somebody has cleared the session
                found.before, found.summary = kept.messages, kept.summary
            # up to the length that was counted: what has come meanwhile is another run's
            rows = await connection.execute(
                _STORED.where(MESSAGES.c.session_id == session_id)
                .where(MESSAGES.c.position > found.before, MESSAGES.c.position <= length)
                .order_by(MESSAGES.c.position.desc())
                .limit(limit)
            )
            found.messages = [_message(row) for row in rows][::-1]
        found.before = length - len(found.messages)
        return found

    async def _summarise(self, session_id: str, summary: str, messages: int) -> None:
        row = {
            "session_id": _storable(session_id),
            "messages": messages,
            "summary": whole_text(summary.replace("\0", " ")),
            "created_at": _now(),
        }
        older = SUMMARIES.c.session_id == session_id, SUMMARIES.c.messages <= messages
        still = select(SUMMARIES.c.messages).where(SUMMARIES.c.session_id == session_id)
        try:
            async with await self._begin(writes=True) as connection:
                await _locked_length(connection, session_id)
                await connection.execute(delete(SUMMARIES).where(*older))
                if (await connection.execute(still)).first() is None:
                    await connection.execute(insert(SUMMARIES), row)
        except (DBAPIError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def _forget(self, session_id: str) -> None:
        await self._settle()  # what waits must not come after it
        session_id = _storable(session_id)
        try:
            async with await self._begin(writes=True) as connection:
                await _locked_length(connection, session_id)  # what is being stored now is deleted too
                for table in (MESSAGES, SUMMARIES):
                    await connection.execute(delete(table).where(table.c.session_id == session_id))
        except (DBAPIError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def _search(self, session_id: str, query: str, k: int) -> list[Message]:
        await self._settle()
        session_id = _storable(session_id)
        if not query.strip():
            return []
        if self._meaning is None:
            ranking = await self._by_words(session_id, query)
        else:
            try:
                left_s = current_deadline().narrowed(self.timeout_s).remaining()
                near = await self._meaning.nearest(session_id, query, k, left_s)
            except (DBAPIError, OSError) as error:
                raise await asyncio.to_thread(self._failure, error) from error
            others = () if near is None else (self._meaning.unembedded(),)
            ranking = fused(near or [], await self._by_words(session_id, query, *others))
        return await self._at(session_id, ranking[:k])

    async def _by_words(self, session_id: str, query: str, *conditions: Any) -> list[int]:
        """Return the positions of the messages that hold words of the query, the best first."""
        words = [*dict.fromkeys(word[:_WORD_CHARS] for word in _words(query).split())][:_MOST_WORDS]
        matches = or_(*(MESSAGES.c.words.contains(word, autoescape=True) for word in words))
        mine = select(MESSAGES.c.position, MESSAGES.c.words).where(
            MESSAGES.c.session_id == session_id, matches, *conditions
        )
        found = await self._read(mine.order_by(MESSAGES.c.position.desc()).limit(_MATCHES))
        # stable: of equals the newest comes first
        best = sorted(found, key=lambda row: -sum(word in row.words for word in words))
        return [row.position for row in best]

    async def _at(self, session_id: str, positions: Sequence[int]) -> list[Message]:
        query = _STORED.where(MESSAGES.c.session_id == session_id, MESSAGES.c.position.in_(positions))
        found = {row.position: _message(row) for row in await self._read(query)}
        return [found[position] for position in positions if position in found]

    async def _settle(self) -> None:
        """Store what waits, so that what was stored is read."""
        if self._outbox is not None:
            await self._outbox.flush()

    async def _read(self, query: Any) -> Sequence[Any]:
        async with self._reading() as connection:
            found: Sequence[Any] = (await connection.execute(query)).all()
            return found

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with await self._begin() as connection:
                yield connection
        except (DBAPIError, OSError) as error:
            raise await asyncio.to_thread(self._failure, error) from error

    async def _begin(self, *, writes: bool = False) -> Any:
        """Return a transaction to enter; the tables are made by the first."""
        loop = asyncio.get_running_loop()
        database = self._databases.get(loop)
        if database is None:
            # the driver and the dialect take their time to load
            made = await asyncio.to_thread(Database, self._where, self._pool_size)
            database = self._databases.setdefault(loop, made)
        if not self._ready:
            await open_tables(database)
            self._ready = True
        return database.transaction(writes=writes)

    @property
    def _url(self) -> URL:
        return self._where.url

    @property
    def _place(self) -> str:
        return self._url.set(query={}).render_as_string(hide_password=True)  # a query may hold a password too

    def _failure(self, error: Exception) -> MemoryStoreError:
        self._ready = False  # the tables may be gone, with their file or their database: the next call looks again
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        if isinstance(error, OperationalError) and "unable to open" in said:
            why = why_unopened(self._url.database or "")
            return MemoryStoreError(f"memory {self._place}: {why}, or set another memory url")
        refused = isinstance(error, DataError | IntegrityError | ProgrammingError) or _NO_OUTAGE.search(said)
        return (MemoryStoreError if refused else MemoryUnavailable)(f"memory {self._place}: {said}")


def _address(url: str) -> DatabaseURL:
    at = database_url(url, "memory url")
    if at.is_nowhere:
        raise MisuseError(
            "memory url: a database in memory is another one for every connection; name a file, or take "
            "InProcessMemory(), which keeps the sessions of this process"
        )
    return at


def _lent(engine: Any) -> AsyncEngine:
    if not isinstance(engine, AsyncEngine) or engine.dialect.name not in ("sqlite", "postgresql"):
        raise MisuseError(
            f"engine is an AsyncEngine of SQLAlchemy for PostgreSQL or SQLite, not a {type(engine).__name__}"
        )
    return engine


def _rows(batch: Batch, length: int) -> list[dict[str, Any]]:
    common = {"session_id": batch.session_id, "batch": batch.id, "created_at": _now()}
    return [
        common | {"position": position, "message": _written(message), "words": _words(message.text)}
        for position, message in enumerate(batch.messages, length + 1)
    ]


def _written(message: Message) -> str:
    try:
        return msgspec.json.encode(message).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(whole_data(msgspec.to_builtins(message))).decode()


def _message(row: Any) -> Message:
    try:
        return msgspec.json.decode(row.message, type=Message)
    except msgspec.DecodeError as error:
        raise MemoryStoreError(
            f"message {row.position} of session {row.session_id!r} cannot be read: {error}; mend or delete its row in "
            f"{MESSAGES.name}, or forget the session"
        ) from error


def _words(text: str) -> str:
    """Lower case of every alphabet, which SQLite's own has not, and without what a database refuses."""
    return whole_text(text.lower().replace("\0", " "))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def _storable(session_id: str) -> str:
    if len(session_id) > LONGEST_SESSION_ID or "\0" in session_id:
        raise MisuseError(
            f"a session id has at most {LONGEST_SESSION_ID} characters and no null, not {session_id[:40]!r}..."
        )
    return session_id


async def _locked_length(connection: AsyncConnection, session_id: str) -> int:
    """Count the messages of a session, whose other writers wait until this transaction has ended."""
    if connection.dialect.name == "postgresql":  # as on SQLite all writers do
        await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(session_id, 0))))
    return await _length(connection, session_id)


async def _length(connection: AsyncConnection, session_id: str) -> int:
    newest = select(func.coalesce(func.max(MESSAGES.c.position), 0)).where(MESSAGES.c.session_id == session_id)
    length: int = (await connection.execute(newest)).scalar_one()
    return length


async def _has(connection: AsyncConnection, batch: Batch) -> bool:
    """Whether a batch has been stored already, by a try whose answer was lost."""
    its = select(MESSAGES.c.position).where(MESSAGES.c.session_id == batch.session_id, MESSAGES.c.batch == batch.id)
    return (await connection.execute(its.limit(1))).first() is not None
