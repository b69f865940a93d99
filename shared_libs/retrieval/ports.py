"""
The ports of retrieval: where documents, vectors, words and a graph are kept.

A store implements the small methods that begin with one underscore. One that waits (HTTP, Bolt, a database server)
writes them as `async def`; one that computes in this process writes plain `def`, and they run in a pool of as many
threads as there are cores, never on the event loop. The public methods are final: they bound every call by `timeout_s`
(`write_timeout_s`) and the current deadline, check what goes in and what comes out, and make one kind of error of every
failure.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast, final

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import DeadlineExceeded, MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.scope import current_deadline
from shared_libs.atomic.supervise import NO_FAILURES, BodyCancelled, LeftRunning, said_by, supervise
from shared_libs.atomic.threads import Threads
from shared_libs.retrieval.cypher_guard import ReadQuery
from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.types import (
    Chunk,
    CollectionRow,
    DocumentRow,
    EmbedderIdentity,
    Expanded,
    Facts,
    Found,
    Point,
    Space,
    StoredChunk,
    Words,
)
from shared_libs.retrieval.vectors import check_vector

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Given: TypeAlias = T | Awaitable[T]
"""What a store's method gives: at once, in a thread of the pool; or awaited, where it waits."""

POOL = Threads("retrieval", max(2, os.cpu_count() or 1))
"""Where stores of this process compute: more threads than cores only make each other wait."""


class Port:
    """What all ports have: a name for errors, a bound for every call, and what it has left running."""

    name: str = "store"
    timeout_s: float = 10.0
    """Seconds that whoever asks waits for an answer."""

    write_timeout_s: float = 120.0
    """Seconds of a write: nobody is kept waiting, and a server that builds an index at every write takes its time."""

    tidy_timeout_s: float = 3_600.0  # a million vectors take a quarter of an hour
    _left_running: LeftRunning | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if Port in cls.__bases__:  # a port itself
            return
        for method in vars(cls):
            if method.startswith("async_"):
                raise MisuseError(f"{cls.__name__} overrides {method}, which is final; write `_{method[6:]}` instead")

    @property
    def still_running(self) -> int:
        """How many calls of this store run on although nobody waits for them any more."""
        return 0 if self._left_running is None else len(self._left_running)

    async def aclose(self) -> None:
        """Release what the store holds; using it afterwards opens it again."""

    @final
    async def async_tidy(self) -> None:
        """Hear that an indexing has ended: what makes searching faster and may wait is done now, and once."""
        await self._ask("put its indexes in order", self._tidy, timeout_s=self.tidy_timeout_s)

    def _tidy(self) -> Given[None]:
        """Put in order what writes have put off, where anything is."""

    async def _keep(self, verb: str, method: Callable[..., Given[T]], *arguments: Any) -> T:
        """Await a method that writes."""
        return await self._ask(verb, method, *arguments, timeout_s=self.write_timeout_s)

    async def _ask(
        self, verb: str, method: Callable[..., Given[T]], *arguments: Any, timeout_s: float | None = None
    ) -> T:
        """Await a method of the store until the deadline, in a thread where it is a plain function."""
        if self._left_running is None:
            self._left_running = LeftRunning()
        if self._left_running.full:
            raise RetrievalUnavailable(f"{self.name} was not asked to {verb}: {self._left_running}")
        limit = current_deadline().narrowed(timeout_s or self.timeout_s)
        allowed = max(0.0, limit.at - asyncio.get_running_loop().time())
        expiry = Expiry(limit.at, f"{self.name} did not {verb} within {allowed:.3g} s")
        job = None
        try:
            if _waits(getattr(method, "__func__", method)):
                body = cast("Coroutine[Any, Any, T]", method(*arguments))
            else:
                job = POOL.submit(lambda: method(*arguments), {})
                body = job.result()
            return await supervise(
                body,
                expiry,
                what="store",
                name=self.name,
                call_id=verb,
                elsewhere=job,
                left_running=self._left_running,
            )
        except DeadlineExceeded as error:
            raise RetrievalUnavailable(str(error)) from error
        except BodyCancelled:
            raise RetrievalError(f"{self.name} was cancelled from within during {verb}") from None
        except (RetrievalError, MisuseError):
            raise
        except NO_FAILURES:
            raise
        except BaseException as error:  # a store is foreign code: its failure has one type for the caller
            raise RetrievalError(f"{self.name} failed to {verb}: {said_by(error)}") from error


