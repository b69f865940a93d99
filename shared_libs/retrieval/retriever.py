"""
Finding passages: the search by meaning, beside it the one by words, which seeds a graph; one order of all.

::

              ┌ embed the question → nearest vectors ─────────┐
    question ─┤                                                ├ fuse → guard the head → rerank → what may be seen
              └ words ─┬───────────────────────────────────────┤
                       └ link the question and the first hits → expand ┘

A branch that fails, or is late, leaves the others' answer with a note. Nothing waits for what it does not need. Where
copies, or what may not be seen, have taken the places of what was asked for, the branches are asked further.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import LLMError, MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.scope import current_deadline, use_deadline
from shared_libs.atomic.supervise import together
from shared_libs.atomic.types import Stage
from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.fusion import behind_the_head, stretched, weights_for
from shared_libs.retrieval.planning import Plan, Usual, plan
from shared_libs.retrieval.ports import DocumentStore
from shared_libs.retrieval.stores import Stores
from shared_libs.retrieval.types import Expanded, Found, Hit, Place, Retrieved, Space, StoredChunk

BRANCH = 50
"""Hits of each branch that are put together."""

FURTHER = (200, 800, 3_200)
"""Hits that a branch is asked for next, as long as all it has found are fewer passages than are wanted."""

PAGE = 500
"""Chunks that are read at once, and put together without a pause."""

MOST_PLACES = 50
"""Other places of a passage that are named: an answer is no inventory."""

RERANKED = 30
"""The best so many are reranked."""

SEEDS = 5
"""The first so many hits by words lead into the graph."""

TIMEOUT_S = 10.0
"""Seconds a retrieval may take where nobody says."""

T = TypeVar("T")


class _Branches(NamedTuple):
    """What the branches found."""

    dense: list[Found]
    lexical: list[Found]
    graph: list[Found]
    via: dict[str, tuple[str, ...]]
    vector: Any
    """The question's; None where it is not searched by meaning."""

    def merged(self, weights: Mapping[str, float]) -> list[Found]:
        """Return one order of all."""
        order = stretched({"dense": self.dense, "lexical": self.lexical}, weights)
        if self.graph:
            order = behind_the_head(order, stretched({"graph": self.graph}, weights, order))
        return order

    def more_than(self, asked: int) -> bool:
        """Whether a branch that was asked for so many may have further ones."""
        return max(len(self.dense), len(self.lexical)) >= asked


