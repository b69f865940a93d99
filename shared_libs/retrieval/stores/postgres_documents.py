"""Documents, chunks and collections in PostgreSQL: the owner of truth for many processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.retrieval.ports import DocumentStore
from shared_libs.retrieval.stores.postgres_database import PostgresDatabase, collection_key
from shared_libs.retrieval.types import Chunk, CollectionRow, DocumentRow, EmbedderIdentity, Space, StoredChunk

if TYPE_CHECKING:
    import asyncpg

STAGED, SEEN, DOOMED, LEAVING = 0, 1, -1, -2

_STORED = f"""
SELECT c.id, c.document, c.start, c."end", c.text, c.heading, c.tokens, d.row
FROM factory_chunks c JOIN factory_documents d ON d.collection = c.collection AND d.id = c.document
WHERE c.collection = $1 AND c.state = {SEEN}
"""


class PostgresDocuments(DocumentStore):
    """Keeps documents in a PostgreSQL database. Writers of one collection take turns."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.name = f"document store {database.place}"
        self._database = database

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        await self._database.aclose()

    async def _collection(self, space: Space) -> CollectionRow | None:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            return None if key is None else await _collection_row(connection, key)

    async def _collections(self, tenant: str) -> list[CollectionRow]:
        async with self._database.reading() as connection:
            keys = await connection.fetch("SELECT key FROM factory_collections WHERE tenant = $1 ORDER BY name", tenant)
            return [await _collection_row(connection, row["key"]) for row in keys]

    async def _sizes(self, space: Space) -> tuple[int, int]:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            documents = await connection.fetchval("SELECT count(*) FROM factory_documents WHERE collection = $1", key)
            seen = "SELECT count(*) FROM factory_chunks WHERE collection = $1 AND state = $2"
            return documents, await connection.fetchval(seen, key, SEEN)

    async def _create(self, space: Space, embedder: EmbedderIdentity | None) -> CollectionRow:
        async with self._database.connection() as connection:
            insert = (
                "INSERT INTO factory_collections (tenant, name, generation) VALUES ($1, $2, 1) "
                "ON CONFLICT (tenant, name) DO NOTHING RETURNING key"
            )
            key = await connection.fetchval(insert, space.tenant, space.collection)
            if key is None:
                key = await _known(connection, space)
            else:
                await _add_generation(connection, key, 1, embedder)
            return await _collection_row(connection, key)

    async def _begin_generation(self, space: Space, embedder: EmbedderIdentity | None) -> int:
        async with self._database.connection() as connection:
            key = await _writing(connection, space)
            of_this = (
                "SELECT generation FROM factory_generations WHERE collection = $1 AND embedder IS NOT DISTINCT FROM $2"
            )
            found = await connection.fetchval(of_this, key, _encoded(embedder))
            if found is not None:
                return int(found)
            newest = "SELECT max(generation) FROM factory_generations WHERE collection = $1"
            generation = int(await connection.fetchval(newest, key)) + 1
            await _add_generation(connection, key, generation, embedder)
            return generation

    async def _switch(self, space: Space, generation: int) -> bool:
        async with self._database.connection() as connection:
            key = await _writing(connection, space)
            switch = "UPDATE factory_collections SET generation = $1 WHERE key = $2 AND generation < $1 RETURNING key"
            if await connection.fetchval(switch, generation, key) is None:
                return False
            # not the later ones: they are being built, and no number is ever given twice
            earlier = "DELETE FROM factory_generations WHERE collection = $1 AND generation < $2"
            await connection.execute(earlier, key, generation)
            return True

    async def _drop(self, space: Space) -> bool:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            if key is None:
                return False
            await _writing(connection, space)
            for table in ("factory_generations", "factory_documents", "factory_chunks"):
                await connection.execute(f"DELETE FROM {table} WHERE collection = $1", key)
            await connection.execute("DELETE FROM factory_collections WHERE key = $1", key)
            return True

    async def _rows(self, space: Space, ids: list[str]) -> dict[str, DocumentRow]:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            query = "SELECT row FROM factory_documents WHERE collection = $1 AND id = ANY ($2)"
            rows = [_decoded(row["row"]) for row in await connection.fetch(query, key, ids)]
            return {row.id: row for row in rows}

    async def _documents(self, space: Space, after: str, limit: int) -> list[DocumentRow]:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            query = "SELECT row FROM factory_documents WHERE collection = $1 AND id > $2 ORDER BY id LIMIT $3"
            return [_decoded(row["row"]) for row in await connection.fetch(query, key, after, limit)]

    async def _text(self, space: Space, document: str) -> str | None:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            query = "SELECT text FROM factory_documents WHERE collection = $1 AND id = $2"
            text: str | None = await connection.fetchval(query, key, document)
            return text

    async def _chunks(self, space: Space, ids: list[str]) -> dict[str, StoredChunk]:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            rows = await connection.fetch(f"{_STORED} AND c.id = ANY ($2)", key, ids)
            return {row["id"]: _stored(row) for row in rows}

    async def _seen(self, space: Space, after: str, limit: int) -> list[StoredChunk]:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            rows = await connection.fetch(f"{_STORED} AND c.id > $2 ORDER BY c.id LIMIT $3", key, after, limit)
            return [_stored(row) for row in rows]

    async def _parts(self, space: Space, document: str) -> list[str]:
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            query = "SELECT id FROM factory_chunks WHERE collection = $1 AND document = $2 AND state = $3"
            return [row["id"] for row in await connection.fetch(query, key, document, SEEN)]

    async def _stage(self, space: Space, document: DocumentRow, chunks: list[Chunk]) -> bool:
        async with self._database.connection() as connection:
            key = await _writing(connection, space)
            ids = [chunk.id for chunk in chunks]
            leaving = "SELECT id FROM factory_chunks WHERE collection = $1 AND state = $2 AND id = ANY ($3) LIMIT 1"
            if await connection.fetchval(leaving, key, LEAVING, ids) is not None:
                return False
            await connection.executemany(
                "INSERT INTO factory_chunks VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
                f"ON CONFLICT (collection, id) DO UPDATE SET state = $4 WHERE factory_chunks.state = {DOOMED}",
                [_chunk_row(key, chunk) for chunk in chunks],
            )
            return True

    async def _commit(self, space: Space, document: DocumentRow, text: str, chunks: list[Chunk]) -> bool:
        async with self._database.connection() as connection:
            key = await _writing(connection, space)
            ids = [chunk.id for chunk in chunks]
            there = "SELECT count(*) FROM factory_chunks WHERE collection = $1 AND state IN (0, 1) AND id = ANY ($2)"
            if await connection.fetchval(there, key, ids) < len(set(ids)):
                return False
            await _doom(connection, key, document.id)
            await connection.executemany(
                'UPDATE factory_chunks SET state = $1, start = $2, "end" = $3, heading = $4 '
                "WHERE collection = $5 AND id = $6",
                [(SEEN, chunk.start, chunk.end, chunk.heading, key, chunk.id) for chunk in chunks],
            )
            await connection.execute(
                "INSERT INTO factory_documents VALUES ($1, $2, $3, $4) "
                "ON CONFLICT (collection, id) DO UPDATE SET row = excluded.row, text = excluded.text",
                key,
                document.id,
                msgspec.json.encode(document).decode(),
                text,
            )
            return True

    async def _remove(self, space: Space, document: str) -> bool:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            if key is None:
                return False
            await _writing(connection, space)
            delete = "DELETE FROM factory_documents WHERE collection = $1 AND id = $2 RETURNING id"
            gone = await connection.fetchval(delete, key, document)
            await _doom(connection, key, document)
            return gone is not None

    async def _doomed(self, space: Space, limit: int) -> list[str]:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            if key is None:
                return []
            await _writing(connection, space)
            claim = (
                "UPDATE factory_chunks SET state = $1 WHERE collection = $2 AND id IN (SELECT id FROM factory_chunks "
                "WHERE collection = $2 AND state < 0 ORDER BY id LIMIT $3) RETURNING id"
            )
            return sorted(row["id"] for row in await connection.fetch(claim, LEAVING, key, limit))

    async def _forget(self, space: Space, ids: list[str]) -> None:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            query = "DELETE FROM factory_chunks WHERE state = $1 AND collection = $2 AND id = ANY ($3)"
            await connection.execute(query, LEAVING, key, ids)


