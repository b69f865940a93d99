"""
Indexing: documents in, every index complete, whatever happens on the way.

A document is read, cut and compared with what is known of it; what has not changed costs nothing, and of what has, only
the new chunks are embedded. Chunks are staged before any index hears of them and seen when all of their document is in
every index, in one transaction. A process may be killed anywhere: indexing again does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from shared_libs.atomic.errors import (
    AuthenticationFailed,
    CircuitOpen,
    FactoryError,
    LLMConnectionError,
    LLMError,
    LLMTimeout,
    MisuseError,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    RetrievalError,
    RetrievalUnavailable,
    in_words,
)
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.supervise import settle
from shared_libs.retrieval.chunking import Chunker, normalised
from shared_libs.retrieval.filters import checked_metadata
from shared_libs.retrieval.ports import POOL
from shared_libs.retrieval.stores import Stores
from shared_libs.retrieval.types import Chunk, Document, DocumentRow, IndexProgress, Point, Space, Words
from shared_libs.retrieval.words import VERSION

if TYPE_CHECKING:
    import numpy as np

BATCH = 64
"""Chunks of one request for embeddings; documents are put together until they have so many new ones."""

AT_ONCE = 2
"""How many batches are on their way: one computes while the other waits for a disk or a server."""

MAX_CHARS = 20_000_000
"""Characters a document may have."""

MAX_PROBLEMS = 100
"""How many problems are told; the rest is counted."""

_NOT_ITS_FAULT = (
    *(AuthenticationFailed, CircuitOpen, LLMConnectionError, LLMTimeout, ModelNotFound, ProviderUnavailable),
    RateLimited,
)
"""Failures of an embedder that no text has caused: the next one would fail too, so the indexing ends."""


class Loadable(Protocol):
    """A document that is read when its turn comes."""

    @property
    def source(self) -> str:
        """What names it."""

    def load(self) -> Document:
        """Read it; blocks, and runs in a thread. What it raises is this document's problem and no other's."""


AnyDocument = Document | Loadable


class _Prepared(NamedTuple):
    """A document that has changed, with its chunks."""

    document: Document
    content_hash: str
    chunks: list[Chunk]


class Indexer:
    """
    One run of an indexing.

    Args:
        stores: where everything goes.
        space: whose documents they are; its generation is the one that is searched.
        embedder: makes the vectors; None: there are none.
        dimensions: how many numbers a vector has.
        chunker: cuts.

    """

    def __init__(
        self, stores: Stores, space: Space, embedder: BaseLLMWrapper | None, dimensions: int, chunker: Chunker
    ) -> None:
        self._stores = stores
        self._space = space
        self._embedder = embedder
        self._dimensions = dimensions
        self._chunker = chunker
        self._problems: list[str] = []
        self._counts: dict[str, int] = dict.fromkeys(
            ("documents_done", "unchanged", "embedded", "reused", "removed", "failed", "tokens"), 0
        )
        self._source = ""
        self._lost = False

    async def run(
        self, documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument], total: int | None
    ) -> AsyncGenerator[IndexProgress, None]:
        """
        Index, and tell how far it is after every batch.

        Raises:
            LLMError: the embedder does not work; what was done is kept.
            RetrievalError: a store does not answer; what was done is kept.

        """
        clock = asyncio.get_running_loop().time
        began = clock()

        def progress(*, finished: bool = False) -> IndexProgress:
            return IndexProgress(
                documents=total,
                elapsed_s=clock() - began,
                source=self._source,
                problems=tuple(self._problems),
                finished=finished,
                **self._counts,
            )

        await self.reap()
        self._lost = await self._has_lost()
        tasks: dict[asyncio.Task[None], set[str]] = {}
        try:
            async with aclosing(self._batches(documents)) as batches:
                async for batch in batches:
                    ids = {prepared.document.id for prepared in batch}
                    # of one document two versions are not at work at once: the later one has to be the last
                    while len(tasks) >= AT_ONCE or any(ids & others for others in tasks.values()):
                        await self._some_done(tasks)
                        yield progress()
                    if batch:
                        tasks[asyncio.create_task(self._index(batch))] = ids
                    else:
                        yield progress()
            while tasks:
                await self._some_done(tasks)
                yield progress()
            await self.reap()
            if self._counts["documents_done"] > self._counts["unchanged"] or self._counts["removed"]:
                await self._tidy()
            yield progress(finished=True)
        finally:
            for task in tasks:
                task.cancel()
            await settle(tasks)
            for task in tasks:
                _ = task.done() and not task.cancelled() and task.exception()  # it was looked at

    async def reap(self) -> None:
        """Have what is doomed leave every index, and then be forgotten; also what a killed process has left."""
        documents = self._stores.documents
        while ids := await documents.async_doomed(self._space):
            await self._stores.vectors.async_delete(self._space, ids)
            await self._stores.words.async_delete(self._space, ids)
            if self._stores.graph is not None:
                await self._stores.graph.async_delete(self._space, ids)
            await documents.async_forget(self._space, ids)
            self._counts["removed"] += len(ids)

    async def _has_lost(self) -> bool:
        """Tell whether a store apart has fewer vectors than there are chunks: then no document is done for sure."""
        if self._embedder is None or not self._stores.vectors.apart:
            return False
        _, chunks = await self._stores.documents.async_sizes(self._space)
        return await self._stores.vectors.async_count(self._space) < chunks

    async def _tidy(self) -> None:
        """Have the indexes put themselves in order; one that does not is searched all the same."""
        for store in (self._stores.vectors, self._stores.words):
            try:
                await store.async_tidy()
            except RetrievalError as error:
                self._problem(f"all is indexed, but searching may be slow: {error}")

    async def _some_done(self, tasks: dict[asyncio.Task[None], set[str]]) -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del tasks[task]
            task.result()

    async def _batches(
        self, documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument]
    ) -> AsyncGenerator[list[_Prepared], None]:
        """Put changed documents together; an empty batch only tells that time has passed."""
        batch: dict[str, _Prepared] = {}
        looked_at = 0
        async with aclosing(_each(documents)) as entries:
            async for entry in entries:
                prepared = await self._prepared(entry)
                looked_at += 1
                if prepared is not None:
                    if batch.pop(prepared.document.id, None):
                        self._counts["documents_done"] += 1  # here is a later version
                    batch[prepared.document.id] = prepared
                if sum(len(one.chunks) for one in batch.values()) >= BATCH or len(batch) >= BATCH:
                    yield list(batch.values())
                    batch, looked_at = {}, 0
                elif looked_at >= BATCH:
                    yield []
                    looked_at = 0
        if batch:
            yield list(batch.values())

    async def _prepared(self, entry: AnyDocument) -> _Prepared | None:
        """Read and cut a document; None where nothing is to do, or nothing can be done."""
        self._source = entry.source
        try:
            job = POOL.submit(lambda: self._read(entry), {})
            document, content_hash = await job.result()
            known = (await self._stores.documents.async_rows(self._space, [document.id])).get(document.id)
            if known and known.state == "indexed" and known.content_hash == content_hash and not self._lost:
                self._counts["unchanged"] += 1
                self._counts["documents_done"] += 1
                return None
            chunks = await POOL.submit(lambda: self._chunker.chunks(document), {}).result()
        except RetrievalUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a reader is foreign code, and one bad document loses no other
            self._counts["documents_done"] += 1
            self._counts["failed"] += 1
            said = str(error) if isinstance(error, FactoryError) else in_words(error)
            self._problem(f"{entry.source}: not indexed: {said}")
            return None
        return _Prepared(document, content_hash, chunks)

    def _read(self, entry: AnyDocument) -> tuple[Document, str]:
        document = entry if isinstance(entry, Document) else entry.load()
        if len(document.text) > MAX_CHARS:
            raise MisuseError(f"it has {len(document.text):,} characters, of at most {MAX_CHARS:,}; split it")
        checked = msgspec.structs.replace(
            document,
            text=normalised(document.text),
            title=normalised(document.title).replace("\n", " ").strip()[:300],
            metadata=checked_metadata(document.metadata),
        )
        return checked, sha256(f"{self._chunker.name}\0{VERSION}\0{checked.content_hash}".encode()).hexdigest()

    async def _index(self, batch: Sequence[_Prepared]) -> None:
        """Bring documents into every index; each is seen when all of it is there."""
        documents, failed = self._stores.documents, dict[str, str]()
        staged: list[tuple[_Prepared, DocumentRow]] = []
        new: list[tuple[_Prepared, Chunk]] = []
        for prepared in batch:
            row = _row(prepared)
            if not await documents.async_stage(self._space, row, prepared.chunks):
                self._counts["documents_done"] += 1
                self._counts["failed"] += 1
                self._problem(f"{row.source}: its last version is just being removed; index it again in a moment")
                continue
            staged.append((prepared, row))
            there = await self._with_vectors(prepared)
            new += [(prepared, chunk) for chunk in prepared.chunks if chunk.id not in there]
            self._counts["reused"] += sum(chunk.id in there for chunk in prepared.chunks)
        for start in range(0, len(new), BATCH):
            failed |= await self._embed(new[start : start + BATCH])
        for prepared, row in staged:
            await self._finish(prepared, row, failed)

    async def _with_vectors(self, prepared: _Prepared) -> set[str]:
        """Return the chunks that need no embedding."""
        ids = [chunk.id for chunk in prepared.chunks]
        if self._embedder is None:
            return set(ids)
        return await self._stores.vectors.async_tag(self._space, ids, prepared.document.metadata)

    async def _embed(self, part: Sequence[tuple[_Prepared, Chunk]]) -> dict[str, str]:
        """Embed chunks and store the vectors; return why which failed, each found out by halving."""
        assert self._embedder is not None
        try:
            vectors = await self._embedder.async_embed([embedded_text(owner.document, chunk) for owner, chunk in part])
        except _NOT_ITS_FAULT:
            raise
        except (LLMError, MisuseError) as error:
            if len(part) == 1:
                return {part[0][1].id: str(error)}
            half = len(part) // 2
            return await self._embed(part[:half]) | await self._embed(part[half:])
        check_width(vectors, self._dimensions)
        points = [
            Point(chunk.id, vector, owner.document.metadata)
            for (owner, chunk), vector in zip(part, vectors, strict=True)
        ]
        await self._stores.vectors.async_upsert(self._space, points)
        self._counts["embedded"] += len(part)
        self._counts["tokens"] += sum(chunk.tokens for _, chunk in part)
        return {}

    async def _finish(self, prepared: _Prepared, row: DocumentRow, failed: dict[str, str]) -> None:
        document = prepared.document
        kept = [chunk for chunk in prepared.chunks if chunk.id not in failed]
        lost = [chunk for chunk in prepared.chunks if chunk.id in failed]
        said = ""
        if lost:
            said = f"{len(lost)} of {len(prepared.chunks)} chunks failed; at character {lost[0].start}: "
            said += failed[lost[0].id]
        elif not prepared.chunks:
            pictures = document.media_type == "application/pdf"
            said = "no words were found in it" + ("; pages that are pictures need OCR first" if pictures else "")
        row = msgspec.structs.replace(
            row, state="partial" if lost else "indexed", chunks=len(kept), failed=len(lost), error=said
        )
        texts = [Words(chunk.id, embedded_text(document, chunk), document.metadata) for chunk in kept]
        try:
            await self._stores.words.async_upsert(self._space, texts)
            if not await self._stores.documents.async_commit(self._space, row, document.text, kept):
                said = "another indexing of the same document was at work; index it again"
                lost = prepared.chunks
        except RetrievalUnavailable:
            raise
        except RetrievalError as error:
            said, lost = str(error), prepared.chunks
        self._counts["documents_done"] += 1
        self._counts["failed"] += bool(lost)
        if said:
            self._problem(f"{document.source}: {said}")

    def _problem(self, text: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(text)


def embedded_text(document: Document, chunk: Chunk) -> str:
    """Return what is embedded and indexed of a chunk: its words under the titles they stand under."""
    above = [line for line in dict.fromkeys((document.title, chunk.heading)) if line and line not in chunk.text[:300]]
    return "\n".join([*above, chunk.text])


def check_width(vectors: np.ndarray, dimensions: int) -> None:
    """
    Check that an embedder gives vectors as long as those that are stored, before one of them is.

    Raises:
        MisuseError: it does not: it is another model under the same name, and no text is to blame.

    """
    if vectors.shape[1] != dimensions:
        raise MisuseError(
            f"the embedder gives vectors of {vectors.shape[1]} numbers, and the collection holds those of "
            f"{dimensions}: they do not compare. Set `dimensions` as they were, or embed anew: factory index --rebuild"
        )


def _row(prepared: _Prepared) -> DocumentRow:
    document = prepared.document
    return DocumentRow(
        id=document.id,
        source=document.source,
        title=document.title,
        media_type=document.media_type,
        metadata=dict(document.metadata),
        content_hash=prepared.content_hash,
    )


async def _each(documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument]) -> AsyncGenerator[AnyDocument, None]:
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield document
    else:
        for document in documents:
            yield document
