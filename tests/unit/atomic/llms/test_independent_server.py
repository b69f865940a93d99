"""The providers against a server that nobody here wrote: llmock, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import numpy as np
import pytest

from bench.chaos import llmock
from shared_libs.atomic import LLMError, Resilience
from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.types import Message, ToolSpec
from tests.support import run

WEATHER = ToolSpec(
    "get_weather",
    "Weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(scope="module")
def calm():
    with llmock() as url:
        yield url


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("provider", "path", "arguments"),
    [(OpenAILLM, "/v1", {}), (OpenAILLM, "/v1", {"api": "responses"}), (AnthropicLLM, "/anthropic", {})],
)
def test_a_conversation_with_a_tool(calm, provider, path, arguments, streamed):
    async def main():
        heard = []
        sink = heard.append if streamed else None
        async with provider("any-model", base_url=calm + path, api_key="k", **arguments) as llm:
            asked = [Message("user", "What is the weather in Paris?")]
            first = await llm.async_chat(asked, [WEATHER], on_chunk=sink)
            (call,) = first.tool_calls
            results = [first.message, Message("tool", "21 degrees", tool_call_id=call.id)]
            second = await llm.async_chat([*asked, *results], [WEATHER], on_chunk=sink)
        return first, second, heard

    first, second, heard = run(main())
    assert first.finish_reason == "tool_calls"
    assert first.tool_calls[0].name == "get_weather"
    assert set(first.tool_calls[0].arguments) == {"city"}
    assert second.finish_reason == "stop"
    assert second.text
    assert second.usage.input_tokens > 0
    assert second.usage.output_tokens > 0
    if streamed:
        assert "".join(chunk.text for chunk in heard) == second.text


def test_embeddings(calm):
    async def main():
        async with OpenAILLM("text-embedding-3-small", base_url=f"{calm}/v1", api_key="k") as llm:
            return await llm.async_embed(["one", "two", "one"])

    vectors = run(main())
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == 3
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


@pytest.mark.promise("retry-once")
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_chaos_ends_in_whole_answers_or_typed_errors_and_the_ledger_is_what_the_server_saw(api):
    faults = ["disconnect=0.1", "truncate=0.1", "malformed=0.1"]
    policy = Resilience(retry={"attempts": 4, "base_s": 0}, breaker={"failures": 1000})

    async def main(url):
        async with OpenAILLM("gpt-4o-mini", api=api, base_url=f"{url}/v1", api_key="k", resilience=policy) as llm:

            async def ask(number):
                sink = (lambda _: None) if number % 2 else None
                try:
                    return await llm.async_chat("Say something.", on_chunk=sink)
                except LLMError as error:
                    return error

            return await asyncio.gather(*map(ask, range(100)))

    with llmock(
        "--response-style",
        "echo",
        "--error-rate",
        "500=0.2",
        *[word for fault in faults for word in ("--stream-fault", fault)],
    ) as url:
        outcomes = run(main(url))
        booked = sum(len(outcome.attempts) for outcome in outcomes)
        for _ in range(200):  # it books a request that we broke off only when it has noticed
            with urllib.request.urlopen(f"{url}/_llmock/requests") as answer:
                seen = json.load(answer)["count"]
            if seen >= booked:
                break
    texts = {outcome.text for outcome in outcomes if not isinstance(outcome, LLMError)}
    assert texts == {"Hello! You said: Say something."}
    # a connection may break before the server has read the request: such an attempt it need not have seen
    broken = sum(row.outcome == "connection" for outcome in outcomes for row in outcome.attempts)
    assert 100 < booked - broken <= seen <= booked
