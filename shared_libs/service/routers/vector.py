"""Collections over HTTP: documents in, passages out that can be cited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from starlette.routing import Route

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.page_text import readable
from shared_libs.atomic.types import Usage
from shared_libs.retrieval import Collection, Document, IndexProgress
from shared_libs.retrieval.collection import MOST_HITS
from shared_libs.service.endpoint import Call, Endpoint, Handler, asked_for
from shared_libs.service.faces.wanted import Body
from shared_libs.service.library import no_collection
from shared_libs.service.problems import Problem, problem_details, problem_of
from shared_libs.service.repeats import Asked, answered_once, reply_once
from shared_libs.service.routers.answers import check_fields, streams
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
from shared_libs.service.streams import sse

SEARCH_S = 10.0
"""Seconds a search may take where nobody says."""

INDEX_S = 600.0
"""Seconds an indexing may take where nobody says."""

KEPT_BACK = 0.05
"""The share of an indexing's time in which it is told how far it came."""

MAX_DOCUMENTS = 10_000
"""Documents of one request, and of one page."""


async def index(call: Call) -> None:
    """
    Bring documents into a collection, and tell how far it is; what time does not suffice for, the next one does.

    A request that comes again joins the one under way, and gets its end.
    """
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("documents",))
    documents = [_document(one) for one in Body(body).objects("documents")]
    if not 0 < len(documents) <= MAX_DOCUMENTS:
        raise Problem("invalid_request", f"documents is a list of 1 to {MAX_DOCUMENTS}", param="documents")
    collection = named(call, call.path["name"], "write")
    deadline = call.deadline(INDEX_S, streams=streams(call))
    stream = call.events() if streams(call) else None

    async def tell(progress: IndexProgress) -> None:
        if stream is not None:
            await stream.write(sse(progress, event="progress"))

    work = partial(_indexed, call, collection, documents, deadline, tell)
    try:
        asked, outcomes = Asked(call, raw), call.service.outcomes
        last = await answered_once(outcomes, call, asked, work, IndexProgress, is_kept=lambda told: told.finished)
    except Exception as error:
        if stream is None or not stream.started:
            raise
        problem = problem_of(error)
        await stream.close(sse(problem_details(problem, call.exchange.request_id), event="error"))
        return
    if stream is None:
        await call.reply(last)
    else:
        await stream.close(sse(last, event="finished" if last.finished else "unfinished"))


async def _indexed(
    call: Call,
    collection: Collection,
    documents: Sequence[Document],
    deadline: Deadline,
    tell: Callable[[IndexProgress], Awaitable[None]],
) -> IndexProgress:
    until = deadline.at - KEPT_BACK * max(0.0, deadline.remaining())
    tokens = about_tokens(one.text for one in documents)
    last = IndexProgress(documents=len(documents))
    async with asking(call, "collections/index", deadline, tokens, _price(collection)) as grant:
        try:
            async with (
                asyncio.timeout_at(until),
                aclosing(collection.async_index(documents, total=len(documents))) as steps,
            ):
                async for last in steps:
                    if not last.finished:
                        await tell(last)
        except TimeoutError:
            pass  # it says itself that it is not finished
        finally:
            grant.settle(Usage(last.tokens), None)
    return last


async def search(call: Call) -> None:
    """Find passages by words and by meaning."""
    await _find(call, deep=False)


async def retrieve(call: Call) -> None:
    """Find passages as search does, with what a graph adds, reranked where there is a reranker."""
    await _find(call, deep=True)


async def _find(call: Call, *, deep: bool) -> None:
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("question", "query", "k", "top_k", "where", "document"))
    given = Body(body)
    question = given.text("query" if "query" in body else "question")
    k = whole_number(body, ("k", "top_k"), 10)
    where = given.object_or("where") or None
    document = given.text_or("document") or None
    collection = named(call, call.path["name"], "read")
    deadline = call.deadline(SEARCH_S, streams=False)
    tokens = about_tokens([question])
    what = "collections/retrieve" if deep else "collections/search"

    async def find() -> dict[str, Any]:
        async with asking(call, what, deadline, tokens, _price(collection)) as grant, of_what_is_there(collection):
            ask = collection.async_retrieve if deep else collection.async_search
            found = await ask(question, k=k, where=where, document=document)
            grant.settle(Usage(tokens if collection.embedder else 0), None)
        return {"hits": found.hits, "stages": found.stages, "notes": found.notes}

    await reply_once(call, raw, find)


async def collections(call: Call) -> None:
    """List the collections there are for the key."""
    await call.reply({"collections": await call.service.library.visible(call.caller)})


async def collection(call: Call) -> None:
    """Say what a collection holds."""
    row = await named(call, call.path["name"], "read").async_describe()
    if row is None:
        raise no_collection(call.path["name"])
    await call.reply(row)


