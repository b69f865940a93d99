"""Embeddings as OpenAI has them, and reranking as Cohere, Jina and text-embeddings-inference have it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.types import BYTES_PER_TOKEN, Usage
from shared_libs.service.admission import Demand
from shared_libs.service.catalogue import Entry
from shared_libs.service.edge import fresh_id
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.wanted import LENGTH, Body, Bound
from shared_libs.service.problems import Problem
from shared_libs.service.repeats import reply_once

if TYPE_CHECKING:
    import numpy as np

MAX_TEXTS = 2048
"""How many texts a request may have, as at OpenAI."""

SIZES = {"dimensions": Bound(1, 65536, whole=True)}
MOST_WANTED = {"top_n": LENGTH, "top_k": LENGTH}
"""The numbers of a request for embeddings, and of one for an order of texts."""

FORMS = ("float", "base64")
"""How embeddings are told."""


async def embeddings(call: Call) -> None:
    """Answer a request for embeddings: float32, little-endian, in base64 where that is asked for."""
    raw = await call.body()
    body = Body(await call.decoded(raw))
    entry = _entry(call, body)
    form = body.text_or("encoding_format", "float")
    if form not in FORMS:
        raise body.wrong("encoding_format", "'float' or 'base64'")
    body.check(SIZES)
    texts = _inputs(body, entry.llm)
    if not entry.llm.embeds:
        raise Problem("unsupported_parameter", f"{entry.name} has no embeddings", param="model")
    options = {name: body.data[name] for name in ("dimensions", "user") if body.data.get(name) is not None}
    tokens = _tokens(texts)

    async def embed() -> dict[str, Any]:
        async with _asking(call, entry, tokens):
            matrix = await entry.llm.async_embed(texts, **options)
        if (wanted := options.get("dimensions")) not in (None, matrix.shape[1]):
            told = f"{entry.name} gives vectors of {matrix.shape[1]} numbers, and not of {wanted}"
            raise Problem("unsupported_parameter", told, param="dimensions")
        rows = _base64(matrix) if form == "base64" else await asyncio.to_thread(matrix.tolist)
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
            "model": entry.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    await reply_once(call, raw, embed)


async def rerank(call: Call) -> None:
    """Answer a request for an order of texts, in the shape that the request has."""
    raw = await call.body()
    body = Body(await call.decoded(raw))
    entry = _entry(call, body)
    field = "texts" if "texts" in body.data else "documents"
    if field == "texts" and "documents" in body.data:
        raise Problem("invalid_request", "send `documents` or `texts`, not both", param="texts")
    query, texts = body.text("query"), _documents(body, field)
    body.check(MOST_WANTED)
    if not entry.llm.reranks:
        raise Problem("unsupported_parameter", f"{entry.name} is no reranker", param="model")
    tokens = _tokens([query, *texts])

    async def score() -> Any:
        async with _asking(call, entry, tokens):
            scores = await entry.llm.async_rerank(query, texts)
        return _ranked(body, entry, texts, scores, tokens)

    await reply_once(call, raw, score)


def _ranked(body: Body, entry: Entry, texts: list[str], scores: Sequence[float], tokens: int) -> Any:
    """Write an order of texts in the shape that the request has."""
    order = sorted(range(len(texts)), key=lambda index: -scores[index])
    order = order[: int(body.data.get("top_n") or body.data.get("top_k") or len(order))]
    if "texts" in body.data:
        text = body.flag("return_text")
        return [{"index": at, "score": scores[at]} | ({"text": texts[at]} if text else {}) for at in order]
    told = body.flag("return_documents")
    results = [
        {"index": at, "relevance_score": scores[at]} | ({"document": {"text": texts[at]}} if told else {})
        for at in order
    ]
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return {"id": fresh_id(), "model": entry.name, "results": results, "usage": usage}


def _entry(call: Call, body: Body) -> Entry:
    """What is asked; text-embeddings-inference serves one model, and its clients name none."""
    if body.data.get("model") is None:
        known = [one for one in call.service.catalogue.visible(call.caller) if one.kind == "chain" and one.llm.reranks]
        if len(known) == 1:
            return known[0]
    return call.service.catalogue.find(call.caller, body.text("model"))


@asynccontextmanager
async def _asking(call: Call, entry: Entry, tokens: int) -> AsyncIterator[None]:
    """Hold a slot while the models are asked, within the deadline."""
    deadline = call.deadline(entry.longest_s, streams=False)
    demand = Demand(
        caller=call.caller,
        target=entry.name,
        deadline=deadline,
        tokens=tokens,
        price=entry.price,
        tell_rates=call.tell_rates,
    )
    call.stays_when_gone("cancel")
    loop = asyncio.get_running_loop()
    async with entry.used(), call.service.admission.enter(demand) as grant:
        began_at = loop.time()
        with call.service.calling(deadline):
            yield
        call.exchange.waited_s += loop.time() - began_at + grant.queued_s
        grant.settle(Usage(tokens), None)


def _inputs(body: Body, llm: BaseLLMWrapper) -> list[Any]:
    """The texts; lists of tokens go on to a server of the kind that has them."""
    given = body.data.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and all(isinstance(one, int) for one in given)):
        given = [given]
    if not isinstance(given, list) or not given:
        raise body.wrong("input", "a text, or a list of at least one text")
    if len(given) > MAX_TEXTS:
        raise body.wrong("input", f"a list of at most {MAX_TEXTS} texts")
    for index, one in enumerate(given):
        if isinstance(one, list) and one and all(isinstance(token, int) for token in one):
            if llm.provider != "openai":
                told = "lists of tokens mean something to the model that made them only; send texts"
                raise Problem("unsupported_parameter", f"input[{index}]: {told}", param="input")
        elif not isinstance(one, str) or not one:
            raise body.wrong(f"input[{index}]", "a text that is not empty")
    return given


def _documents(body: Body, field: str) -> list[str]:
    given = body.data.get(field)
    if not isinstance(given, list) or not given:
        raise body.wrong(field, "a list of at least one text")
    if len(given) > MAX_TEXTS:
        raise body.wrong(field, f"a list of at most {MAX_TEXTS} texts")
    texts: list[str] = []
    for index, one in enumerate(given):
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise body.wrong(f"{field}[{index}]", "a text, or an object with one as its `text`")
        texts.append(text)
    return texts


def _base64(matrix: np.ndarray) -> list[str]:
    rows = matrix.astype("<f4", copy=False)
    return [base64.b64encode(row.tobytes()).decode() for row in rows]


def _tokens(texts: list[Any]) -> int:
    """About how many tokens texts have; lists of tokens tell it."""
    return sum(len(one) if isinstance(one, list) else max(1, len(one) // BYTES_PER_TOKEN) for one in texts)
