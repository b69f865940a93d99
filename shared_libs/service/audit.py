"""
Who did what: keys, definitions, limits, decisions and denials, in rows that are only ever added.

Each row has the hash of the one before it in its own, keyed with the service's pepper: whoever changes, removes or
slips in a row without the pepper is found out by `factory audit verify`. Rows cut off at the end are found by what was
noted of an earlier look: its number and hash. Prompts and answers are no part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import hashlib
import hmac
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Column, Connection, String, Table, Text, event, func, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared_libs.atomic.errors import FactoryError
from shared_libs.service.callers import Caller
from shared_libs.service.database import METADATA, ServiceDatabase
from shared_libs.service.edge import Scope
from shared_libs.service.key_rows import now

_log = logging.getLogger("shared_libs.service.audit")

_AUDIT = Table(
    "factory_audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("object", String(200), nullable=False, index=True),
    Column("told", Text, nullable=False),  # the entry as JSON, as it was hashed
    Column("hash", String(64), nullable=False),
)
_REFUSE = "the audit log is only added to"
_FUNCTION = (
    "CREATE OR REPLACE FUNCTION factory_audit_kept() RETURNS trigger LANGUAGE plpgsql "
    f"AS $$ BEGIN RAISE EXCEPTION '{_REFUSE}'; END $$"
)
_TRIGGER = (
    "CREATE TRIGGER factory_audit_kept BEFORE UPDATE OR DELETE ON factory_audit "
    "FOR EACH ROW EXECUTE FUNCTION factory_audit_kept()"
)
_ON_POSTGRES = (_FUNCTION, _TRIGGER)
_ON_SQLITE = tuple(
    f"CREATE TRIGGER factory_audit_{what} BEFORE {what} ON factory_audit BEGIN SELECT RAISE(ABORT, '{_REFUSE}'); END"
    for what in ("update", "delete")
)


@event.listens_for(_AUDIT, "after_create")
def _only_added(_: Table, connection: Connection, **__: Any) -> None:
    """Let the database itself refuse what would change a row; whoever owns it can take that away again."""
    for statement in _ON_POSTGRES if connection.dialect.name == "postgresql" else _ON_SQLITE:
        connection.exec_driver_sql(statement)


_LOCK = 0x6661_6175  # any number: whoever adds a row on PostgreSQL holds this advisory lock
FIRST = "0" * 64
"""What stands for the hash before the first row."""

PAGE = 1_000
MOST_WAITING = 10_000
"""Entries that wait for a database that is away; what comes on top is counted, and said when it is back."""

MOST_DENIALS = 60
DENIALS_WINDOW_S = 60.0
"""Denials that are written in a window: whoever knocks does not get to fill the disk. The rest is counted."""

RETRY_S = (0.2, 1.0, 5.0, 15.0)
"""Waits between tries while the database is away; the last goes on."""

CLOSE_S = 5.0


class AuditError(FactoryError):
    """The audit log cannot be written or read."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What somebody did.

    Args:
        action: `key.made`, `key.rotated`, `key.revoked`, `settings.changed`, `definition.changed`,
            `definition.removed`, `definition.refused`, `run.decided`, `run.cancelled`, `collection.dropped`,
            `document.removed`, `denied`, or `left_out` (how many could not be written).
        object: what it was done to: `key:ID`, `definition:FILE`, `run:ID`, …
        actor: who did it: `key:ID`, `user:NAME@HOST` on the command line, `server:HOST`.
        at: when, ISO 8601 in UTC.
        before, after: short hashes of what it was, and of what it is now; empty where there is none.
        source: the address that it came from.
        request_id: the request, as its log lines and its answer name it.
        facts: what else there is to say, in few words.

    """

    action: str
    object: str
    actor: str
    at: str = ""
    before: str = ""
    after: str = ""
    source: str = ""
    request_id: str = ""
    facts: dict[str, Any] = {}


class Row(NamedTuple):
    """An entry where it stands."""

    seq: int
    hash: str
    entry: Entry


class Checked(NamedTuple):
    """What was found: how many rows, the last one's hash, and what does not fit, each in a sentence."""

    rows: int
    head: str
    problems: list[str]