class DocumentStore(Port):
    """
    The owner of truth: which documents there are, their text, their chunks, and what may be seen.

    A chunk is staged before any index knows it, seen when its document is committed, and doomed before it leaves the
    indexes; so whatever an index finds that is not seen here is not there, and nothing an index holds is forgotten.
    """

    name = "document store"

    @final
    async def async_collection(self, space: Space) -> CollectionRow | None:
        """Return what is kept of a collection; None where there is none."""
        return await self._ask("look up a collection", self._collection, space)

    @final
    async def async_collections(self, tenant: str) -> list[CollectionRow]:
        """Return the collections of a tenant, by name, without their sizes."""
        return await self._ask("list collections", self._collections, tenant)

    @final
    async def async_sizes(self, space: Space) -> tuple[int, int]:
        """Return how many documents and how many chunks of a collection may be seen."""
        return await self._ask("count", self._sizes, space)

    @final
    async def async_create(self, space: Space, embedder: EmbedderIdentity | None) -> CollectionRow:
        """Make a collection; one that is there stays as it is and is returned."""
        return await self._ask("make a collection", self._create, space, embedder)

    @final
    async def async_begin_generation(self, space: Space, embedder: EmbedderIdentity | None) -> int:
        """Return the number of the generation that another embedder builds; the same one goes on with its own."""
        return await self._ask("begin a generation", self._begin_generation, space, embedder)

    @final
    async def async_switch(self, space: Space, generation: int) -> bool:
        """
        Make a generation the one that is searched, at once, and forget those before it.

        False, and nothing done, where it was forgotten itself, for one that was begun later and is searched already.
        """
        return await self._keep("switch generations", self._switch, space, generation)

    @final
    async def async_drop(self, space: Space) -> bool:
        """Forget a collection with all its documents; False where there is none."""
        return await self._keep("drop a collection", self._drop, space)

    @final
    async def async_rows(self, space: Space, ids: Sequence[str]) -> dict[str, DocumentRow]:
        """Return those of the documents that are known."""
        return await self._ask("look up documents", self._rows, space, list(ids)) if ids else {}

    @final
    async def async_documents(self, space: Space, *, after: str = "", limit: int = 100) -> list[DocumentRow]:
        """Return documents by their id, those behind `after`."""
        return await self._ask("list documents", self._documents, space, after, limit)

    @final
    async def async_text(self, space: Space, document: str) -> str | None:
        """Return the stored text that offsets refer to; None where there is no such document."""
        return await self._ask("read a document", self._text, space, document)

    @final
    async def async_chunks(self, space: Space, ids: Sequence[str]) -> dict[str, StoredChunk]:
        """Return those of the chunks that may be seen."""
        return await self._ask("read chunks", self._chunks, space, list(ids)) if ids else {}

    @final
    async def async_seen(self, space: Space, *, after: str = "", limit: int = 256) -> list[StoredChunk]:
        """Return chunks that may be seen by their id, those behind `after`."""
        return await self._ask("list chunks", self._seen, space, after, limit)

    @final
    async def async_parts(self, space: Space, document: str) -> list[str]:
        """Return the ids of the chunks of a document that may be seen."""
        return await self._ask("list the chunks of a document", self._parts, space, document)

    @final
    async def async_stage(self, space: Space, document: DocumentRow, chunks: Sequence[Chunk]) -> bool:
        """
        Note chunks that are about to enter the indexes; none is seen by that.

        False, and nothing done, where one of them is just being removed by another.
        """
        return await self._keep("stage chunks", self._stage, space, document, list(chunks))

    @final
    async def async_commit(self, space: Space, document: DocumentRow, text: str, chunks: Sequence[Chunk]) -> bool:
        """
        Make this the document, at once: its chunks are seen, and what it had besides is doomed.

        False, and nothing done, where another indexing has doomed one of the chunks meanwhile.

        Raises:
            RetrievalError: a chunk is not what stands at its place: who cites it would cite something else.

        """
        for chunk in chunks:
            if text[chunk.start : chunk.end] != chunk.text:
                raise RetrievalError(f"chunk {chunk.id} is not what stands at {chunk.start} to {chunk.end}")
        return await self._keep("commit a document", self._commit, space, document, text, list(chunks))

    @final
    async def async_remove(self, space: Space, document: str) -> bool:
        """Make a document unseen at once and doom its chunks; False where there is none."""
        return await self._keep("remove a document", self._remove, space, document)

    @final
    async def async_doomed(self, space: Space, limit: int = 1_000) -> list[str]:
        """Return chunks that are to leave the indexes; from now on nobody may stage them."""
        return await self._ask("list what is to go", self._doomed, space, limit)

    @final
    async def async_forget(self, space: Space, ids: Sequence[str]) -> None:
        """Forget doomed chunks that have left every index."""
        await self._keep("forget chunks", self._forget, space, list(ids))

    def _collection(self, space: Space) -> Given[CollectionRow | None]:
        raise NotImplementedError

    def _collections(self, tenant: str) -> Given[list[CollectionRow]]:
        raise NotImplementedError

    def _sizes(self, space: Space) -> Given[tuple[int, int]]:
        raise NotImplementedError

    def _create(self, space: Space, embedder: EmbedderIdentity | None) -> Given[CollectionRow]:
        raise NotImplementedError

    def _begin_generation(self, space: Space, embedder: EmbedderIdentity | None) -> Given[int]:
        raise NotImplementedError

    def _switch(self, space: Space, generation: int) -> Given[bool]:
        raise NotImplementedError

    def _drop(self, space: Space) -> Given[bool]:
        raise NotImplementedError

    def _rows(self, space: Space, ids: list[str]) -> Given[dict[str, DocumentRow]]:
        raise NotImplementedError

    def _documents(self, space: Space, after: str, limit: int) -> Given[list[DocumentRow]]:
        raise NotImplementedError

    def _text(self, space: Space, document: str) -> Given[str | None]:
        raise NotImplementedError

    def _chunks(self, space: Space, ids: list[str]) -> Given[dict[str, StoredChunk]]:
        raise NotImplementedError

    def _seen(self, space: Space, after: str, limit: int) -> Given[list[StoredChunk]]:
        raise NotImplementedError

    def _parts(self, space: Space, document: str) -> Given[list[str]]:
        raise NotImplementedError

    def _stage(self, space: Space, document: DocumentRow, chunks: list[Chunk]) -> Given[bool]:
        raise NotImplementedError

    def _commit(self, space: Space, document: DocumentRow, text: str, chunks: list[Chunk]) -> Given[bool]:
        raise NotImplementedError

    def _remove(self, space: Space, document: str) -> Given[bool]:
        raise NotImplementedError

    def _doomed(self, space: Space, limit: int) -> Given[list[str]]:
        raise NotImplementedError

    def _forget(self, space: Space, ids: list[str]) -> Given[None]:
        raise NotImplementedError


