"""A collection: the documents of one tenant under one name, and everything one does with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError, RetrievalError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.loading import load
from shared_libs.atomic.opening import closed
from shared_libs.retrieval.chunking import Chunker, Tokenizer
from shared_libs.retrieval.cypher_guard import read_query
from shared_libs.retrieval.extraction import Extractor, Told, Upserted, extracted, facts_told, keep_facts
from shared_libs.retrieval.filters import Condition, among, read_filter
from shared_libs.retrieval.indexer import AnyDocument, Indexer, check_width, embedded_text
from shared_libs.retrieval.ports import POOL
from shared_libs.retrieval.retriever import Retriever
from shared_libs.retrieval.stores import Stores, open_stores
from shared_libs.retrieval.telling import told
from shared_libs.retrieval.types import (
    CollectionRow,
    Document,
    DocumentRow,
    EmbedderIdentity,
    IndexProgress,
    Point,
    Retrieved,
    Space,
    StoredChunk,
    document_id,
)
from shared_libs.retrieval.words import STEMMER

MOST_HITS = 100
"""How many passages one search gives at most."""

MAX_QUESTION = 8_000
"""Characters of a question that are looked at."""


class Collection:
    """
    A set of documents that are indexed, found and cited.

    It may be built outside a running loop and shared by many runs at once.

    Args:
        name: what it is called.
        tenant: whose it is; collections of two tenants of the same name are two.
        stores: where it is kept, or a URL as `open_stores` takes it.
        embedder: a model with embeddings. Without, it is searched by words only.
        reranker: a model that orders the best anew; None: nobody does.
        extractor: reads entities and relations out of passages; None: nobody does.
        chunk_tokens: how many tokens a passage may have.

    Raises:
        MisuseError: a name or a URL is not valid, or the embedder has no embeddings.

    """

    def __init__(
        self,
        name: str,
        *,
        tenant: str,
        stores: Stores | str,
        embedder: BaseLLMWrapper | None = None,
        reranker: BaseLLMWrapper | None = None,
        extractor: Extractor | None = None,
        chunk_tokens: int = 200,
    ) -> None:
        if embedder is not None and not embedder.embeds:
            raise MisuseError(f"embedder: {type(embedder).__name__} has no embeddings; name a model that has")
        if reranker is not None and not reranker.reranks:
            raise MisuseError(f"reranker: {type(reranker).__name__} is no reranker; name a model that is")
        Chunker(budget=chunk_tokens)
        self._space = Space(tenant=tenant, collection=name)
        self.stores = open_stores(stores) if isinstance(stores, str) else stores
        self.embedder = embedder
        self.reranker = reranker
        self.extractor = extractor
        self._chunk_tokens = chunk_tokens
        self._retriever = Retriever(self.stores, embedder, reranker)

    def __repr__(self) -> str:
        return f"Collection({self.name!r}, tenant={self.tenant!r})"

    @property
    def name(self) -> str:
        """What it is called."""
        return self._space.collection

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self._space.tenant

    def of(self, tenant: str) -> Collection:
        """
        Return the collection of this name of another tenant: in the same stores, with the same models.

        Raises:
            MisuseError: it is no name of a tenant.

        """
        return Collection(
            self.name,
            tenant=tenant,
            stores=self.stores,
            embedder=self.embedder,
            reranker=self.reranker,
            extractor=self.extractor,
            chunk_tokens=self._chunk_tokens,
        )

    async def async_index(
        self, documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument], *, total: int | None = None
    ) -> AsyncGenerator[IndexProgress, None]:
        """
        Index documents and tell how far it is; the last progress is `finished`.

        What has not changed costs nothing. It may be broken off anywhere; done again, it does the rest.

        Args:
            documents: documents, or what loads one when its turn comes.
            total: how many come, for whoever watches.

        Raises:
            MisuseError: the collection's vectors are of another model; `async_rebuild` makes new ones.
            LLMError: the embedder does not work; what was done is kept.
            RetrievalError: a store does not answer; what was done is kept.

        """
        row = await self._made()
        async with aclosing((await self._indexer(row)).run(documents, total)) as progress:
            async for so_far in progress:
                yield so_far

    async def async_search(
        self, question: str, *, k: int = 10, where: Mapping[str, Any] | None = None, document: str | None = None
    ) -> Retrieved:
        """
        Return the `k` best passages, found by words and by meaning.

        Args:
            question: what is looked for.
            k: how many passages.
            where: what the metadata of their documents has to be.
            document: its source or id, to look only there; None: everywhere.

        Raises:
            MisuseError: no such collection or document, vectors of another model, or the filter is none.
            RetrievalUnavailable: nothing could be searched.

        """
        return await self._retrieve(question, k, where, document, deep=False)

    async def async_retrieve(
        self, question: str, *, k: int = 10, where: Mapping[str, Any] | None = None, document: str | None = None
    ) -> Retrieved:
        """
        Return the `k` best passages as `async_search` does, with what a graph adds, reranked where there is a reranker.

        It keeps the current deadline: as time shrinks, steps are left out, and `stages` says which.

        Args:
            question: what is looked for.
            k: how many passages.
            where: what the metadata of their documents has to be.
            document: its source or id, to look only there; None: everywhere.

        Raises:
            MisuseError: no such collection or document, vectors of another model, or the filter is none.
            RetrievalUnavailable: nothing could be searched.

        """
        return await self._retrieve(question, k, where, document, deep=True)

    async def async_describe(self) -> CollectionRow | None:
        """Return what there is; None where the collection was never indexed."""
        row = await self._known()
        if row is None:
            return None
        documents, chunks = await self.stores.documents.async_sizes(self._space)
        return msgspec.structs.replace(row, documents=documents, chunks=chunks)

    async def async_documents(self, *, after: str = "", limit: int = 100) -> list[DocumentRow]:
        """Return documents by their id, those behind `after`."""
        return await self.stores.documents.async_documents(self._space, after=after, limit=limit)

    async def async_document(self, source_or_id: str) -> DocumentRow | None:
        """Return what is kept of a document, by its source or its id."""
        ids = [document_id(source_or_id), source_or_id]
        rows = await self.stores.documents.async_rows(self._space, ids)
        return rows.get(ids[0]) or rows.get(ids[1])

    async def async_text(self, source_or_id: str) -> str | None:
        """Return the stored text of a document, which offsets refer to."""
        row = await self.async_document(source_or_id)
        return None if row is None else await self.stores.documents.async_text(self._space, row.id)

    async def async_remove(self, source_or_id: str) -> bool:
        """
        Remove a document; it is unseen at once, and then leaves every index.

        Returns False where there is no such document.
        """
        row = await self.async_document(source_or_id)
        if row is None or not await self.stores.documents.async_remove(self._space, row.id):
            return False
        await (await self._indexer(await self._there())).reap()
        return True

    async def async_drop(self) -> bool:
        """Remove the collection with all its documents; False where there is none."""
        row = await self._known()
        if row is None:
            return False
        for generation in filter(None, (row.generation, row.building)):
            await self.stores.vectors.async_drop(msgspec.structs.replace(self._space, generation=generation))
        if self.stores.graph is not None:
            await self.stores.graph.async_drop(self._space)
        await self.stores.words.async_drop(self._space)  # after what may fail alone: nothing brings words back
        return await self.stores.documents.async_drop(self._space)

    async def async_rebuild(self) -> AsyncGenerator[IndexProgress, None]:
        """
        Embed everything anew with this collection's embedder, beside the old vectors, and switch at once.

        Searches go on with the old ones until then. Broken off, it goes on where it was.

        Raises:
            MisuseError: there is no such collection.
            LLMError: the embedder does not work; the old vectors stay the ones that are searched.
            RetrievalError: another rebuild was begun later, and has ended first.

        """
        row = await self._there()
        identity = await self._identity()
        generation = await self.stores.documents.async_begin_generation(self._space, identity)
        if generation != row.generation:
            async with aclosing(self._embedded_anew(generation, identity)) as progress:
                async for so_far in progress:
                    yield so_far
            switched = await self.stores.documents.async_switch(self._space, generation)
            # where it was: its own; else those before it, and what rebuilds that never ended have left
            for gone in range(row.generation, generation) if switched else (generation,):
                await self.stores.vectors.async_drop(msgspec.structs.replace(self._space, generation=gone))
            if not switched:
                raise RetrievalError(f"a rebuild of {self.name!r} that was begun later has ended first; that one stays")
        yield IndexProgress(finished=True)

    async def async_extract(self, *, at_once: int = 4) -> AsyncGenerator[IndexProgress, None]:
        """
        Read what the chunks tell of entities and relations, so that retrieving can follow them.

        A chunk that the extractor has read costs nothing; one that cannot be read is told, and tried again next time.

        Args:
            at_once: how many chunks are read at the same time.

        Raises:
            MisuseError: there is no such collection, no extractor, or no graph store.

        """
        await self._there()
        if self.extractor is None or self.stores.graph is None:
            missing = "extractor" if self.extractor is None else "graph store"
            raise MisuseError(f"collection {self.name!r} has no {missing}")
        async with aclosing(extracted(self.stores, self._space, self.extractor, at_once)) as progress:
            async for so_far in progress:
                yield so_far

    async def async_upsert(self, told: Sequence[Told]) -> Upserted:
        """
        Store what somebody tells of chunks, over what was told of them before.

        What a chunk's text does not name is left out, as it is of what models read.

        Raises:
            MisuseError: there is no such collection, no such chunk, or no graph store.

        """
        await self._there()
        if self.stores.graph is None:
            raise MisuseError(f"collection {self.name!r} has no graph store")
        chunks = await self.stores.documents.async_chunks(self._space, [one.chunk for one in told])
        if unknown := [one.chunk for one in told if one.chunk not in chunks]:
            raise MisuseError(f"collection {self.name!r} has no chunk {unknown[0]!r:.60}")
        facts = [facts_told(one, chunks[one.chunk].chunk) for one in told]
        await keep_facts(self.stores, self._space, facts)
        return Upserted(
            chunks=len(facts),
            entities=sum(len(one.entities) for one in facts),
            relations=sum(len(one.relations) for one in facts),
        )

    async def async_query(
        self, cypher: str, parameters: Mapping[str, Any] | None = None, *, rows: int = 100
    ) -> list[dict[str, Any]]:
        """
        Answer a read-only Cypher query over what the chunks tell.

        Nodes are `Entity {id, name, type}` and `Chunk {id, document, heading}`; relations `MENTIONS` and
        `RELATES {kind}`.

        Raises:
            MisuseError: the query does more than read, there is no such collection, or no graph that answers queries.
            RetrievalError: the query cannot be answered.

        """
        query = read_query(cypher, parameters, rows=rows)
        with told("query", self.name, cypher, rows) as telling:
            await self._there()
            if self.stores.graph is None:
                raise MisuseError(f"collection {self.name!r} has no graph store")
            answer = await self.stores.graph.async_query(self._space, query)
            telling.found = len(answer)
        return answer

    async def aclose(self) -> None:
        """
        Close stores and models; using it afterwards opens them again.

        What is not closed within `CLOSE_S` is left behind, and the log says so.
        """
        models = (self.embedder, self.reranker, *(self.extractor.models if self.extractor else ()))
        used = {id(model): model for model in models if model is not None}  # one may serve twice
        stores = (f"the stores of collection {self.name}", self.stores.aclose())
        await closed(stores, *((model.model, model.aclose()) for model in used.values()))

    async def _retrieve(
        self, question: str, k: int, where: Mapping[str, Any] | None, document: str | None, *, deep: bool
    ) -> Retrieved:
        if not question.strip():
            raise MisuseError("the question is empty")
        if not 1 <= k <= MOST_HITS:
            raise MisuseError(f"k is a number from 1 to {MOST_HITS}, not {k!r}")
        checked = read_filter(where)
        question = question[:MAX_QUESTION]
        with told("retrieve" if deep else "search", self.name, question, k) as telling:
            row = await self._there()
            self._check_embedder(row)
            if document is not None:
                checked += (await self._of_document(document),)
            space = msgspec.structs.replace(self._space, generation=row.generation)
            graph = row.graph or (self.stores.graph is not None and self.stores.graph.apart)
            steps = frozenset({"rerank", "graph"} if graph else {"rerank"}) if deep else frozenset[str]()
            found = await self._retriever.retrieve(space, question, k, checked, steps=steps, began=telling.began)
            telling.found, telling.stages = len(found.hits), found.stages
            telling.scores = {hit.id: hit.score for hit in found.hits}
        return found

    async def _of_document(self, source_or_id: str) -> Condition:
        found = await self.async_document(source_or_id)
        if found is None:
            raise MisuseError(f"collection {self.name!r} has no document {source_or_id!r:.200}")
        return among(await self.stores.documents.async_parts(self._space, found.id))

    async def _made(self) -> CollectionRow:
        """Return the collection, made if need be."""
        row = await self._known()
        if row is None:
            row = await self.stores.documents.async_create(self._space, await self._identity())
        self._check_embedder(row)
        return row

    async def _known(self) -> CollectionRow | None:
        await load("numpy", STEMMER)  # before a thread of the pool does, and holds it against the event loop
        return await self.stores.documents.async_collection(self._space)

    async def _there(self) -> CollectionRow:
        row = await self._known()
        if row is None:
            raise MisuseError(
                f"there is no collection {self.name!r}; make it: factory index PATH --collection {self.name}"
            )
        return row

    async def _identity(self) -> EmbedderIdentity | None:
        """Say which vectors the embedder makes; how long they are, it shows by one."""
        if self.embedder is None:
            return None
        vectors = await self.embedder.async_embed(["dimensions"])
        return EmbedderIdentity(
            provider=self.embedder.provider, model=self.embedder.model, dimensions=int(vectors.shape[1])
        )

    def _check_embedder(self, row: CollectionRow) -> None:
        """Refuse to compare vectors of two models."""
        made, here = row.embedder, self.embedder
        made_by = None if made is None else (made.provider, made.model, made.dimensions)
        wanted = None if here is None else here.options.get("dimensions", made and made.dimensions)
        if made_by != (None if here is None else (here.provider, here.model, wanted)):
            ours = "no embedder" if here is None else f"{here.provider}/{here.model} ({wanted} dimensions)"
            raise MisuseError(
                f"collection {self.name!r} was embedded by {made or 'no embedder'}, and this is {ours}: their vectors "
                f"do not compare. Use that one, or embed it anew: factory index --collection {self.name} --rebuild"
            )

    async def _indexer(self, row: CollectionRow) -> Indexer:
        tokenizer: Tokenizer | None = None
        embedder: Any = self.embedder
        if hasattr(type(embedder), "tokenizer"):  # asked of the class: a property may load what it gives
            tokenizer = await POOL.submit(lambda: embedder.tokenizer, {}).result()
        space = msgspec.structs.replace(self._space, generation=row.generation)
        chunker = Chunker(tokenizer, budget=self._chunk_tokens)
        return Indexer(self.stores, space, self.embedder, row.embedder.dimensions if row.embedder else 0, chunker)

    async def _embedded_anew(
        self, generation: int, identity: EmbedderIdentity | None
    ) -> AsyncGenerator[IndexProgress, None]:
        clock = asyncio.get_running_loop().time
        space = msgspec.structs.replace(self._space, generation=generation)
        after, began, embedded, reused, news = "", clock(), 0, 0, 0
        while identity is not None:
            chunks = await self.stores.documents.async_seen(self._space, after=after)
            if not chunks:
                if not news:
                    break
                after, news, reused = "", 0, 0  # once more from the beginning: what was indexed meanwhile
                continue
            after = chunks[-1].chunk.id
            there = await self._with_vectors(space, chunks)
            new = [stored for stored in chunks if stored.chunk.id not in there]
            if new:
                await self._embed(space, identity, new)
            embedded, reused, news = embedded + len(new), reused + len(there), news + len(new)
            yield IndexProgress(embedded=embedded, reused=reused, elapsed_s=clock() - began)

    async def _with_vectors(self, space: Space, chunks: list[StoredChunk]) -> set[str]:
        """Return those of the chunks that have vectors of this generation."""
        there: set[str] = set()
        by_document: dict[str, list[StoredChunk]] = {}
        for stored in chunks:
            by_document.setdefault(stored.chunk.document, []).append(stored)
        for same in by_document.values():
            ids = [stored.chunk.id for stored in same]
            there |= await self.stores.vectors.async_tag(space, ids, same[0].metadata)
        return there

    async def _embed(self, space: Space, identity: EmbedderIdentity, chunks: list[StoredChunk]) -> None:
        assert self.embedder is not None
        texts = [embedded_text(Document(source="-", text="", title=row.title), row.chunk) for row in chunks]
        vectors = await self.embedder.async_embed(texts)
        check_width(vectors, identity.dimensions)
        points = [Point(row.chunk.id, vector, row.metadata) for row, vector in zip(chunks, vectors, strict=True)]
        await self.stores.vectors.async_upsert(space, points)
