"""
PostgreSQL, read by a role that should be able to do no more.

The server keeps writing out: a read-only transaction with a statement timeout, and a query as a part of ours, which
takes no other statement. That leaves functions that act without writing to a table: a query in whose words there is one
that comes with the server or with an extension, and is declared to have effects, is refused, but for those listed here.
The plan of a query would not tell them all, and it holds whatever the server has computed beforehand. A function that
the database's owner wrote is the owner's. What the role may do besides is found out by `more_than_reading`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Dialect, Inspector, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.exc import CompileError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType, TypeEngine

from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.postgres import engine_arguments
from shared_libs.tools.sql_rows import Rows

MAX_ROW_BYTES = 4_000_000
"""Bytes of the largest row that the server sends."""

_HARMLESS = (
    r"random\w*|array_sample|array_shuffle|clock_timestamp|timeofday|gen_random_uuid|uuidv[47]|setseed|pg_sleep\w*|currval|lastval"
    r"|pg_\w+_size|pg_is_\w+|pg_current_\w+|pg_last_\w+|pg_stat_get_(?!snapshot_clear)\w+|pg_get_\w+|pg_column_\w+"
    r"|pg_(?:table|index|type|function|operator)_is_visible|pg_input_\w+|pg_notification_queue_usage"
)
"""Functions with effects, as they are declared, that do nothing of lasting effect."""

_ACTS = r"crosstab\w*|connectby|dblink\w*|xpath_table|txid_current|pg_current_xact_id"
"""Functions that run a statement given as a text, or use up a number of a transaction, whatever they are declared."""

_READ_AS_IT_IS = re.compile(
    r"(?:bool|int[248]|oid|float[48]|numeric|text|varchar|bpchar|uuid)(?:\[\])?|name|bytea|jsonb?|void"
)
"""
Types whose values the driver gives as JSON has them.

