"""
Words in PostgreSQL: its full-text index over our own terms, so that every language is found as elsewhere.

The server's parsers leave out what its locale knows no letters of; terms come from `words` instead. Rank
is how often a term stands in a text and how rare it is, term by term; the server's own rank knows nothing of rarity.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.ports import POOL, LexicalIndex
from shared_libs.retrieval.stores.postgres_database import (
    PostgresDatabase,
    collection_key,
    compiled,
    merge_put_off,
    once,
)
from shared_libs.retrieval.types import Found, Space, Words
from shared_libs.retrieval.words import MOST_COUNTED, Asked, leading, terms

MOST_POSITIONS = 16_383
"""What a tsvector can number."""


class PostgresWords(LexicalIndex):
    """Keeps the terms of texts in a PostgreSQL database, behind a GIN index."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.name = f"lexical index {database.place}"
        self._database = database

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        await self._database.aclose()

    async def _tidy(self) -> None:
        async with self._database.reading() as connection:
            await merge_put_off(connection, "factory_texts_by_word")

    async def _upsert(self, space: Space, texts: list[Words]) -> None:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            if key is None:
                return
            rows = await POOL.submit(lambda: [(key, *_row(text)) for text in _last(texts)], {}).result()
            await connection.executemany(
                "INSERT INTO factory_texts VALUES ($1, $2, $3::text::tsvector, $4::text::jsonb) "
                "ON CONFLICT (collection, id) DO UPDATE SET words = excluded.words, metadata = excluded.metadata",
                rows,
            )

    async def _search(self, space: Space, text: str, k: int, where: Where) -> list[Found]:
        asked = Asked(text)
        if not asked.terms:
            return []
        async with self._database.reading() as connection:
            key = await collection_key(connection, space)
            if key is None:
                return []
            counted = await connection.fetch(
                "SELECT t.term, (SELECT count(*) FROM (SELECT 1 FROM factory_texts f WHERE f.collection = $1 "
                f"AND f.words @@ t.asked LIMIT {MOST_COUNTED}) AS few) AS texts "
                "FROM (SELECT w AS term, w::tsquery AS asked FROM unnest($2::text[]) AS w OFFSET 0) AS t",
                key,
                asked.terms,
            )
            texts = {row["term"]: row["texts"] for row in counted}
            wanted = asked.rarest(texts)
            if not wanted:
                return []
            first = leading(wanted, texts)
            values: list[Any] = [key, k, " | ".join(first)]
            parts = []
            for term in wanted:
                values += [term, math.log(1 + MOST_COUNTED / texts[term])]
                at = len(values)
                # 1: divided by the logarithm of the text's length
                parts.append(f"${at}::float8 * ts_rank(words, {once(f'${at - 1}::text::tsquery')}, 1)")
            query = (
                f"SELECT id, {' + '.join(parts)} AS score FROM factory_texts "
                f"WHERE collection = $1 AND words @@ {once('$3::text::tsquery')}{compiled(where, values)} "
                "ORDER BY score DESC, id LIMIT $2"
            )
            rows = await connection.fetch(query, *values)
            if len(rows) < k and len(first) < len(wanted):
                values[2] = " | ".join(wanted)
                rows = await connection.fetch(query, *values)
            return [Found(row["id"], float(row["score"])) for row in rows]

    async def _delete(self, space: Space, ids: list[str]) -> None:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            query = "DELETE FROM factory_texts WHERE collection = $1 AND id = ANY ($2)"
            await connection.execute(query, key, ids)

    async def _drop(self, space: Space) -> None:
        async with self._database.connection() as connection:
            key = await collection_key(connection, space)
            await connection.execute("DELETE FROM factory_texts WHERE collection = $1", key)


def _last(texts: list[Words]) -> list[Words]:
    """Return the last text of each id, by id: so two writers wait for each other in one order."""
    last = {text.id: text for text in texts}
    return [last[id_] for id_ in sorted(last)]


def _row(text: Words) -> tuple[str, str, str]:
    """Return what is written of a text: one string each, since lists are encoded on the loop, term by term."""
    placed = (f"{term}:{min(at, MOST_POSITIONS)}" for at, term in enumerate(terms(text.text), 1))
    return text.id, " ".join(placed), msgspec.json.encode(dict(text.metadata)).decode()
