"""What graph stores share: how much of a graph is looked at, and Cypher over a frozen copy of one collection's."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from shared_libs.atomic.errors import MisuseError, RetrievalError, RetrievalUnavailable
from shared_libs.atomic.loading import optional
from shared_libs.retrieval.cypher_guard import ReadQuery

MOST_MENTIONS = 50
"""Chunks of one entity that are looked at; one that stands everywhere tells nothing apart."""

MOST_FOUND = 60
"""Chunks that a graph adds at most."""

MOST_NEIGHBOURS = 20
"""Related entities of one entity that are looked at."""

COUNTED = 1_000
"""Up to where it is counted how often an entity is mentioned."""

NEAR = 0.5
"""What a related entity weighs, beside the one it is related to."""

_READS = re.compile(
    r"(Match|OptionalMatch|Expand|Where|With|Unwind|Return|Distinct|Having|OrderBy|Skip|Limit|Union|Fused\w+"
    r"|OptimizerPass)\b"
)
"""Steps of a plan that only read the copy; `Fused…` are several of them in one."""


def linked(found: Mapping[str, str]) -> defaultdict[str, float]:
    """Return the weights of entities that a question names, by key; a name inside a longer one does not count."""
    weights: defaultdict[str, float] = defaultdict(float)
    longest: list[str] = []
    for name in sorted(found, key=len, reverse=True):
        if not any(name in other for other in longest):
            longest.append(name)
            weights[found[name]] += 1.0
    return weights


def heaviest(weights: Mapping[str, float], most: int) -> list[tuple[str, float]]:
    """Return the entities that weigh most, equals by id."""
    return sorted(weights.items(), key=lambda row: (-row[1], row[0]))[:most]


def kglite() -> ModuleType:
    """
    Return what answers Cypher.

    Raises:
        MisuseError: it is not installed, or cannot be loaded here.

    """
    return optional("kglite", "Cypher")


def frozen(
    entities: Iterable[Mapping[str, Any]],
    chunks: Iterable[Mapping[str, Any]],
    mentions: Iterable[Mapping[str, Any]],
    relations: Iterable[Mapping[str, Any]],
) -> Any:
    """
    Copy a graph for reading: entities, chunks with their documents, who mentions and relates what.

    Raises:
        MisuseError: what answers Cypher cannot be loaded here.

    """
    graph = kglite().KnowledgeGraph()

    def add(statement: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if given := [dict(row) for row in rows]:
            graph.cypher(f"UNWIND $rows AS row {statement}", params={"rows": given})

    add("MERGE (e:Entity {id: row.id}) SET e.name = row.name, e.type = row.type", entities)
    add("MERGE (c:Chunk {id: row.id}) SET c.document = row.document, c.heading = row.heading", chunks)
    add("MATCH (c:Chunk {id: row.chunk}), (e:Entity {id: row.entity}) CREATE (c)-[:MENTIONS]->(e)", mentions)
    add(
        "MATCH (a:Entity {id: row.source}), (b:Entity {id: row.target}) CREATE (a)-[:RELATES {kind: row.kind}]->(b)",
        relations,
    )
    return graph.freeze()


def answered(copy: Any, query: ReadQuery) -> list[dict[str, Any]]:
    """
    Answer a query over a copy, once its plan (EXPLAIN) has no step but what reads: two readers may read it in two ways.

    Raises:
        MisuseError: it does more than read.
        RetrievalUnavailable: it takes too long.
        RetrievalError: it cannot be answered.

    """
    try:
        for step in copy.cypher(f"EXPLAIN {query.text}", params=query.parameters):
            if not _READS.match(step["operation"]):
                raise MisuseError(f"{step['operation'].split()[0]} is not allowed: a query only reads")
        found = copy.cypher(
            query.text,
            params=query.parameters,
            timeout_ms=max(1, int(1_000 * query.seconds)),
            row_limit=query.rows + 1,
        )
        return [dict(row) for row in found][: query.rows]
    except kglite().CypherTimeoutError as error:
        raise RetrievalUnavailable(f"the query took longer than {query.seconds:g} s; narrow it down") from error
    except kglite().KgError as error:
        raise RetrievalError(f"the query cannot be answered: {str(error).splitlines()[0]}") from error