class Retriever:
    """
    Finds passages in one collection.

    Args:
        stores: where it is kept.
        embedder: the model of its vectors; None: it is searched by words.
        reranker: orders the best anew; None: nobody does.

    """

    def __init__(self, stores: Stores, embedder: BaseLLMWrapper | None, reranker: BaseLLMWrapper | None) -> None:
        self._stores = stores
        self._embedder = embedder
        self._reranker = reranker
        self._usual = Usual()

    async def retrieve(
        self, space: Space, question: str, k: int, where: Where, *, steps: frozenset[str], began: float
    ) -> Retrieved:
        """
        Return the `k` best passages.

        Args:
            space: whose, and which generation.
            question: what is looked for.
            k: how many passages.
            where: what their documents have to be.
            steps: of "graph" and "rerank" what is to be done where there is one.
            began: the loop time from which the stages count.

        Raises:
            RetrievalUnavailable: no branch answered; the text says why.

        """
        run = _Run(current_deadline().narrowed(TIMEOUT_S), began)
        there = {"dense": self._embedder, "rerank": self._reranker, "graph": self._stores.graph}
        wanted = {step for step in {"dense", *steps} if there[step] is not None}
        plan_ = plan(run.left_s, self._usual.seconds, frozenset(wanted))
        for step, reason in plan_.skipped.items():
            run.skip(step, reason)
            self._usual.left_out(step)
        done = wanted - plan_.skipped.keys()
        until = Deadline.after(plan_.branches_s) if plan_.branches_s > 0 else Deadline(0.0)
        found = await self._branches(run, space, question, where, until, done)
        weights = weights_for(question, english_first=self._embedder is not None and self._embedder.english_first)
        passages = _Passages(self._stores.documents, space, where)
        await passages.read(found, weights, k)
        if len(passages.hits) < k and found.more_than(BRANCH):
            further = self._further
            await run.stage("further", until, lambda: further(space, question, where, found, weights, passages, k))
        hits = passages.hits
        if "rerank" in done and hits:
            hits = await self._reranked(run, question, hits, plan_)
        return Retrieved(hits=tuple(hits[:k]), stages=tuple(run.stages))

    async def _branches(
        self, run: _Run, space: Space, question: str, where: Where, until: Deadline, steps: set[str]
    ) -> _Branches:
        dense: list[Found] = []
        lexical: list[Found] = []
        expanded: list[Expanded] = []
        vectors: Any = None

        async def by_meaning() -> None:
            nonlocal dense, vectors
            embedder = self._embedder
            if "dense" not in steps or embedder is None:
                return
            began = run.clock()
            vectors = await run.stage("embed", until, lambda: embedder.async_embed([question]))
            if vectors is not None:
                search = self._stores.vectors.async_search
                dense = await run.stage("dense", until, lambda: search(space, vectors[0], BRANCH, where)) or []
            self._usual.saw("dense", run.clock() - began)

        async def by_words() -> None:
            nonlocal lexical, expanded
            search = self._stores.words.async_search
            lexical = await run.stage("lexical", until, lambda: search(space, question, BRANCH, where)) or []
            graph = self._stores.graph
            if "graph" not in steps or graph is None:
                return
            began = run.clock()
            seeds = [row.id for row in lexical[:SEEDS]]
            expanded = await run.stage("graph", until, lambda: graph.async_expand(space, question, seeds)) or []
            self._usual.saw("graph", run.clock() - began)

        await together([by_meaning(), by_words()])
        if not dense and not lexical and not any(stage.state == "ok" for stage in run.stages):
            raise RetrievalUnavailable(f"nothing could be searched: {run.told()}")
        graph = [Found(row.id, row.score) for row in expanded]
        vector = None if vectors is None else vectors[0]
        return _Branches(dense, lexical, graph, {row.id: row.via for row in expanded}, vector)

    async def _further(
        self,
        space: Space,
        question: str,
        where: Where,
        found: _Branches,
        weights: Mapping[str, float],
        passages: _Passages,
        k: int,
    ) -> None:
        """
        Ask the branches for more and more, until there are `k` passages or no more.

        Raises:
            RetrievalUnavailable: there may be more, but that is far enough.

        """
        asked = BRANCH
        for wide in FURTHER:
            searches = []
            if len(found.dense) >= asked:
                searches.append(self._stores.vectors.async_search(space, found.vector, wide, where))
            if len(found.lexical) >= asked:
                searches.append(self._stores.words.async_search(space, question, wide, where))
            rows = await together(searches)
            lexical = rows.pop() if len(found.lexical) >= asked else found.lexical
            found = found._replace(lexical=lexical, dense=rows.pop() if rows else found.dense)
            await passages.read(found, weights, k)
            if len(passages.hits) >= k or not found.more_than(wide):
                return
            asked = wide
        raise RetrievalUnavailable(f"the first {asked:,} that were found are only {len(passages.hits)} passages")

    async def _reranked(self, run: _Run, question: str, hits: list[Hit], plan_: Plan) -> list[Hit]:
        """Order the best anew; where that fails they stay as they are."""
        reranker, began = self._reranker, run.clock()
        assert reranker is not None
        best, rest = hits[:RERANKED], hits[RERANKED:]
        until = Deadline.after(plan_.rerank_s)
        texts = [hit.text for hit in best]
        scores = await run.stage("rerank", until, lambda: reranker.async_rerank(question, texts))
        self._usual.saw("rerank", run.clock() - began)
        if scores is None:
            return hits
        ordered = sorted(zip(scores, range(len(best)), strict=True), key=lambda row: (-row[0], row[1]))
        again = [
            msgspec.structs.replace(best[at], score=score, scores=best[at].scores | {"rerank": score})
            for score, at in ordered
        ]
        return again + rest


