"""
Kills an indexing with SIGKILL at every moment it writes, and looks at what the next one makes of it.

`python -m bench.kill_index --moments 100` spreads so many kills over all transactions of an indexing that makes,
changes and removes documents: before one begins, before it is kept, and after. After every kill no document is half
seen; then it is indexed again, and nothing may be lost, doubled or left over.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_libs.atomic.llms import RehearsalLLM
from shared_libs.retrieval import Collection, Document, Stores
from shared_libs.retrieval.stores.sqlite_database import Database
from shared_libs.retrieval.stores.sqlite_documents import SqliteDocuments
from shared_libs.retrieval.stores.sqlite_vectors import SqliteVectors
from shared_libs.retrieval.stores.sqlite_words import SqliteWords

LOADED = ("numpy", "tenacity")
"""Loaded before the forks, so that their time goes into the writing."""

DOCUMENTS = 12
PARAGRAPHS = 25


class Dying(Database):
    """Kills the process at the `at`-th moment."""

    def __init__(self, path: Path, at: int | None = None) -> None:
        super().__init__(path)
        self.at = at
        self.moments = 0

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        self._moment()
        with super().writing() as connection:
            yield connection
            self._moment()
        self._moment()

    def _moment(self) -> None:
        self.moments += 1
        if self.moments == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def documents(version: int) -> list[Document]:
    """Two thirds change with the version, some by a paragraph, some whole."""
    made = []
    for number in range(DOCUMENTS):
        lines = [f"Paragraph {at} of document {number}: " + f"word{number * 31 + at} " * 25 for at in range(PARAGRAPHS)]
        if number % 3 == 1:
            lines[7] = f"Changed in version {version}. " + "change " * 20
        if number % 3 == 2:
            lines = [f"{line} v{version}" for line in lines]
        made.append(Document(source=f"d{number}", text="\n\n".join(lines), title=f"Document {number}"))
    return made


def collection(database: Database) -> Collection:
    """Open what is killed, or looked at afterwards."""
    stores = Stores(SqliteDocuments(database), SqliteVectors(database), SqliteWords(database))
    return Collection("c", tenant="t", stores=stores, embedder=RehearsalLLM("hello"), chunk_tokens=60)


async def work(database: Database, version: int) -> None:
    """Index a version and remove a document."""
    made = collection(database)
    async for _ in made.async_index(documents(version)):
        pass
    await made.async_remove("d0")
    await made.aclose()


async def state(database: Database) -> tuple[dict[str, str], set[str], int, int, list[str]]:
    """Return texts by source, chunk ids that are seen, how many vectors and texts there are, and what is to go."""
    made = collection(database)
    space = made._space  # noqa: SLF001 - the same program
    rows = await made.async_documents()
    texts = {row.source: await made.async_text(row.source) or "" for row in rows}
    seen = {stored.chunk.id: stored for stored in await made.stores.documents.async_seen(space, limit=10_000)}
    for stored in seen.values():
        chunk = stored.chunk
        assert texts[stored.source][chunk.start : chunk.end] == chunk.text, "a chunk is not what stands at its place"
    for row in rows:
        whole = sum(stored.source == row.source for stored in seen.values())
        assert whole == row.chunks, f"{row.source} is half seen: {whole} of {row.chunks}"
    vectors = await made.stores.vectors.async_count(space)
    with database.reading() as connection:
        words = connection.execute("SELECT count(*) FROM texts").fetchone()[0]
        to_go = [id_ for (id_,) in connection.execute("SELECT id FROM chunks WHERE state <> 1").fetchall()]
    await made.aclose()
    return texts, set(seen), vectors, words, to_go


def killed(folder: Path, at: int | None, version: int) -> int:
    """Work in a forked child that dies at a moment; return how many moments there were, 0 where it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        database = Dying(folder / "c.db", at)
        asyncio.run(work(database, version))
        os.write(writer, str(database.moments).encode())
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 20)
    os.close(reader)
    os.waitpid(child, 0)
    return int(told or 0)


def looked_at(folder: Path) -> tuple[dict[str, str], set[str], int, int, list[str]]:
    """Look in a child as well: this process has no threads, so that it can go on forking."""
    import msgspec

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found = asyncio.run(state(Database(folder / "c.db")))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(msgspec.json.encode(found))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        body = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "what was left is not whole"
    texts, seen, vectors, words, to_go = msgspec.json.decode(body)
    return texts, set(seen), vectors, words, to_go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100)
    wanted = parser.parse_args().moments
    for name in LOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        whole.mkdir()
        moments = sum(killed(whole, None, version) for version in (1, 2))
        texts, seen, _, _, _ = looked_at(whole)
        for number in range(wanted):
            at = 1 + number * (moments - 1) // max(1, wanted - 1)
            folder = Path(place) / str(number)
            folder.mkdir()
            first = killed(folder, at, 1)  # dies on the way to the first version, or
            if first:
                killed(folder, at - first, 2)  # to the second
            looked_at(folder)
            killed(folder, None, 2)
            found, chunks, vectors, words, to_go = looked_at(folder)
            assert found == texts, f"moment {at}: documents are lost or others"
            assert chunks == seen, f"moment {at}: chunks are lost or doubled"
            assert (vectors, words, to_go) == (len(seen), len(seen), []), f"moment {at}: something is left over"
    print(f"{wanted} kills over {moments} moments: nothing lost, doubled, left over or half seen")


if __name__ == "__main__":
    main()