async def _known(connection: asyncpg.Connection[Any], space: Space) -> int:
    key = await collection_key(connection, space)
    if key is None:
        raise MisuseError(f"there is no collection {space.collection!r}")
    return key


async def _writing(connection: asyncpg.Connection[Any], space: Space) -> int:
    """Return a collection's number, and be the only one who changes its documents until the transaction ends."""
    await _known(connection, space)
    lock = "SELECT key FROM factory_collections WHERE tenant = $1 AND name = $2 FOR UPDATE"
    key: int | None = await connection.fetchval(lock, space.tenant, space.collection)
    if key is None:
        raise MisuseError(f"collection {space.collection!r} has just been dropped")
    return key


async def _doom(connection: asyncpg.Connection[Any], key: int, document: str) -> None:
    query = "UPDATE factory_chunks SET state = $1 WHERE collection = $2 AND document = $3 AND state <> $4"
    await connection.execute(query, DOOMED, key, document, LEAVING)


async def _add_generation(
    connection: asyncpg.Connection[Any], key: int, generation: int, embedder: EmbedderIdentity | None
) -> None:
    insert = "INSERT INTO factory_generations (collection, generation, embedder) VALUES ($1, $2, $3)"
    await connection.execute(insert, key, generation, _encoded(embedder))


async def _collection_row(connection: asyncpg.Connection[Any], key: int) -> CollectionRow:
    of_all = (
        "SELECT c.name, c.generation AS current, g.generation, g.embedder FROM factory_collections c "
        "JOIN factory_generations g ON g.collection = c.key WHERE c.key = $1 ORDER BY g.generation"
    )
    rows: Sequence[Any] = await connection.fetch(of_all, key)
    name, generation = rows[0]["name"], rows[0]["current"]
    embedder = next(row["embedder"] for row in rows if row["generation"] == generation)
    return CollectionRow(
        name=name,
        generation=generation,
        embedder=None if embedder is None else msgspec.json.decode(embedder, type=EmbedderIdentity),
        building=next((row["generation"] for row in rows if row["generation"] > generation), None),
    )


def _chunk_row(key: int, chunk: Chunk) -> tuple[Any, ...]:
    return key, chunk.id, chunk.document, STAGED, chunk.start, chunk.end, chunk.heading, chunk.tokens, chunk.text


def _stored(row: Any) -> StoredChunk:
    chunk = Chunk(
        id=row["id"],
        document=row["document"],
        start=row["start"],
        end=row["end"],
        text=row["text"],
        heading=row["heading"],
        tokens=row["tokens"],
    )
    owner = _decoded(row["row"])
    return StoredChunk(chunk=chunk, source=owner.source, title=owner.title, metadata=owner.metadata)


def _encoded(embedder: EmbedderIdentity | None) -> str | None:
    return None if embedder is None else msgspec.json.encode(embedder).decode()


def _decoded(row: str) -> DocumentRow:
    return msgspec.json.decode(row, type=DocumentRow)