class _Run:
    """One retrieval: its time, and what became of its steps."""

    def __init__(self, deadline: Deadline, began: float) -> None:
        self.clock = asyncio.get_running_loop().time
        self.began = began
        self.left_s = deadline.remaining()
        self.stages: list[Stage] = []

    def skip(self, name: str, reason: str) -> None:
        self._note(name, "skipped", self.clock(), reason)

    async def stage(self, name: str, until: Deadline, step: Callable[[], Awaitable[T]]) -> T | None:
        """Do one step; None where it was late or has failed, which is told."""
        began = self.clock()
        try:
            with use_deadline(until):
                value = await step()
        except (RetrievalError, LLMError, MisuseError) as error:
            late = self.clock() >= until.at
            reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            self._note(name, "late" if late else "failed", began, reason)
            return None
        self._note(name, "ok", began)
        return value

    def _note(self, name: str, state: Any, began: float, reason: str = "") -> None:
        elapsed_s, began_s = self.clock() - began, began - self.began
        self.stages.append(Stage(name=name, state=state, elapsed_s=elapsed_s, reason=reason, began_s=began_s))

    def told(self) -> str:
        return "; ".join(stage.told for stage in self.stages)


class _Passages:
    """
    What was found, brought to passages: what the documents do not show is not there, and copies are one.

    Args:
        documents: who knows what may be seen.
        space: whose.
        where: what the documents have to be.

    """

    def __init__(self, documents: DocumentStore, space: Space, where: Where) -> None:
        self.hits: list[Hit] = []
        self._documents, self._space, self._where = documents, space, where
        self._read: dict[str, tuple[StoredChunk, tuple[str, ...]] | None] = {}

    async def read(self, found: _Branches, weights: Mapping[str, float], k: int) -> None:
        """Make `hits` of what was found, best first: at least `k` where there are, each once."""
        scores: dict[str, dict[str, float]] = {}
        for name, rows in (("dense", found.dense), ("lexical", found.lexical), ("graph", found.graph)):
            for row in rows:
                scores.setdefault(row.id, {})[name] = row.score
        order = found.merged(weights)
        equal: dict[tuple[str, ...], list[tuple[StoredChunk, Found]]] = {}
        start, end = 0, max(k, RERANKED) + BRANCH
        while start < len(order) and len(equal) < k:
            await self._read_those([row.id for row in order[start:end]])
            for row in order[start:end]:
                if (known := self._read[row.id]) is not None:
                    equal.setdefault(known[1], []).append((known[0], row))
            start, end = end, end + PAGE
        self.hits = [
            _hit(stored, row.score, scores[row.id], found.via.get(row.id, ()), [other for other, _ in others])
            for (stored, row), *others in equal.values()
        ]

    async def _read_those(self, ids: list[str]) -> None:
        new = [id_ for id_ in ids if id_ not in self._read]
        chunks = await self._documents.async_chunks(self._space, new)
        for id_ in new:
            stored = chunks.get(id_)
            if stored is None or not all(condition.holds(stored.metadata, id_) for condition in self._where):
                self._read[id_] = None
            else:
                self._read[id_] = stored, (stored.chunk.heading, *stored.chunk.text.split())


def _place(stored: StoredChunk) -> dict[str, Any]:
    chunk = stored.chunk
    return {
        "id": chunk.id,
        "document": chunk.document,
        "source": stored.source,
        "title": stored.title,
        "start": chunk.start,
        "end": chunk.end,
    }


def _hit(
    stored: StoredChunk,
    score: float,
    scores: dict[str, float],
    via: tuple[str, ...],
    others: list[StoredChunk],
) -> Hit:
    return Hit(
        **_place(stored),
        text=stored.chunk.text,
        heading=stored.chunk.heading,
        score=score,
        scores=scores,
        via=via,
        metadata=stored.metadata,
        also=tuple(Place(**_place(other)) for other in others[:MOST_PLACES]),
    )