def digest(data: bytes | str) -> str:
    """Name a content shortly: whether it is the same can be seen, and nothing else."""
    return hashlib.blake2b(data.encode() if isinstance(data, str) else data, digest_size=8).hexdigest()


class AuditLog:
    """
    The log in a database that processes share.

    Args:
        database: where it is kept.
        pepper: what hashes are keyed with; the one of the keys.

    """

    def __init__(self, database: ServiceDatabase, pepper: str = "") -> None:
        self._database = database
        self._pepper = pepper.encode()

    async def append(self, entries: list[Entry]) -> None:
        """
        Add entries, in their order; all of them or none.

        An entry whose `after` is what the last one of its object and action said is left out: many servers see one
        change.

        Raises:
            AuditError: the database failed.

        """
        try:
            async with self._database.transaction(writes=True) as connection:
                await _alone(connection)
                seq, last = await _end(connection)
                for entry in entries:
                    if entry.action in _SEEN_BY_ALL:
                        before = await _last_of(connection, entry.object)
                        if (before.action, before.after) == (entry.action, entry.after):
                            continue
                        entry = msgspec.structs.replace(entry, before=before.after)  # noqa: PLW2901
                    told = msgspec.json.encode(entry).decode()
                    seq, last = seq + 1, self._hash(last, seq + 1, told)
                    row = {"seq": seq, "object": entry.object[:200], "told": told, "hash": last}
                    await connection.execute(insert(_AUDIT).values(row))
        except (SQLAlchemyError, OSError) as error:
            raise AuditError(await asyncio.to_thread(self._database.failure, error)) from error

    async def rows(self, after: int = 0) -> AsyncIterator[Row]:
        """
        Yield the rows behind a number, in their order.

        Raises:
            AuditError: the database failed.

        """
        async for seq, _, told, kept in self._raw(after):
            yield Row(seq, kept, msgspec.json.decode(told, type=Entry))

    async def verify(self, seen: tuple[int, str] | None = None) -> Checked:
        """
        Look at every row.

        Args:
            seen: the number and the hash of a row that was noted earlier.

        Raises:
            AuditError: the database failed.

        """
        problems: list[str] = []
        count, expected, last = 0, 1, FIRST
        found = {0: FIRST}
        async for seq, about, told, kept in self._raw(0):
            count += 1
            if seq != expected:
                missing = f"row {expected} is" if seq == expected + 1 else f"rows {expected} to {seq - 1} are"
                problems.append(f"{missing} missing")
            elif kept != self._hash(last, seq, told):
                problems.append(f"row {seq} does not follow from the one before it: one of them is another than it was")
            elif msgspec.json.decode(told, type=Entry).object[:200] != about:
                problems.append(f"row {seq} is filed under another object than it is about")
            expected, last = seq + 1, kept
            if seen is not None and seq == seen[0]:
                found[seq] = kept
        if seen is not None and found.get(seen[0]) != seen[1]:
            problems.append(f"row {seen[0]} was noted with another hash, or is no more")
        return Checked(count, f"{expected - 1}:{last}", problems)

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        await self._database.aclose()

    async def _raw(self, after: int) -> AsyncIterator[tuple[int, str, str, str]]:
        while True:
            page = select(_AUDIT.c.seq, _AUDIT.c.object, _AUDIT.c.told, _AUDIT.c.hash)
            page = page.where(_AUDIT.c.seq > after).order_by(_AUDIT.c.seq).limit(PAGE)
            try:
                async with self._database.transaction(writes=False) as connection:
                    found = (await connection.execute(page)).all()
            except (SQLAlchemyError, OSError) as error:
                raise AuditError(await asyncio.to_thread(self._database.failure, error)) from error
            for seq, about, told, kept in found:
                yield seq, about, told, kept
            if len(found) < PAGE:
                return
            after = found[-1][0]

    def _hash(self, before: str, seq: int, told: str) -> str:
        return hmac.digest(self._pepper, f"{before}\n{seq}\n{told}".encode(), "sha256").hex()


