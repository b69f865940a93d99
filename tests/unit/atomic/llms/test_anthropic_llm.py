"""AnthropicLLM: what only the messages API has."""

from __future__ import annotations

import pydantic
import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import AuthenticationFailed, ContentFiltered, MalformedResponse
from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.types import ImagePart, Message, TextPart, Thinking, ToolCall, ToolSpec, Usage
from tests.support import run
from tests.wire_server import WireServer, reply, sse, stream

KEY = "sk-ant-0123456789"
ONCE = Resilience(retry={"attempts": 1})
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}}})


def answer(*content, stop_reason="end_turn", **fields):
    return {"type": "message", "model": "m", "content": list(content), "stop_reason": stop_reason, **fields}


TEXT = {"type": "text", "text": "Hello."}


def ask(plays, messages="Hi", tools=(), *, streamed=False, resilience=ONCE, **options):
    async def main():
        sink = (lambda _: None) if streamed else None
        async with WireServer(plays) as server:
            base_url = server.url.removesuffix("/v1")
            async with AnthropicLLM("m", api_key=KEY, base_url=base_url, resilience=resilience) as llm:
                return await llm.async_chat(messages, tools, on_chunk=sink, **options), server.requests

    return run(main())


def test_the_request_is_what_the_api_documents():
    conversation = [
        Message("system", "Be brief."),
        Message("system", "Be kind."),
        Message(
            "user",
            (
                TextPart("What is it?"),
                ImagePart("data:image/jpeg;base64,AA=="),
                ImagePart("https://example.com/a.png"),
                TextPart(" "),
            ),
        ),
        Message(
            "assistant",
            "I look.",
            tool_calls=(ToolCall("a", "look", {"q": "x"}), ToolCall("b", "look", malformed="{oops")),
            thinking=(
                Thinking("mine", "anthropic", "sig"),
                Thinking("", "anthropic", data={"data": "opaque"}),
                Thinking("theirs", "openai"),
            ),
        ),
        Message("tool", "a tree", tool_call_id="a"),
        Message("tool", "not JSON", tool_call_id="b", is_error=True),
        Message("user", "And?"),
        Message("assistant", "", thinking=(Thinking("alone", "anthropic", "sig"),)),
        Message("user", "Well?"),
    ]
    _, (seen,) = ask([reply(answer(TEXT))], conversation, [LOOK], temperature=0.5, cache_control={"type": "ephemeral"})
    assert seen.path == "/v1/messages"
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in seen.headers
    assert seen.body == {
        "model": "m",
        "max_tokens": 8192,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "mine", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "opaque"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "a", "name": "look", "input": {"q": "x"}},
                    {"type": "tool_use", "id": "b", "name": "look", "input": {"not_json": "{oops"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "a tree"},
                    {"type": "tool_result", "tool_use_id": "b", "content": "not JSON", "is_error": True},
                    {"type": "text", "text": "And?"},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": LOOK.parameters}],
        "temperature": 0.5,
        "cache_control": {"type": "ephemeral"},
    }


@pytest.mark.promise("provider-ids")
def test_thinking_keeps_its_signature_through_a_stream_and_back():
    events = [
        {"type": "message_start", "message": {"content": [], "model": "m", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "so."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig=="}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "opaque"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Yes."}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "content_block_stop", "index": 2},
        {"type": "something_new"},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]

    async def main():
        plays = [stream(sse(*events)), reply(answer(TEXT)), reply(answer(TEXT))]
        async with WireServer(plays) as server:
            base_url = server.url.removesuffix("/v1")
            async with AnthropicLLM("m", api_key=KEY, base_url=base_url, resilience=ONCE) as llm:
                response = await llm.async_chat("?", on_chunk=lambda _: None)
                history = [Message("user", "?"), response.message, Message("user", "Sure?")]
                await llm.async_chat(history)
                await AnthropicLLM("another", api_key=KEY, base_url=base_url, resilience=ONCE).async_chat(history)
                return response, *server.requests[1:]

    response, seen, foreign = run(main())
    assert response.text == "Yes."
    assert [(block.text, block.signature) for block in response.thinking] == [("Hm so.", "sig=="), ("", "")]
    assert response.usage == Usage(5, 9, 0, 14)
    assert foreign.body["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]
    assert seen.body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm so.", "signature": "sig=="},
        {"type": "redacted_thinking", "data": "opaque"},
        {"type": "text", "text": "Yes."},
    ]


