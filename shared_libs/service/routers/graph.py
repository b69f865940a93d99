"""Graphs over HTTP: what models read out of texts, what is told of chunks, and queries that only read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from starlette.routing import Route

from shared_libs.atomic.errors import RetrievalError, RetrievalUnavailable
from shared_libs.atomic.types import Price, Usage
from shared_libs.retrieval.cypher_guard import MAX_ROWS
from shared_libs.retrieval.extraction import Extractor, Reading, Told
from shared_libs.service.admission import Grant
from shared_libs.service.endpoint import Call, Endpoint, Handler
from shared_libs.service.faces.wanted import Body
from shared_libs.service.problems import Problem
from shared_libs.service.repeats import reply_once
from shared_libs.service.routers.answers import check_fields
from shared_libs.service.routers.collections import (
    NAME,
    NEEDS,
    SOME,
    TEXT,
    about_tokens,
    asking,
    doc,
    listed,
    named,
    of_what_is_there,
    shaped,
    whole_number,
)

EXTRACT_S = 60.0
"""Seconds a reading may take where nobody says."""

QUERY_S = 10.0
"""Seconds a query may take where nobody says."""

MAX_TEXT = 100_000
"""Characters of a text that models read at once."""

MAX_MODELS = 8
"""Models that race."""


async def probe(call: Call) -> None:
    """Tell which models can read entities and relations out of a text."""
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("collection", "models"))
    deadline = call.deadline(EXTRACT_S, streams=False)

    async def probed() -> dict[str, Any]:
        async with _extractor(call, Body(body)) as extractor:
            tokens = 500 * len(extractor.models)
            async with asking(call, "graph/probe", deadline, tokens, _dearest(extractor)) as grant:
                readings = await extractor.async_probe()
                _settle(grant, readings)
        return {"readings": readings}

    await reply_once(call, raw, probed)


async def extract(call: Call) -> None:
    """Read entities and relations out of a text: all models at once, the first valid answer."""
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("collection", "models", "text"))
    text = Body(body).text("text")
    if len(text) > MAX_TEXT:
        raise Problem("invalid_request", f"text has {len(text):,} characters, of at most {MAX_TEXT:,}", param="text")
    deadline = call.deadline(EXTRACT_S, streams=False)

    async def extracted() -> Any:
        async with _extractor(call, Body(body)) as extractor:
            tokens = (about_tokens([text]) + 500) * len(extractor.models)
            async with asking(call, "graph/extract", deadline, tokens, _dearest(extractor)) as grant:
                try:
                    found = await extractor.async_extract(text)
                except RetrievalError as error:  # names its models, and nothing of a store
                    raise Problem("upstream_failed", str(error)) from error
                _settle(grant, found.readings)
        return found

    await reply_once(call, raw, extracted)


async def upsert(call: Call) -> None:
    """Store what somebody tells of chunks; what does not stand in them is left out."""
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("collection", "facts"))
    given = Body(body)
    collection = named(call, given.text("collection"), "write")
    try:
        facts = msgspec.convert(body.get("facts"), list[Told])
    except msgspec.ValidationError as error:
        told = (
            f"facts is a list of {{chunk, entities: [{{name, type}}], relations: [{{source, kind, target}}]}}: {error}"
        )
        raise Problem("invalid_request", told, param="facts") from error
    deadline = call.deadline(QUERY_S, streams=False)

    async def kept() -> Any:
        async with asking(call, "graph/upsert", deadline, 0, None) as grant, of_what_is_there(collection):
            found = await collection.async_upsert(facts)
            grant.settle(Usage(), None)
        return found

    await reply_once(call, raw, kept)


async def query(call: Call) -> None:
    """Answer a Cypher query that only reads, over what the chunks of a collection tell."""
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("collection", "cypher", "query", "parameters", "rows"))
    given = Body(body)
    cypher = given.text("query" if "query" in body else "cypher")
    parameters, most = given.object_or("parameters"), whole_number(body, ("rows",), 100)
    collection = named(call, given.text("collection"), "read")
    deadline = call.deadline(QUERY_S, streams=False)

    async def asked() -> dict[str, Any]:
        async with asking(call, "graph/query", deadline, 0, None) as grant, of_what_is_there(collection):
            try:
                rows = await collection.async_query(cypher, parameters, rows=most)
            except RetrievalUnavailable:
                raise
            except RetrievalError as error:  # says what is wrong with the query
                raise Problem("invalid_request", str(error), param="cypher") from error
            grant.settle(Usage(), None)
        return {"rows": rows}

    await reply_once(call, raw, asked)


@asynccontextmanager
async def _extractor(call: Call, given: Body) -> AsyncIterator[Extractor]:
    """Name who reads: the models of the request, or those of a collection."""
    names = given.data.get("models")
    if names is None:
        collection = named(call, given.text("collection"), "write")
        if collection.extractor is None:
            told = f"the collection {collection.name!r} names no models under `extract`; send `models`"
            raise Problem("not_found", told, param="models")
        yield collection.extractor
        return
    if not isinstance(names, list) or not 0 < len(names) <= MAX_MODELS or not all(isinstance(n, str) for n in names):
        raise given.wrong("models", f"a list of 1 to {MAX_MODELS} names, as GET /v1/models tells them")
    entries = [call.service.catalogue.find(call.caller, name) for name in dict.fromkeys(names)]
    async with AsyncExitStack() as used:
        for entry in entries:
            await used.enter_async_context(entry.used())
        yield Extractor([entry.llm for entry in entries])


def _dearest(extractor: Extractor) -> Price | None:
    known = [model.price for model in extractor.models if model.price is not None]
    return max(known, key=lambda price: (price.output, price.input), default=None)


def _settle(grant: Grant, readings: Any) -> None:
    rows: tuple[Reading, ...] = tuple(readings)
    usage = sum((row.usage for row in rows if row.usage is not None), Usage())
    costs = [row.cost_usd for row in rows if row.usage is not None]
    grant.settle(usage, None if None in costs else sum(filter(None, costs)))


def _route(path: str, handler: Handler, summary: str, body: dict[str, Any], needs: str = NEEDS) -> Route:
    told = doc(f"{handler.__name__}_graph", "graph", summary, body)
    return Route(path, Endpoint(handler, needs=needs, doc=told), methods=["POST"])


_MODELS = "collections:write|models|agents:run"
_WHO = {"models": listed(TEXT, MAX_MODELS), "collection": NAME}
_SOMEBODY = {"anyOf": [{"required": ["models"]}, {"required": ["collection"]}]}
_ENTITY = shaped("name", name=TEXT, type={"type": "string"})
_RELATION = shaped(*("source", "kind", "target"), source=TEXT, kind=TEXT, target=TEXT)
_FACTS = shaped(
    "chunk",
    chunk=TEXT,
    entities={"type": "array", "items": _ENTITY},
    relations={"type": "array", "items": _RELATION},
)
_ROWS = {"type": "integer", "minimum": 1, "maximum": MAX_ROWS}

HOT = [
    _route(
        "/v1/graph/probe", probe, "Which models can read entities and relations", shaped(**_WHO) | _SOMEBODY, _MODELS
    ),
    _route(
        "/v1/graph/extract",
        extract,
        "Entities and relations of a text; the first valid answer wins",
        shaped("text", text=TEXT | {"maxLength": MAX_TEXT}, **_WHO) | _SOMEBODY,
        _MODELS,
    ),
    _route(
        "/v1/graph/upsert",
        upsert,
        "Store what chunks tell",
        shaped("collection", "facts", collection=NAME, facts={"type": "array", "items": _FACTS}),
    ),
    _route(
        "/v1/graph/query",
        query,
        "A Cypher query that only reads",
        shaped(*("collection", "cypher"), collection=NAME, cypher=TEXT, parameters=SOME, rows=_ROWS),
    ),
]
