"""Rerankers behind HTTP: Cohere, Jina, Voyage, vLLM and Infinity in one shape, text-embeddings-inference in another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from shared_libs.atomic.errors import BadRequest, LLMError, MalformedResponse, MisuseError
from shared_libs.atomic.llms.faults import error_event, no_answer, says_error
from shared_libs.atomic.llms.http_llm import HttpLLM
from shared_libs.atomic.llms.payload import decode_strictly, encode
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import LLMResponse, Message, Price, ToolSpec

RerankApi = Literal["documents", "texts"]


class _Answer(msgspec.Struct):
    results: list[Any] | None = None
    data: list[Any] | None = None  # Voyage, Pinecone
    rankings: list[Any] | None = None  # NVIDIA
    records: list[Any] | None = None  # Vertex
    scores: list[Any] | None = None
    output: Any = None  # DashScope has all of it in here
    error: Any = None


_decoder = msgspec.json.Decoder(_Answer | list[Any])

_SCORES = ("relevance_score", "relevanceScore", "score", "logit")
_PLACES = ("index", "id", "corpus_id", "document_index")
_OF_NO_TEXT = frozenset({*_SCORES, "label", "object"})
"""What a row may have that says nothing of which text it is of: then the rows stand in the order of the texts."""


class RerankLLM(HttpLLM):
    """
    A reranker: a model that says how well texts answer a query. Asked by `async_rerank`; it holds no conversation.

    The key comes from `RERANK_API_KEY`, the address from `RERANK_BASE_URL`; `/rerank` is added to it. `options` are
    further fields of the request.

    Args:
        api: "documents", as Cohere (`https://api.cohere.com/v2`), Jina, Voyage, vLLM and others take it, or "texts",
            as text-embeddings-inference does.

    Raises:
        MisuseError: `base_url` is no HTTP address, or `api` is neither.

    """

    provider = "rerank"
    own_base_url = "https://api.cohere.com/v2"
    key_variable = "RERANK_API_KEY"
    base_url_variable = "RERANK_BASE_URL"

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        api: RerankApi = "documents",
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[RerankLLM] = (),
        price: Price | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if api not in ("documents", "texts"):
            raise MisuseError(f"api {api!r}: allowed are 'documents' and 'texts'")
        self._in_texts = api == "texts"
        super().__init__(
            model,
            api_key=api_key,
            base_url=base_url,
            resilience=resilience,
            fallbacks=fallbacks,
            price=price,
            options=options,
        )

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        raise BadRequest(f"{self.model} is a reranker: it answers no questions")

    async def _rerank(self, query: str, texts: list[str], **options: Any) -> list[float]:
        if self._in_texts:
            request: dict[str, Any] = {"query": query, "texts": texts, "truncate": True}
        else:
            request = {"model": self.model, "query": query, "documents": texts, "top_n": len(texts)}
        wire = self._wire()
        try:
            return read_scores(await wire.post("/rerank", encode(request | options)), len(texts), wire.secrets)
        except LLMError as error:
            self._hint(error)
            raise


def read_scores(body: bytes, count: int, secrets: Iterable[str]) -> list[float]:
    """
    Read the answer of a reranker: a score for each text, in their order.

    Raises:
        MalformedResponse: it has not one finite score a text.
        LLMError: it is a refusal.

    """
    answer = decode_strictly(_decoder, body)
    if isinstance(answer, _Answer):
        if says_error(answer.error):
            raise error_event(body, secrets)
        if isinstance(answer.output, dict):
            found = answer.output.get("results")
            answer = _Answer(results=found if isinstance(found, list) else None)
        every = (answer.results, answer.data, answer.rankings, answer.records, answer.scores)
        rows = next((rows for rows in every if rows is not None), None)
        if rows is None:
            raise no_answer(body, secrets, "results")
    else:
        rows = answer
    read = [_row(row) for row in rows]
    if all(index is None for index, _ in read):  # then they stand in the order of the texts
        read = [(at, score) for at, (_, score) in enumerate(read)]
    scores = {index: score for index, score in read if index is not None and score is not None and 0 <= index < count}
    if len(scores) != count or len(rows) != count:
        raise MalformedResponse(f"{len(rows)} scores came for {count} texts, {len(scores)} of them of use")
    return [scores[index] for index in range(count)]


def _row(row: Any) -> tuple[int | None, float | None]:
    """Return which text a row is of, and its score, as far as it says them; -1 stands for no text there is."""
    if not isinstance(row, dict):
        return None, _number(row)
    index = next((row[name] for name in _PLACES if row.get(name) is not None), None)
    if index is None and not row.keys() <= _OF_NO_TEXT:
        index = -1
    place = _number(index)
    score = next((row[name] for name in _SCORES if row.get(name) is not None), None)
    whole = int(place) if place is not None and place.is_integer() else -1
    return (None if index is None else whole), _number(score)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
