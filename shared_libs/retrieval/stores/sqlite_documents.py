"""Documents, chunks and collections in SQLite: the embedded owner of truth."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.retrieval.ports import POOL, DocumentStore
from shared_libs.retrieval.stores.sqlite_database import MOST_PARAMETERS, Database, marks
from shared_libs.retrieval.types import Chunk, CollectionRow, DocumentRow, EmbedderIdentity, Space, StoredChunk

STAGED, SEEN, DOOMED, LEAVING = 0, 1, -1, -2

_FIELDS = 'c.id, c.document, c.start, c."end", c.text, c.heading, c.tokens, d.row'

T = TypeVar("T")


class SqliteDocuments(DocumentStore):
    """Keeps documents in an SQLite file."""

    def __init__(self, database: Database) -> None:
        self.name = f"document store {database.path.name}"
        self._database = database

    async def aclose(self) -> None:
        """Close the idle connections of the file."""
        await POOL.submit(self._database.close, {}).result()  # the last one writes to the disk

    def _collection(self, space: Space) -> CollectionRow | None:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            return None if key is None else _collection_row(connection, key)

    def _collections(self, tenant: str) -> list[CollectionRow]:
        with self._database.reading() as connection:
            keys = connection.execute("SELECT key FROM collections WHERE tenant = ? ORDER BY name", (tenant,))
            return [_collection_row(connection, key) for (key,) in keys.fetchall()]

    def _sizes(self, space: Space) -> tuple[int, int]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            documents = connection.execute("SELECT count(*) FROM documents WHERE collection = ?", (key,)).fetchone()
            seen = f"SELECT count(*) FROM chunks WHERE collection = ? AND state = {SEEN}"  # noqa: S608 - our own number
            return documents[0], connection.execute(seen, (key,)).fetchone()[0]

    def _create(self, space: Space, embedder: EmbedderIdentity | None) -> CollectionRow:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is None:
                insert = "INSERT INTO collections (tenant, name, generation) VALUES (?, ?, 1) RETURNING key"
                (key,) = connection.execute(insert, (space.tenant, space.collection)).fetchone()
                _add_generation(connection, key, 1, embedder)
            return _collection_row(connection, key)

    def _begin_generation(self, space: Space, embedder: EmbedderIdentity | None) -> int:
        with self._database.writing() as connection:
            key = _known(connection, space)
            of_this = "SELECT generation FROM generations WHERE collection = ? AND embedder IS ?"
            found = connection.execute(of_this, (key, _encoded(embedder))).fetchone()
            if found is not None:
                return int(found[0])
            newest = connection.execute("SELECT max(generation) FROM generations WHERE collection = ?", (key,))
            generation = int(newest.fetchone()[0]) + 1
            _add_generation(connection, key, generation, embedder)
            return generation

    def _switch(self, space: Space, generation: int) -> bool:
        with self._database.writing() as connection:
            key = _known(connection, space)
            switch = "UPDATE collections SET generation = ? WHERE key = ? AND generation < ?"
            if not connection.execute(switch, (generation, key, generation)).rowcount:
                return False
            # not the later ones: they are being built, and no number is ever given twice
            connection.execute("DELETE FROM generations WHERE collection = ? AND generation < ?", (key, generation))
            return True

    def _drop(self, space: Space) -> bool:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is None:
                return False
            for table in ("generations", "documents", "chunks"):
                connection.execute(f"DELETE FROM {table} WHERE collection = ?", (key,))  # noqa: S608 - our own names
            connection.execute("DELETE FROM collections WHERE key = ?", (key,))
            return True

    def _rows(self, space: Space, ids: list[str]) -> dict[str, DocumentRow]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = "SELECT row FROM documents WHERE collection = ? AND id IN"
            rows = (_decoded(row) for (row,) in _for_each(connection, query, key, ids))
            return {row.id: row for row in rows}

    def _documents(self, space: Space, after: str, limit: int) -> list[DocumentRow]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = "SELECT row FROM documents WHERE collection = ? AND id > ? ORDER BY id LIMIT ?"
            return [_decoded(row) for (row,) in connection.execute(query, (key, after, limit)).fetchall()]

    def _text(self, space: Space, document: str) -> str | None:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = "SELECT text FROM documents WHERE collection = ? AND id = ?"
            found = connection.execute(query, (key, document)).fetchone()
            return None if found is None else str(found[0])

    def _chunks(self, space: Space, ids: list[str]) -> dict[str, StoredChunk]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = (
                f"SELECT {_FIELDS} FROM chunks c "  # noqa: S608 - our own names
                "JOIN documents d ON d.collection = c.collection AND d.id = c.document "
                f"WHERE c.collection = ? AND c.state = {SEEN} AND c.id IN"
            )
            return {row[0]: _stored(row) for row in _for_each(connection, query, key, ids)}

    def _seen(self, space: Space, after: str, limit: int) -> list[StoredChunk]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = (
                f"SELECT {_FIELDS} FROM chunks c "  # noqa: S608 - our own names
                "JOIN documents d ON d.collection = c.collection AND d.id = c.document "
                f"WHERE c.collection = ? AND c.state = {SEEN} AND c.id > ? ORDER BY c.id LIMIT ?"
            )
            return [_stored(row) for row in connection.execute(query, (key, after, limit)).fetchall()]

    def _parts(self, space: Space, document: str) -> list[str]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = f"SELECT id FROM chunks WHERE collection = ? AND document = ? AND state = {SEEN}"  # noqa: S608 - our own number
            return [id_ for (id_,) in connection.execute(query, (key, document)).fetchall()]

    def _stage(self, space: Space, document: DocumentRow, chunks: list[Chunk]) -> bool:
        with self._database.writing() as connection:
            key = _known(connection, space)
            ids = [chunk.id for chunk in chunks]
            leaving = f"SELECT id FROM chunks WHERE collection = ? AND state = {LEAVING} AND id IN"  # noqa: S608
            if next(iter(_for_each(connection, leaving, key, ids)), None):
                return False
            connection.executemany(
                f"INSERT INTO chunks VALUES (?, ?, ?, {STAGED}, ?, ?, ?, ?, ?) "  # noqa: S608 - our own number
                f"ON CONFLICT (collection, id) DO UPDATE SET state = {STAGED} WHERE state = {DOOMED}",
                [_chunk_row(key, chunk) for chunk in chunks],
            )
            return True

    def _commit(self, space: Space, document: DocumentRow, text: str, chunks: list[Chunk]) -> bool:
        with self._database.writing() as connection:
            key = _known(connection, space)
            ids = [chunk.id for chunk in chunks]
            there = f"SELECT id FROM chunks WHERE collection = ? AND state IN ({STAGED}, {SEEN}) AND id IN"  # noqa: S608
            if len(list(_for_each(connection, there, key, ids))) < len(ids):
                return False
            connection.execute(
                f"UPDATE chunks SET state = {DOOMED} WHERE collection = ? AND document = ? AND state <> {LEAVING}",  # noqa: S608
                (key, document.id),
            )
            connection.executemany(
                f'UPDATE chunks SET state = {SEEN}, start = ?, "end" = ?, heading = ? WHERE collection = ? AND id = ?',  # noqa: S608
                [(chunk.start, chunk.end, chunk.heading, key, chunk.id) for chunk in chunks],
            )
            connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?) "
                "ON CONFLICT (collection, id) DO UPDATE SET row = excluded.row, text = excluded.text",
                (key, document.id, msgspec.json.encode(document).decode(), text),
            )
            return True

    def _remove(self, space: Space, document: str) -> bool:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            gone = connection.execute("DELETE FROM documents WHERE collection = ? AND id = ?", (key, document))
            connection.execute(
                f"UPDATE chunks SET state = {DOOMED} WHERE collection = ? AND document = ? AND state <> {LEAVING}",  # noqa: S608
                (key, document),
            )
            return gone.rowcount > 0

    def _doomed(self, space: Space, limit: int) -> list[str]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = "SELECT id FROM chunks WHERE collection = ? AND state < 0 ORDER BY id LIMIT ?"
            ids = [found for (found,) in connection.execute(query, (key, limit)).fetchall()]
        if not ids:
            return []
        with self._database.writing() as connection:
            # what was staged again meanwhile stays
            claim = f"UPDATE chunks SET state = {LEAVING} WHERE state < 0 AND collection = ? AND id IN"  # noqa: S608
            return [found for (found,) in _for_each(connection, claim, key, ids, then=" RETURNING id")]

    def _forget(self, space: Space, ids: list[str]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            query = f"DELETE FROM chunks WHERE state = {LEAVING} AND collection = ? AND id IN"  # noqa: S608
            list(_for_each(connection, query, key, ids))


def collection_key(connection: sqlite3.Connection, space: Space) -> int | None:
    """Return the number of a collection in this file; None where there is none."""
    query = "SELECT key FROM collections WHERE tenant = ? AND name = ?"
    found = connection.execute(query, (space.tenant, space.collection)).fetchone()
    return None if found is None else int(found[0])


def _known(connection: sqlite3.Connection, space: Space) -> int:
    key = collection_key(connection, space)
    if key is None:
        raise MisuseError(f"there is no collection {space.collection!r}")
    return key


def _for_each(
    connection: sqlite3.Connection, query: str, key: int | None, ids: Iterable[str], *, then: str = ""
) -> Iterator[Any]:
    """Run a statement that ends in `IN` for any number of ids."""
    listed = list(ids)
    for start in range(0, len(listed), MOST_PARAMETERS):
        part = listed[start : start + MOST_PARAMETERS]
        yield from connection.execute(f"{query} ({marks(len(part))}){then}", (key, *part)).fetchall()


def _add_generation(
    connection: sqlite3.Connection, key: int, generation: int, embedder: EmbedderIdentity | None
) -> None:
    row = (key, generation, _encoded(embedder))
    connection.execute("INSERT INTO generations VALUES (?, ?, ?)", row)


def _collection_row(connection: sqlite3.Connection, key: int) -> CollectionRow:
    query = "SELECT name, generation, graph FROM collections WHERE key = ?"
    name, generation, graph = connection.execute(query, (key,)).fetchone()
    of_all = "SELECT generation, embedder FROM generations WHERE collection = ? ORDER BY generation"
    rows = connection.execute(of_all, (key,)).fetchall()
    current = next(row for row in rows if row[0] == generation)
    return CollectionRow(
        name=name,
        generation=generation,
        embedder=None if current[1] is None else msgspec.json.decode(current[1], type=EmbedderIdentity),
        graph=graph > 0,
        building=next((row[0] for row in rows if row[0] > generation), None),
    )


def _chunk_row(key: int, chunk: Chunk) -> tuple[Any, ...]:
    return key, chunk.id, chunk.document, chunk.start, chunk.end, chunk.heading, chunk.tokens, chunk.text


def _stored(row: Any) -> StoredChunk:
    id_, document, start, end, text, heading, tokens, encoded = row
    chunk = Chunk(id=id_, document=document, start=start, end=end, text=text, heading=heading, tokens=tokens)
    owner = _decoded(encoded)
    return StoredChunk(chunk=chunk, source=owner.source, title=owner.title, metadata=owner.metadata)


def _encoded(embedder: EmbedderIdentity | None) -> str | None:
    return None if embedder is None else msgspec.json.encode(embedder).decode()


def _decoded(row: str) -> DocumentRow:
    return msgspec.json.decode(row, type=DocumentRow)
