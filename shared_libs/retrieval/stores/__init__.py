"""Back ends, one file each, imported when first used; `open_stores` finds them by the scheme of a URL."""

from __future__ import annotations

from dataclasses import dataclass

from shared_libs.atomic.errors import MisuseError
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
        for store in (self.documents, self.vectors, self.words, self.graph):
            if store is not None:
                await store.aclose()


def open_stores(url: str = DEFAULT_URL) -> Stores:
    """
    Return the stores of a URL; nothing is opened before it is used.

    Args:
        url: `sqlite:///file.db`, everything in one file; or `postgresql://user:password@host/database`, everything
            in one database that has pgvector.

    Raises:
        MisuseError: no collection is kept at such an address.

    """
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
