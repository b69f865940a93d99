"""
The graph in Neo4j, or another server that speaks Bolt, through its asynchronous driver.

Labels and types are ours and fixed, everything else is a parameter; whose a node is, is a part of it and of every
pattern. Cypher of others never reaches the server, where it could read what is another's: it is answered over a frozen
copy of the collection's graph, made anew when that has changed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from shared_libs.atomic.errors import MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.loading import load, needs
from shared_libs.retrieval.cypher_guard import ReadQuery
from shared_libs.retrieval.naming import canonical, entity_id, possible_names
from shared_libs.retrieval.ports import POOL, GraphStore
from shared_libs.retrieval.stores.graphs import (
    COUNTED,
    MOST_FOUND,
    MOST_MENTIONS,
    MOST_NEIGHBOURS,
    NEAR,
    answered,
    frozen,
    heaviest,
    kglite,
    linked,
)
from shared_libs.retrieval.types import Expanded, Facts, Space

if TYPE_CHECKING:
    from neo4j import AsyncDriver, AsyncManagedTransaction
    from neo4j.exceptions import DriverError, Neo4jError

Rows = list[dict[str, Any]]

_INDEXES = (
    "CREATE INDEX factory_entities IF NOT EXISTS FOR (n:FactoryEntity) ON (n.space, n.id)",
    "CREATE INDEX factory_entity_names IF NOT EXISTS FOR (n:FactoryEntity) ON (n.space, n.key)",
    "CREATE INDEX factory_chunks IF NOT EXISTS FOR (n:FactoryChunk) ON (n.space, n.id)",
)
_FORGET = (
    "MATCH (:FactoryEntity {space: $space})-[r:RELATES]->() WHERE r.chunk IN $chunks DELETE r",
    "MATCH (c:FactoryChunk {space: $space}) WHERE c.id IN $chunks DETACH DELETE c",
)
_UNMENTIONED = "MATCH (e:FactoryEntity {space: $space}) WHERE NOT (e)<-[:MENTIONS]-(:FactoryChunk) DETACH DELETE e"
_CHANGED = "MERGE (s:FactorySpace {id: $space}) SET s.version = coalesce(s.version, 0) + 1"
_UPSERT = (
    (
        "UNWIND $entities AS row MERGE (e:FactoryEntity {space: $space, id: row.id}) "
        "ON CREATE SET e.key = row.key, e.name = row.name, e.type = row.type "
        "SET e.type = CASE WHEN e.type = '' THEN row.type ELSE e.type END"
    ),
    (
        "UNWIND $chunks_told AS row MERGE (c:FactoryChunk {space: $space, id: row.id}) "
        "SET c.extractor = row.extractor, c.document = row.document, c.heading = row.heading"
    ),
    (
        "UNWIND $mentions AS row MATCH (c:FactoryChunk {space: $space, id: row.chunk}), "
        "(e:FactoryEntity {space: $space, id: row.entity}) "
        "MERGE (c)-[m:MENTIONS]->(e) SET m.name = row.name, m.start = row.start, m.end = row.end"
    ),
    (
        "UNWIND $relations AS row MATCH (a:FactoryEntity {space: $space, id: row.source}), "
        "(b:FactoryEntity {space: $space, id: row.target}) MERGE (a)-[:RELATES {kind: row.kind, chunk: row.chunk}]->(b)"
    ),
)
_DROP = (
    "MATCH (c:FactoryChunk {space: $space}) DETACH DELETE c",
    "MATCH (e:FactoryEntity {space: $space}) DETACH DELETE e",
)


class Neo4jGraph(GraphStore):
    """
    Keeps entities, mentions and relations in a server that speaks Bolt.

    Args:
        url: `bolt://user:password@host:7687/database`; `neo4j://`, `neo4j+s://` and `bolt+s://` are taken as well.

    Raises:
        MisuseError: the extra neo4j is not installed, or it is no such URL.

    """

    apart = True

    def __init__(self, url: str) -> None:
        needs("neo4j", "a graph in Neo4j")
        parts = urlsplit(url)
        if not parts.hostname:
            raise MisuseError("the URL of a graph is bolt://user:password@host:7687/database")
        self._uri = f"{parts.scheme}://{parts.hostname}:{parts.port or 7687}"
        self._auth = (unquote(parts.username or "neo4j"), unquote(parts.password or ""))
        self._database = unquote(parts.path.strip("/")) or "neo4j"
        self.name = f"graph store {parts.hostname}"
        self._drivers: dict[asyncio.AbstractEventLoop, tuple[AsyncDriver, AsyncGenerator[None, None]]] = {}
        self._copies: dict[str, tuple[int, Any]] = {}
        self._indexed = False

    async def aclose(self) -> None:
        """Close the connections of this loop, and let the copies for Cypher go."""
        self._copies.clear()
        known = self._drivers.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known[1].aclose()

    async def _upsert(self, space: Space, facts: list[Facts]) -> None:
        entities: dict[str, dict[str, str]] = {}
        mentions, relations = [], []
        for told in facts:
            for entity, (start, end) in zip(told.entities, told.spans, strict=True):
                id_ = entity_id(entity.name)
                known = entities.setdefault(
                    id_, {"id": id_, "key": canonical(entity.name), "name": entity.name, "type": entity.type}
                )
                known["type"] = known["type"] or entity.type
                mentions.append({"chunk": told.chunk, "entity": id_, "name": entity.name, "start": start, "end": end})
            for one in told.relations:
                source, target = entity_id(one.source), entity_id(one.target)
                relations.append({"chunk": told.chunk, "source": source, "target": target, "kind": one.kind})
        chunks = [
            {"id": one.chunk, "extractor": one.extractor, "document": one.document, "heading": one.heading}
            for one in facts
        ]
        await self._write(
            (*_FORGET, *_UPSERT, _UNMENTIONED, _CHANGED),
            space=_key(space),
            chunks=[one.chunk for one in facts],
            chunks_told=chunks,
            entities=list(entities.values()),
            mentions=mentions,
            relations=relations,
        )

    async def _extracted(self, space: Space, ids: list[str], extractor: str) -> set[str]:
        query = "MATCH (c:FactoryChunk {space: $space, extractor: $extractor}) WHERE c.id IN $ids RETURN c.id AS id"
        (rows,) = await self._read((query,), space=_key(space), extractor=extractor, ids=ids)
        return {row["id"] for row in rows}

    async def _delete(self, space: Space, ids: list[str]) -> None:
        await self._write((*_FORGET, _UNMENTIONED, _CHANGED), space=_key(space), chunks=ids)

    async def _drop(self, space: Space) -> None:
        await self._write((*_DROP, _CHANGED), space=_key(space))

    async def _expand(self, space: Space, question: str, seeds: list[str]) -> list[Expanded]:
        key = _key(space)
        named, seeded = await self._read(
            (
                "MATCH (e:FactoryEntity {space: $space}) WHERE e.key IN $names RETURN e.key AS key, e.id AS id",
                (
                    "MATCH (c:FactoryChunk {space: $space})-[:MENTIONS]->(e:FactoryEntity) WHERE c.id IN $seeds "
                    "RETURN c.id AS chunk, e.id AS entity"
                ),
            ),
            space=key,
            names=possible_names(question),
            seeds=seeds,
        )
        weights = linked({row["key"]: row["id"] for row in named})
        rank = {chunk: at for at, chunk in enumerate(seeds)}
        for row in sorted(seeded, key=lambda row: (rank[row["chunk"]], row["entity"])):
            weights[row["entity"]] += 1 / (rank[row["chunk"]] + 2)
        if not weights:
            return []
        near = await self._near(key, weights)
        return await self._chunks(key, heaviest(weights | near, 2 * MOST_FOUND), set(seeds))

    async def _near(self, key: str, weights: dict[str, float]) -> dict[str, float]:
        """Return the neighbours of the entities that are none of them, at half their weight."""
        asked = heaviest(weights, MOST_NEIGHBOURS)
        (rows,) = await self._read(
            (
                (
                    "MATCH (e:FactoryEntity {space: $space})-[:RELATES]-(o:FactoryEntity) WHERE e.id IN $ids "
                    "RETURN DISTINCT e.id AS entity, o.id AS other ORDER BY entity, other LIMIT $most"
                ),
            ),
            space=key,
            ids=[entity for entity, _ in asked],
            most=MOST_NEIGHBOURS * MOST_NEIGHBOURS,
        )
        near: dict[str, float] = {}
        for row in rows:
            if row["other"] not in weights:
                near[row["other"]] = max(near.get(row["other"], 0.0), NEAR * weights[row["entity"]])
        return near

    async def _chunks(self, key: str, weights: list[tuple[str, float]], seeds: set[str]) -> list[Expanded]:
        """Return the chunks that mention the entities; an entity's weight is shared out among its chunks."""
        (rows,) = await self._read(
            (
                (
                    "UNWIND $ids AS id MATCH (e:FactoryEntity {space: $space, id: id})<-[m:MENTIONS]-(c:FactoryChunk) "
                    "WITH id, c.id AS chunk, m.name AS name ORDER BY id, chunk "
                    "WITH id, collect({chunk: chunk, name: name})[0..$counted] AS told "
                    "RETURN id, size(told) AS degree, told[0..$most] AS told"
                ),
            ),
            space=key,
            ids=[entity for entity, _ in weights],
            counted=COUNTED,
            most=MOST_MENTIONS,
        )
        by_id = {row["id"]: row for row in rows}
        scores: defaultdict[str, float] = defaultdict(float)
        via: defaultdict[str, list[str]] = defaultdict(list)
        for entity, weight in weights:
            row = by_id.get(entity, {"degree": 0, "told": []})
            for told in row["told"]:
                if told["chunk"] not in seeds:
                    scores[told["chunk"]] += weight / row["degree"]
                    via[told["chunk"]].append(told["name"])
        best = heaviest(scores, MOST_FOUND)
        return [Expanded(chunk, score, tuple(dict.fromkeys(via[chunk]))) for chunk, score in best]

    async def _query(self, space: Space, query: ReadQuery) -> Rows:
        await POOL.submit(kglite, {}).result()  # before anything is read for it
        key = _key(space)
        (versions,) = await self._read(("MATCH (s:FactorySpace {id: $space}) RETURN s.version AS version",), space=key)
        version = versions[0]["version"] if versions else 0
        known = self._copies.get(key)
        if known is None or known[0] != version:
            rows = await self._read(
                (
                    "MATCH (e:FactoryEntity {space: $space}) RETURN e.id AS id, e.name AS name, e.type AS type",
                    (
                        "MATCH (c:FactoryChunk {space: $space}) "
                        "RETURN c.id AS id, c.document AS document, c.heading AS heading"
                    ),
                    (
                        "MATCH (c:FactoryChunk {space: $space})-[:MENTIONS]->(e:FactoryEntity) "
                        "RETURN c.id AS chunk, e.id AS entity"
                    ),
                    (
                        "MATCH (a:FactoryEntity {space: $space})-[r:RELATES]->(b:FactoryEntity) "
                        "RETURN DISTINCT a.id AS source, r.kind AS kind, b.id AS target"
                    ),
                ),
                space=key,
            )
            copy = await POOL.submit(lambda: frozen(*rows), {}).result()
            known = self._copies[key] = (version, copy)
        copy = known[1]
        found: Rows = await POOL.submit(lambda: answered(copy, query), {}).result()
        return found

    async def _read(self, queries: tuple[str, ...], **values: Any) -> list[Rows]:
        async with self._driver() as driver, driver.session(database=self._database) as session:
            return await session.execute_read(_run, queries, values)

    async def _write(self, queries: tuple[str, ...], **values: Any) -> None:
        async with self._driver() as driver, driver.session(database=self._database) as session:
            await session.execute_write(_run, queries, values)

    @asynccontextmanager
    async def _driver(self) -> AsyncIterator[AsyncDriver]:
        """Lend the driver of this loop, and tell in one kind of error what goes wrong."""
        await load("neo4j")
        from neo4j import AsyncGraphDatabase
        from neo4j.exceptions import DriverError, Neo4jError

        loop = asyncio.get_running_loop()
        for closed in [known for known in self._drivers if known.is_closed()]:
            del self._drivers[closed]
        try:
            if loop not in self._drivers:
                driver = await asyncio.to_thread(AsyncGraphDatabase.driver, self._uri, auth=self._auth)
                keeper = _keep_open(driver)
                await anext(keeper)
                if self._drivers.setdefault(loop, (driver, keeper))[0] is not driver:
                    await keeper.aclose()  # another was quicker
            driver = self._drivers[loop][0]
            if not self._indexed:
                async with driver.session(database=self._database) as session:
                    for statement in _INDEXES:
                        await (await session.run(statement)).consume()
                self._indexed = True
            yield driver
        except (Neo4jError, DriverError, OSError) as error:
            raise in_one_kind(self.name, error) from error


