"""OllamaLLM: what only Ollama's own API has."""

from __future__ import annotations

import numpy as np
import pytest

from shared_libs.atomic import LLMError, Resilience
from shared_libs.atomic.errors import BadRequest, MalformedResponse, ModelNotFound
from shared_libs.atomic.llms.ollama_llm import OllamaLLM
from shared_libs.atomic.types import ImagePart, Message, TextPart, Thinking, ToolCall, ToolSpec
from tests.support import run
from tests.wire_server import WireServer, reply, stream

ONCE = Resilience(retry={"attempts": 1})
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}}})
DONE = {"model": "m", "message": {"role": "assistant", "content": "Hello."}, "done": True, "done_reason": "stop"}


def with_server(plays, use):
    async def main():
        async with (
            WireServer(plays) as server,
            OllamaLLM("m", base_url=server.url.removesuffix("/v1"), resilience=ONCE) as llm,
        ):
            return await use(llm), server.requests

    return run(main())


def test_the_request_is_what_the_api_documents():
    conversation = [
        Message("system", "Be brief."),
        Message("user", (TextPart("What is it?"), ImagePart("data:image/png;base64,AA=="))),
        Message(
            "assistant",
            tool_calls=(ToolCall("a", "look", {"q": "x"}),),
            thinking=(Thinking("mine", "ollama"), Thinking("theirs", "openai")),
        ),
        Message("tool", "a tree", tool_call_id="a"),
    ]
    _, (seen,) = with_server(
        [reply(DONE)],
        lambda llm: llm.async_chat(conversation, [LOOK], temperature=0, think=True, options={"num_ctx": 8192}),
    )
    assert seen.path == "/api/chat"
    assert "authorization" not in seen.headers
    assert seen.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?", "images": ["AA=="]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "a", "function": {"name": "look", "arguments": {"q": "x"}}}],
                "thinking": "mine",
            },
            {"role": "tool", "content": "a tree", "tool_name": "look", "tool_call_id": "a"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Looks.", "parameters": LOOK.parameters},
            }
        ],
        "think": True,
        "options": {"num_ctx": 8192, "temperature": 0},
        "stream": False,
    }


def test_calls_without_an_id_get_one():
    calls = [{"function": {"name": "look", "arguments": given}} for given in ({"q": 1}, '{"q": 2}', None)]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    response, _ = with_server([reply(DONE | {"message": message})], lambda llm: llm.async_generate("Hi"))
    assert [call.arguments for call in response.tool_calls] == [{"q": 1}, {"q": 2}, {}]
    assert len({call.id for call in response.tool_calls}) == 3
    assert response.finish_reason == "tool_calls"


def test_an_image_elsewhere_is_refused_at_once():
    message = Message("user", (ImagePart("https://example.com/a.png"),))
    with pytest.raises(BadRequest, match="pass them as data: URLs"):
        with_server([], lambda llm: llm.async_chat([message]))


def test_a_schema_is_the_format_and_with_tools_it_is_told_in_words():
    schema = {"type": "object"}
    answer = reply(DONE | {"message": {"content": "{}"}})

    async def use(llm):
        await llm.async_chat("?", output_schema=schema)
        await llm.async_chat("?", [LOOK], output_schema=schema)

    _, (alone, with_tools) = with_server([answer, answer], use)
    assert alone.body["format"] == schema
    assert "format" not in with_tools.body
    assert "JSON Schema" in with_tools.body["messages"][0]["content"]


def test_embeddings():
    async def use(llm):
        vectors = await llm.async_embed(["a", "b"], dimensions=2)
        with pytest.raises(MalformedResponse, match="1 embeddings came for 2 texts"):
            await llm.async_embed(["a", "b"])
        with pytest.raises(MalformedResponse, match="has 1 numbers, and the first has 2"):
            await llm.async_embed(["a", "b"])
        return vectors

    rows = ([[1, 2], [3, 4]], [[1, 2]], [[1, 2], [3]])
    vectors, requests = with_server([reply({"embeddings": row}) for row in rows], use)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1, 2], [3, 4]]
    assert requests[0].path == "/api/embed"
    assert requests[0].body == {"model": "m", "input": ["a", "b"], "dimensions": 2}


def test_a_model_that_was_not_pulled():
    with pytest.raises(ModelNotFound, match="try pulling it first"):
        with_server(
            [reply({"error": 'model "m" not found, try pulling it first'}, 404)], lambda llm: llm.async_generate("Hi")
        )


def test_an_error_line_in_a_stream():
    lines = [b'{"message":{"content":"Half"},"done":false}\n', b'{"error":"model m not found"}\n']
    with pytest.raises(LLMError, match="model m not found"):
        with_server([stream(lines, "application/x-ndjson")], lambda llm: llm.async_chat("Hi", on_chunk=lambda _: None))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("gpu.lan", "http://gpu.lan:11434"),
        ("gpu.lan:80", "http://gpu.lan:80"),
        ("https://ollama.com", "https://ollama.com"),
        ("http://gpu.lan:11434/", "http://gpu.lan:11434"),
    ],
)
def test_the_address_in_the_environment(monkeypatch, host, address):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert OllamaLLM("m").base_url == address
