"""Indexing: once, in part, anew, away; and what an embedder or a document gets wrong."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import AuthenticationFailed, RetrievalError
from shared_libs.retrieval import Collection, Document
from shared_libs.retrieval.types import Space
from tests.support import run
from tests.unit.retrieval.conftest import WRONG, BadEmbedder, CountingEmbedder, document, filler, indexed


async def found(collection, question, **options):
    return [hit.source for hit in (await collection.async_retrieve(question, **options)).hits]


@pytest.mark.promise("index-once")
def test_indexing_again_costs_nothing_and_doubles_nothing(collection, embedder):
    documents = [document(f"d{at}", *filler(12, at), part=at) for at in range(20)]

    async def main():
        first = await indexed(collection, documents)
        before, asked = await collection.async_describe(), len(embedder.texts)
        again = await indexed(collection, documents)
        assert (again.unchanged, again.embedded, again.failed) == (20, 0, 0)
        assert await collection.async_describe() == before
        assert before.chunks == first.embedded
        assert len(embedder.texts) == asked

    run(main())


@pytest.mark.promise("index-once")
def test_an_edit_costs_its_own_chunks(collection, embedder):
    paragraphs = filler(1_000)

    async def main():
        first = await indexed(collection, [document("d", *paragraphs)])
        paragraphs[400] = "Something else stands here now, about marmalade."
        second = await indexed(collection, [document("d", *paragraphs)])
        assert second.embedded <= 4 < first.embedded
        assert second.reused >= first.embedded - 4
        assert sum("marmalade" in hit.text for hit in (await collection.async_search("marmalade")).hits) == 1
        third = await indexed(collection, [document("d", *paragraphs, year=2024)])
        assert third.embedded == 0
        assert await found(collection, "marmalade", where={"year": 2024}) != []
        assert await found(collection, "marmalade", where={"year": 2023}) == []

    run(main())


@pytest.mark.promise("index-partial")
def test_a_chunk_that_fails_costs_only_itself_and_is_done_later(collection, embedder):
    paragraphs = filler(120)
    paragraphs[57] += " Unspeakable."
    embedder.refused = "Unspeakable"

    async def main():
        first = await indexed(collection, [document("d", *paragraphs), document("e", "Fine.")])
        assert first.failed == 1
        assert "1 of" in first.problems[0]
        assert "Unspeakable" in first.problems[0]
        row = await collection.async_document("d")
        assert (row.state, row.failed) == ("partial", 1)
        assert row.chunks == first.embedded - 1
        assert await found(collection, paragraphs[3], k=1) == ["d"]
        embedder.refused, embedder.texts = "<none>", []
        second = await indexed(collection, [document("d", *paragraphs), document("e", "Fine.")])
        assert (second.embedded, second.unchanged) == (1, 1)
        assert len(embedder.texts) == 1
        assert (await collection.async_document("d")).state == "indexed"

    run(main())


@pytest.mark.promise("index-partial")
def test_a_document_that_cannot_be_read_loses_no_other(collection):
    class Broken:
        source = "broken"

        def load(self):
            raise OSError("the disk is gone")

    async def main():
        last = await indexed(collection, [document("a", "One."), Broken(), document("b", "Two.", **{"bad key": 1})])
        assert (last.documents_done, last.failed) == (3, 2)
        assert "broken: not indexed: OSError: the disk is gone" in last.problems
        assert await found(collection, "One") == ["a"]

    run(main())


@pytest.mark.promise("index-embedder-checked")
@pytest.mark.parametrize("how", ["one less", "not a number", *WRONG])
def test_wrong_embeddings_are_never_stored(url, how):
    async def main():
        collection = Collection("c", tenant="t", stores=url, embedder=BadEmbedder(how))
        last = await indexed(collection, [document("d", *filler(30))])
        assert last.embedded == 0
        assert (await collection.async_document("d")).state == "partial"
        space = collection._space
        assert await collection.stores.vectors.async_count(space) == 0
        assert await collection.async_describe() is not None

    run(main())


@pytest.mark.promise("index-model-change")
def test_a_model_whose_vectors_have_become_longer_costs_no_document_its_passages(file_url, embedder):
    async def main():
        collection = Collection("c", tenant="t", stores=file_url, embedder=embedder)
        await indexed(collection, [document("a", "The pelican is blue.")])
        asked = CountingEmbedder(options={"dimensions": 32, "temperature": 0.0})
        with pytest.raises(MisuseError, match=r"\(64 dimensions\), and this is counting/letters \(32 dimensions\)"):
            await Collection("c", tenant="t", stores=file_url, embedder=asked).async_search("pelican")
        short = Collection("short", tenant="t", stores=file_url, embedder=asked)
        await indexed(short, [document("a", "The pelican is blue.")])
        assert (await short.async_describe()).embedder.dimensions == 32
        embedder.dimensions = 128
        with pytest.raises(MisuseError, match=r"vectors of 128 numbers.*those of 64.*--rebuild"):
            await indexed(collection, [document("a", "The pelican is grey."), document("b", "The ibis is red.")])
        answer = await collection.async_search("pelican")
        assert [hit.text for hit in answer.hits] == ["The pelican is blue."]
        assert answer.notes == ("dense: failed: collection 'c' holds vectors of 64 numbers, not 128",)
        assert [progress async for progress in collection.async_rebuild()][-1].finished
        await indexed(collection, [document("a", "The pelican is grey.")])
        assert await found(collection, "pelican grey") == ["a"]

    run(main())


def test_an_embedder_that_is_down_ends_the_indexing_and_keeps_what_was_done(url, embedder):
    collection = Collection("c", tenant="t", stores=url, embedder=embedder)
    embedder.refusal = lambda: AuthenticationFailed("no such key")

    async def main():
        documents = [document(f"d{at}", *filler(60, at)) for at in range(10)]
        documents[6] = document("d6", "Secret.")
        embedder.refused = "Secret"
        with pytest.raises(AuthenticationFailed):
            await indexed(collection, documents)
        embedder.refused = "<none>"
        last = await indexed(collection, documents)
        assert last.failed == 0
        assert (await collection.async_describe()).documents == 10

    run(main())


@pytest.mark.promise("index-delete")
def test_what_is_removed_or_replaced_is_found_no_more(collection):
    async def main():
        await indexed(collection, [document("a", "The pelican is blue."), document("b", "The ibis is red.")])
        assert await found(collection, "pelican", k=1) == ["a"]
        await indexed(collection, [document("a", "The heron is grey.")])
        assert all("pelican" not in hit.text for hit in (await collection.async_search("pelican blue")).hits)
        assert await collection.async_remove("b")
        assert not await collection.async_remove("b")
        assert "b" not in await found(collection, "ibis red")
        space = collection._space
        assert await collection.stores.vectors.async_count(space) == 1
        assert await collection.stores.documents.async_doomed(space) == []
        assert await collection.async_text("b") is None
        await indexed(collection, [document("b", "The ibis is red.")])  # a namesake comes back
        assert await found(collection, "ibis red", k=1) == ["b"]
        assert await collection.async_drop()
        assert await collection.async_describe() is None
        with pytest.raises(MisuseError, match="factory index"):
            await collection.async_search("ibis")

    run(main())


@pytest.mark.promise("index-delete")
def test_a_document_that_another_is_just_removing_costs_no_other(collection):
    one, two = document("a", *filler(2)), document("b", *filler(2, 9))
    documents, space = collection.stores.documents, collection._space

    async def meanwhile():
        await documents.async_remove(space, one.id)
        assert await documents.async_doomed(space)
        yield one
        yield two

    async def main():
        await indexed(collection, [one])
        last = await indexed(collection, meanwhile())
        assert (last.failed, [problem[:2] for problem in last.problems]) == (1, ["a:"])
        assert [row.source for row in await collection.async_documents()] == ["b"]
        assert (await indexed(collection, [one, two])).failed == 0
        assert len(await collection.async_documents()) == 2

    run(main())


@pytest.mark.promise("index-delete")
def test_a_removal_that_was_cut_off_is_invisible_and_finished_later(collection):
    async def main():
        await indexed(collection, [document("a", "The pelican is blue."), document("b", "The ibis is red.")])
        row = await collection.async_document("a")
        await collection.stores.documents.async_remove(collection._space, row.id)  # and the process dies here
        assert await found(collection, "pelican") == ["b"]
        assert await collection.stores.vectors.async_count(collection._space) == 2
        last = await indexed(collection, [])
        assert last.removed == 1
        assert await collection.stores.vectors.async_count(collection._space) == 1

    run(main())


@pytest.mark.promise("index-model-change")
def test_another_model_is_refused_until_a_rebuild(url, embedder):
    async def main():
        old = Collection("c", tenant="t", stores=url, embedder=embedder)
        await indexed(old, [document(f"d{at}", *filler(10, at)) for at in range(5)])
        new = Collection("c", tenant="t", stores=url, embedder=CountingEmbedder("other"))
        without = Collection("c", tenant="t", stores=url)
        for other in (new, without):
            with pytest.raises(MisuseError, match=r"counting/letters \(64 dimensions\).*--rebuild"):
                await other.async_search("river")
            with pytest.raises(MisuseError, match="do not compare"):
                await indexed(other, [])
        before = await found(old, "river stone")
        rebuild = new.async_rebuild()
        await anext(rebuild)
        assert await found(old, "river stone") == before  # the old one goes on being searched
        await rebuild.aclose()
        assert (await old.async_describe()).building == 2
        last = [progress async for progress in new.async_rebuild()][-1]
        assert last.finished
        assert sorted(await found(new, "river stone")) == sorted(before)
        assert (await new.async_describe()).building is None
        with pytest.raises(MisuseError):
            await old.async_search("river")
        assert len(new.embedder.texts) == 1 + 1 + 1 + (await new.async_describe()).chunks  # three times its dimensions

    run(main())


@pytest.mark.parametrize("first", ["earlier", "later"])
def test_of_two_rebuilds_at_once_the_one_begun_later_stays_and_is_whole(url, embedder, first):
    async def main():
        old = Collection("c", tenant="t", stores=url, embedder=embedder)
        await indexed(old, [document(f"d{at}", *filler(3, at)) for at in range(3)])
        every = {"earlier": CountingEmbedder("earlier"), "later": CountingEmbedder("later")}
        made = {name: Collection("c", tenant="t", stores=old.stores, embedder=one) for name, one in every.items()}
        rebuilds = {name: one.async_rebuild() for name, one in made.items()}
        for rebuild in rebuilds.values():
            await anext(rebuild)
        assert [progress async for progress in rebuilds.pop(first)][-1].finished
        (other,) = rebuilds.values()
        if first == "later":
            with pytest.raises(RetrievalError, match="begun later"):
                [progress async for progress in other]
        else:
            assert [progress async for progress in other][-1].finished
        found = await made["later"].async_search("river stone", k=3)
        assert len(found.hits) == 3
        assert all("dense" in hit.scores for hit in found.hits)
        assert not found.notes
        chunks = (await old.async_describe()).chunks
        counts = [
            await old.stores.vectors.async_count(Space(tenant="t", collection="c", generation=at)) for at in (1, 2, 3)
        ]
        assert counts == [0, 0, chunks]

    run(main())


@pytest.mark.promise("index-progress")
def test_an_indexing_tells_how_far_it_is(collection):
    async def main():
        documents = [document(f"d{at}", *filler(100, at)) for at in range(12)]
        seen = [progress async for progress in collection.async_index(documents, total=12)]
        assert [progress.finished for progress in seen] == [False] * (len(seen) - 1) + [True]
        done = [progress.documents_done for progress in seen]
        assert done == sorted(done)
        assert done[-1] == 12
        assert len(set(done)) > 3
        assert seen[-1].eta_s == 0
        assert seen[-1].tokens > 0

    run(main())


def test_it_may_be_left_in_the_middle(collection):
    async def main():
        documents = [document(f"d{at}", *filler(100, at)) for at in range(12)]
        progress = collection.async_index(documents)
        await anext(progress)
        await progress.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # a driver may still take its connection back
        assert not left or not (await asyncio.wait(left, timeout=30))[1]
        await indexed(collection, documents)
        assert (await collection.async_describe()).documents == 12

    run(main())


@pytest.mark.promise("index-partial")
@pytest.mark.parametrize("text", ["", "   \n\t", "\0", "# \n\n---"])
def test_a_document_without_words_is_told_and_does_no_harm(collection, text):
    async def main():
        last = await indexed(collection, [Document(source="empty", text=text), document("a", "One.")])
        assert await found(collection, "One") in (["a"], ["a", "empty"])
        assert (await collection.async_document("empty")).state == "indexed"
        assert last.failed == 0

    run(main())


def test_the_same_document_twice_in_one_indexing_is_one(collection):
    async def main():
        await indexed(collection, [document("a", "One.")] * 100 + [document("a", "Two.")])
        row = await collection.async_describe()
        assert (row.documents, row.chunks) == (1, 1)
        assert (await collection.async_text("a")) == "Two."

    run(main())


def test_two_indexings_at_once_lose_and_double_nothing(url, embedder):
    async def main():
        both = [Collection("c", tenant="t", stores=url, embedder=embedder) for _ in range(2)]
        documents = [document(f"d{at}", *filler(30, at)) for at in range(20)]
        await asyncio.gather(*(indexed(one, documents) for one in both))
        last = await indexed(both[0], documents)
        assert last.failed == 0
        row = await both[0].async_describe()
        assert row.documents == 20
        assert row.chunks == await both[0].stores.vectors.async_count(both[0]._space)

    run(main())


def test_a_folder_that_is_not_there_is_told(tmp_path, embedder):
    async def main():
        with pytest.raises(RetrievalError, match="does not exist; make it"):
            await indexed(Collection("c", tenant="t", stores=f"sqlite:///{tmp_path}/no/c.db", embedder=embedder), [])

    run(main())


def test_what_is_no_store_is_refused():
    for url in ("mysql://x", "collections.db", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(MisuseError):
            Collection("c", tenant="t", stores=url)
