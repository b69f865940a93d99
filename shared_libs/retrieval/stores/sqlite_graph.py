"""
The graph in SQLite, beside the chunks it is about: what is asked of it on the way to an answer is two joins.

Cypher is answered by `kglite`, over a frozen copy of the collection's graph that is made anew when it has changed: so a
query of another's can see nothing of another tenant, and change nothing.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from typing import Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.retrieval.cypher_guard import ReadQuery
from shared_libs.retrieval.naming import canonical, entity_id, possible_names
from shared_libs.retrieval.ports import POOL, GraphStore
from shared_libs.retrieval.stores.graphs import (
    COUNTED,
    MOST_FOUND,
    MOST_MENTIONS,
    MOST_NEIGHBOURS,
    NEAR,
    answered,
    frozen,
    heaviest,
    kglite,
    linked,
)
from shared_libs.retrieval.stores.sqlite_database import Database, File, marks
from shared_libs.retrieval.stores.sqlite_documents import collection_key
from shared_libs.retrieval.types import Expanded, Facts, Space


class SqliteGraph(GraphStore):
    """Keeps entities, mentions and relations in an SQLite file."""

    def __init__(self, database: Database) -> None:
        self.name = f"graph store {database.path.name}"
        self._database = database
        self._guard = threading.Lock()
        self._frozen: dict[int, tuple[tuple[File, int], Any]] = {}

    async def aclose(self) -> None:
        """Close the idle connections of the file, and let the copies for Cypher go."""
        self._frozen.clear()
        await POOL.submit(self._database.close, {}).result()  # the last one writes to the disk

    def _upsert(self, space: Space, facts: list[Facts]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is None:
                raise MisuseError(f"there is no collection {space.collection!r}")
            for told in facts:
                _forget(connection, key, told.chunk)
                for entity, (start, end) in zip(told.entities, told.spans, strict=True):
                    id_ = entity_id(entity.name)
                    connection.execute(
                        "INSERT INTO entities VALUES (?, ?, ?, ?, ?) ON CONFLICT (collection, id) DO UPDATE "
                        "SET type = excluded.type WHERE type = ''",
                        (key, id_, canonical(entity.name), entity.name, entity.type),
                    )
                    connection.execute(
                        "INSERT OR IGNORE INTO mentions VALUES (?, ?, ?, ?, ?, ?)",
                        (key, id_, told.chunk, entity.name, start, end),
                    )
                connection.executemany(
                    "INSERT OR IGNORE INTO relations VALUES (?, ?, ?, ?, ?)",
                    [
                        (key, entity_id(one.source), one.kind, entity_id(one.target), told.chunk)
                        for one in told.relations
                    ],
                )
                connection.execute("INSERT INTO extractions VALUES (?, ?, ?)", (key, told.chunk, told.extractor))
            _drop_unmentioned(connection, key)
            _changed(connection, key)

    def _extracted(self, space: Space, ids: list[str], extractor: str) -> set[str]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = (
                f"SELECT chunk FROM extractions WHERE collection = ? AND extractor = ? AND chunk IN ({marks(len(ids))})"  # noqa: S608
            )
            return {chunk for (chunk,) in connection.execute(query, (key, extractor, *ids)).fetchall()}

    def _delete(self, space: Space, ids: list[str]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is not None:
                for chunk in ids:
                    _forget(connection, key, chunk)
                _drop_unmentioned(connection, key)
                _changed(connection, key)

    def _drop(self, space: Space) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is not None:
                for table in ("entities", "mentions", "relations", "extractions"):
                    connection.execute(f"DELETE FROM {table} WHERE collection = ?", (key,))  # noqa: S608 - our own
                _changed(connection, key)

    def _expand(self, space: Space, question: str, seeds: list[str]) -> list[Expanded]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            if key is None:
                return []
            weights = _linked(connection, key, question)
            for rank, chunk in enumerate(seeds):
                query = "SELECT entity FROM mentions WHERE collection = ? AND chunk = ?"
                for (entity,) in connection.execute(query, (key, chunk)).fetchall():
                    weights[entity] += 1 / (rank + 2)
            related = _related(connection, key, weights)
            return _chunks(connection, key, weights | related, set(seeds))

    def _query(self, space: Space, query: ReadQuery) -> list[dict[str, Any]]:
        return answered(self._copy(space), query)

    def _copy(self, space: Space) -> Any:
        """Return the collection's graph for reading, made anew where it has changed."""
        kglite()  # before anything is read for it
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            if key is None:
                raise MisuseError(f"there is no collection {space.collection!r}")
            with self._guard:
                connection.execute("BEGIN")
                try:
                    query = "SELECT graph FROM collections WHERE key = ?"
                    version = self._database.file, connection.execute(query, (key,)).fetchone()[0]
                    known = self._frozen.get(key)
                    if known is None or known[0] != version:
                        self._frozen[key] = version, _frozen(connection, key)
                finally:
                    connection.execute("COMMIT")
                return self._frozen[key][1]