Of the others it makes objects of its own, and of what Python has none for (a year before 1 or past 9999) an error that
costs the whole answer: those the server writes as JSON.
"""

_WORD = re.compile(r"[a-z_][\w$]*", re.ASCII)
_ESCAPED_NAME = re.compile(r'u&\s*"', re.IGNORECASE)
_ACTING = """
SELECT DISTINCT p.proname::text FROM pg_proc p WHERE p.proname = ANY($1) AND (p.provolatile = 'v'
  AND NOT 'internal'::regtype = ANY(p.proargtypes)
  AND (p.pronamespace = 'pg_catalog'::regnamespace
    OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
  AND p.proname !~ $2 OR p.proname ~ $3)
"""
_RIGHTS = """
SELECT rolsuper, rolcreaterole, rolreplication, rolbypassrls,
  ARRAY(SELECT r.rolname::text FROM pg_roles r
    WHERE NOT rolsuper AND r.rolname <> current_user AND pg_has_role(current_user, r.oid, 'MEMBER')),
  ARRAY(SELECT extname::text FROM pg_extension WHERE extname IN ('dblink', 'file_fdw', 'postgres_fdw', 'adminpack')),
  NOT rolsuper AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
FROM pg_roles WHERE rolname = current_user
"""


async def answer(url: str, query: str, rows: Rows, limit: Deadline) -> dict[str, Any]:
    """
    Run one query, which the server ends at `limit`.

    Raises:
        ToolError: the query acts, or a row of it is too large.
        sqlalchemy.exc.DBAPIError: asyncpg's own errors and OSError as well: what the server says.

    """
    query = query.rstrip().rstrip(";")
    async with _connected(url, limit) as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with driver.transaction(readonly=True):
            await _refuse_what_acts(driver, query)
            found = (await driver.prepare(query)).get_attributes()
            if not found:
                raise ToolError("the statement returns no rows; write one SELECT")
            sized = _sized(query, [_READ_AS_IT_IS.fullmatch(column.type.name) for column in found])
            statement = await driver.prepare(sized)
            # the server counts from where a statement begins, and the way to it has taken of the time
            await driver.execute(f"SET LOCAL statement_timeout = {_milliseconds(limit)}")
            left = rows.most
            async for size, *values in statement.cursor(prefetch=1):
                if size > MAX_ROW_BYTES:
                    raise ToolError(
                        f"a row of the answer is {size:,} bytes, of {MAX_ROW_BYTES:,} that are sent; select fewer "
                        "columns, or a part of them such as left(column, 2000)"
                    )
                left -= 1
                if not rows.take(values) or not left:
                    break
    return rows.answer([column.name for column in found])


async def schema(url: str, limit: Deadline) -> str:
    """List tables and views with their columns and types, one a line; raises as `answer` does."""
    async with _connected(url, limit) as connection:
        return await connection.run_sync(_schema)


async def more_than_reading(url: str, limit: Deadline) -> list[str]:
    """Say what the role of a URL may do besides reading, in words; raises as `answer` does."""
    async with _connected(url, limit) as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        is_super, makes_roles, replicates, sees_all, roles, extensions, writes = await driver.fetchrow(_RIGHTS)
    found = {
        "is a superuser, so that it may read the server's files and end its sessions": is_super,
        "may make roles": makes_roles,
        "may replicate": replicates,
        "passes row security": sees_all,
        f"may take the role {', '.join(roles)}": roles,
        f"has the extension {', '.join(extensions)}": extensions,
        "may write to tables": writes,
    }
    return [words for words, so in found.items() if so]


@asynccontextmanager
async def _connected(url: str, limit: Deadline) -> AsyncIterator[AsyncConnection]:
    address = database_url(url, "the sql tool")
    settings = {"default_transaction_read_only": "on", "statement_timeout": str(_milliseconds(limit))}
    engine = create_async_engine(
        address.url, poolclass=NullPool, connect_args=engine_arguments(address, server_settings=settings)
    )
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def _milliseconds(limit: Deadline) -> int:
    return max(1, int(1000 * min(limit.remaining(), 86_400)))


def _sized(query: str, as_they_are: Sequence[re.Match[str] | None]) -> str:
    """Wrap a query so that a row comes with its size, and without its values where that is too much."""
    names = [f"c{number}" for number in range(len(as_they_are))]
    values = [name if plain else f"to_json({name})" for name, plain in zip(names, as_they_are, strict=True)]
    kept = ", ".join(f"CASE WHEN size <= {MAX_ROW_BYTES} THEN {value} END" for value in values)
    # the offset keeps the server from writing the size into every column anew
    return (
        f"SELECT size, {kept} FROM (SELECT octet_length(answer::text) AS size, answer.* "  # noqa: S608 - the server reads it
        f"FROM (\n{query}\n) AS answer({', '.join(names)}) OFFSET 0) AS sized"
    )


async def _refuse_what_acts(driver: Any, query: str) -> None:
    if _ESCAPED_NAME.search(query):
        raise ToolError('names written as U&"…" are not read here; write them as they are')
    words = sorted({*_WORD.findall(query.lower())})
    acting = await driver.fetch(_ACTING, words, f"^({_HARMLESS})$", f"^({_ACTS})$")
    if acting:
        raise ToolError(f"the statement names {acting[0][0]}, which may do more than read: this tool only reads")


def _schema(connection: Connection) -> str:
    inspector = inspect(connection)
    found = [(home, name) for home in _homes(inspector) for name in _tables(inspector, home)]
    return "\n".join(_described(inspector, *table) for table in found) or "the database has no tables"


def _homes(inspector: Inspector) -> Sequence[str | None]:
    """The default schema, then the others that are not the database's own."""
    own = (inspector.default_schema_name, "information_schema")
    return [None, *sorted(name for name in inspector.get_schema_names() if name not in own)]


def _tables(inspector: Inspector, home: str | None) -> list[str]:
    views = {*inspector.get_view_names(home), *inspector.get_materialized_view_names(home)}
    return sorted({*inspector.get_table_names(home)} | views)


def _described(inspector: Inspector, home: str | None, name: str) -> str:
    try:
        columns: Iterable[Any] = inspector.get_columns(name, home)
    except DBAPIError as error:
        return f"{name}: {error.orig}"
    listed = (f"{column['name']} {_type(column['type'], inspector.dialect)}".rstrip() for column in columns)
    return f"{f'{home}.' if home else ''}{name}({', '.join(listed)})"


def _type(declared: TypeEngine[Any], dialect: Dialect) -> str:
    if isinstance(declared, NullType):
        return ""
    try:
        return str(declared.compile(dialect)).lower()
    except CompileError:
        return str(declared).lower()
