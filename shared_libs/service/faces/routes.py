"""The routes of all faces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from shared_libs.service.endpoint import Call, Endpoint, Handler, asked_for, told_of
from shared_libs.service.faces import chat, messages, responses, vectors
from shared_libs.service.faces import request_docs as docs
from shared_libs.service.faces.anthropic_answer import anthropic_error, anthropic_status
from shared_libs.service.faces.openai_answer import openai_error, openai_status
from shared_libs.service.problems import PROBLEM_JSON, Dialect
from shared_libs.service.rates import anthropic_rates


def _doc(
    tag: str,
    summary: str,
    body: dict[str, Any] | None = None,
    *,
    streams: bool = False,
    query: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What the OpenAPI document says of a route whose format is another vendor's, and described there."""
    parameters = [asked_for(name, schema) for name, schema in (query or {}).items()]
    return told_of(tag, summary, {"type": ["object", "array"]}, body, streams=streams, parameters=parameters)


OPENAI = Dialect(openai_error, openai_status)
ANTHROPIC = Dialect(anthropic_error, anthropic_status, rates=anthropic_rates)

ASK = "models|agents:run"
"""What a key needs at the least; what it asks in particular, the catalogue decides."""


def _route(method: str, path: str, handler: Handler, doc: dict[str, Any], dialect: Dialect = OPENAI) -> Route:
    told = doc | {"operationId": re.sub(r"\W+", "_", f"{method}_{path}".lower()).strip("_")}
    return Route(path, Endpoint(handler, needs=ASK, dialect=dialect, doc=told), methods=[method])


async def _mcp(call: Call) -> None:
    await call.service.mcp.answer(call)


def _mcp_doc() -> dict[str, Any]:
    told = _doc("mcp", "The Model Context Protocol", docs.RPC, streams=True)
    refused = {kind: {"schema": {"type": "object"}} for kind in ("application/json", PROBLEM_JSON)}
    told["responses"] |= {
        "202": {"description": "A notification was taken."},
        "4XX": {"description": "Refused, by the protocol or by us.", "content": refused},
    }
    return told | {"operationId": "post_mcp"}


HOT = [
    _route("POST", "/v1/chat/completions", chat.chat, _doc("openai", "A chat completion", docs.CHAT, streams=True)),
    _route("GET", "/v1/models", chat.models, _doc("openai", "What may be asked")),
    _route("GET", "/v1/models/{name:path}", chat.model, _doc("openai", "One of them")),
    _route("POST", "/v1/responses", responses.create, _doc("openai", "A response", docs.RESPONSE, streams=True)),
    _route(
        "POST",
        "/v1/responses/input_tokens",
        responses.count_tokens,
        _doc("openai", "About how many tokens it has", docs.RESPONSE),
    ),
    _route(
        "GET",
        "/v1/responses/{id}",
        responses.retrieve,
        _doc("openai", "A response", streams=True, query=responses.EVENTS_DOC),
    ),
    _route("DELETE", "/v1/responses/{id}", responses.delete, _doc("openai", "Forget a response")),
    _route("POST", "/v1/responses/{id}/cancel", responses.cancel, _doc("openai", "End a response")),
    _route(
        "GET",
        "/v1/responses/{id}/input_items",
        responses.input_items,
        _doc("openai", "What it was asked", query=responses.PAGE_DOC),
    ),
    _route("POST", "/v1/embeddings", vectors.embeddings, _doc("openai", "Embeddings of texts", docs.EMBEDDING)),
    *(  # as Jina and others have it, as Cohere's SDK asks, as text-embeddings-inference does
        _route("POST", path, vectors.rerank, _doc("rerank", "How well texts answer a query", docs.RERANK))
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    ),
    _route(
        "POST", "/v1/messages", messages.messages, _doc("anthropic", "A message", docs.MESSAGE, streams=True), ANTHROPIC
    ),
    _route(
        "POST",
        "/v1/messages/count_tokens",
        messages.count_tokens,
        _doc("anthropic", "About how many tokens a request has", docs.COUNT),
        ANTHROPIC,
    ),
    # no GET: without a session nothing is ever told in its stream, which stays open as long as its client does
    Route("/mcp", Endpoint(_mcp, needs="agents:run|collections:read", doc=_mcp_doc()), methods=["POST"]),
]
"""Plain ASGI, as all that is asked often."""
