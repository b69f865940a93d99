"""Anthropic's messages API: agents and chains as the vendor's SDK, unmodified, meets them."""

from __future__ import annotations

import pytest
from anthropic import APIStatusError, BadRequestError, NotFoundError

from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Cut, Healthy, RateLimited, ServerError
from tests.support import run
from tests.unit.service.faces.ground import ground
from tests.wire_server import WireServer, sse
from tests.wire_server import stream as wire_stream

TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ASK = {"max_tokens": 50, "messages": [{"role": "user", "content": "hello there"}]}


async def streamed(client, **asked):
    """The message that the SDK makes of a stream."""
    async with client.messages.stream(**asked) as stream:
        return await stream.get_final_message()


@pytest.mark.promise("face-messages")
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_a_message_streamed_is_the_message_unstreamed(tmp_path, model):
    async def main():
        async with ground(tmp_path, {"m": Healthy("One two.")}, bot={}) as at, at.anthropic() as client:
            whole = await client.messages.create(model=model, **ASK)
            folded = await streamed(client, model=model, **ASK)
            lines = await at.lines("/v1/messages", {"model": model, "stream": True, **ASK})
        assert [block.text for block in whole.content] == [block.text for block in folded.content] == ["One two."]
        assert whole.stop_reason == folded.stop_reason == "end_turn"
        assert whole.usage.input_tokens == folded.usage.input_tokens > 0
        assert whole.usage.output_tokens == folded.usage.output_tokens > 0
        assert '"input_tokens":0' not in lines[1]

    run(main())


@pytest.mark.promise("face-messages")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_tools_go_to_the_client_and_their_results_come_back(tmp_path, model, stream):
    call = ToolCall("up_1", "get_weather", {"city": "Rome"})

    async def main():
        scripts = {"m": [Healthy("I look.", (call,)), Healthy("Sunny.")]}
        async with ground(tmp_path, scripts, bot={}) as at, at.anthropic() as client:
            ask = client.messages.create if not stream else lambda **asked: streamed(client, **asked)
            first = await ask(model=model, tools=[TOOL], **ASK)
            assert first.stop_reason == "tool_use"
            use = first.content[-1]
            assert (use.name, use.input) == ("get_weather", {"city": "Rome"})
            result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "sun"}]}
            said = [
                *ASK["messages"],
                {"role": "assistant", "content": [block.model_dump() for block in first.content]},
                {"role": "user", "content": [result]},
            ]
            second = await ask(model=model, tools=[TOOL], **ASK | {"messages": said})
            assert second.content[0].text == "Sunny."
            assert at.upstream.requests[-1].body["messages"][-1]["content"] == "sun"

    run(main())


@pytest.mark.promise("face-messages")
def test_an_image_and_the_fields_reach_the_model(tmp_path):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}

    async def main():
        async with ground(tmp_path, {"m": Healthy("A dot.")}, bot={}) as at, at.anthropic() as client:
            said = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
            for model in ("bot", "bot/chain"):
                await client.messages.create(
                    model=model,
                    messages=said,
                    max_tokens=50,
                    system="In French.",
                    stop_sequences=["END"],
                    tools=[TOOL],
                    tool_choice={"type": "any", "disable_parallel_tool_use": True},
                )
                sent = at.upstream.requests[-1].body
                assert sent["messages"][-1]["content"][0]["image_url"]["url"].endswith(PIXEL)
                assert "In French." in sent["messages"][0]["content"]
                assert (sent["max_tokens"], sent["stop"], sent["tool_choice"]) == (50, ["END"], "required")
                assert sent["parallel_tool_calls"] is False
            counted = await client.messages.count_tokens(model="bot", messages=said, tools=[TOOL])
            assert counted.input_tokens > 1000

    run(main())


@pytest.mark.promise("face-messages")
def test_documents_and_what_a_search_found_reach_the_model_as_texts_under_their_titles(tmp_path):
    text = [{"type": "text", "text": "Inside."}]
    found = {"type": "search_result", "title": "Found", "source": "https://a.b", "content": text}
    written = {
        "type": "document",
        "title": "Plain",
        "source": {"type": "text", "media_type": "text/plain", "data": "W."},
    }
    made = {"type": "document", "context": "Old", "source": {"type": "content", "content": text}}
    use = {"type": "tool_use", "id": "t", "name": "find", "input": {}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [found, {"type": "tool_reference", "tool_name": "x"}],
    }

    async def main():
        async with ground(tmp_path, {"m": Healthy("Read.")}, bot={}) as at:
            said = [
                {"role": "user", "content": [written, made, found]},
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [result]},
            ]
            body = {"model": "bot/chain", "max_tokens": 9, "messages": said}
            status, _, told = await at.post("/v1/messages", body)
            # nothing else: the AI SDK reads no null where the vendor leaves a field out
            assert (status, told["content"]) == (200, [{"type": "text", "text": "Read."}])
            first, _, last = at.upstream.requests[-1].body["messages"]
            assert first["content"] == "Plain\n\nW.\n\nOld\n\nInside.\n\nFound\nhttps://a.b\n\nInside."
            assert last["content"] == "Found\nhttps://a.b\nInside.\nx"
            pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}}
            status, _, told = await at.post("/v1/messages", body | {"messages": [{"role": "user", "content": [pdf]}]})
            assert (status, told["error"]["factory"]["param"]) == (400, "messages[0].content[0].source.type")

    run(main())


