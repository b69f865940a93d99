"""Stores that fail in the middle, are emptied or replaced: nothing stays half, and all of it comes back by itself."""

from __future__ import annotations

import pytest
from aiohttp import web

from shared_libs.atomic.errors import RetrievalError, RetrievalUnavailable
from shared_libs.retrieval import Collection, open_stores
from shared_libs.retrieval.extraction import Extractor
from shared_libs.retrieval.stores.neo4j_graph import in_one_kind
from shared_libs.retrieval.types import Space
from tests.qdrant_server import ENGINE
from tests.support import run
from tests.unit.retrieval.conftest import document, executed, indexed
from tests.unit.retrieval.test_extraction import Reader

LAMP = document("lamp", "The copper lamp is red.")


async def first(collection, question):
    found = await collection.async_retrieve(question)
    return [(hit.source, sorted(hit.scores)) for hit in found.hits[:1]]


@pytest.mark.promise("store-away")
def test_a_file_that_was_put_in_the_place_of_another_is_the_one_that_is_searched(tmp_path, embedder):
    file = tmp_path / "c.db"

    def opened():
        return Collection("c", tenant="t", stores=f"sqlite:///{file}", embedder=embedder)

    async def main():
        serving = opened()
        await indexed(serving, [LAMP, document("old", "An old anchor.")])
        assert await first(serving, "copper lamp")
        for left in tmp_path.iterdir():
            left.unlink()
        indexing = opened()
        await indexed(indexing, [document("new", "A violet harbour."), LAMP])
        assert await first(serving, "violet harbour") == [("new", ["dense", "lexical"])]
        assert await first(serving, "copper lamp") == [("lamp", ["dense", "lexical"])]
        assert await serving.async_text("old") is None
        await indexed(serving, [document("more", "A walnut quill.")])
        assert await first(indexing, "walnut quill") == [("more", ["dense", "lexical"])]
        await serving.aclose()
        await indexing.aclose()

    run(main())


@pytest.mark.promise("store-away")
def test_vectors_that_a_server_has_lost_are_made_again_by_the_next_indexing(tmp_path, embedder, qdrant):
    port, app = qdrant
    stores = open_stores(f"sqlite:///{tmp_path}/c.db", vectors=f"qdrant://127.0.0.1:{port}")
    collection = Collection("c", tenant="t", stores=stores, embedder=embedder)
    documents = [LAMP, document("b", "An anchor in the harbour.")]

    async def main():
        await indexed(collection, documents)
        assert (await indexed(collection, documents)).unchanged == 2
        await app[ENGINE].delete_collection("factory_vectors_64")
        assert await first(collection, "copper lamp") == [("lamp", ["lexical"])]
        with pytest.raises(RetrievalError, match="404"):
            await indexed(collection, documents)
        again = await indexed(collection, documents)
        assert (again.embedded, again.unchanged, again.failed) == (2, 0, 0)
        assert await first(collection, "copper lamp") == [("lamp", ["dense", "lexical"])]
        assert (await indexed(collection, documents)).unchanged == 2
        await collection.aclose()

    run(main())


@pytest.mark.promise("store-away")
def test_a_collection_that_could_not_be_dropped_is_whole(file_url, embedder, qdrant):
    stores = open_stores(file_url, vectors=f"qdrant://127.0.0.1:{qdrant[0]}")
    away = open_stores(file_url, vectors="qdrant://127.0.0.1:9")

    async def main():
        collection = Collection("c", tenant="t", stores=stores, embedder=embedder)
        await indexed(collection, [LAMP])
        with pytest.raises(RetrievalUnavailable):
            await Collection("c", tenant="t", stores=away, embedder=embedder).async_drop()
        assert await first(collection, "copper lamp") == [("lamp", ["dense", "lexical"])]
        assert await collection.async_drop()
        await collection.aclose()
        await away.aclose()

    run(main())


class Remover(Reader):
    """Has a document removed while it is being read."""

    collection = None

    async def _chat(self, messages, tools, **options):
        answer = await super()._chat(messages, tools, **options)
        await self.collection.async_remove("gone")
        return answer


