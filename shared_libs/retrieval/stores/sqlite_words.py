"""Words in SQLite's FTS5: nothing to install, at its best up to some ten thousand chunks."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import msgspec

from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.ports import POOL, LexicalIndex
from shared_libs.retrieval.stores.sqlite_database import Database, marks
from shared_libs.retrieval.stores.sqlite_documents import collection_key
from shared_libs.retrieval.types import Found, Space, Words
from shared_libs.retrieval.words import MOST_COUNTED, Asked, terms

EQUALS = 200
"""Hits that weigh as much as the last one that is asked for, among which the ids decide."""


class SqliteWords(LexicalIndex):
    """
    A full-text table of its own for each collection, so that no tenant's texts weigh the words of another's.

    Ranked by BM25.
    """

    def __init__(self, database: Database) -> None:
        self.name = f"lexical index {database.path.name}"
        self._database = database

    async def aclose(self) -> None:
        """Close the idle connections of the file."""
        await POOL.submit(self._database.close, {}).result()  # the last one writes to the disk

    def _upsert(self, space: Space, texts: list[Words]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is None:
                return
            table = _table(connection, key)
            for text in texts:
                _delete(connection, table, key, [text.id])
                words = " ".join(terms(text.text))
                metadata = msgspec.json.encode(dict(text.metadata)).decode()
                insert = "INSERT INTO texts (collection, id, words, metadata) VALUES (?, ?, ?, ?) RETURNING rowid"
                (rowid,) = connection.execute(insert, (key, text.id, words, metadata)).fetchone()
                connection.execute(f"INSERT INTO {table} (rowid, words) VALUES (?, ?)", (rowid, words))  # noqa: S608

    def _search(self, space: Space, text: str, k: int, where: Where) -> list[Found]:
        asked = Asked(text)
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            if key is None or not _exists(connection, f"fts_{key}"):
                return []
            table = f"fts_{key}"
            wanted = asked.rarest(_counted(connection, table, asked.terms))
            if not wanted:
                return []
            match = " OR ".join(f'"{term}"' for term in wanted)  # a term has no quotes: it is letters and digits
            fits, values = _compiled(where)
            best = f"SELECT rowid, rank FROM {table} WHERE {table} MATCH ?"  # noqa: S608 - our own name
            if not where:  # the best are known before their texts are looked up, but for what is equal to the last
                best, values = f"{best} ORDER BY rank LIMIT ?", [k + EQUALS]
            query = (
                f"SELECT t.id, f.rank FROM ({best}) f JOIN texts t ON t.rowid = f.rowid WHERE TRUE{fits} "  # noqa: S608
                "ORDER BY f.rank, t.id LIMIT ?"
            )
            rows = connection.execute(query, (match, *values, k)).fetchall()
            return [Found(id_, -rank) for id_, rank in rows]

    def _delete(self, space: Space, ids: list[str]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is not None and _exists(connection, f"fts_{key}"):
                _delete(connection, f"fts_{key}", key, ids)

    def _drop(self, space: Space) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is not None:
                connection.execute("DELETE FROM texts WHERE collection = ?", (key,))
                for table in (f"fts_{key}_terms", f"fts_{key}"):  # the first is of earlier versions
                    connection.execute(f"DROP TABLE IF EXISTS {table}")


def _table(connection: sqlite3.Connection, key: int) -> str:
    table = f"fts_{key}"  # a number of ours: no name of a user is ever part of a statement
    if not _exists(connection, table):
        connection.execute(
            f"CREATE VIRTUAL TABLE {table} USING fts5(words, content='', tokenize='unicode61 remove_diacritics 0')"
        )
    return table


def _exists(connection: sqlite3.Connection, table: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (table,)).fetchone() is not None


def _delete(connection: sqlite3.Connection, table: str, key: int, ids: list[str]) -> None:
    for id_ in ids:
        there = "SELECT rowid, words FROM texts WHERE collection = ? AND id = ?"
        row = connection.execute(there, (key, id_)).fetchone()
        if row is not None:
            # a table without content of its own has to be told what it forgets
            connection.execute(f"INSERT INTO {table} ({table}, rowid, words) VALUES ('delete', ?, ?)", row)  # noqa: S608
            connection.execute("DELETE FROM texts WHERE rowid = ?", (row[0],))


def _counted(connection: sqlite3.Connection, table: str, asked: list[str]) -> dict[str, int]:
    """Return in how many texts each term stands: by the table itself, which knows what it makes of a term."""
    query = (
        f"SELECT value, (SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH '\"' || value || '\"' "  # noqa: S608
        "LIMIT ?)) FROM json_each(?)"
    )
    return dict(connection.execute(query, (MOST_COUNTED, json.dumps(asked))).fetchall())


def _compiled(where: Where) -> tuple[str, list[Any]]:
    """Return the conditions of a filter on `t.metadata`, and their parameters; keys and values are parameters too."""
    text, values = "", []
    for condition in where:
        if condition.kind == "chunk":
            text += " AND t.id IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(list(condition.values)))
            continue
        path = f'$."{condition.key}"'
        if condition.kind == "in":
            tests = []
            for wanted in condition.values:
                kinds = _kinds(wanted)
                tests.append(f"(json_type(t.metadata, ?) IN ({marks(len(kinds))}) AND json_extract(t.metadata, ?) = ?)")
                values += [path, *kinds, path, wanted]
            test = f"({' OR '.join(tests) or 'FALSE'})"
        else:
            ends = [(sign, end) for sign, end in zip((">=", "<="), condition.values, strict=True) if end is not None]
            parts = []
            for sign, end in ends:
                kinds = _kinds(end)
                parts.append(f"json_type(t.metadata, ?) IN ({marks(len(kinds))})")
                parts.append(f"json_extract(t.metadata, ?) {sign} ?")
                values += [path, *kinds, path, end]
            test = f"({' AND '.join(parts)})"
        present = "json_type(t.metadata, ?) IS NOT NULL"
        text += f" AND {test}" if not condition.negated else f" AND NOT COALESCE({test}, FALSE) AND {present}"
        values += [path] if condition.negated else []
    return text, values


def _kinds(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("true",) if value else ("false",)
    return ("text",) if isinstance(value, str) else ("integer", "real")
