"""The `graph` tool: how things are related in the documents of a collection, asked in Cypher that only reads."""

from __future__ import annotations

from typing import Any

from shared_libs.atomic.errors import MisuseError, RetrievalError, ToolError
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.retrieval.collection import Collection

ROWS = 50


class GraphTool(BaseTool):
    """
    Asks the graph of a collection.

    Args:
        collection: whose graph.
        rows: how many rows an answer has.

    """

    name = "graph"
    description = (
        "Answers a read-only Cypher query over what the documents mention. Nodes: Entity {id, name, type}, Chunk {id, "
        "document, heading}. Relations: (:Chunk)-[:MENTIONS]->(:Entity), (:Entity)-[:RELATES {kind}]->(:Entity). Pass "
        "values as parameters. The first 8 digits of a chunk's id are its key to cite it by."
    )
    timeout_s = 20.0
    idempotent = True

    def __init__(self, collection: Collection, *, rows: int = ROWS) -> None:
        if not 1 <= rows <= 200:
            raise MisuseError(f"rows is a number from 1 to 200, not {rows}")
        self.collection = collection
        self._rows = rows

    async def aclose(self) -> None:
        """Close the collection; the next call opens it again."""
        await super().aclose()
        await self.collection.aclose()

    async def execute(self, cypher: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Answer a query.

        Args:
            cypher: the query, such as MATCH (e:Entity)-[r:RELATES]->(o) WHERE e.name = $name RETURN r.kind, o.name.
            parameters: the values of its $names.

        """
        try:
            rows = await self.collection.async_query(cypher, parameters, rows=self._rows)
        except (MisuseError, RetrievalError) as error:
            raise ToolError(str(error)) from error
        answer: dict[str, Any] = {"rows": rows}
        if len(rows) == self._rows:
            answer["note"] = f"only the first {len(rows)} rows; aggregate, or add a LIMIT"
        return answer
