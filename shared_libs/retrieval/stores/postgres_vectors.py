"""
Vectors in PostgreSQL by the extension pgvector: an HNSW index, and nothing a filter would lose.

An index that filters behind its search finds 2 of 10 (pgvector#751); so it goes on until enough fit (`iterative_scan`,
pgvector 0.8), and where it gives up before, the rest is compared exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import MisuseError, RetrievalError
from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.ports import POOL, VectorStore
from shared_libs.retrieval.stores.postgres_database import LOCK, PostgresDatabase, collection_key, compiled, once
from shared_libs.retrieval.types import Found, Point, Space

if TYPE_CHECKING:
    import asyncpg
    import numpy as np

MOST_INDEXED = 2_000
"""Dimensions that HNSW of the type `vector` takes; longer vectors are compared exactly."""


class PostgresVectors(VectorStore):
    """Keeps vectors in a PostgreSQL database that has pgvector: a table for each number of dimensions."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.name = f"vector store {database.place}"
        self._database = database
        self._made: set[int] = set()

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
            written = await POOL.submit(lambda: [_unit(point.vector) for point in last.values()], {}).result()
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
            values: list[Any] = [_unit(vector), key, space.generation, k]
            asked = once("$1::text::vector")
            query = (
                f"SELECT id, -(vector <#> {asked}) AS score FROM {_table(width)} "
                f"WHERE collection = $2 AND generation = $3{compiled(where, values)} "
                f"ORDER BY vector <#> {asked} LIMIT $4"
            )
            rows = await connection.fetch(query, *values)
            if len(rows) < k:  # the index may have given up before all that fit were seen
                async with connection.transaction():
                    await connection.execute("SET LOCAL enable_indexscan = off")
                    rows = await connection.fetch(query, *values)
            found = [Found(row["id"], float(row["score"])) for row in rows]
            return sorted(found, key=lambda row: (-row.score, row.id))

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
        if width in self._made:
            return
        async with self._database.connection() as connection:
            if await connection.fetchval("SELECT to_regclass($1)", _table(width)) is None:
                await self._make(connection, width)
        self._made.add(width)

    async def _make(self, connection: asyncpg.Connection[Any], width: int) -> None:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)  # before any other lock
        await self._make_extension(connection)
        table = _table(width)
        index = f"CREATE INDEX IF NOT EXISTS {table}_near ON {table} USING hnsw (vector vector_ip_ops)"
        await connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (collection bigint NOT NULL, generation integer NOT NULL, "
            f'id text COLLATE "C" NOT NULL, vector vector({width}) NOT NULL, metadata jsonb NOT NULL, '
            f"PRIMARY KEY (collection, generation, id)); {index if width <= MOST_INDEXED else ''}"
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


def _table(width: int) -> str:
    return f"factory_vectors_{width}"  # a number of ours: nothing of a user is ever part of a statement


def _unit(vector: Any) -> str:
    """Return a vector of length one as pgvector reads it; one without direction stays as it is."""
    import numpy as np

    row = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(row))
    return f"[{','.join(map(repr, (row / length if length > 0 else row).tolist()))}]"
