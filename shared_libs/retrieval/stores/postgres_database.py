"""PostgreSQL for the stores of retrieval: a small pool for each event loop, the tables, and errors of one kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from shared_libs.atomic import postgres
from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.errors import FactoryError, MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.loading import load
from shared_libs.retrieval.filters import Condition, Where
from shared_libs.retrieval.types import Space

if TYPE_CHECKING:
    import asyncpg

FORM = 1
"""The form of the tables; another one is refused."""

MOST_CONNECTIONS = 8
"""Connections of one process and loop; more wait for their turn."""

EF_SEARCH = 100
"""How many candidates a vector index looks at before it filters (pgvector's own default of 40 finds 0.92 of 10)."""

MOST_CANDIDATES = 4_000
"""
How many candidates it looks at before it gives up, and what fits is compared one by one.

Fifty of which one in fifty fits are found before; going on costs more than comparing all (pgvector's own: 20,000).
"""

_AWAY = frozenset(("08", "40", "53", "55", "57", "58"))
"""
Classes of errors that pass without anybody's changing a statement (PostgreSQL, appendix A).

The connection, a transaction that was undone, resources (a full disk, too many connections), not now, an operator, I/O.
"""

TABLES = "factory_retrieval_form"

LOCK = 0x67656E616966
"""Held while tables are made, so that two processes do not make them at once."""

_TABLES = """
CREATE TABLE IF NOT EXISTS factory_collections (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL,
    generation integer NOT NULL,
    UNIQUE (tenant, name)
);
CREATE TABLE IF NOT EXISTS factory_generations (
    collection bigint NOT NULL,
    generation integer NOT NULL,
    embedder text,
    width integer,
    PRIMARY KEY (collection, generation)
);
CREATE TABLE IF NOT EXISTS factory_documents (
    collection bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    row text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (collection, id)
);
CREATE TABLE IF NOT EXISTS factory_chunks (
    collection bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    document text COLLATE "C" NOT NULL,
    state smallint NOT NULL,
    start integer NOT NULL,
    "end" integer NOT NULL,
    heading text NOT NULL,
    tokens integer NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (collection, id)
);
CREATE INDEX IF NOT EXISTS factory_chunks_of_document ON factory_chunks (collection, document);
CREATE INDEX IF NOT EXISTS factory_chunks_to_go ON factory_chunks (collection, id) WHERE state < 0;
CREATE TABLE IF NOT EXISTS factory_texts (
    collection bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    words tsvector NOT NULL,
    metadata jsonb NOT NULL,
    PRIMARY KEY (collection, id)
);
CREATE INDEX IF NOT EXISTS factory_texts_by_word ON factory_texts USING gin (words);
CREATE TABLE IF NOT EXISTS factory_retrieval_form (form integer NOT NULL);
"""


class PostgresDatabase:
    """
    A PostgreSQL database as the stores share it; any number of processes may.

    The tables are made on first use, under names that begin with `factory_`; a role that may not make them needs them
    to be there.

    Args:
        url: `postgresql://user:password@host/database`; `postgres://` and `postgresql+asyncpg://` are the same.

    Raises:
        MisuseError: the extra postgres is not installed, or it is no such URL.

    """

    def __init__(self, url: str) -> None:
        self._at = database_url(url, "a collection")
        if not self._at.is_postgres:
            raise MisuseError("the URL of a database is postgresql://user:password@host/database")
        self.place = self._at.server.removeprefix("postgresql://").rpartition("@")[2]
        self._pools: dict[asyncio.AbstractEventLoop, tuple[asyncpg.Pool[Any], AsyncGenerator[None, None]]] = {}
        self.made: set[str] = set()
        """The tables that are known to be there."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """
        Lend a connection in a transaction that is kept whole or not at all.

        Raises:
            RetrievalUnavailable: the server is not there, or has no connection left.
            RetrievalError: it refuses a statement.

        """
        async with self.reading() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """
        Lend a connection for single statements: a transaction around them costs two more ways to the server.

        Raises:
            RetrievalUnavailable: the server is not there, or has no connection left.
            RetrievalError: it refuses a statement.

        """
        await load("asyncpg")
        import asyncpg

        try:
            async with (await self._pool()).acquire() as connection:
                try:
                    yield connection
                except asyncpg.ReadOnlySQLTransactionError:
                    connection.terminate()  # it has become a standby: another one writes now
                    raise
                except (asyncpg.PostgresError, FactoryError):
                    raise  # an answer, or a no of ours
                except BaseException:
                    with suppress(asyncpg.InterfaceError):  # unless it is gone already
                        connection.terminate()  # it was cut off in the middle of a word
                    raise
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise RetrievalUnavailable(f"{self.place} does not answer: {postgres.in_words(error)}") from error
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise RetrievalError(f"{self.place} refuses the user or the password of the URL") from error
        except asyncpg.PostgresError as error:
            if isinstance(error, asyncpg.UndefinedTableError):
                self.made.clear()  # somebody has emptied the database: the next call makes them again
            away = isinstance(error, asyncpg.ReadOnlySQLTransactionError) or (error.sqlstate or "")[:2] in _AWAY
            kind = RetrievalUnavailable if away else RetrievalError
            raise kind(f"{self.place}: {postgres.in_words(error)}") from error

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        known = self._pools.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[0].close()
            await known[1].aclose()

    async def _pool(self) -> asyncpg.Pool[Any]:
        import asyncpg

        loop = asyncio.get_running_loop()
        for closed in [known for known in self._pools if known.is_closed()]:
            del self._pools[closed]
        known = self._pools.get(loop)
        if known is None:
            # server-side JIT costs more than these statements take
            pool = asyncpg.create_pool(
                connect=partial(postgres.connect, self._at),
                min_size=0,
                max_size=MOST_CONNECTIONS,
                server_settings={"jit": "off"},
                init=_prepared,
                reset=_as_it_is,
                **self._at.options,
            )
            keeper = _keep_open(pool)
            await anext(keeper)
            known = self._pools[loop] = (pool, keeper)
        pool = known[0]
        await pool  # opens it once; others wait for that
        if TABLES not in self.made:
            await self._make_tables(pool)
        return pool

    async def _make_tables(self, pool: asyncpg.Pool[Any]) -> None:
        async with pool.acquire() as connection, connection.transaction():
            if await connection.fetchval("SELECT to_regclass('factory_retrieval_form')") is None:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)  # before any other lock
                await connection.execute(_TABLES)
                if await connection.fetchval("SELECT count(*) FROM factory_retrieval_form") == 0:
                    await connection.execute("INSERT INTO factory_retrieval_form VALUES ($1)", FORM)
            form = await connection.fetchval("SELECT form FROM factory_retrieval_form")
            if form != FORM:
                raise RetrievalError(
                    f"{self.place} has the form {form}, of another version of genai-factory; this one knows {FORM}. "
                    "Install that version, or index into another database"
                )
        self.made.add(TABLES)


async def _prepared(connection: asyncpg.Connection[Any]) -> None:
    """Have vector indexes go on until enough fit a filter (pgvector 0.8); others do not know these words."""
    await connection.execute(
        "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', false), set_config('hnsw.ef_search', $1, false), "
        "set_config('hnsw.max_scan_tuples', $2, false)",
        str(EF_SEARCH),
        str(MOST_CANDIDATES),
    )


async def _as_it_is(connection: asyncpg.Connection[Any]) -> None:
    """Give a connection back as it is: nothing here sets anything beyond its transaction."""


async def _keep_open(pool: asyncpg.Pool[Any]) -> AsyncGenerator[None, None]:
    """
    Hold a pool open until closed.

    An asynchronous generator, because an event loop closes those before it closes itself: connections that nobody
    closed are cut with their loop. At once, for by then a loop may have no turn left to wait in.
    """
    try:
        yield
    finally:
        pool.terminate()


async def collection_key(connection: asyncpg.Connection[Any], space: Space) -> int | None:
    """Return the number of a collection in this database; None where there is none."""
    query = "SELECT key FROM factory_collections WHERE tenant = $1 AND name = $2"
    key: int | None = await connection.fetchval(query, space.tenant, space.collection)
    return key


async def merge_put_off(connection: asyncpg.Connection[Any], index: str) -> None:
    """Have an index of words or metadata take up what its writes have put off: until then every search reads that."""
    owned = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass($1)"
    if await connection.fetchval(owned, index):  # who may not leaves it to the server's own cleaning
        await connection.execute("SELECT gin_clean_pending_list($1::text::regclass)", index)


def once(parameter: str) -> str:
    """
    Return what a text of a statement stands for, such as `$1::text::vector`, so that it is read once.

    As it stands, a server that has planned a statement for any parameters reads that text again for every row: 190 ms
    for a thousand vectors, where comparing them takes one.
    """
    return f"(SELECT {parameter})"


MOST_CONTAINED = 20
"""Of how many values a list may be to be looked up value by value."""


def has_index(condition: Condition) -> bool:
    """Whether an index finds what fits a condition: that of the ids, or that of the metadata."""
    if condition.kind == "chunk":
        return True
    return condition.kind == "in" and not condition.negated and len(condition.values) <= MOST_CONTAINED


def compiled(where: Where, values: list[Any], *, by_index: bool = False) -> str:
    """
    Return the conditions of a filter on `metadata`, and append their parameters to `values`.

    Keys and values are parameters too; JSON compares as `Condition.holds` does: a number is no boolean and no text.

    Args:
        where: the filter.
        values: the parameters of the statement so far.
        by_index: say what is equal so that an index of the metadata finds it. Not where the nearest are looked for: a
            server takes every such condition for a rare one, and would rather compare half a table than walk a graph.

    """
    import json

    def given(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    text = ""
    for condition in where:
        if condition.kind == "chunk":
            text += f" AND id = ANY ({given(list(condition.values))}::text[])"
            continue
        if by_index and has_index(condition):
            same = (json.dumps({condition.key: value}) for value in condition.values)
            test = " OR ".join(f"metadata @> {once(f'{given(one)}::text::jsonb')}" for one in same) or "FALSE"
            text += f" AND ({test})"
            continue
        key = given(condition.key)
        found = f"(metadata -> {key}::text)"
        if condition.kind == "in":
            wanted = once(f"{given([json.dumps(value) for value in condition.values])}::text[]::jsonb[]")
            test = f"{found} = ANY ({wanted}::jsonb[])"  # by its type it is one array, not rows to look through
        else:
            parts = []
            for sign, end in zip((">=", "<="), condition.values, strict=True):
                if isinstance(end, str):
                    said = f'(metadata ->> {key}::text) COLLATE "C" {sign} {given(end)}::text'
                    parts.append(f"jsonb_typeof({found}) = 'string' AND {said}")
                elif end is not None:
                    number = once(f"{given(json.dumps(end))}::text::jsonb")
                    parts.append(f"jsonb_typeof({found}) = 'number' AND {found} {sign} {number}")
            test = f"({' AND '.join(parts)})"
        negated = f"{found} IS NOT NULL AND NOT COALESCE({test}, FALSE)"
        text += f" AND {negated if condition.negated else test}"
    return text