def _forget(connection: sqlite3.Connection, key: int, chunk: str) -> None:
    for table in ("mentions", "relations", "extractions"):
        connection.execute(f"DELETE FROM {table} WHERE collection = ? AND chunk = ?", (key, chunk))  # noqa: S608


def _drop_unmentioned(connection: sqlite3.Connection, key: int) -> None:
    connection.execute(
        "DELETE FROM entities WHERE collection = ? AND NOT EXISTS (SELECT 1 FROM mentions m "
        "WHERE m.collection = entities.collection AND m.entity = entities.id)",
        (key,),
    )


def _linked(connection: sqlite3.Connection, key: int, question: str) -> defaultdict[str, float]:
    """Return what the question names, a rare one weighing more; a name inside a longer one does not count."""
    names = possible_names(question)
    if not names:
        return defaultdict(float)
    query = f"SELECT key, id FROM entities WHERE collection = ? AND key IN ({marks(len(names))})"  # noqa: S608
    return linked(dict(connection.execute(query, (key, *names)).fetchall()))


def _related(connection: sqlite3.Connection, key: int, weights: dict[str, float]) -> dict[str, float]:
    """Return the neighbours of the entities that are none of them, at half their weight."""
    near: dict[str, float] = {}
    for entity, weight in heaviest(weights, MOST_NEIGHBOURS):
        query = (
            "SELECT target FROM relations WHERE collection = ? AND source = ? UNION "
            "SELECT source FROM relations WHERE collection = ? AND target = ? ORDER BY 1 LIMIT ?"
        )
        for (other,) in connection.execute(query, (key, entity, key, entity, MOST_NEIGHBOURS)).fetchall():
            if other not in weights:
                near[other] = max(near.get(other, 0.0), NEAR * weight)
    return near


def _chunks(connection: sqlite3.Connection, key: int, weights: dict[str, float], seeds: set[str]) -> list[Expanded]:
    """Return the chunks that mention the entities; an entity's weight is shared out among its chunks."""
    scores: defaultdict[str, float] = defaultdict(float)
    via: defaultdict[str, list[str]] = defaultdict(list)
    counted = f"SELECT count(*) FROM (SELECT 1 FROM mentions WHERE collection = ? AND entity = ? LIMIT {COUNTED})"  # noqa: S608
    for entity, weight in heaviest(weights, 2 * MOST_FOUND):
        degree = connection.execute(counted, (key, entity)).fetchone()[0]
        share = weight / max(1, degree)
        query = "SELECT chunk, name FROM mentions WHERE collection = ? AND entity = ? ORDER BY chunk LIMIT ?"
        for chunk, name in connection.execute(query, (key, entity, MOST_MENTIONS)).fetchall():
            if chunk not in seeds:
                scores[chunk] += share
                via[chunk].append(name)
    return [Expanded(chunk, score, tuple(dict.fromkeys(via[chunk]))) for chunk, score in heaviest(scores, MOST_FOUND)]


def _changed(connection: sqlite3.Connection, key: int) -> None:
    connection.execute("UPDATE collections SET graph = graph + 1 WHERE key = ?", (key,))


def _frozen(connection: sqlite3.Connection, key: int) -> Any:
    def rows(query: str, *names: str) -> list[dict[str, Any]]:
        return [dict(zip(names, row, strict=True)) for row in connection.execute(query, (key,)).fetchall()]

    return frozen(
        rows("SELECT id, name, type FROM entities WHERE collection = ?", "id", "name", "type"),
        rows(
            "SELECT DISTINCT c.id, c.document, c.heading FROM chunks c JOIN mentions m "
            "ON m.collection = c.collection AND m.chunk = c.id WHERE c.collection = ? AND c.state = 1",
            *("id", "document", "heading"),
        ),
        rows("SELECT chunk, entity FROM mentions WHERE collection = ?", "chunk", "entity"),
        rows(
            "SELECT source, kind, target FROM relations WHERE collection = ? GROUP BY source, kind, target",
            *("source", "kind", "target"),
        ),
    )
