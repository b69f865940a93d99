"""
How well it finds: four sets of questions, our ways and two others', of the same texts and the same embedding model.

FanOutQA (several documents each, of pages that lead to each other), Python's FAQ over its manual, and LibreOffice's
help in Chinese, Vietnamese and Portuguese (one document each). The others are LlamaIndex and Haystack as they are
without options, where they are installed (`pip install llama-index-core haystack-ai`); pages are read by `selectolax`.
"""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.retrieval_sets import HELP, LIBRARY, Questions, fanout, faq, helped
from shared_libs.atomic.llms import LocalEmbeddings
from shared_libs.retrieval import Collection, Space, open_stores
from shared_libs.retrieval.types import Entity, Facts

K = 60
"""Passages that are asked for: several may be of one document."""

Way = Callable[[str], Awaitable[list[str]]]
"""Finds: the sources of passages for a question, best first."""


class Kept(LocalEmbeddings):
    """The packaged model, its vectors kept in a file: what is measured again is not embedded again."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.execute("PRAGMA synchronous = OFF")
        self._file.execute("CREATE TABLE IF NOT EXISTS kept (text BLOB PRIMARY KEY, vector BLOB)")

    async def _embed(self, texts: list[str], **options: Any) -> Any:
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        known = {key: self._file.execute("SELECT vector FROM kept WHERE text = ?", (key,)).fetchone() for key in keys}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if known[key] is None}
        if missing:
            made = np.asarray(await super()._embed(list(missing.values()), **options), "<f4")
            known |= {key: (vector.tobytes(),) for key, vector in zip(missing, made, strict=True)}
            rows = [(key, known[key][0]) for key in missing]
            self._file.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)
        return np.stack([np.frombuffer(known[key][0], "<f4") for key in keys])


def measured(found: list[str], wanted: frozenset[str]) -> dict[str, float]:
    """Return recall at 5 and 20 documents, and the reciprocal rank of the first right one among ten."""
    rank = next((at for at, source in enumerate(found[:10]) if source in wanted), None)
    return {
        "R@5": len(set(found[:5]) & wanted) / len(wanted),
        "R@20": len(set(found[:20]) & wanted) / len(wanted),
        "MRR": 0.0 if rank is None else 1 / (rank + 1),
    }


def interval(values: list[float]) -> str:
    """Return a mean with its bootstrap interval of 95 %."""
    draws = np.random.default_rng(5).choice(np.array(values), (2_000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{statistics.mean(values):.3f} [{low:.3f}, {high:.3f}]"


async def quality(folder: Path, names: list[str], *, others: bool) -> None:
    """Measure the sets of these names; texts and vectors are kept in the folder."""
    makers = {
        "fanout": fanout,
        "faq": lambda: faq(folder),
        "library": lambda: faq(folder, LIBRARY),
        **{language: lambda language=language: helped(folder, language) for language in HELP},
    }
    embedder = Kept(folder / "vectors.db")
    for name in names or makers:
        questions = makers[name]()
        ways = await ours(questions, folder / f"{name}.db", embedder)
        if others:
            ways |= await llama_index(questions, embedder) | await haystack(questions, embedder)
        await tell(questions, ways)


async def tell(questions: Questions, ways: dict[str, Way]) -> None:
    """Ask every question every way, and print what came of it."""
    results = {
        name: [measured(await way(one.question), one.wanted) for one in questions.asked] for name, way in ways.items()
    }
    print(f"{questions.name}: {len(questions.asked)} questions, {len(questions.documents)} documents (mean [95 %])")
    for name, rows in results.items():
        print(
            f"  {name:22} " + "  ".join(f"{key} {interval([row[key] for row in rows])}" for key in rows[0]), flush=True
        )
    if "hybrid + graph" in results:
        # what its weights were chosen on is one half of the questions; the other half has to say the same
        for title, part in (("all", slice(None)), ("chosen on", slice(0, None, 2)), ("held out", slice(1, None, 2))):
            for key in ("R@5", "R@20"):
                gain = [
                    after[key] - before[key]
                    for before, after in zip(results["hybrid"][part], results["hybrid + graph"][part], strict=True)
                ]
                print(f"  the graph adds {key}, {title}: {interval(gain)}")


async def ours(questions: Questions, path: Path, embedder: LocalEmbeddings) -> dict[str, Way]:
    """By words, by meaning and words, and with a graph where it is known what documents are about."""
    stores = open_stores(f"sqlite:///{path}")
    both = Collection("both", tenant="t", stores=stores, embedder=embedder)
    words = Collection("words", tenant="t", stores=stores)
    for collection in (words, both):
        *_, progress = [so_far async for so_far in collection.async_index(questions.documents)]
        assert not progress.failed, progress.problems

    def searching(collection: Collection, *, deep: bool = False) -> Way:
        async def way(question: str) -> list[str]:
            ask = collection.async_retrieve if deep else collection.async_search
            found = await ask(question, k=K)
            assert not found.notes, found.notes
            return list(dict.fromkeys(place.source for hit in found.hits for place in (hit, *hit.also)))

        return way

    async def by_meaning(question: str) -> list[str]:
        space = Space(tenant="t", collection="both")
        vector = (await embedder.async_embed([question]))[0]
        ids = [row.id for row in await stores.vectors.async_search(space, vector, K)]
        chunks = await stores.documents.async_chunks(space, ids)
        return list(dict.fromkeys(chunks[id_].source for id_ in ids))

    ways = {"by words": searching(words), "by meaning": by_meaning, "hybrid": searching(both)}
    if questions.entity:
        await told(both, questions)
        ways["hybrid + graph"] = searching(both, deep=True)
    return ways


async def told(collection: Collection, questions: Questions) -> None:
    """Give the graph what a careful reader would: which of the known entities each passage names."""
    stores, space, after = collection.stores, Space(tenant="t", collection="both"), ""
    names = set(questions.entity.values())
    assert stores.graph is not None
    while rows := await stores.documents.async_seen(space, after=after):
        after = rows[-1].chunk.id
        facts = []
        for row in rows:
            title, text = questions.entity[row.source], row.chunk.text
            others = [name for name in names if len(name) > 4 and name in text]
            named = tuple(Entity(name=name) for name in sorted({title, *others}) if name in text)
            spans = tuple((text.index(one.name), text.index(one.name) + len(one.name)) for one in named)
            facts.append(Facts(chunk=row.chunk.id, entities=named, spans=spans, extractor="titles"))
        await stores.graph.async_upsert(space, facts)


async def llama_index(questions: Questions, embedder: LocalEmbeddings) -> dict[str, Way]:
    """LlamaIndex: its own splitter and its own index, nothing set."""
    if find_spec("llama_index") is None:
        return {}
    from llama_index.core import Document as Given
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import MetadataMode, QueryBundle

    given = [Given(text=one.text, doc_id=one.source, metadata={"title": one.title}) for one in questions.documents]
    nodes = SentenceSplitter().get_nodes_from_documents(given)
    vectors = await embedded(embedder, [node.get_content(MetadataMode.EMBED) for node in nodes])
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=len(vectors[0])))
    retriever = index.as_retriever(similarity_top_k=K)

    async def way(question: str) -> list[str]:
        vector = (await embedded(embedder, [question]))[0]
        found = retriever.retrieve(QueryBundle(question, embedding=vector))
        return list(dict.fromkeys(hit.node.ref_doc_id for hit in found))

    return {"LlamaIndex": way}


async def haystack(questions: Questions, embedder: LocalEmbeddings) -> dict[str, Way]:
    """Haystack: its own splitter, BM25 and embeddings, and its own joiner; nothing set, and joined by ranks."""
    if find_spec("haystack") is None:
        return {}
    from haystack import Document as Given
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.preprocessors import DocumentSplitter
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    given = [
        Given(content=one.text, meta={"source": one.source, "title": one.title})
        for one in questions.documents
        if one.text
    ]
    parts = DocumentSplitter().run(documents=given)["documents"]
    vectors = await embedded(embedder, [part.content for part in parts])
    store = InMemoryDocumentStore()
    store.write_documents([replace(part, embedding=vector) for part, vector in zip(parts, vectors, strict=True)])
    by_words = InMemoryBM25Retriever(store, top_k=K)
    by_meaning = InMemoryEmbeddingRetriever(store, top_k=K)

    def joined(joiner: DocumentJoiner) -> Way:
        async def way(question: str) -> list[str]:
            vector = (await embedded(embedder, [question]))[0]
            branches = [
                by_words.run(query=question)["documents"],
                by_meaning.run(query_embedding=vector)["documents"],
            ]
            found = joiner.run(documents=branches)["documents"]
            return list(dict.fromkeys(hit.meta["source"] for hit in found))

        return way

    return {
        "Haystack": joined(DocumentJoiner()),
        "Haystack, by ranks": joined(DocumentJoiner(join_mode="reciprocal_rank_fusion")),
    }


async def embedded(embedder: LocalEmbeddings, texts: list[str]) -> list[list[float]]:
    """Return vectors, a batch at a time."""
    made: list[list[float]] = []
    for start in range(0, len(texts), 64):
        made += (await embedder.async_embed(texts[start : start + 64])).tolist()
    return made
