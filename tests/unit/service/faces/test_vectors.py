"""Embeddings and reranking: the vendor's SDK and our own client against the service."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import APIStatusError, BadRequestError, NotFoundError

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import BadRequest, LLMError, MalformedResponse
from shared_libs.atomic.llms import RerankLLM
from shared_libs.atomic.llms.rerank_llm import read_scores
from shared_libs.testing import Healthy
from tests.support import run
from tests.unit.service.faces.ground import ground

REHEARSED = {"llm": {"provider": "rehearsal", "script": "hello"}}
CITIES = ["Paris is in France.", "A cat sat.", "The capital of France is Paris."]


@pytest.mark.promise("face-vectors")
def test_embeddings_come_as_floats_and_as_base64_and_are_the_same(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy()}, bot={}) as at, at.openai() as client:
            create = client.embeddings.create
            default = await create(model="bot/chain", input=["a", "b"])
            plain = await create(model="bot/chain", input=["a", "b"], encoding_format="float")
            np.testing.assert_array_equal(
                np.array([one.embedding for one in default.data], np.float32),
                np.array([one.embedding for one in plain.data], np.float32),
            )
            _, _, raw = await at.post(
                "/v1/embeddings", {"model": "bot/chain", "input": "a", "encoding_format": "base64"}
            )
            [row] = raw["data"]
            np.testing.assert_array_equal(
                np.frombuffer(base64.b64decode(row["embedding"]), "<f4"), np.float32(plain.data[0].embedding)
            )
            assert len((await create(model="bot/chain", input="a", dimensions=5)).data[0].embedding) == 5
            await create(model="bot/chain", input=[[1, 2, 3], [4]])
            assert at.upstream.requests[-1].body["input"] == [[1, 2, 3], [4]]
            assert default.usage.total_tokens > 0
            for wrong in ({"input": []}, {"input": [""]}, {"input": "a", "dimensions": 0}, {"input": ["a"] * 2049}):
                with pytest.raises(BadRequestError) as refused:
                    await create(model="bot/chain", **wrong)
                assert refused.value.param is not None
            with pytest.raises(NotFoundError):
                await create(model="nobody", input="a")

    run(main())


@pytest.mark.promise("face-vectors")
def test_what_is_asked_again_under_a_key_is_embedded_once_and_a_long_answer_is_not_kept(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy()}, bot={}) as at, at.openai() as client:

            async def embed(key: str, texts: list[str]) -> list[list[float]]:
                made = await client.embeddings.create(
                    model="bot/chain", input=texts, extra_headers={"Idempotency-Key": key}
                )
                return [one.embedding for one in made.data]

            first = await asyncio.gather(*(embed("k", ["a"]) for _ in range(3)))
            assert first == [await embed("k", ["a"])] * 3
            assert len(at.upstream.requests) == 1
            with pytest.raises(APIStatusError, match="another body"):
                await embed("k", ["b"])
            many = ["long"] * 2048
            assert len(await embed("n", many)) == len(await embed("n", many)) == 2048
            assert len(at.upstream.requests) == 3

    run(main())


@pytest.mark.promise("face-vectors", "serve-once")
def test_what_is_reranked_again_under_a_key_is_asked_of_the_model_once(tmp_path):
    asked = {"model": "bot/chain", "query": "capital of France", "documents": CITIES}
    seen: list[str] = []

    async def main():
        async def rank(request: web.Request) -> web.Response:
            seen.append(request.headers["x-request-timeout"])
            await asyncio.sleep(0.05)
            return web.json_response({"results": [{"index": at, "relevance_score": 0.1 * at} for at in range(3)]})

        app = web.Application()
        app.router.add_post("/rerank", rank)
        async with TestServer(app) as reranker:
            llm = {"provider": "rerank", "model": "r", "base_url": str(reranker.make_url("/")), "api_key": "x"}
            async with ground(tmp_path, {}, bot={"llm": llm}) as at:
                key = {"Idempotency-Key": "k", "X-Request-Timeout": "5"}
                same = [at.post("/v1/rerank", asked, **key) for _ in range(2)]
                answers = [*await asyncio.gather(*same), await at.post("/v1/rerank", asked, **key)]
                assert [status for status, _, _ in answers] == [200] * 3
                assert len({told["id"] for _, _, told in answers}) == len(seen) == 1
                assert 0 < float(seen[0]) < 5
                assert (await at.post("/v1/rerank", asked | {"top_n": 1}, **key))[0] == 400  # OpenAI has no 422
                retry = {"x-stainless-retry-count": "1"}
                assert (await at.post("/v1/rerank", asked, **retry))[0] == 200
                assert len(seen) == 2  # the first of its kind without a key

    run(main())


@pytest.mark.promise("face-vectors")
@pytest.mark.parametrize(("api", "base"), [("documents", "/v1"), ("texts", "")])
def test_our_client_asks_our_service_in_both_shapes(tmp_path, api, base):
    async def main():
        async with ground(tmp_path, {}, bot=REHEARSED) as at:
            async with RerankLLM("bot/chain", base_url=at.url + base, api=api) as reranker:
                scores = await reranker.async_rerank("What is the capital of France?", CITIES)
                with pytest.raises(MisuseError):
                    await reranker.async_rerank("x", [])
                with pytest.raises(BadRequest, match="answers no questions"):
                    await reranker.async_chat("hello")
            assert sorted(range(3), key=lambda index: -scores[index]) == [2, 0, 1]

    run(main())


@pytest.mark.promise("face-vectors")
def test_the_shapes_of_rerankers(tmp_path):
    asked = {"model": "bot/chain", "query": "capital of France"}

    async def main():
        async with ground(tmp_path, {"m": Healthy()}, bot=REHEARSED, chat={}) as at:
            documents = [{"text": text} for text in CITIES]
            for path in ("/v1/rerank", "/v2/rerank"):
                body = asked | {"documents": documents, "top_n": 2, "return_documents": True}
                _, _, told = await at.post(path, body)
                assert [(one["index"], one["document"]["text"]) for one in told["results"]] == [
                    (2, CITIES[2]),
                    (0, CITIES[0]),
                ]
                assert told["results"][0]["relevance_score"] > told["results"][1]["relevance_score"]
            _, _, told = await at.post("/rerank", {"query": "cat", "texts": CITIES, "return_text": True})
            assert (told[0]["index"], told[0]["text"], len(told)) == (1, CITIES[1], 3)
            for wrong in ({"documents": []}, {"documents": [3]}, {"query": ""}, {"documents": CITIES, "top_n": 0}):
                status, _, told = await at.post("/v1/rerank", asked | wrong)
                assert (status, told["error"]["type"]) == (400, "invalid_request_error")
            status, _, told = await at.post("/v1/rerank", asked | {"documents": CITIES, "model": "chat/chain"})
            assert (status, told["error"]["message"]) == (400, "chat/chain is no reranker")

    run(main())


@pytest.mark.promise("face-vectors")
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[]", MalformedResponse),
        (b'{"results": [{"index": 0, "relevance_score": 1}]}', MalformedResponse),
        (b'{"results": [{"index": 0, "score": 1}, {"index": 0, "score": 1}]}', MalformedResponse),
        (b'{"results": [{"index": 0, "score": 1}, {"index": 2, "score": 1}]}', MalformedResponse),
        (b'{"results": [{"index": 0, "score": 1}, {"index": 1}]}', MalformedResponse),
        (b'{"error": {"message": "no"}}', LLMError),
        (b'{"message": "no"}', LLMError),
        (b"<html>", MalformedResponse),
    ],
)
def test_an_answer_without_a_score_for_each_text_is_none(body, error):
    with pytest.raises(error):
        read_scores(body, 2, ())


@pytest.mark.promise("face-vectors")
def test_scores_are_read_from_every_shape():
    for body in (
        b'{"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]}',
        b'{"data": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]}',
        b'[{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}]',
    ):
        assert read_scores(body, 2, ()) == [0.25, 0.5]
