"""Retrieving: branches that fail or hang, the time there is, tenants, and citations that hold."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from shared_libs.atomic import BaseLLMWrapper, Deadline, MisuseError
from shared_libs.atomic.errors import RetrievalUnavailable
from shared_libs.atomic.scope import use_deadline
from shared_libs.retrieval import (
    Collection,
    Document,
    DocumentStore,
    LexicalIndex,
    Stores,
    VectorStore,
    check_citations,
    citation_key,
)
from shared_libs.retrieval.planning import FIRST_GUESS, Usual, plan
from shared_libs.retrieval.types import Chunk, CollectionRow, EmbedderIdentity, Found, Hit, StoredChunk
from tests.support import run, run_virtual
from tests.unit.retrieval.conftest import WRONG, BadEmbedder, CountingEmbedder, document, filler, indexed


class Branch:
    """What a branch does: waits, then fails or finds."""

    def __init__(self, after_s=0.0, found=("a", "b"), error=None):
        self.after_s, self.found, self.error = after_s, found, error

    async def answer(self):
        await asyncio.sleep(self.after_s)
        if self.error is not None:
            raise self.error
        return [Found(name, 1.0 - at / 10) for at, name in enumerate(self.found)]


class Vectors(VectorStore):
    def __init__(self, branch):
        self.branch = branch

    async def _search(self, space, vector, k, where):
        return await self.branch.answer()


class Lexical(LexicalIndex):
    def __init__(self, branch):
        self.branch = branch

    async def _search(self, space, text, k, where):
        return await self.branch.answer()


class Documents(DocumentStore):
    async def _collection(self, space):
        identity = EmbedderIdentity(provider="counting", model="letters", dimensions=64)
        return CollectionRow(name=space.collection, embedder=identity)

    async def _chunks(self, space, ids):
        return {
            id_: StoredChunk(
                chunk=Chunk(id=id_, document="d", start=0, end=1, text=id_), source="s", title="t", metadata={}
            )
            for id_ in ids
        }


class Reverse(BaseLLMWrapper):
    def __init__(self, after_s=0.0, scores=None):
        super().__init__("reverse")
        self.after_s, self.scores = after_s, scores

    async def _rerank(self, query, texts, **options):
        await asyncio.sleep(self.after_s)
        if isinstance(self.scores, BaseException):
            raise self.scores
        return [float(at) for at in range(len(texts))] if self.scores is None else self.scores


def made(dense=None, lexical=None, reranker=None, embedder=None):
    stores = Stores(Documents(), Vectors(dense or Branch()), Lexical(lexical or Branch()))
    return Collection("c", tenant="t", stores=stores, embedder=embedder or CountingEmbedder(), reranker=reranker)


def made_of(stores):
    return Collection("c", tenant="t", stores=stores, embedder=CountingEmbedder(refused="x"))  # only words answer


def states(answer):
    return {stage.name: stage.state for stage in answer.stages}


BROKEN = Branch(error=OSError("connection refused"))
HANGS = Branch(after_s=1e6)


@pytest.mark.promise("retrieval-stages")
@pytest.mark.parametrize("broken", [BROKEN, HANGS], ids=["fails", "hangs"])
@pytest.mark.parametrize("name", ["dense", "lexical"])
def test_a_branch_that_fails_leaves_the_other_ones_answer(name, broken):
    async def main():
        answer = await made(**{name: broken}).async_retrieve("x")
        assert [hit.id for hit in answer.hits] == ["a", "b"]
        stage = next(stage for stage in answer.stages if stage.name == name)
        assert stage.state == ("failed" if broken is BROKEN else "late")
        assert stage.reason
        assert any(note.startswith(name) for note in answer.notes)

    run_virtual(main())


@pytest.mark.promise("retrieval-stages")
def test_where_nothing_answers_it_is_an_error_that_says_why():
    async def main():
        with pytest.raises(RetrievalUnavailable, match="connection refused"):
            both = Branch(error=OSError("connection refused"))
            collection = made(both, both)
            collection.embedder._embed = None
            await collection.async_retrieve("x")

    run_virtual(main())


@pytest.mark.promise("retrieval-stages")
def test_a_reranker_orders_the_best_anew():
    async def main():
        answer = await made(reranker=Reverse()).async_retrieve("x")
        assert [hit.id for hit in answer.hits] == ["b", "a"]
        assert answer.hits[0].scores["rerank"] == 1.0
        assert states(answer)["rerank"] == "ok"
        assert "rerank" not in states(await made(reranker=Reverse()).async_search("x"))

    run_virtual(main())


@pytest.mark.promise("retrieval-stages")
@pytest.mark.parametrize(
    "reranker",
    [
        Reverse(scores=OSError("500")),
        Reverse(after_s=1e6),
        Reverse(scores=[1.0]),
        Reverse(scores=[1.0, float("nan")]),
        Reverse(scores=[1.0, 2.0, 3.0]),
        Reverse(scores="ab"),
        Reverse(scores=[{"index": 0}, {"index": 1}]),
        Reverse(scores=7),
    ],
    ids=["error", "hangs", "too few", "no number", "too many", "a text", "rows", "one"],
)
def test_a_reranker_that_fails_costs_no_answer(reranker):
    async def main():
        answer = await made(reranker=reranker).async_retrieve("x")
        assert [hit.id for hit in answer.hits] == ["a", "b"]
        assert states(answer)["rerank"] in ("failed", "late")

    run_virtual(main())


@pytest.mark.promise("retrieval-stages")
@pytest.mark.parametrize("how", WRONG)
def test_an_embedder_that_talks_nonsense_leaves_the_words_answer(how):
    async def main():
        answer = await made(embedder=BadEmbedder(how)).async_search("x")
        assert answer.hits
        assert states(answer)["embed"] == "failed"

    run_virtual(main())


def test_what_a_store_gives_twice_is_one_hit():
    twice = Branch(found=("a", "b", "a"))

    async def main():
        answer = await made(dense=twice, lexical=twice).async_search("x")
        assert [hit.id for hit in answer.hits] == ["a", "b"]
        assert answer.hits[0].score == 1.0

    run_virtual(main())


def test_copies_of_a_passage_are_one_hit_that_names_its_other_places(file_url, embedder):
    collection = Collection("c", tenant="t", stores=file_url, embedder=embedder, reranker=Reverse())
    copied = "Everyone has 25 days of leave a year."
    documents = [Document(source=f"{year}.md", title=f"Rules of {year}", text=copied) for year in range(2020, 2026)]
    documents += [
        Document(source="pair.md", text=f"# Leave in 2026\n\n{copied}\n\n# Leave in 2027\n\n{copied}"),
        Document(source="wide.md", text="Everyone has\n25  days of leave a year.\n"),
        Document(source="ask.md", text="Leave is asked for a week before."),
    ]

    async def main():
        await indexed(collection, documents)
        found = await collection.async_search("How many days of leave has everyone?", k=4)
        best, *others = sorted(found.hits, key=lambda hit: -len(hit.also))
        assert {place.source for place in (best, *best.also)} == {"wide.md"} | {row.source for row in documents[:6]}
        assert {hit.source for hit in others} == {"pair.md", "ask.md"}  # what stands under another heading is no copy
        for place in (best, *best.also):
            text = await collection.async_text(place.source)
            assert text[place.start : place.end].split() == best.text.split()
        assert len((await collection.async_retrieve("days of leave", document="2020.md")).hits) == 1
        await collection.aclose()

    run(main())


class Many(LexicalIndex):
    """Finds as many as are asked for, of so many; asked for many, it may take long or fail."""

    def __init__(self, count, further=None):
        self.count, self.further = count, further or Branch()

    async def _search(self, space, text, k, where):
        if k > 50:
            await self.further.answer()
        return [Found(f"{at:05}", 1 / (at + 1)) for at in range(min(k, self.count))]


class Alike(Documents):
    """The first so many are copies, or are not to be seen; the others differ."""

    def __init__(self, alike, *, seen):
        self.alike, self.seen = alike, seen

    async def _chunks(self, space, ids):
        found = await super()._chunks(space, [id_ for id_ in ids if self.seen or int(id_) >= self.alike])
        return {
            id_: msgspec.structs.replace(row, chunk=msgspec.structs.replace(row.chunk, text="copy"))
            if int(id_) < self.alike
            else row
            for id_, row in found.items()
        }


@pytest.mark.promise("retrieval-stages")
@pytest.mark.parametrize(
    ("alike", "all_", "k"),
    [(49, 60, 3), (51, 60, 3), (200, 203, 4), (200, 203, 9), (2_000, 2_020, 20), (0, 90, 100), (0, 120, 100)],
)
@pytest.mark.parametrize("seen", [True, False], ids=["copies", "unseen"])
def test_what_is_no_hit_of_its_own_takes_no_place_of_another(alike, all_, k, seen):
    async def main():
        answer = await made_of(Stores(Alike(alike, seen=seen), Vectors(Branch()), Many(all_))).async_search("x", k=k)
        assert len(answer.hits) == len({hit.text for hit in answer.hits})
        assert len(answer.hits) == min(k, all_ - alike + (seen and alike > 0))
        assert all(len(hit.also) <= 50 for hit in answer.hits)
        assert states(answer)["further"] == "ok"

    run_virtual(main())


@pytest.mark.promise("retrieval-stages")
def test_how_far_it_is_asked_has_an_end_that_is_told():
    async def main():
        answer = await made_of(Stores(Alike(9_000, seen=True), Vectors(Branch()), Many(9_020))).async_search("x")
        assert [(hit.text, len(hit.also)) for hit in answer.hits] == [("copy", 50)]
        assert any("the first 3,200 that were found are only 1 passages" in note for note in answer.notes)

    run_virtual(main())


@pytest.mark.promise("retrieval-stages")
@pytest.mark.parametrize(("further", "state"), [(BROKEN, "failed"), (HANGS, "late")], ids=["fails", "hangs"])
def test_where_it_cannot_be_asked_further_what_was_found_stays(further, state):
    stores = Stores(Alike(60, seen=True), Vectors(Branch()), Many(90, further))

    async def main():
        answer = await made_of(stores).async_search("x", k=5)
        assert [hit.text for hit in answer.hits] == ["copy"]
        assert states(answer)["further"] == state

    run_virtual(main())


@pytest.mark.promise("retrieval-deadline")
@pytest.mark.parametrize("milliseconds", [5, 10, 20, 40, 60, 100, 150, 200, 300, 500])
def test_it_is_back_in_time_whatever_hangs(milliseconds):
    async def main():
        clock = asyncio.get_running_loop().time
        for dense, lexical, rerank in ((HANGS, Branch(), None), (Branch(), HANGS, None), (Branch(), Branch(), 1e6)):
            began = clock()
            collection = made(dense, lexical, None if rerank is None else Reverse(rerank))
            with use_deadline(Deadline.after(milliseconds / 1000)):
                try:
                    answer = await collection.async_retrieve("x")
                    assert answer.hits
                except RetrievalUnavailable:
                    assert lexical is HANGS
            assert clock() - began <= milliseconds / 1000 + 0.05

    run_virtual(main())


@pytest.mark.promise("retrieval-deadline")
def test_steps_are_left_out_in_their_order_and_more_time_never_does_less():
    wanted = frozenset(FIRST_GUESS)
    done = [wanted - plan(left_ms / 1000, {}, wanted).skipped.keys() for left_ms in range(1, 1_000)]
    assert done[0] == set()
    assert done[-1] == wanted
    assert all("rerank" not in steps or {"graph", "dense"} <= steps for steps in done)
    for less, more in itertools.pairwise(done):
        assert less <= more | {"dense"}  # when there is room for reranking, the branches share with it
    assert plan(float("inf"), {}, wanted).skipped == {}
    shares = plan(1.0, {}, wanted)
    assert shares.branches_s + shares.rerank_s == pytest.approx(0.95)


@pytest.mark.promise("retrieval-deadline")
def test_a_step_that_was_slow_is_left_out_until_it_may_be_quick_again():
    usual = Usual()
    usual.saw("dense", 0.5)
    answers = []
    for _ in range(20):
        skipped = plan(0.2, usual.seconds, frozenset({"dense"})).skipped
        answers.append("dense" in skipped)
        usual.left_out("dense")
    assert answers[0]
    assert not answers[-1]


@pytest.mark.promise("retrieval-tenants")
def test_two_tenants_with_the_same_texts_never_meet(url, embedder):
    async def main():
        ours, theirs = (Collection("c", tenant=name, stores=url, embedder=embedder) for name in ("acme", "globex"))
        await indexed(ours, [document("a", "The pelican is blue.")])
        with pytest.raises(MisuseError, match="no collection"):
            await theirs.async_search("pelican")
        await indexed(theirs, [document("b", "The pelican is blue.")])
        for collection, source in ((ours, "a"), (theirs, "b")):
            assert [hit.source for hit in (await collection.async_retrieve("pelican")).hits] == [source]
            other = "b" if source == "a" else "a"
            assert await collection.async_text(other) is None
            assert not await collection.async_remove(other)
        assert [row.name for row in await ours.stores.documents.async_collections("acme")] == ["c"]
        assert await theirs.async_drop()
        assert (await ours.async_retrieve("pelican")).hits

    run(main())


@pytest.mark.promise("retrieval-tenants")
@pytest.mark.parametrize("tenant", [None, "", 5, " \n", ["t"], b"t", "x" * 201])
def test_a_tenant_is_a_name(tenant):
    with pytest.raises(MisuseError, match="a tenant is a name"):
        Collection("c", tenant=tenant, stores=Stores(Documents(), Vectors(Branch()), Lexical(Branch())))


@pytest.mark.promise("retrieval-filter")
def test_in_a_document_everything_is_found_that_others_would_displace(url, embedder):
    collection = Collection("c", tenant="t", stores=url, embedder=embedder)
    near = [document(f"d{at}", f"The copper lamp of the harbour, number {at}.") for at in range(60)]
    far = document("far", "A lamp was bought, and nothing else is said of it in all of this long sentence.")

    async def main():
        await indexed(collection, [*near, far])
        everywhere = await collection.async_retrieve("copper lamp of the harbour", k=50)
        assert "far" not in {hit.source for hit in everywhere.hits}
        for name in (far.source, far.id):
            there = await collection.async_retrieve("copper lamp of the harbour", k=5, document=name)
            assert [(hit.source, sorted(hit.scores)) for hit in there.hits] == [("far", ["dense", "lexical"])]
        assert not (await collection.async_search("lamp", where={"absent": 1}, document="far")).hits
        with pytest.raises(MisuseError, match="no document 'none'"):
            await collection.async_search("lamp", document="none")

    run(main())


@pytest.mark.promise("retrieval-loop")
def test_fifty_at_once_and_a_writer(url, embedder):
    collection = Collection("c", tenant="t", stores=url, embedder=embedder)
    documents = [document(f"d{at}", *filler(20, at)) for at in range(20)]

    async def main():
        await indexed(collection, documents[:10])
        answers = await asyncio.gather(
            indexed(collection, documents), *(collection.async_retrieve(filler(1, at)[0], k=3) for at in range(50))
        )
        assert all(answer.hits for answer in answers[1:])

    run(main())  # a blocking call of ours on the event loop fails here


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 101}, {"where": {"a b": 1}}, {"question": "  "}])
def test_what_cannot_be_asked_is_refused(collection, wrong):
    async def main():
        await indexed(collection, [document("a", "One.")])
        with pytest.raises(MisuseError):
            await collection.async_retrieve(**{"question": "x"} | wrong)

    run(main())


@pytest.mark.promise("citations-checked")
def test_a_quote_stands_where_it_is_said_to_stand(collection):
    async def main():
        texts = ["Café ☕ und Ümläute.\r\n\r\nZweiter Absatz 👩‍🚀 " + "x " * 300, "年假。" * 200, *filler(3)]
        await indexed(collection, [document(f"d{at}", text) for at, text in enumerate(texts)])
        for question in ("Absatz", "年假", "river stone"):
            for hit in (await collection.async_retrieve(question)).hits:
                assert (await collection.async_text(hit.document))[hit.start : hit.end] == hit.text

    run(main())


WRITTEN = {
    "[0A1B2C3D]": "[0a1b2c3d]",
    "\u30100a1b2c3d\u3011": "[0a1b2c3d]",
    "\u30100a1b2c3d\u2020source\u3011": "[0a1b2c3d]",
    "[^0a1b2c3d]": "[0a1b2c3d]",
    "[cite: 0a1b2c3d]": "[0a1b2c3d]",
    "[source=0a1b2c3d]": "[0a1b2c3d]",
    "[Passage 0a1b2c3d, page 3]": "[0a1b2c3d]",
    "[`0a1b2c3d`]": "[0a1b2c3d]",
    "[cite:0a1b2c3d, cite:ffffffff]": "[0a1b2c3d, ffffffff]",
    "[0a1b2c3d and ffffffff]": "[0a1b2c3d, ffffffff]",
    "[0a1b2c3d][ffffffff]": "[0a1b2c3d][ffffffff]",
    "[ref 0a1b2c3d; 00000000]": "[0a1b2c3d]",
    "[cite: 00000000]": "",
    "[来源：0a1b2c3d]": "[0a1b2c3d]",
    "［0a1b2c3d、ffffffff］": "[0a1b2c3d, ffffffff]",
    "[nguồn: 0a1b2c3d, trang 3]": "[0a1b2c3d]",
    "[Fonte 0a1b2c3d, p. 3-5]": "[0a1b2c3d]",
    "[Quelle: 0a1b2c3d, S. 3]": "[0a1b2c3d]",
    "[来源：deadbeef]": "",
    "[0a1b2c3d-ffffffff]": "[0a1b2c3d, ffffffff]",
    "\\[0a1b2c3d\\]": "[0a1b2c3d]",
    f"[{'0a1b2c3d' * 4}]": "[0a1b2c3d]",
    "(0a1b2c3d)": "(0a1b2c3d)",
    "[handbook.md: 0a1b2c3d]": "[handbook.md: 0a1b2c3d]",
    "[leave.md: 0a1b2c3d, deadbeef]": "[leave.md: 0a1b2c3d, ]",
    "[commit deadbeef of main]": "[commit deadbeef of main]",
    "[20261128]": "[20261128]",
    "[0a1b2c3d5]": None,
}
"""How models write citations: what becomes of it, or None where it is none."""


@pytest.mark.promise("citations-checked")
@pytest.mark.parametrize("written", WRITTEN)
def test_a_citation_is_read_however_it_is_written(written):
    hit = Hit(id="0a1b2c3d" * 4, document="d", source="s", title="t", start=3, end=8, text="quote")
    other = msgspec.structs.replace(hit, id="ffffffff" * 4)
    cited = check_citations(f"25 days{written}.", [hit, other])
    wanted = WRITTEN[written]
    assert cited.text == f"25 days{written if wanted is None else wanted}."
    assert [one.key for one in cited.citations] == [
        key for key in ("0a1b2c3d", "ffffffff") if wanted is not None and key in wanted
    ]


@pytest.mark.promise("citations-checked")
def test_citations_of_nothing_that_was_seen_are_taken_out():
    hit = Hit(id="0a1b2c3d" * 4, document="d", source="s", title="t", start=3, end=8, text="quote")
    other = msgspec.structs.replace(hit, id="ffffffff" * 4, start=9)
    key, second = citation_key(hit), citation_key(other)
    cited = check_citations(f"Yes [{key}], no [00000000]; both [{key}, {second}, deadbeef] [1] [see].", [hit, other])
    assert cited.text == f"Yes [{key}], no; both [{key}, {second}] [1] [see]."
    assert [citation.key for citation in cited.citations] == [key, second]
    assert (cited.citations[0].source, cited.citations[0].start, cited.citations[0].quote) == ("s", 3, "quote")
    assert cited.unknown == ("00000000", "deadbeef")
