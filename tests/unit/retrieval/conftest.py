"""Collections for the tests: in a file of their own, embedded by words, so that nothing has to be installed."""

from __future__ import annotations

import asyncio
import threading

import asyncpg
import numpy as np
import pytest
from aiohttp import web

from shared_libs.atomic import BaseLLMWrapper
from shared_libs.atomic.llms.rehearsal_llm import rehearsed_vectors
from shared_libs.retrieval import Collection, Document
from shared_libs.retrieval.stores import open_stores
from shared_libs.retrieval.stores.postgres_database import PostgresDatabase
from shared_libs.retrieval.stores.postgres_documents import PostgresDocuments
from shared_libs.retrieval.stores.postgres_vectors import PostgresVectors
from shared_libs.retrieval.stores.sqlite_database import Database
from shared_libs.retrieval.stores.sqlite_documents import SqliteDocuments
from shared_libs.retrieval.stores.sqlite_vectors import SqliteVectors
from shared_libs.retrieval.stores.sqlite_words import SqliteWords
from shared_libs.retrieval.types import Point, Space
from tests.postgres import own_name
from tests.qdrant_server import application
from tests.support import run


class CountingEmbedder(BaseLLMWrapper):
    """Embeds by words, counts what it is asked, and refuses texts that hold `refused`."""

    provider = "counting"

    def __init__(self, model="letters", dimensions=64, refused="<none>", **more):
        super().__init__(model, **more)
        self.dimensions = dimensions
        self.refused = refused
        self.texts = []

    async def _embed(self, texts, **options):
        self.texts += texts
        if any(self.refused in text for text in texts):
            raise self.refusal()
        return rehearsed_vectors(texts, options.get("dimensions", self.dimensions))

    def refusal(self):
        from shared_libs.atomic.errors import BadRequest

        return BadRequest(f"the text holds {self.refused}")


class BadEmbedder(CountingEmbedder):
    """Gives what is wrong, once it has told its dimensions."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    async def _embed(self, texts, **options):
        vectors = await super()._embed(texts)
        if texts == ["dimensions"]:
            return vectors
        if self.how == "one less":
            return vectors[:-1]
        if self.how == "narrower":
            return vectors[:, :-1]
        if self.how == "not a number":
            vectors[0, 0] = np.nan
        return WRONG[self.how](vectors) if self.how in WRONG else vectors


WRONG = {
    "nothing": lambda vectors: None,
    "a text": lambda vectors: "no such model",
    "words": lambda vectors: [["a"] * len(row) for row in vectors],
    "no numbers": lambda vectors: [[None] * len(row) for row in vectors],
    "an answer": lambda vectors: {"data": vectors},
    "twice": lambda vectors: [*vectors, *vectors],
    "none": lambda vectors: [],
    "too large": lambda vectors: (np.abs(vectors.astype("f8")) + 1) * 1e300,
    "objects": lambda vectors: [object() for _ in vectors],
}
"""What a wrapper of one's own may give instead of embeddings."""


@pytest.fixture(scope="session")
def _retrieval_database(postgres):
    database = own_name("retrieval")
    asyncio.run(executed(f"postgresql://owner@{postgres}", f"CREATE DATABASE {database}"))
    return f"postgresql://owner@{postgres.replace('/postgres?', f'/{database}?', 1)}"


@pytest.fixture
def postgres_url(_retrieval_database):
    """A database for collections on the real server, empty for every test; to empty what is empty costs the most."""
    empty = (
        "DO $$ DECLARE name text; filled bool; "
        "BEGIN FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'factory\\_%' "
        "AND tablename <> 'factory_retrieval_form' "
        "LOOP EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO filled; "
        "IF filled THEN EXECUTE 'TRUNCATE ' || name; END IF; END LOOP; END $$"
    )
    asyncio.run(executed(_retrieval_database, empty))
    return _retrieval_database


