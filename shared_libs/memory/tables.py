"""The tables of `SQLMemory`, and how a database gets their newest form."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    inspect,
    select,
)

from shared_libs.atomic.errors import MemoryStoreError
from shared_libs.memory.connections import Database

SCHEMA = "2"
"""The newest revision of `migrations/versions`."""

LONGEST_SESSION_ID = 255

_LOCK = 0x6661_6374  # any number: whoever makes the tables of a PostgreSQL database holds this advisory lock

_metadata = MetaData()
MESSAGES = Table(
    "factory_messages",
    _metadata,
    Column("session_id", String(LONGEST_SESSION_ID), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("message", Text, nullable=False),
    Column("words", Text, nullable=False),  # the text in lower case, for the search
    Column("created_at", String(32), nullable=False),
    Column("batch", String(32)),  # the call that stored it: a call that is repeated stores nothing twice
    Column("embedding_model", String(255)),
    Column("embedding", LargeBinary),  # float32, little-endian
)
Index("factory_messages_by_time", MESSAGES.c.created_at)
SUMMARIES = Table(
    "factory_summaries",
    _metadata,
    Column("session_id", String(LONGEST_SESSION_ID), primary_key=True),
    Column("messages", Integer, nullable=False),  # how many of the session's first ones the summary stands for
    Column("summary", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)
_VERSIONS = Table("factory_schema_version", MetaData(), Column("version_num", String(32), primary_key=True))


async def open_tables(database: Database) -> None:
    """
    Make the tables, or bring them to their newest form, where they are not; several processes may do it at once.

    Raises:
        MemoryStoreError: they were made by a newer version of this library.

    """
    async with database.transaction(writes=False) as connection:
        if await connection.run_sync(_version) == SCHEMA:
            return
    scripts = await asyncio.to_thread(_scripts)  # files, and a library that takes its time to load
    async with database.transaction(writes=True) as connection:
        if connection.dialect.name == "postgresql":  # on SQLite a transaction that writes is alone
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        await connection.run_sync(_upgrade, scripts)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSIONS.name):
        return None
    found: str | None = connection.execute(select(_VERSIONS.c.version_num)).scalar()
    return found


def _scripts() -> Any:
    """Load alembic and every step."""
    from alembic.runtime.migration import MigrationContext  # noqa: F401 - loaded here, in a thread, for `_upgrade`
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    list(scripts.walk_revisions())
    return scripts


def _upgrade(connection: Connection, scripts: Any) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    version = _version(connection)
    known = [script.revision for script in scripts.walk_revisions()]
    if version is not None and version not in known:
        raise MemoryStoreError(
            f"the tables of the memory have the form {version!r}, of a newer version of genai-factory; this one knows "
            f"{known[-1]} to {known[0]}. Install that version, or set another memory url"
        )

    def steps(current: Any, _: Any) -> Any:
        return scripts._upgrade_revs("head", current)  # noqa: SLF001 - what alembic's own command calls

    context = MigrationContext.configure(
        connection, opts={"version_table": _VERSIONS.name, "script": scripts, "fn": steps}
    )
    context.run_migrations(op=Operations(context))
