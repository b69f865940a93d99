"""
Vectors in Qdrant: a server by its URL, or a folder of this machine.

One collection of Qdrant holds the vectors of one length of everybody; whose they are is a part of every point, of every
filter and of an index that Qdrant keeps them apart by (`is_tenant`). What is found is exact in what it belongs to.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import UUID

import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.loading import load, needs
from shared_libs.retrieval.filters import Condition, Where
from shared_libs.retrieval.ports import POOL, VectorStore
from shared_libs.retrieval.types import Found, Point, Space
from shared_libs.retrieval.vectors import of_length_one

if TYPE_CHECKING:
    import numpy as np
    from qdrant_client import AsyncQdrantClient

T = TypeVar("T")

PREFIX = "factory_vectors_"
PART = 256
"""Points of one request."""

_TRIED = 8


class _Server:
    """What is asked of a server, by a client for each event loop."""

    def __init__(self, url: str) -> None:
        needs("qdrant_client", "a store of vectors in Qdrant")
        parts = urlsplit(url)
        if parts.scheme not in ("qdrant", "qdrants") or not (parts.hostname or parts.path.strip("/")):
            raise MisuseError("the URL of a Qdrant is qdrant://host:6333, qdrants://KEY@host:6333 or qdrant:///folder")
        self._given: dict[str, Any] = {"check_compatibility": False}
        if parts.hostname is None:
            # only one thread at a time has it, but not always the same
            self._given |= {"path": unquote(parts.path), "force_disable_check_same_thread": True}
        else:
            scheme = "https" if parts.scheme == "qdrants" else "http"
            key = unquote(parts.username or "") or None
            self._given |= {"url": f"{scheme}://{parts.hostname}:{parts.port or 6333}", "api_key": key, "timeout": 30}
        self.name = f"vector store {parts.hostname or 'Qdrant'}"
        self._clients: dict[asyncio.AbstractEventLoop, tuple[AsyncQdrantClient, AsyncGenerator[None, None]]] = {}
        self._widths: dict[Space, int] = {}

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        known = self._clients.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[0].close()
            await known[1].aclose()

    async def upsert(self, space: Space, points: list[Point]) -> None:
        from qdrant_client import models

        width = len(points[0].vector)
        async with self._client() as client:
            await self._take_width(client, space, width)
            last = {point.id: point for point in points}  # the last of one id holds
            made = [
                models.PointStruct(
                    id=_id(space, point.id),
                    vector=of_length_one(point.vector).tolist(),
                    payload={"space": _key(space), "id": point.id, "metadata": dict(point.metadata)},
                )
                for point in last.values()
            ]
            for start in range(0, len(made), PART):
                await client.upsert(_table(width), made[start : start + PART], wait=True)

    async def search(self, space: Space, vector: np.ndarray, k: int, where: Where) -> list[Found]:
        async with self._client() as client:
            if not await client.collection_exists(_table(len(vector))):
                await self._refuse_others(client, space, len(vector))
                return []
            apart = [condition for condition in where if not _is_compiled(condition)]
            wanted, limit = of_length_one(vector).tolist(), k if not apart else 4 * k
            while True:
                answer = await client.query_points(
                    _table(len(vector)),
                    query=wanted,
                    query_filter=_filter(space, where),
                    limit=limit,
                    with_payload=True,
                    with_vectors=False,
                )
                rows = [(point, point.payload or {}) for point in answer.points]
                fits = [
                    Found(row["id"], float(point.score))
                    for point, row in rows
                    if all(condition.holds(row["metadata"], row["id"]) for condition in apart)
                ]
                if len(fits) >= k or len(rows) < limit:
                    break
                limit *= _TRIED
            if not fits:
                await self._refuse_others(client, space, len(vector))
            return sorted(fits, key=lambda row: (-row.score, row.id))[:k]

    async def tag(self, space: Space, ids: list[str], metadata: dict[str, Any]) -> set[str]:
        there: set[str] = set()
        async with self._client() as client:
            for table in await _tables(client):
                found = await client.retrieve(table, [_id(space, id_) for id_ in ids], with_payload=["id"])
                known = [(point.id, (point.payload or {})["id"]) for point in found]
                if known:
                    points = [id_ for id_, _ in known]
                    await client.set_payload(table, {"metadata": metadata}, points=points, wait=True)
                there |= {name for _, name in known}
        return there

    async def delete(self, space: Space, ids: list[str]) -> None:
        async with self._client() as client:
            for table in await _tables(client):
                await client.delete(table, [_id(space, id_) for id_ in ids], wait=True)

    async def drop(self, space: Space) -> None:
        from qdrant_client import models

        self._widths.pop(space, None)
        async with self._client() as client:
            for table in await _tables(client):
                await client.delete(table, models.FilterSelector(filter=_filter(space, ())), wait=True)

    async def count(self, space: Space) -> int:
        async with self._client() as client:
            return sum([await _count(client, table, space) for table in await _tables(client)])

    async def _take_width(self, client: AsyncQdrantClient, space: Space, width: int) -> None:
        """Make room for vectors of this length, and refuse another one than a space has."""
        from qdrant_client import models

        if self._widths.get(space) == width:
            return
        await self._refuse_others(client, space, width)
        table = _table(width)
        if not await client.collection_exists(table):
            try:
                await client.create_collection(
                    table, vectors_config=models.VectorParams(size=width, distance=models.Distance.COSINE)
                )
            except Exception:  # another process may have made it meanwhile
                if not await client.collection_exists(table):
                    raise
        if "path" not in self._given:  # a folder has no indexes
            tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
            await client.create_payload_index(table, "space", field_schema=tenant, wait=True)
        self._widths[space] = width

    async def _refuse_others(self, client: AsyncQdrantClient, space: Space, width: int) -> None:
        for table in await _tables(client):
            if table != _table(width) and await _count(client, table, space):
                raise MisuseError(
                    f"collection {space.collection!r} holds vectors of {table.removeprefix(PREFIX)} numbers, not "
                    f"{width}; another embedding model needs a rebuild"
                )

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncQdrantClient]:
        """Lend the client of this loop, and tell in one kind of error what goes wrong."""
        await load("qdrant_client")
        from qdrant_client import AsyncQdrantClient
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        loop = asyncio.get_running_loop()
        for closed in [known for known in self._clients if known.is_closed()]:
            del self._clients[closed]
        if loop not in self._clients:
            client = await asyncio.to_thread(AsyncQdrantClient, **self._given)  # reads certificates
            keeper = _keep_open(client)
            await anext(keeper)
            if self._clients.setdefault(loop, (client, keeper))[0] is not client:
                await keeper.aclose()  # another was quicker
        try:
            yield self._clients[loop][0]
        except FactoryError:
            raise
        except ResponseHandlingException as error:
            raise RetrievalUnavailable(f"{self.name} does not answer: {error}") from error
        except QdrantException as error:  # how its client tells a 429
            raise RetrievalUnavailable(f"{self.name} answered 429: {error}") from error
        except UnexpectedResponse as error:
            told = f"{self.name} answered {error.status_code}{_reason(error.content)}"
            if error.status_code == 404:
                self._widths.clear()  # somebody has emptied the server: the next write makes room again
            if error.status_code in (401, 403):
                raise RetrievalError(f"{told}; it refuses the key of the URL") from error
            if error.status_code in (408, 429) or (error.status_code or 0) >= 500:
                raise RetrievalUnavailable(told) from error
            raise RetrievalError(told) from error
        except (ValueError, AssertionError) as error:
            raise RetrievalUnavailable(f"{self.name} answered what no Qdrant says; a proxy may be between") from error


class _Folder(_Server):
    """The same of a folder: its client waits for nothing, and belongs to no loop."""

    _opened: AsyncQdrantClient | None = None

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncQdrantClient]:
        if self._opened is None:
            from qdrant_client import AsyncQdrantClient

            self._opened = AsyncQdrantClient(**self._given)
        yield self._opened


class QdrantVectors(VectorStore):
    """
    Keeps vectors in a Qdrant server.

    Args:
        url: `qdrant://host:6333`, with TLS `qdrants://`; an API key stands before the host: `qdrants://KEY@host`.

    Raises:
        MisuseError: the extra qdrant is not installed, or it is no such URL.

    """

    apart = True

    def __init__(self, url: str) -> None:
        self._server = _Server(url)
        self.name = self._server.name

    async def aclose(self) -> None:
        """Close the connections of this loop."""
        await self._server.aclose()

    async def _upsert(self, space: Space, points: list[Point]) -> None:
        await self._server.upsert(space, points)

    async def _search(self, space: Space, vector: np.ndarray, k: int, where: Where) -> list[Found]:
        return await self._server.search(space, vector, k, where)

    async def _tag(self, space: Space, ids: list[str], metadata: dict[str, Any]) -> set[str]:
        return await self._server.tag(space, ids, metadata)

    async def _delete(self, space: Space, ids: list[str]) -> None:
        await self._server.delete(space, ids)

    async def _drop(self, space: Space) -> None:
        await self._server.drop(space)

    async def _count(self, space: Space) -> int:
        return await self._server.count(space)


class LocalQdrantVectors(VectorStore):
    """
    Keeps vectors in a folder, by Qdrant's own library: for some 10,000 of them, in one process.

    It compares them all, in the thread that asks, and is not safe for several threads: one at a time.

    Args:
        url: `qdrant:///folder`.

    """

    apart = True
    timeout_s = 60.0  # its library writes point by point

    def __init__(self, url: str) -> None:
        self._folder = _Folder(url)
        self.name = self._folder.name
        self._guard = threading.Lock()

    async def aclose(self) -> None:
        """Close the folder, so that another process may open it."""
        await POOL.submit(lambda: self._done(self._folder.aclose()), {}).result()

    def _upsert(self, space: Space, points: list[Point]) -> None:
        self._done(self._folder.upsert(space, points))

    def _search(self, space: Space, vector: np.ndarray, k: int, where: Where) -> list[Found]:
        return self._done(self._folder.search(space, vector, k, where))

    def _tag(self, space: Space, ids: list[str], metadata: dict[str, Any]) -> set[str]:
        return self._done(self._folder.tag(space, ids, metadata))

    def _delete(self, space: Space, ids: list[str]) -> None:
        self._done(self._folder.delete(space, ids))

    def _drop(self, space: Space) -> None:
        self._done(self._folder.drop(space))

    def _count(self, space: Space) -> int:
        return self._done(self._folder.count(space))

    def _done(self, work: Coroutine[Any, Any, T]) -> T:
        """Do in this thread what waits for nothing: so it needs no event loop."""
        with self._guard:
            try:
                work.send(None)
            except StopIteration as end:
                value: T = end.value
                return value
        raise RetrievalError(f"{self.name} waits, and nobody can wait here")


async def _keep_open(client: AsyncQdrantClient) -> AsyncGenerator[None, None]:
    """Hold a client until its loop ends: a loop closes asynchronous generators before it closes itself."""
    try:
        yield
    finally:
        await client.close()


def _reason(body: bytes) -> str:
    """Return what a server says went wrong; the page of a proxy says nothing."""
    try:
        said = msgspec.json.decode(body)["status"]["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        said = "" if body.lstrip().startswith(b"<") else body.decode(errors="replace").strip()
    return f": {said}"[:200] if said else ""


async def _tables(client: AsyncQdrantClient) -> list[str]:
    found = await client.get_collections()
    return [row.name for row in found.collections if row.name.startswith(PREFIX)]


async def _count(client: AsyncQdrantClient, table: str, space: Space) -> int:
    return (await client.count(table, count_filter=_filter(space, ()), exact=True)).count


def _table(width: int) -> str:
    return f"{PREFIX}{width}"


def _key(space: Space) -> str:
    """Return whose a point is, in digits of ours: no name of a user is part of a request but as a value."""
    said = f"{space.tenant}\0{space.collection}\0{space.generation}"
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _id(space: Space, chunk: str) -> str:
    """Return the id of a point: Qdrant takes numbers and UUIDs."""
    said = f"{_key(space)}{chunk}".encode("utf-8", "surrogatepass")
    return str(UUID(bytes=blake2b(said, digest_size=16).digest()))


def _is_compiled(condition: Condition) -> bool:
    """Whether Qdrant can compare it; it has no order of texts."""
    return condition.kind != "range" or not any(isinstance(end, str) for end in condition.values)


def _filter(space: Space, where: Where) -> Any:
    from qdrant_client import models

    must: list[Any] = [models.FieldCondition(key="space", match=models.MatchValue(value=_key(space)))]
    must_not: list[Any] = []
    for condition in where:
        if not _is_compiled(condition):
            continue
        key = f"metadata.{condition.key}"
        if condition.kind == "chunk":
            must.append(models.HasIdCondition(has_id=[_id(space, chunk) for chunk in condition.values]))
            continue
        if condition.kind == "in":
            test: Any = models.Filter(should=[_equal(key, value) for value in condition.values] or [_nothing()])
        else:
            low, high = condition.values
            test = models.FieldCondition(key=key, range=models.Range(gte=low, lte=high))
        if condition.negated:
            must_not += [test, models.IsEmptyCondition(is_empty=models.PayloadField(key=key))]
        else:
            must.append(test)
    return models.Filter(must=must, must_not=must_not or None)


def _equal(key: str, value: Any) -> Any:
    from qdrant_client import models

    if isinstance(value, bool | str):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))  # 2 is 2.0, and no boolean


def _nothing() -> Any:
    from qdrant_client import models

    return models.HasIdCondition(has_id=[])
