"""The `collections` section: the documents that tools may search, and the tool that searches them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.factory.chain import build_model
from shared_libs.factory.draft import Draft
from shared_libs.factory.prices import Prices
from shared_libs.factory.problems import Path
from shared_libs.factory.registry import LLMS
from shared_libs.retrieval.collection import Collection
from shared_libs.retrieval.extraction import Extractor
from shared_libs.retrieval.stores import DEFAULT_URL, open_stores
from shared_libs.tools.graph import ROWS, GraphTool
from shared_libs.tools.retrieval import PASSAGES, RetrievalTool

_HERE: Path = ("collections",)


def build_collections(
    draft: Draft, section: Any, prices: Prices, on_note: Callable[[str], None]
) -> dict[str, Collection]:
    """Make the collections of the section; a wrong one (the problem is noted) is left out. None is opened."""
    made: dict[str, Collection] = {}
    for name, settings in section.items() if isinstance(section, Mapping) else ():
        path: Path = (*_HERE, name)
        given = dict(settings) if isinstance(settings, Mapping) else {}
        embedder = build_model(draft, given.pop("embedder", None), (*path, "embedder"), prices, on_note)
        if embedder is not None and not embedder.embeds:
            draft.problems.add((*path, "embedder"), f"{embedder.provider} has no embeddings; name a model that has")
        reranker = build_model(draft, given.pop("reranker", None), (*path, "reranker"), prices, on_note)
        if reranker is not None and not reranker.reranks:
            draft.problems.add((*path, "reranker"), f"{reranker.provider} is no reranker; name a model that is")
        listed = given.pop("extract", None)
        readers = [
            build_model(draft, link, (*path, "extract", at), prices, on_note)
            for at, link in enumerate(listed if isinstance(listed, list) else [])
        ]
        if draft.problems.inside(path):
            continue
        if embedder is None and not (isinstance(settings, Mapping) and "embedder" in settings):
            embedder = default_embedder()
        try:
            made[name] = Collection(
                name,
                tenant=given.pop("tenant", "default"),
                stores=open_stores(
                    given.pop("url", DEFAULT_URL), vectors=given.pop("vectors", None), graph=given.pop("graph", None)
                ),
                embedder=embedder,
                reranker=reranker,
                extractor=Extractor(models) if (models := [model for model in readers if model]) else None,
                **given,
            )
        except Exception as error:  # noqa: BLE001 - a store's constructor is foreign code: what it refuses has a place
            draft.blame(path, error, given)
    return made


def default_embedder() -> BaseLLMWrapper | None:
    """Return the model of this machine where it is installed; None else."""
    try:
        made: BaseLLMWrapper = LLMS.load("local-embeddings")()
    except MisuseError:
        return None
    return made


def retrieval(
    *,
    collection: str | None = None,
    dataset: Literal["python-reference"] | None = None,
    passages: int = PASSAGES,
    library: Mapping[str, Collection] | None = None,
) -> RetrievalTool:
    """
    Find passages in a collection of documents.

    Args:
        collection: one of the section `collections`; not needed where there is only one.
        dataset: documents that come with the machine, instead of a collection; they are indexed once and cached.
        passages: how many passages a call gives.
        library: the collections of the definition.

    """
    if dataset is not None:
        if collection is not None:
            raise MisuseError("collection: the tool takes a collection or a dataset, not both")
        from shared_libs.tools.python_reference import python_reference, reference_documents

        return RetrievalTool(python_reference(), passages=passages, documents=reference_documents)
    return RetrievalTool(_named(collection, library or {}, " or a `dataset`"), passages=passages)


def graph(
    *, collection: str | None = None, rows: int = ROWS, library: Mapping[str, Collection] | None = None
) -> GraphTool:
    """
    Ask how things are related, in Cypher that only reads.

    Args:
        collection: one of the section `collections`; not needed where there is only one.
        rows: how many rows an answer has.
        library: the collections of the definition.

    """
    return GraphTool(_named(collection, library or {}, ""), rows=rows)


def _named(name: str | None, library: Mapping[str, Collection], or_else: str) -> Collection:
    if name is None and len(library) == 1:
        return next(iter(library.values()))
    allowed = f"the section `collections` has {', '.join(library) or 'none'}"
    if name is None:
        raise MisuseError(f"the tool needs a `collection`{or_else}; {allowed}")
    if name not in library:
        raise MisuseError(f"collection {name!r} is not known; {allowed}")
    return library[name]
