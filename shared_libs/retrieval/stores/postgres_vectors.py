"""
Vectors in PostgreSQL by the extension pgvector: an HNSW index, and nothing a filter would lose.

An index that filters behind its search finds 2 of 10 (pgvector#751). So where few fit the filter (which an index of the
metadata tells, else a sample; or the collection is small), all of those are compared exactly; where many do, the index
goes on until enough fit (`iterative_scan`, pgvector 0.8), and where it gives up before, what fits is compared too. The
index is built when the indexing of the first ten thousand has ended: to build it at once takes a fraction of what
writing into it takes, and until then it saves little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import MisuseError, RetrievalError
from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.ports import POOL, VectorStore
from shared_libs.retrieval.stores.postgres_database import (
    LOCK,
    MOST_CANDIDATES,
    PostgresDatabase,
    collection_key,
    compiled,
    has_index,
    merge_put_off,
    once,
)
from shared_libs.retrieval.types import Found, Point, Space
from shared_libs.retrieval.vectors import of_length_one

if TYPE_CHECKING:
    import asyncpg
    import numpy as np

MOST_INDEXED = 2_000
"""Dimensions that HNSW of the type `vector` takes; longer vectors are compared exactly."""

FEW = 5_000
"""Up to so many vectors that fit are compared one by one: some milliseconds, and nothing is missed."""

LEAST_ASKED = 100
"""
So many an index is asked for at least.

