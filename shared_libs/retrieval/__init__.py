"""Retrieval: documents in, passages out that can be cited; each part is loaded when it is first named."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.atomic.types import Stage
    from shared_libs.retrieval.chunking import Chunker
    from shared_libs.retrieval.citing import Citation, Cited, check_citations, citation_key
    from shared_libs.retrieval.collection import Collection
    from shared_libs.retrieval.files import find_files
    from shared_libs.retrieval.ports import DocumentStore, GraphStore, LexicalIndex, VectorStore
    from shared_libs.retrieval.stores import Stores, open_stores
    from shared_libs.retrieval.types import Chunk, Document, Found, Hit, IndexProgress, Place, Point, Retrieved, Space

__all__ = [
    "Chunk",
    "Chunker",
    "Citation",
    "Cited",
    "Collection",
    "Document",
    "DocumentStore",
    "Found",
    "GraphStore",
    "Hit",
    "IndexProgress",
    "LexicalIndex",
    "Place",
    "Point",
    "Retrieved",
    "Space",
    "Stage",
    "Stores",
    "VectorStore",
    "check_citations",
    "citation_key",
    "find_files",
    "open_stores",
]

__getattr__ = lazy(
    __name__,
    {
        "Chunker": "chunking",
        **dict.fromkeys(("Citation", "Cited", "check_citations", "citation_key"), "citing"),
        "Collection": "collection",
        "find_files": "files",
        **dict.fromkeys(("DocumentStore", "GraphStore", "LexicalIndex", "VectorStore"), "ports"),
        **dict.fromkeys(("Stores", "open_stores"), "stores"),
        **dict.fromkeys(("Chunk", "Document", "Found", "Hit", "IndexProgress", "Place"), "types"),
        **dict.fromkeys(("Point", "Retrieved", "Space", "Stage"), "types"),
    },
)