@pytest.mark.promise("face-errors")
def test_what_is_refused_is_an_error_of_the_anthropic_sdk(tmp_path):
    async def main():
        scripts = {"m": RateLimited(7), "down": ServerError(500)}
        async with ground(tmp_path, scripts, bot={}, ill={"llm": ["down"]}) as at, at.anthropic() as client:
            with pytest.raises(NotFoundError):
                await client.messages.create(model="nobody", **ASK)
            with pytest.raises(BadRequestError) as refused:
                await client.messages.create(model="bot", max_tokens=5, messages=[{"role": "king", "content": "x"}])
            assert "messages[0].role" in str(refused.value)
            for stream in (False, True):
                with pytest.raises(APIStatusError) as limited:
                    await client.messages.create(model="bot/chain", stream=stream, **ASK)
                assert (limited.value.status_code, limited.value.type) == (429, "rate_limit_error")
                assert limited.value.response.headers["retry-after"] == "7"
                assert limited.value.request_id.startswith("req_")
            with pytest.raises(APIStatusError) as overloaded:
                await client.messages.create(model="ill", **ASK)
            assert (overloaded.value.status_code, overloaded.value.type) == (529, "overloaded_error")

    run(main())


@pytest.mark.promise("face-streams")
def test_a_message_that_breaks_off_is_an_error_event(tmp_path):
    async def main():
        scripts = {"m": Cut(answer=Healthy("word " * 200))}
        async with ground(tmp_path, scripts, bot={}) as at, at.anthropic() as client:
            with pytest.raises(APIStatusError):
                await streamed(client, model="bot/chain", **ASK)

    run(main())


@pytest.mark.promise("face-messages")
def test_the_sdk_s_list_of_models(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at, at.anthropic() as client:
            assert [one.id async for one in client.models.list()] == ["bot", "bot/chain"]

    run(main())


THOUGHTS = sse(
    {"type": "message_start", "message": {"type": "message", "role": "assistant", "content": [], "usage": {}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    *(
        {"type": "content_block_delta", "index": 0, "delta": delta}
        for delta in (
            {"type": "thinking_delta", "thinking": "I had "},
            {"type": "thinking_delta", "thinking": "better look."},
            {"type": "signature_delta", "signature": "SIG"},
        )
    ),
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "HIDDEN"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "I look."}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "t", "name": "get_weather"},
    },
    {
        "type": "content_block_delta",
        "index": 3,
        "delta": {"type": "input_json_delta", "partial_json": '{"city":"Rome"}'},
    },
    {"type": "content_block_stop", "index": 3},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)


@pytest.mark.promise("face-messages")
@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_come_sealed_as_the_vendor_gave_them_and_go_back_so(tmp_path, stream):
    asked = ASK | {"model": "bot/chain", "tools": [TOOL], "thinking": {"type": "enabled", "budget_tokens": 20}}

    async def main():
        async with WireServer([wire_stream(THOUGHTS)] * 2) as vendor:
            there = {"provider": "anthropic", "model": "m", "base_url": vendor.url, "api_key": "k"}
            async with (
                ground(tmp_path, {"m": Healthy()}, bot={"llm": {"chain": [there], "retry": {"attempts": 1}}}) as at,
                at.anthropic() as client,
            ):
                ask = client.messages.create if not stream else lambda **asked: streamed(client, **asked)
                first = await ask(**asked)
                blocks = [block.model_dump(exclude_none=True) for block in first.content]
                result = {"type": "tool_result", "tool_use_id": blocks[-1]["id"], "content": "sun"}
                turns = [{"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
                await ask(**asked | {"messages": [*ASK["messages"], *turns]})
            return blocks, vendor.requests[-1].body

    blocks, body = run(main())
    sealed = [
        {"type": "thinking", "thinking": "I had better look.", "signature": "SIG"},
        {"type": "redacted_thinking", "data": "HIDDEN"},
    ]
    assert blocks[:2] == sealed == body["messages"][1]["content"][:2]
    assert [block["type"] for block in blocks[2:]] == ["text", "tool_use"]
    assert body["thinking"] == asked["thinking"]