def test_input_tokens_include_the_cached_ones():
    usage = {
        "input_tokens": 2,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 400,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 300},
        "output_tokens": 5,
    }
    response, _ = ask([reply(answer(TEXT, usage=usage))])
    assert response.usage == Usage(432, 5, 30, 437, 400, 300)


@pytest.mark.promise("filter-reported")
def test_a_refusal_is_reported():
    refused = answer(TEXT, stop_reason="refusal", stop_details={"type": "refusal", "explanation": "Not this."})
    with pytest.raises(ContentFiltered, match="Not this"):
        ask([reply(refused)])


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (
            [{"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{"}}],
            MalformedResponse,
        ),
        ([{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}}], MalformedResponse),
    ],
)
def test_a_stream_against_the_protocol_is_malformed(events, kind):
    start = {"type": "message_start", "message": {"content": [], "model": "m"}}
    with pytest.raises(kind):
        ask([stream(sse(start, *events, {"type": "message_stop"}))], streamed=True)


class City(pydantic.BaseModel):
    people: int


@pytest.mark.promise("output-fits")
def test_structured_output_uses_the_mode_of_the_api_or_words():
    refused = reply({"type": "error", "error": {"type": "invalid_request_error", "message": "output_config: no"}}, 400)
    good = reply(answer({"type": "text", "text": '{"people": 3}'}))
    twice = Resilience(retry={"attempts": 2, "base_s": 0})
    response, (native, told) = ask([refused, good], "?", resilience=twice, output_schema=City)
    assert response.parsed == City(people=3)
    schema = City.model_json_schema() | {"additionalProperties": False}
    assert native.body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "output_config" not in told.body
    assert "JSON Schema" in str(told.body["messages"])


class Town(pydantic.BaseModel):
    name: str = pydantic.Field(description="Its name.", max_length=9)
    people: int | None = pydantic.Field(ge=0)
    near: list[City] = pydantic.Field(min_length=2)
    kind: City = pydantic.Field(description="Which.")


@pytest.mark.promise("output-fits")
def test_bounds_the_api_refuses_are_told_and_checked():
    good = '{"name": "Bonn", "people": 3, "near": [{"people": 1}, {"people": 2}], "kind": {"people": 4}}'
    plays = [reply(answer({"type": "text", "text": text})) for text in (good.replace("3", "-3"), good)]
    response, (seen, again) = ask(plays, "?", output_schema=Town)
    assert response.parsed.people == 3
    schema = seen.body["output_config"]["format"]["schema"]
    name, people, near, kind = schema["properties"].values()
    assert name == {"title": "Name", "type": "string", "description": 'Its name. {"maxLength":9}'}
    assert people["anyOf"] == [{"type": "integer", "description": '{"minimum":0}'}, {"type": "null"}]
    assert near["description"] == '{"minItems":2}'
    assert kind == {"$ref": "#/$defs/City"}
    assert schema["$defs"]["City"]["additionalProperties"] is schema["additionalProperties"] is False
    assert "greater than or equal to 0" in str(again.body["messages"])


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize("open_value", [{"type": "object", "additionalProperties": {"type": "integer"}}, {}, True])
def test_a_schema_the_api_cannot_keep_is_told_in_words(open_value):
    wanted = {"type": "object", "properties": {"x": open_value}}
    response, (seen,) = ask([reply(answer({"type": "text", "text": '{"x": {"y": 1}}'}))], "?", output_schema=wanted)
    assert response.parsed == {"x": {"y": 1}}
    assert "output_config" not in seen.body
    assert "JSON Schema" in str(seen.body["messages"])


def test_the_key_may_be_a_bearer_token(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AuthenticationFailed, match="set ANTHROPIC_API_KEY or pass api_key"):
        run(AnthropicLLM("m").async_generate("Hi"))

    async def main():
        async with WireServer([reply(answer(TEXT))]) as server:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
            monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-1")
            async with AnthropicLLM("m") as llm:
                await llm.async_generate("Hi")
            return server.requests[0].headers

    headers = run(main())
    assert headers["authorization"] == "Bearer token-1"
    assert "x-api-key" not in headers
