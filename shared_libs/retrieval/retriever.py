"""
Finding passages: the search by meaning, beside it the one by words, which seeds a graph; one order of all.

::

              ┌ embed the question → nearest vectors ─────────┐
    question ─┤                                                ├ fuse → guard the head → rerank → what may be seen
              └ words ─┬───────────────────────────────────────┤
                       └ link the question and the first hits → expand ┘

A branch that fails, or is late, leaves the others' answer with a note. Nothing waits for what it does not need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
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
from shared_libs.retrieval.stores import Stores
from shared_libs.retrieval.types import Found, Hit, Place, Retrieved, Space, StoredChunk

BRANCH = 50
"""Hits of each branch that are put together."""

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
        found = await self._branches(run, space, question, where, plan_, done)
        branches = {"dense": found.dense, "lexical": found.lexical}
        weights = weights_for(question, english_first=self._embedder is not None and self._embedder.english_first)
        order = stretched(branches, weights)
        if found.graph:
            order = behind_the_head(order, stretched(branches | {"graph": found.graph}, weights))
        hits = _once(await self._hits(space, order[: max(k, RERANKED) + BRANCH], found, where))
        if "rerank" in done and hits:
            hits = await self._reranked(run, question, hits, plan_)
        return Retrieved(hits=tuple(hits[:k]), stages=tuple(run.stages))

    async def _branches(
        self, run: _Run, space: Space, question: str, where: Where, plan_: Plan, steps: set[str]
    ) -> _Branches:
        via: dict[str, tuple[str, ...]] = {}
        until = Deadline.after(plan_.branches_s) if plan_.branches_s > 0 else Deadline(0.0)

        async def by_meaning() -> list[Found]:
            embedder = self._embedder
            if "dense" not in steps or embedder is None:
                return []
            began = run.clock()
            vectors = await run.stage("embed", until, lambda: embedder.async_embed([question]))
            found = None
            if vectors is not None:
                search = self._stores.vectors.async_search
                found = await run.stage("dense", until, lambda: search(space, vectors[0], BRANCH, where))
            self._usual.saw("dense", run.clock() - began)
            return found or []

        async def by_words() -> tuple[list[Found], list[Found]]:
            search = self._stores.words.async_search
            found = await run.stage("lexical", until, lambda: search(space, question, BRANCH, where)) or []
            graph = self._stores.graph
            if "graph" not in steps or graph is None:
                return found, []
            began = run.clock()
            seeds = [row.id for row in found[:SEEDS]]
            expanded = await run.stage("graph", until, lambda: graph.async_expand(space, question, seeds))
            self._usual.saw("graph", run.clock() - began)
            for row in expanded or ():
                via[row.id] = row.via
            return found, [Found(row.id, row.score) for row in expanded or ()]

        dense, lexical, graph = await _both(by_meaning(), by_words())
        if not dense and not lexical and not any(stage.state == "ok" for stage in run.stages):
            raise RetrievalUnavailable(f"nothing could be searched: {run.told()}")
        return _Branches(dense, lexical, graph, via)

    async def _hits(self, space: Space, order: Sequence[Found], found: _Branches, where: Where) -> list[Hit]:
        """Bring what was found to passages: what the documents do not show is not there."""
        chunks = await self._stores.documents.async_chunks(space, [row.id for row in order])
        by_branch = {
            name: {row.id: row.score for row in getattr(found, name)} for name in ("dense", "lexical", "graph")
        }
        hits = []
        for row in order:
            stored = chunks.get(row.id)
            if stored is None or not all(condition.holds(stored.metadata, row.id) for condition in where):
                continue
            scores = {name: rows[row.id] for name, rows in by_branch.items() if row.id in rows}
            hits.append(_hit(stored, row.score, scores, found.via.get(row.id, ())))
        return hits

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


async def _both(
    meaning: Coroutine[Any, Any, list[Found]], words: Coroutine[Any, Any, tuple[list[Found], list[Found]]]
) -> tuple[list[Found], list[Found], list[Found]]:
    """Run the two branches at once."""
    dense: list[Found] = []

    async def first() -> tuple[list[Found], list[Found]]:
        dense.extend(await meaning)
        return [], []

    _, (lexical, graph) = await together([first(), words])
    return dense, lexical, graph


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


def _once(hits: list[Hit]) -> list[Hit]:
    """Let the best of equal passages stand for all of them, and name the others' places."""
    equal: dict[tuple[str, ...], list[Hit]] = {}
    for hit in hits:
        equal.setdefault((hit.heading, *hit.text.split()), []).append(hit)
    return [
        msgspec.structs.replace(best, also=tuple(map(_place, others))) if others else best
        for best, *others in equal.values()
    ]


def _place(hit: Hit) -> Place:
    return Place(id=hit.id, document=hit.document, source=hit.source, title=hit.title, start=hit.start, end=hit.end)


def _hit(stored: StoredChunk, score: float, scores: dict[str, float], via: tuple[str, ...]) -> Hit:
    chunk = stored.chunk
    return Hit(
        id=chunk.id,
        document=chunk.document,
        source=stored.source,
        title=stored.title,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        heading=chunk.heading,
        score=score,
        scores=scores,
        via=via,
        metadata=stored.metadata,
    )
