"""Back ends, one file each, imported when first used; `open_stores` finds them by the scheme of a URL."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.opening import closed
from shared_libs.retrieval.ports import DocumentStore, GraphStore, LexicalIndex, VectorStore

DEFAULT_URL = "sqlite:///collections.db"


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a collection is kept."""

    documents: DocumentStore
    vectors: VectorStore
    words: LexicalIndex
    graph: GraphStore | None = None

    async def aclose(self) -> None:
        """Close all of them; using one afterwards opens it again."""
        stores = (self.documents, self.vectors, self.words, self.graph)
        await closed(*((store.name, store.aclose()) for store in stores if store is not None))


def open_stores(url: str = DEFAULT_URL, *, vectors: str | None = None, graph: str | None = None) -> Stores:
    """
    Return the stores of a URL; nothing is opened before it is used.

    Args:
        url: `sqlite:///file.db`, everything in one file; or `postgresql://user:password@host/database`, everything
            in one database that has pgvector. Documents and words are kept there in any case.
        vectors: keeps vectors elsewhere: `qdrant://host:6333`, `qdrants://KEY@host`, or a folder, `qdrant:///folder`.
        graph: keeps the graph in Neo4j: `bolt://user:password@host:7687/database`, or `neo4j://`, `neo4j+s://`.

    Raises:
        MisuseError: no collection is kept at such an address.

    """
    stores = _main(url)
    if vectors is not None:
        stores = replace(stores, vectors=_vectors(vectors))
    return stores if graph is None else replace(stores, graph=_graph(graph))


def _main(url: str) -> Stores:
    scheme, _, place = url.partition("://")
    if scheme == "sqlite":
        from shared_libs.retrieval.stores.sqlite_database import Database
        from shared_libs.retrieval.stores.sqlite_documents import SqliteDocuments
        from shared_libs.retrieval.stores.sqlite_graph import SqliteGraph
        from shared_libs.retrieval.stores.sqlite_vectors import SqliteVectors
        from shared_libs.retrieval.stores.sqlite_words import SqliteWords

        database = Database(place.removeprefix("/"))
        return Stores(SqliteDocuments(database), SqliteVectors(database), SqliteWords(database), SqliteGraph(database))
    if scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
        from shared_libs.retrieval.stores.postgres_database import PostgresDatabase
        from shared_libs.retrieval.stores.postgres_documents import PostgresDocuments
        from shared_libs.retrieval.stores.postgres_vectors import PostgresVectors
        from shared_libs.retrieval.stores.postgres_words import PostgresWords

        server = PostgresDatabase(url)
        return Stores(PostgresDocuments(server), PostgresVectors(server), PostgresWords(server))
    raise MisuseError(
        f"no collection is kept at {scheme}:…; allowed are sqlite:///file.db and postgresql://host/database"
    )


def _vectors(url: str) -> VectorStore:
    scheme, _, place = url.partition("://")
    if scheme not in ("qdrant", "qdrants"):
        raise MisuseError(f"no vectors alone are kept at {scheme}:…; allowed are qdrant:// and qdrants://")
    from shared_libs.retrieval.stores.qdrant_vectors import LocalQdrantVectors, QdrantVectors

    return LocalQdrantVectors(url) if place.startswith("/") else QdrantVectors(url)


def _graph(url: str) -> GraphStore:
    scheme = url.partition("://")[0]
    if scheme.partition("+")[0] not in ("bolt", "neo4j"):
        raise MisuseError(f"no graph alone is kept at {scheme}:…; allowed are bolt:// and neo4j://")
    from shared_libs.retrieval.stores.neo4j_graph import Neo4jGraph

    return Neo4jGraph(url)