class VectorStore(Port):
    """Vectors by chunk id, compared by the cosine of their angle. Every write may be repeated."""

    name = "vector store"

    apart = False
    """Whether it is kept apart from the documents, so that it may lose what these take for indexed."""

    @final
    async def async_upsert(self, space: Space, points: Sequence[Point]) -> None:
        """
        Store vectors, over those of the same ids.

        Raises:
            MisuseError: they are not all of one length, or hold what is no finite number.

        """
        if points:
            width = len(points[0].vector)
            for point in points:
                check_vector(point.vector, width)
            await self._keep("store vectors", self._upsert, space, list(points))

    @final
    async def async_search(self, space: Space, vector: np.ndarray, k: int, where: Where = ()) -> list[Found]:
        """Return the `k` nearest of those that fit the filter, nearest first, equals by id."""
        if k < 1:
            return []
        check_vector(vector)
        return _checked(self.name, await self._ask("search", self._search, space, vector, k, where), k)

    @final
    async def async_tag(self, space: Space, ids: Sequence[str], metadata: Mapping[str, Any]) -> set[str]:
        """Note metadata on those of the points that are there, and return which are."""
        return await self._keep("note metadata", self._tag, space, list(ids), dict(metadata)) if ids else set()

    @final
    async def async_delete(self, space: Space, ids: Sequence[str]) -> None:
        """Remove vectors; those that are not there are no error."""
        if ids:
            await self._keep("delete vectors", self._delete, space, list(ids))

    @final
    async def async_drop(self, space: Space) -> None:
        """Remove a whole generation."""
        await self._keep("drop vectors", self._drop, space)

    @final
    async def async_count(self, space: Space) -> int:
        """Return how many vectors there are."""
        return await self._ask("count vectors", self._count, space)

    def _upsert(self, space: Space, points: list[Point]) -> Given[None]:
        raise NotImplementedError

    def _search(self, space: Space, vector: np.ndarray, k: int, where: Where) -> Given[list[Found]]:
        raise NotImplementedError

    def _tag(self, space: Space, ids: list[str], metadata: dict[str, Any]) -> Given[set[str]]:
        raise NotImplementedError

    def _delete(self, space: Space, ids: list[str]) -> Given[None]:
        raise NotImplementedError

    def _drop(self, space: Space) -> Given[None]:
        raise NotImplementedError

    def _count(self, space: Space) -> Given[int]:
        raise NotImplementedError


