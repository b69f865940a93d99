"""What passes between documents, indexes and whoever asks: light, frozen, and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any, Literal, NamedTuple

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.names import is_name
from shared_libs.atomic.types import Stage

MAX_NAME = 200
"""Characters of a tenant or a collection's name."""

Scalar = str | int | float | bool
"""What a document's metadata may hold, and a filter compare."""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """
    Whose texts are meant: every method of every store asks for it first, so nothing is ever looked for everywhere.

    Args:
        tenant: the owner; texts of two tenants never meet.
        collection: the name of a set of documents of the tenant.
        generation: which embeddings; each embedding model has its own, side by side with the others.

    Raises:
        MisuseError: a name is empty, too long, or holds a control character.

    """

    tenant: str
    collection: str
    generation: int = 1

    def __post_init__(self) -> None:
        for what, name in (("tenant", self.tenant), ("collection", self.collection)):
            if not is_name(name, MAX_NAME):
                raise MisuseError(f"a {what} is a name of 1 to {MAX_NAME} printable characters, not {name!r:.60}")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """
    A text that can be indexed.

    Args:
        source: what names it in its collection for good: a path, a URL. The same source again is its next version.
        text: its words; offsets of chunks and citations are characters of the normalised text that is stored.
        title: what a reader calls it.
        media_type: what it was made from.
        metadata: what filters may ask for.

    """

    source: str
    text: str
    title: str = ""
    media_type: str = "text/plain"
    metadata: Mapping[str, Scalar] = {}

    @property
    def id(self) -> str:
        """The name of the document in URLs and stores: 32 hexadecimal digits made from its source."""
        return document_id(self.source)

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything about it that is stored."""
        said = msgspec.json.encode([self.text, self.title, self.media_type, dict(self.metadata)], order="sorted")
        return sha256(said).hexdigest()


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a document: `document.text[start:end] == text`, always."""

    id: str
    document: str
    start: int
    end: int
    text: str
    heading: str = ""
    tokens: int = 0


class StoredChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk with what is told of its document."""

    chunk: Chunk
    source: str
    title: str
    metadata: dict[str, Scalar]


class Point(NamedTuple):
    """A vector to store, under its chunk's id, with what filters may ask for."""

    id: str
    vector: Any
    metadata: Mapping[str, Scalar]


class Words(NamedTuple):
    """A text to index by its words, under its chunk's id, with what filters may ask for."""

    id: str
    text: str
    metadata: Mapping[str, Scalar]


class Found(NamedTuple):
    """A chunk an index has found; more is better, and only comparable within one answer."""

    id: str
    score: float


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a text names, by a spelling that stands in it."""

    name: str
    type: str = ""


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """That two entities, by their names, have to do with each other, and how in a word or two."""

    source: str
    kind: str
    target: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a chunk tells: entities at their places in it, and how they are related.

    Args:
        chunk: its id; everything it tells goes when it goes.
        entities: what it names, each once.
        spans: where each of them stands in the chunk's text, `[start, end)`.
        relations: between those entities only.
        extractor: who read it: models, schema and words of the request. Another one reads anew.
        document, heading: where the chunk stands, for stores that do not keep the chunks themselves.

    """

    chunk: str
    entities: tuple[Entity, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    relations: tuple[Relation, ...] = ()
    extractor: str = ""
    document: str = ""
    heading: str = ""


class Expanded(NamedTuple):
    """A chunk that a graph leads to; `via` names the entities on the way."""

    id: str
    score: float
    via: tuple[str, ...]


DocumentState = Literal["pending", "partial", "indexed"]


class DocumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is kept of a document.

    `state` is "indexed" only when every index has all of it; "partial" names the chunks that failed in `error`.
    """

    id: str
    source: str
    title: str = ""
    media_type: str = "text/plain"
    metadata: dict[str, Scalar] = {}
    content_hash: str = ""
    state: DocumentState = "pending"
    chunks: int = 0
    failed: int = 0
    error: str = ""


class EmbedderIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Which vectors can be compared with each other: those of one model, of one number of dimensions."""

    provider: str
    model: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} ({self.dimensions} dimensions)"


class CollectionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a collection. `embedder` made the vectors of `generation`; None: it is searched by words only."""

    name: str
    generation: int = 1
    embedder: EmbedderIdentity | None = None
    graph: bool = False
    """Whether facts were extracted from its chunks."""
    building: int | None = None
    """The generation that is being built beside, if any."""
    documents: int = 0
    chunks: int = 0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a passage stands: `[start, end)` of a document's stored text; `id` is that of its chunk."""

    id: str
    document: str
    source: str
    title: str
    start: int
    end: int


class Hit(Place, frozen=True, kw_only=True):
    """
    A passage that was found.

    `text` is what stands at `[start, end)` of the document's stored text. `score` orders the hits of one answer and
    means nothing beyond; `scores` are the branches' own, and `via` names what led a graph to it. `also` is where else
    the same words were found under the same heading, best first: copies are one hit.
    """

    text: str
    heading: str = ""
    score: float = 0.0
    scores: dict[str, float] = {}
    via: tuple[str, ...] = ()
    metadata: dict[str, Scalar] = {}
    also: tuple[Place, ...] = ()


class Retrieved(msgspec.Struct, frozen=True, kw_only=True):
    """The passages, best first, and what became of every step on the way to them."""

    hits: tuple[Hit, ...]
    stages: tuple[Stage, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What did not go as it should, in words."""
        return tuple(f"{stage.name}: {stage.state}: {stage.reason}" for stage in self.stages if stage.state != "ok")


class IndexProgress(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far an indexing is: counts of documents and chunks so far.

    `unchanged` documents cost nothing; `embedded` chunks were new, `reused` ones had their vectors already. `documents`
    is None while it is not known how many come. The last one is `finished`.
    """

    documents_done: int = 0
    documents: int | None = None
    unchanged: int = 0
    embedded: int = 0
    reused: int = 0
    removed: int = 0
    failed: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    source: str = ""
    problems: tuple[str, ...] = ()
    finished: bool = False

    @property
    def eta_s(self) -> float | None:
        """Seconds it will take from now if it goes on as so far; None where that is not known."""
        if not self.documents or not self.documents_done:
            return None
        return self.elapsed_s / self.documents_done * (self.documents - self.documents_done)


def document_id(source: str) -> str:
    """Return the id of the document of a source."""
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