async def drop(call: Call) -> None:
    """Remove a collection with all its documents."""
    collection = named(call, call.path["name"], "write")

    async def dropped() -> dict[str, bool]:
        if not await collection.async_drop():
            raise no_collection(collection.name)
        call.note("collection.dropped", f"collection:{collection.name}")
        return {"deleted": True}

    await reply_once(call, await call.body(), dropped)


async def documents(call: Call) -> None:
    """List documents by their id."""
    after, limit = call.query.get("after", ""), call.query.get("limit", "100")
    if not limit.isdecimal() or not 1 <= int(limit) <= MAX_DOCUMENTS:
        raise Problem("invalid_request", f"limit is a number from 1 to {MAX_DOCUMENTS}", param="limit")
    there = named(call, call.path["name"], "read")
    async with of_what_is_there(there):
        rows = await there.async_documents(after=after, limit=int(limit))
    if not rows and await there.async_describe() is None:
        raise no_collection(there.name)
    await call.reply({"documents": rows, "next": rows[-1].id if len(rows) == int(limit) else None})


async def document(call: Call) -> None:
    """Show a document, by its id or its source, with the text that offsets refer to."""
    there = named(call, call.path["name"], "read")
    row = await there.async_document(call.path["document"])
    text = None if row is None else await there.async_text(call.path["document"])
    if row is None:
        raise _no_document(call)
    await call.reply(msgspec.structs.asdict(row) | {"text": text})


async def remove(call: Call) -> None:
    """Remove a document; it is found no more from now on."""
    collection, document = named(call, call.path["name"], "write"), call.path["document"]

    async def removed() -> dict[str, bool]:
        if not await collection.async_remove(document):
            raise _no_document(call)
        call.note("document.removed", f"collection:{collection.name}", facts={"document": document[:200]})
        return {"deleted": True}

    await reply_once(call, await call.body(), removed)


def _document(given: Body) -> Document:
    if not isinstance(given.data, dict):
        raise Problem("invalid_request", f"{given.path} is an object", param=given.path)
    check_fields(given.data, ("source", "text", "title", "media_type", "metadata"))
    text, kind = given.text("text"), given.text_or("media_type", "text/plain")
    return Document(
        source=given.text("source"),
        text=readable(text, "") if kind == "text/html" else text,
        title=given.text_or("title"),
        media_type=kind,
        metadata=given.object_or("metadata"),
    )


def _no_document(call: Call) -> Problem:
    return Problem("not_found", f"the collection has no document {call.path['document'][:80]!r}")


def _price(collection: Collection) -> Any:
    return None if collection.embedder is None else collection.embedder.price


def _route(
    method: str, path: str, handler: Handler, summary: str, body: dict[str, Any] | None = None, **more: Any
) -> Route:
    told = doc(f"{handler.__name__}_collection", "collections", summary, body, **more)
    if path.startswith(_ONE):
        told["parameters"].append(asked_for("name", NAME, "path"))
    return Route(path, Endpoint(handler, needs=NEEDS, doc=told), methods=[method])


_DOCUMENT = shaped(
    *("source", "text"), source=TEXT, text=TEXT, title={"type": "string"}, media_type={"type": "string"}, metadata=SOME
)
_QUESTION = shaped(
    "question",
    question=TEXT,
    k={"type": "integer", "minimum": 1, "maximum": MOST_HITS},
    where={"type": ["object", "null"]},
    document={"type": ["string", "null"]},
)
_ONE = "/v1/collections/{name}"
_DOCUMENTS = f"{_ONE}/documents"
HOT = [
    _route(
        "POST",
        f"{_ONE}/index",
        index,
        "Bring documents into a collection",
        shaped("documents", documents=listed(_DOCUMENT, MAX_DOCUMENTS)),
        streams=True,
    ),
    _route("POST", f"{_ONE}/search", search, "Find passages by words and by meaning", _QUESTION),
    _route(
        "POST", f"{_ONE}/retrieve", retrieve, "Find passages, with a graph and a reranker where there are", _QUESTION
    ),
    _route("GET", "/v1/collections", collections, "The collections there are for the key"),
    _route("GET", _ONE, collection, "What a collection holds"),
    _route("DELETE", _ONE, drop, "Remove a collection"),
    _route(
        "GET",
        _DOCUMENTS,
        documents,
        "The documents of a collection",
        parameters=[
            asked_for("after", {"type": "string"}),
            asked_for("limit", {"type": "integer", "minimum": 1, "maximum": MAX_DOCUMENTS, "default": 100}),
        ],
    ),
    _route("GET", f"{_DOCUMENTS}/{{document:path}}", document, "A document, by its id or its source"),
    _route("DELETE", f"{_DOCUMENTS}/{{document:path}}", remove, "Remove a document"),
]