Of ten behind a range of 1 % it finds 0.92 and does not know it, asked for fifty 0.96; for these it gives up in time.
"""

SAMPLED = 1_000
"""Of so many it is looked at which share of them fits what no index tells; ids are digests, so the first are any."""

INDEXED_FROM = 10_000
"""From so many vectors of a table on there is an index."""

BUILDING = LOCK + 1
"""Held by who builds an index."""

MOST_KNOWN = 1_000
"""Of so many filters it is remembered whether many fit them."""

BUILD_MEMORY = "512MB"
"""For building an index: what does not fit in takes many times as long (a hundred thousand take 200 MB)."""


class PostgresVectors(VectorStore):
    """
    Keeps vectors in a PostgreSQL database that has pgvector: a table for each number of dimensions.

    Args:
        database: where.
        few: up to so many that fit are compared exactly.
        indexed_from: from so many on a table has an index.

    """

    def __init__(self, database: PostgresDatabase, *, few: int = FEW, indexed_from: int = INDEXED_FROM) -> None:
        self.name = f"vector store {database.place}"
        self._database = database
        self._few = few
        self._indexed_from = indexed_from
        self._widths: set[int] = set()
        self._many: dict[tuple[int, int, Where, int], bool] = {}

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        await self._database.aclose()

    async def _upsert(self, space: Space, points: list[Point]) -> None:
        width = len(points[0].vector)
        await self._make_table(width)
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            if key is None:
                return
            await _take_width(connection, key, space, width)
            last = {point.id: point for point in points}  # the last of one id holds
            written = await POOL.submit(lambda: [_written(point.vector) for point in last.values()], {}).result()
            await connection.execute(
                f"INSERT INTO {_table(width)} "
                "SELECT $1, $2, u.id, u.vector::vector, u.metadata::jsonb "
                "FROM unnest($3::text[], $4::text[], $5::text[]) AS u (id, vector, metadata) ORDER BY u.id "
                "ON CONFLICT (collection, generation, id) "
                "DO UPDATE SET vector = excluded.vector, metadata = excluded.metadata",
                key,
                space.generation,
                list(last),
                written,
                [msgspec.json.encode(dict(point.metadata)).decode() for point in last.values()],
            )

    async def _search(self, space: Space, vector: np.ndarray, k: int, where: Where) -> list[Found]:
        async with self._database.reading() as connection:
            key, width = await _width(connection, space)
            if key is None or width is None:
                return []
            if width != len(vector):
                raise MisuseError(
                    f"collection {space.collection!r} holds vectors of {width} numbers, not {len(vector)}"
                )
            most = max(k, LEAST_ASKED)
            values: list[Any] = [_written(vector), key, space.generation, most]
            known = (key, space.generation, where, most)
            if (many := self._many.get(known)) is None:
                counted = not where or any(map(has_index, where))  # else to count them is to look at every row
                many = not counted and await self._finds_enough(connection, width, where, key, space.generation)
            if not many:
                rows = await self._exactly(connection, width, where, [*values, self._few + 1])
                if not rows or rows[0]["fit"] <= self._few:
                    return _found(rows)[:k]
            self._remember(known, many=True)
            rows = await self._by_index(connection, width, where, values)
            if len(rows) < most:  # it has given up before all that fit were seen: they are few, by now at least
                self._remember(known, many=False)
                rows = await self._exactly(connection, width, where, [*values, None])
            return _found(rows)[:k]

    async def _finds_enough(
        self, connection: asyncpg.Connection[Any], width: int, where: Where, key: int, generation: int
    ) -> bool:
        """Tell whether the index is likely to find enough before it gives up; else what it does is done in vain."""
        values: list[Any] = [key, generation]
        query = (
            f"SELECT count(*) AS seen, count(*) FILTER (WHERE true{compiled(where, values)}) AS fit FROM (SELECT id, "
            f"metadata FROM {_table(width)} WHERE collection = $1 AND generation = $2 ORDER BY id LIMIT {SAMPLED}) AS s"
        )
        row = await connection.fetchrow(query, *values)
        return bool(row["seen"] == SAMPLED and row["fit"] * MOST_CANDIDATES > LEAST_ASKED * SAMPLED)

    async def _exactly(
        self, connection: asyncpg.Connection[Any], width: int, where: Where, values: list[Any]
    ) -> list[Any]:
        """Compare what fits, up to a number, and tell how many those are; never by the index of vectors."""
        query = (
            f"WITH fits AS MATERIALIZED (SELECT id, -(vector <#> {once('$1::text::vector')}) AS score "
            f"FROM {_table(width)} WHERE collection = $2 AND generation = $3{compiled(where, values, by_index=True)} "
            "LIMIT $5) SELECT id, score, (SELECT count(*) FROM fits) AS fit FROM fits ORDER BY score DESC, id LIMIT $4"
        )
        rows: list[Any] = await connection.fetch(query, *values)
        return rows

    async def _by_index(
        self, connection: asyncpg.Connection[Any], width: int, where: Where, values: list[Any]
    ) -> list[Any]:
        values = list(values)
        asked = once("$1::text::vector")
        query = (
            f"SELECT id, -(vector <#> {asked}) AS score FROM {_table(width)} "
            f"WHERE collection = $2 AND generation = $3{compiled(where, values)} "
            f"ORDER BY vector <#> {asked} LIMIT $4"
        )
        rows: list[Any] = await connection.fetch(query, *values)
        return rows

    def _remember(self, known: tuple[int, int, Where, int], *, many: bool) -> None:
        if len(self._many) >= MOST_KNOWN:
            del self._many[next(iter(self._many))]
        self._many[known] = many

    async def _tag(self, space: Space, ids: list[str], metadata: dict[str, Any]) -> set[str]:
        async with self._database.connection() as connection:
            key, width = await _width(connection, space)
            if width is None:
                return set()
            query = (
                f"UPDATE {_table(width)} SET metadata = $1::text::jsonb "
                "WHERE collection = $2 AND generation = $3 AND id = ANY ($4) RETURNING id"
            )
            encoded = msgspec.json.encode(metadata).decode()
            return {row["id"] for row in await connection.fetch(query, encoded, key, space.generation, ids)}

    async def _delete(self, space: Space, ids: list[str]) -> None:
        async with self._database.connection() as connection:
            key, width = await _width(connection, space)
            if width is not None:
                query = f"DELETE FROM {_table(width)} WHERE collection = $1 AND generation = $2 AND id = ANY ($3)"
                await connection.execute(query, key, space.generation, ids)

    async def _drop(self, space: Space) -> None:
        async with self._database.connection() as connection:
            key, width = await _width(connection, space)
            if width is not None:
                query = f"DELETE FROM {_table(width)} WHERE collection = $1 AND generation = $2"
                await connection.execute(query, key, space.generation)

    async def _count(self, space: Space) -> int:
        async with self._database.reading() as connection:
            key, width = await _width(connection, space)
            if width is None:
                return 0
            query = f"SELECT count(*) FROM {_table(width)} WHERE collection = $1 AND generation = $2"
            return int(await connection.fetchval(query, key, space.generation))

    async def _make_table(self, width: int) -> None:
        self._widths.add(width)
        if _table(width) in self._database.made:
            return
        async with self._database.connection() as connection:
            if await connection.fetchval("SELECT to_regclass($1)", _table(width)) is None:
                await self._make(connection, width)
        self._database.made.add(_table(width))

    async def _tidy(self) -> None:
        for width in sorted(self._widths):
            async with self._database.reading() as connection:
                await merge_put_off(connection, f"{_table(width)}_fits")
                if width <= MOST_INDEXED:
                    await self._build_index(connection, _table(width))

    async def _build_index(self, connection: asyncpg.Connection[Any], table: str) -> None:
        """Build the index of a table that has grown large, beside readers and writers; one process does it."""
        index = f"{table}_near"
        state = (
            "SELECT i.indisvalid AS valid, pg_has_role(t.relowner, 'USAGE') AS ours "
            "FROM pg_class t LEFT JOIN pg_index i ON i.indexrelid = to_regclass($2) WHERE t.oid = to_regclass($1)"
        )
        found = await connection.fetchrow(state, table, index)
        if found is None or found["valid"] or not found["ours"]:
            return
        large = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT $1) AS counted"
        if await connection.fetchval(large, self._indexed_from) < self._indexed_from:
            return
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", BUILDING):
            return
        try:
            if found["valid"] is False:  # a process ended while it built
                await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            await connection.execute(f"SET maintenance_work_mem = '{BUILD_MEMORY}'")
            near = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index} ON {table} USING hnsw (vector vector_ip_ops)"
            await connection.execute(near)
        finally:
            await connection.execute("RESET maintenance_work_mem")
            await connection.execute("SELECT pg_advisory_unlock($1)", BUILDING)

    async def _make(self, connection: asyncpg.Connection[Any], width: int) -> None:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)  # before any other lock
        await self._make_extension(connection)
        table = _table(width)
        await connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (collection bigint NOT NULL, generation integer NOT NULL, "
            f'id text COLLATE "C" NOT NULL, vector vector({width}) NOT NULL, metadata jsonb NOT NULL, '
            f"PRIMARY KEY (collection, generation, id)); "
            f"CREATE INDEX IF NOT EXISTS {table}_fits ON {table} USING gin (metadata jsonb_path_ops)"
        )

    async def _make_extension(self, connection: asyncpg.Connection[Any]) -> None:
        version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        if version is None:
            offered = await connection.fetchval(
                "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
            )
            if offered is None:
                raise RetrievalError(
                    f"{self.name} has no pgvector; install it on the server, or keep vectors elsewhere"
                )
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            version = offered
        if tuple(map(int, version.split(".")[:2])) < (0, 8):
            raise RetrievalError(
                f"{self.name} has pgvector {version}; filters lose hits before 0.8: ALTER EXTENSION vector UPDATE"
            )


async def _width(connection: asyncpg.Connection[Any], space: Space) -> tuple[int | None, int | None]:
    """Return the collection's number and the dimensions of a generation, as far as there are any."""
    query = (
        "SELECT c.key, g.width FROM factory_collections c JOIN factory_generations g ON g.collection = c.key "
        "WHERE c.tenant = $1 AND c.name = $2 AND g.generation = $3"
    )
    row = await connection.fetchrow(query, space.tenant, space.collection, space.generation)
    return (None, None) if row is None else (row["key"], row["width"])