@pytest.mark.promise("graph-forgets")
def test_what_was_read_of_a_document_that_went_meanwhile_is_not_kept(file_url, embedder):
    reader = Remover()
    collection = Collection("c", tenant="t", stores=file_url, embedder=embedder, extractor=Extractor([reader]))
    reader.collection = collection

    async def main():
        await indexed(collection, [document("gone", "Copper Lamp was here."), document("kept", "Violet Harbour is.")])
        *_, last = [progress async for progress in collection.async_extract()]
        assert last.failed == 0
        graph, space = collection.stores.graph, collection._space
        assert await graph.async_expand(space, "Where is the Copper lamp?", []) == []
        assert len(await graph.async_expand(space, "Where is the Violet one?", [])) == 1
        await collection.aclose()

    run(main())


@pytest.mark.promise("store-away")
@pytest.mark.xdist_group("postgres-retrieval")
def test_a_server_that_only_reads_for_a_while_or_is_emptied_comes_back(postgres_url, embedder):
    collection = Collection("c", tenant="t", stores=postgres_url, embedder=embedder)
    every = "(SELECT string_agg(tablename, ', ') FROM pg_tables WHERE tablename LIKE 'factory\\_%')"
    emptied = f"DO $$ BEGIN EXECUTE 'DROP TABLE ' || {every}; END $$"

    async def main():
        await indexed(collection, [document("a", "A walnut.")])
        async with collection.stores.documents._database.reading() as connection:
            await connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(RetrievalUnavailable, match="read-only"):
            await indexed(collection, [LAMP])
        await indexed(collection, [LAMP])
        assert await first(collection, "copper lamp") == [("lamp", ["dense", "lexical"])]
        await executed(postgres_url, emptied)
        with pytest.raises(RetrievalError):
            await indexed(collection, [LAMP])
        await indexed(collection, [LAMP])
        assert await first(collection, "copper lamp") == [("lamp", ["dense", "lexical"])]
        await collection.aclose()

    run(main())


DISK = b'{"status": {"error": "Service internal error: No space left on device"}, "time": 0}'
QDRANTS = [
    (507, DISK, RetrievalUnavailable, "answered 507: Service internal error: No space left on device$"),
    (500, b"<html>down</html>", RetrievalUnavailable, "answered 500$"),
    (429, b'{"status": {"error": "Rate limit"}}', RetrievalUnavailable, "answered 429: Rate limit"),
    (429, b"slow down", RetrievalUnavailable, "answered 429"),
    (408, b'{"status": {"error": "Timeout"}}', RetrievalUnavailable, "answered 408: Timeout"),
    (
        403,
        b'{"status": {"error": "Write access required"}}',
        RetrievalError,
        "required; it refuses the key",
    ),
    (200, b"<html>sign in</html>", RetrievalUnavailable, "no Qdrant says"),
    (200, b"", RetrievalUnavailable, "no Qdrant says"),
    (200, b'{"result": null}', RetrievalUnavailable, "no Qdrant says"),
    (400, b'{"status": {"error": "Strict mode"}}', RetrievalError, "answered 400: Strict mode"),
    (400, b'["odd"]', RetrievalError, "answered 400: ."),
]


@pytest.mark.promise("store-away")
def test_what_a_vector_server_or_a_proxy_before_it_refuses_is_one_sentence():
    async def answer(request):
        status, body, *_ = row
        return web.Response(status=status, body=body, headers={"Retry-After": "1"} if b"Rate" in body else {})

    async def main():
        nonlocal row
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        vectors = open_stores(vectors=f"qdrant://127.0.0.1:{runner.addresses[0][1]}").vectors
        for row in QDRANTS:
            with pytest.raises(RetrievalError, match=row[3]) as told:
                await vectors.async_count(Space(tenant="t", collection="c"))
            assert type(told.value) is row[2], row
        await vectors.aclose()
        await runner.cleanup()

    row = ()
    run(main())


def test_what_passes_on_a_server_of_graphs_is_unavailable_and_the_rest_is_told():
    known = pytest.importorskip("neo4j.exceptions")
    passes = [
        *(known.SessionExpired("cut"), known.IncompleteCommit("cut"), known.DatabaseError("full"), OSError("cut")),
        *(known.NotALeader("follower"), known.ForbiddenOnReadOnlyDatabase("reads"), known.DatabaseUnavailable("away")),
        *(known.ServiceUnavailable(""), known.ConnectionAcquisitionTimeoutError("none free")),
    ]
    for error in passes:
        assert type(in_one_kind("g", error)) is RetrievalUnavailable, error
    for error in (known.AuthError("no"), known.Forbidden("no"), known.CypherSyntaxError("no"), known.ClientError("no")):
        assert type(in_one_kind("g", error)) is RetrievalError, error
