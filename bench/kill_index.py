"""
Kills an indexing with SIGKILL at every moment it writes, and looks at what the next one makes of it.

`python -m bench.kill_index --moments 100` spreads so many kills over all transactions of an indexing that makes,
changes and removes documents: before one begins, before it is kept, and after. After every kill no document is half
seen; then it is indexed again, and nothing may be lost, doubled or left over. With `--postgres` the same on a server,
one of its own if none is named.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from shared_libs.atomic.llms import RehearsalLLM
from shared_libs.retrieval import Collection, Document, Stores
from shared_libs.retrieval.stores.postgres_database import PostgresDatabase
from shared_libs.retrieval.stores.postgres_documents import PostgresDocuments
from shared_libs.retrieval.stores.postgres_vectors import PostgresVectors
from shared_libs.retrieval.stores.postgres_words import PostgresWords
from shared_libs.retrieval.stores.sqlite_database import Database
from shared_libs.retrieval.stores.sqlite_documents import SqliteDocuments
from shared_libs.retrieval.stores.sqlite_vectors import SqliteVectors
from shared_libs.retrieval.stores.sqlite_words import SqliteWords

LOADED = ("numpy", "tenacity", "asyncpg")
"""Loaded before the forks, so that their time goes into the writing."""

PARAGRAPHS = 25


class Place(NamedTuple):
    """Where it is indexed: a file or a server, the name of the collection, and how many documents it has."""

    url: str
    name: str
    documents: int


class Moments:
    """Kills the process at the `at`-th moment."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.count = 0

    def pass_one(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingFile(Database):
    def __init__(self, path: Path, moments: Moments) -> None:
        super().__init__(path)
        self._moments = moments

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        self._moments.pass_one()
        with super().writing() as connection:
            yield connection
            self._moments.pass_one()
        self._moments.pass_one()


class DyingServer(PostgresDatabase):
    def __init__(self, url: str, moments: Moments) -> None:
        super().__init__(url)
        self._moments = moments

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        self._moments.pass_one()
        async with super().connection() as connection:
            yield connection
            self._moments.pass_one()
        self._moments.pass_one()


def documents(version: int, count: int) -> list[Document]:
    """Two thirds change with the version, some by a paragraph, some whole."""
    made = []
    for number in range(count):
        lines = [f"Paragraph {at} of document {number}: " + f"word{number * 31 + at} " * 25 for at in range(PARAGRAPHS)]
        if number % 3 == 1:
            lines[7] = f"Changed in version {version}. " + "change " * 20
        if number % 3 == 2:
            lines = [f"{line} v{version}" for line in lines]
        made.append(Document(source=f"d{number}", text="\n\n".join(lines), title=f"Document {number}"))
    return made


def collection(place: Place, moments: Moments | None = None) -> Collection:
    """Open what is killed, or looked at afterwards."""
    moments = moments or Moments(None)
    if place.url.startswith("sqlite"):
        file = DyingFile(Path(place.url.removeprefix("sqlite:///")), moments)
        stores = Stores(SqliteDocuments(file), SqliteVectors(file), SqliteWords(file))
    else:
        server = DyingServer(place.url, moments)
        stores = Stores(PostgresDocuments(server), PostgresVectors(server), PostgresWords(server))
    return Collection(place.name, tenant="t", stores=stores, embedder=RehearsalLLM("hello"), chunk_tokens=60)


async def work(place: Place, moments: Moments, version: int) -> None:
    """Index a version and remove a document."""
    made = collection(place, moments)
    async for _ in made.async_index(documents(version, place.documents)):
        pass
    await made.async_remove("d0")
    await made.aclose()


async def left(place: Place) -> tuple[int, list[str]]:
    """Return how many texts there are, and which chunks are to go, straight from the tables."""
    if place.url.startswith("sqlite"):
        with Database(Path(place.url.removeprefix("sqlite:///"))).reading() as connection:
            words = connection.execute("SELECT count(*) FROM texts").fetchone()[0]
            return words, [id_ for (id_,) in connection.execute("SELECT id FROM chunks WHERE state <> 1").fetchall()]
    server = await asyncpg.connect(place.url)
    mine = "collection = (SELECT key FROM factory_collections WHERE name = $1)"
    words = await server.fetchval(f"SELECT count(*) FROM factory_texts WHERE {mine}", place.name)
    query = f"SELECT id FROM factory_chunks WHERE {mine} AND state <> 1"
    to_go = [row["id"] for row in await server.fetch(query, place.name)]
    await server.close()
    return words, to_go


async def state(place: Place) -> tuple[dict[str, str], set[str], int, int, list[str]]:
    """Return texts by source, chunk ids that are seen, how many vectors and texts there are, and what is to go."""
    made = collection(place)
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
    words, to_go = await left(place)
    await made.aclose()
    return texts, set(seen), vectors, words, to_go


def killed(place: Place, at: int | None, version: int) -> int:
    """Work in a forked child that dies at a moment; return how many moments there were, 0 where it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        moments = Moments(at)
        asyncio.run(work(place, moments, version))
        os.write(writer, str(moments.count).encode())
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 20)
    os.close(reader)
    os.waitpid(child, 0)
    return int(told or 0)


def looked_at(place: Place) -> tuple[dict[str, str], set[str], int, int, list[str]]:
    """Look in a child as well: this process has no threads, so that it can go on forking."""
    import msgspec

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found = asyncio.run(state(place))
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


def tried(places: Iterator[Place], wanted: int) -> None:
    """Kill at so many moments, and compare with what was never killed."""
    whole = next(places)
    moments = sum(killed(whole, None, version) for version in (1, 2))
    texts, seen, _, _, _ = looked_at(whole)
    for number in range(wanted):
        at = 1 + number * (moments - 1) // max(1, wanted - 1)
        place = next(places)
        first = killed(place, at, 1)  # dies on the way to the first version, or
        if first:
            killed(place, at - first, 2)  # to the second
        looked_at(place)
        killed(place, None, 2)
        found, chunks, vectors, words, to_go = looked_at(place)
        assert found == texts, f"moment {at}: documents are lost or others"
        assert chunks == seen, f"moment {at}: chunks are lost or doubled"
        assert (vectors, words, to_go) == (len(seen), len(seen), []), f"moment {at}: something is left over"
    print(f"{wanted} kills over {moments} moments: nothing lost, doubled, left over or half seen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--postgres", nargs="?", const="", metavar="URL")
    given = parser.parse_args()
    for name in LOADED:
        importlib.import_module(name)
    with ExitStack() as stack:
        if given.postgres is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            places = (Place(f"sqlite:///{folder}/{at}.db", "c", given.documents) for at in count())
        else:
            url = given.postgres
            if not url:
                from tests.postgres import running_postgres

                url = f"postgresql://owner@{stack.enter_context(running_postgres()).place}"
            places = (Place(url, f"c{at}", given.documents) for at in count())
        tried(places, given.moments)


if __name__ == "__main__":
    main()