_SEEN_BY_ALL = ("settings.changed", "definition.changed", "definition.removed", "definition.refused")
"""What every server of a service sees; the first one says it."""


def server_name() -> str:
    """Name this server as whoever does what nobody has asked for."""
    return f"server:{socket.gethostname()}"


def user_name() -> str:
    """Name whoever sits at this command line."""
    return f"user:{getpass.getuser()}@{socket.gethostname()}"


def source_of(scope: Scope) -> str:
    """Return the address that a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


class AuditTrail:
    """
    The log as a server writes it: whoever notes something never waits, and the order is kept.

    While the database is away entries wait, a bounded number of them; those of a process that is killed in this moment
    are lost.

    Args:
        log: where they are written.

    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._waiting: deque[Entry] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._left_out = 0
        self._closing = asyncio.Event()
        self._denials: deque[float] = deque(maxlen=MOST_DENIALS)

    def note(self, action: str, about: str, actor: str, **more: Any) -> None:
        """Note what somebody did; `more` are further fields of an `Entry`."""
        if len(self._waiting) >= MOST_WAITING:
            self._left_out += 1
            return
        self._waiting.append(Entry(action=action, object=about, actor=actor, at=now().isoformat(), **more))
        self._begin()

    def note_request(self, scope: Scope, caller: Caller, action: str, about: str, **more: Any) -> None:
        """Note what a caller did by a request."""
        told = {"source": source_of(scope), "request_id": scope["factory.exchange"].request_id}
        self.note(action, about, f"key:{caller.key_id}" if caller.key_id else "anyone", **told, **more)

    def note_denial(self, about: str, actor: str, **more: Any) -> None:
        """Note that somebody was not let in; the first of a minute are told each, the others counted."""
        clock = asyncio.get_running_loop().time()
        if len(self._denials) == MOST_DENIALS and clock - self._denials[0] < DENIALS_WINDOW_S:
            self._left_out += 1
            return
        self._denials.append(clock)
        self.note("denied", about, actor, **more)

    async def aclose(self) -> None:
        """Write what is left, within a few seconds; a database that is away is tried once more, and not waited for."""
        self._closing.set()
        if self._left_out:
            self._begin()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=CLOSE_S)
            self._writing.cancel()

    def _begin(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        tries = 0
        while self._waiting or self._left_out:
            some = list(self._waiting)[:PAGE]
            try:
                await self._log.append([*some, *self._what_was_left_out()])
            except AuditError as error:
                if not tries:
                    _log.warning("%s; what is to be noted waits, up to %d entries", error, MOST_WAITING)
                if self._closing.is_set():  # nobody waits for a database that is away
                    _log.warning("%d entries are not in the audit log", len(self._waiting))
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S[min(tries, len(RETRY_S) - 1)]):
                        await self._closing.wait()
                tries += 1
                continue
            self._left_out, tries = 0, 0
            for _ in some:
                self._waiting.popleft()

    def _what_was_left_out(self) -> list[Entry]:
        if not self._left_out:
            return []
        told = {"entries": self._left_out}
        return [Entry(action="left_out", object="audit", actor="server", at=now().isoformat(), facts=told)]


async def _alone(connection: AsyncConnection) -> None:
    """Let nobody else add a row until the transaction ends; on SQLite one that writes is alone."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def _end(connection: AsyncConnection) -> tuple[int, str]:
    last = select(_AUDIT.c.seq, _AUDIT.c.hash).order_by(_AUDIT.c.seq.desc()).limit(1)
    found = (await connection.execute(last)).first()
    return (0, FIRST) if found is None else (found[0], found[1])


async def _last_of(connection: AsyncConnection, about: str) -> Entry:
    of_it = select(_AUDIT.c.told).where(_AUDIT.c.object == about[:200]).order_by(_AUDIT.c.seq.desc()).limit(1)
    found = (await connection.execute(of_it)).scalar()
    if found is None:
        return Entry(action="definition.removed", object=about, actor="")
    return msgspec.json.decode(found, type=Entry)