def in_one_kind(name: str, error: Neo4jError | DriverError | OSError) -> RetrievalError:
    """Tell in one kind of error what a server or the way to it does: what passes, a full disk too, is unavailable."""
    from neo4j import exceptions as known

    said = (getattr(error, "message", "") or str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, known.AuthError):
        return RetrievalError(f"{name} refuses the user or the password of the URL")
    passes = (OSError, known.ServiceUnavailable, known.ConnectionPoolError, known.DatabaseError)
    if isinstance(error, passes) or error.is_retryable():
        return RetrievalUnavailable(f"{name} does not answer: {said}")
    return RetrievalError(f"{name}: {said}")


async def _run(transaction: AsyncManagedTransaction, queries: tuple[str, ...], values: dict[str, Any]) -> list[Rows]:
    found = []
    for query in queries:
        result = await transaction.run(query, values)
        found.append([dict(row) async for row in result])
    return found


async def _keep_open(driver: AsyncDriver) -> AsyncGenerator[None, None]:
    """Hold a driver until its loop ends: a loop closes asynchronous generators before it closes itself."""
    try:
        yield
    finally:
        await driver.close()


def _key(space: Space) -> str:
    """Return whose a node is; generations do not matter here."""
    said = f"{space.tenant}\0{space.collection}".encode("utf-8", "surrogatepass")
    return blake2b(said, digest_size=16).hexdigest()