class LexicalIndex(Port):
    """Chunks by the words they hold. Every write may be repeated; generations do not matter here."""

    name = "lexical index"

    @final
    async def async_upsert(self, space: Space, texts: Sequence[Words]) -> None:
        """Index texts, over those of the same ids."""
        if texts:
            await self._keep("index texts", self._upsert, space, list(texts))

    @final
    async def async_search(self, space: Space, text: str, k: int, where: Where = ()) -> list[Found]:
        """Return up to `k` chunks that share words with the text and fit the filter, best first, equals by id."""
        if k < 1 or not text.strip():
            return []
        return _checked(self.name, await self._ask("search", self._search, space, text, k, where), k)

    @final
    async def async_delete(self, space: Space, ids: Sequence[str]) -> None:
        """Remove texts; those that are not there are no error."""
        if ids:
            await self._keep("delete texts", self._delete, space, list(ids))

    @final
    async def async_drop(self, space: Space) -> None:
        """Remove the texts of a collection."""
        await self._keep("drop texts", self._drop, space)

    def _upsert(self, space: Space, texts: list[Words]) -> Given[None]:
        raise NotImplementedError

    def _search(self, space: Space, text: str, k: int, where: Where) -> Given[list[Found]]:
        raise NotImplementedError

    def _delete(self, space: Space, ids: list[str]) -> Given[None]:
        raise NotImplementedError

    def _drop(self, space: Space) -> Given[None]:
        raise NotImplementedError


class GraphStore(Port):
    """What texts mention and how that is related, by tenant and collection. Every write may be repeated."""

    name = "graph store"

    apart = False
    """Whether it is kept apart from the documents, so that these do not know whether there is anything in it."""

    @final
    async def async_upsert(self, space: Space, facts: Sequence[Facts]) -> None:
        """Store what chunks tell, over what they told before."""
        if facts:
            await self._keep("store facts", self._upsert, space, list(facts))

    @final
    async def async_extracted(self, space: Space, ids: Sequence[str], extractor: str) -> set[str]:
        """Return those of the chunks that this extractor has read."""
        return await self._ask("look up facts", self._extracted, space, list(ids), extractor) if ids else set()

    @final
    async def async_query(self, space: Space, query: ReadQuery) -> list[dict[str, Any]]:
        """
        Answer a query that `cypher_guard.read_query` has let pass, with the rows it allows.

        Raises:
            MisuseError: this store answers no queries, or not this one.

        """
        return await self._ask("answer a query", self._query, space, query)

    @final
    async def async_expand(self, space: Space, question: str, seeds: Sequence[str]) -> list[Expanded]:
        """Return chunks that what the question names, or what the seeds mention, leads to; best first, no seed."""
        return await self._ask("expand", self._expand, space, question, list(seeds))

    @final
    async def async_delete(self, space: Space, ids: Sequence[str]) -> None:
        """Remove what chunks have told; what nothing else tells goes too."""
        if ids:
            await self._keep("delete mentions", self._delete, space, list(ids))

    @final
    async def async_drop(self, space: Space) -> None:
        """Remove the graph of a collection."""
        await self._keep("drop a graph", self._drop, space)

    def _upsert(self, space: Space, facts: list[Facts]) -> Given[None]:
        raise NotImplementedError

    def _extracted(self, space: Space, ids: list[str], extractor: str) -> Given[set[str]]:
        raise NotImplementedError

    def _query(self, space: Space, query: ReadQuery) -> Given[list[dict[str, Any]]]:
        raise MisuseError(f"{self.name} answers no Cypher")

    def _expand(self, space: Space, question: str, seeds: list[str]) -> Given[list[Expanded]]:
        raise NotImplementedError

    def _delete(self, space: Space, ids: list[str]) -> Given[None]:
        raise NotImplementedError

    def _drop(self, space: Space) -> Given[None]:
        raise NotImplementedError


@lru_cache(maxsize=512)
def _waits(function: Callable[..., Any]) -> bool:
    """Whether a method is one that waits; asked at every call, and to look takes longer than to remember."""
    return inspect.iscoroutinefunction(function)


def _checked(name: str, found: Any, k: int) -> list[Found]:
    """Take what a store has found: it is foreign code. What it gives twice is one hit, the first of the two."""
    once: dict[str, Found] = {}
    for row in found:
        if not isinstance(row, Found) or not math.isfinite(row.score):
            raise RetrievalError(f"{name} gave {row!r:.80} where a chunk id and a finite score belong")
        once.setdefault(row.id, row)
    return list(once.values())[:k]