async def _take_width(connection: asyncpg.Connection[Any], key: int, space: Space, width: int) -> None:
    """Note the dimensions of a generation, or refuse others than its own; what is known is locked by no writer."""
    query = "SELECT width FROM factory_generations WHERE collection = $1 AND generation = $2"
    known = await connection.fetchval(query, key, space.generation)
    known = known or await connection.fetchval(
        "INSERT INTO factory_generations (collection, generation, width) VALUES ($1, $2, $3) "
        "ON CONFLICT (collection, generation) "
        "DO UPDATE SET width = COALESCE(factory_generations.width, excluded.width) RETURNING width",
        key,
        space.generation,
        width,
    )
    if known != width:
        raise MisuseError(
            f"collection {space.collection!r} holds vectors of {known} numbers, not {width}; another embedding model "
            "needs a rebuild"
        )


def _found(rows: list[Any]) -> list[Found]:
    found = [Found(row["id"], float(row["score"])) for row in rows]
    return sorted(found, key=lambda row: (-row.score, row.id))


def _table(width: int) -> str:
    return f"factory_vectors_{width}"  # a number of ours: nothing of a user is ever part of a statement


def _written(vector: Any) -> str:
    """Return a vector of length one as pgvector reads it."""
    return f"[{','.join(map(repr, of_length_one(vector).tolist()))}]"