async def executed(url, statement):
    server = await asyncpg.connect(url)
    await server.execute(statement)
    await server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres-retrieval"))])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/collections.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def file_url(tmp_path):
    """Where there is a graph store, too."""
    return f"sqlite:///{tmp_path}/collections.db"


@pytest.fixture
def embedder():
    return CountingEmbedder()


@pytest.fixture
def collection(url, embedder):
    return Collection("manual", tenant="acme", stores=url, embedder=embedder)


@pytest.fixture
def qdrant():
    """A server of Qdrant's REST, in a thread with a loop of its own."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    app = application()
    runner = web.AppRunner(app)
    place = []

    async def start():
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        place.append(runner.addresses[0][1])
        started.set()

    def serve():
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert started.wait(30)
    yield place[0], app
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


def document(source, *paragraphs, **metadata):
    return Document(source=source, text="\n\n".join(paragraphs), title=source, metadata=metadata)


WORDS = [
    "river",
    "stone",
    "lamp",
    "orchard",
    "copper",
    "violet",
    "anchor",
    "meadow",
    "thistle",
    "ember",
    "harbour",
    "quill",
    "saddle",
    "walnut",
    "pepper",
]


def filler(count, seed=0):
    """Paragraphs that differ, of twenty words each."""

    def word(at, place):
        return f"{WORDS[(seed + at * 7 + place * (at + 3)) % len(WORDS)]}{(at * 31 + place) % 97}"

    return [" ".join(word(at, place) for place in range(20)) + "." for at in range(count)]


async def indexed(collection, documents):
    """Index to the end, and return the last progress."""
    *_, last = [progress async for progress in collection.async_index(documents)]
    assert last.finished
    return last


OURS, THEIRS = Space(tenant="acme", collection="c"), Space(tenant="globex", collection="c")


def on_postgres(request):
    return open_stores(request.getfixturevalue("postgres_url"))


async def both_made(documents):
    for space in (OURS, THEIRS):
        await documents.async_create(space, None)


def unit(count, width=16, seed=1):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ON_POSTGRES = pytest.param("postgres", marks=pytest.mark.xdist_group("postgres-retrieval"))


BY_INDEX = pytest.param("postgres by index", marks=pytest.mark.xdist_group("postgres-retrieval"))


@pytest.fixture(params=["coarse", "exact", ON_POSTGRES, BY_INDEX, "qdrant", "qdrant folder"])
def vectors(request, tmp_path):
    if request.param == "qdrant folder":
        yield (vectors := open_stores(vectors=f"qdrant://{tmp_path}/qdrant").vectors)
        run(vectors.aclose())
    elif request.param == "qdrant":
        yield open_stores(vectors=f"qdrant://127.0.0.1:{request.getfixturevalue('qdrant')[0]}").vectors
    elif request.param == "postgres":
        stores = on_postgres(request)
        run(both_made(stores.documents))
        yield stores.vectors
    elif request.param == "postgres by index":
        server = PostgresDatabase(request.getfixturevalue("postgres_url"))
        run(both_made(PostgresDocuments(server)))
        yield PostgresVectors(server, few=0, indexed_from=1)
    else:
        database = Database(tmp_path / "c.db")
        run(both_made(SqliteDocuments(database)))
        yield SqliteVectors(database, coarse=request.param == "coarse")


@pytest.fixture(params=["fts5", ON_POSTGRES])
def words(request, tmp_path):
    if request.param == "postgres":
        stores = on_postgres(request)
        run(both_made(stores.documents))
        return stores.words
    database = Database(tmp_path / "c.db")
    run(both_made(SqliteDocuments(database)))
    return SqliteWords(database)


def points(rows, **metadata):
    return [Point(f"p{at:04}", row, metadata | {"n": at}) for at, row in enumerate(rows)]


def exact(rows, wanted, k, chosen=None):
    scores = rows @ (wanted / np.linalg.norm(wanted))
    ids = range(len(rows)) if chosen is None else chosen
    return [f"p{at:04}" for at in sorted(ids, key=lambda at: (-scores[at], at))[:k]]
