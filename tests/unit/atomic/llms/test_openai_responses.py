"""OpenAILLM(api="responses"): what only the Responses API has."""

from __future__ import annotations

import msgspec
import openai
import pydantic
import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming

from shared_libs.atomic import MisuseError, Resilience
from shared_libs.atomic.errors import (
    BadRequest,
    ContentFiltered,
    MalformedResponse,
    ProviderUnavailable,
    RateLimited,
    StreamInterrupted,
)
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.types import ImagePart, Message, TextPart, Thinking, ToolCall, ToolSpec, Usage
from tests.support import run
from tests.unit.atomic.llms.dialects import KEY, ResponsesDialect
from tests.wire_server import WireServer, reply, sse, stream

ONCE = Resilience(retry={"attempts": 1})
TWICE = Resilience(retry={"attempts": 2, "base_s": 0})
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}}})
SPEAKS = ResponsesDialect()
USAGE = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "input_tokens_details": {"cached_tokens": 4}}


def said(text, **fields):
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": text}], **fields}


def own_words(id, text):
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": parts}


def called(call_id, arguments='{"q":"x"}', **fields):
    made = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": "look"}
    return made | {"arguments": arguments, "status": "completed"} | fields


def reasoned(id, *summary, **fields):
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": id, "summary": parts, "encrypted_content": f"sealed {id}", **fields}


def response_of(*items, **fields):
    told = {"id": "resp_1", "object": "response", "model": "m-2026", "status": "completed", "output": list(items)}
    return told | {"usage": USAGE, "error": None} | fields


def last(*items, kind="completed", **fields):
    return {"type": f"response.{kind}", "response": response_of(*items, **{"status": kind, **fields})}


def delta(text, kind="output_text"):
    return {"type": f"response.{kind}.delta", "output_index": 0, "delta": text}


def done(index, item):
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def llm_at(server, resilience=ONCE, model="m", **arguments):
    arguments = {"api": "responses", "api_key": KEY, "base_url": server.url} | arguments
    return OpenAILLM(model, resilience=resilience, **arguments)


def ask(plays, messages="Hi", tools=(), *, streamed=False, resilience=ONCE, traits=(), **options):
    async def main():
        chunks = []
        async with WireServer(plays) as server, llm_at(server, resilience) as llm:
            llm._dialect.traits.update(traits)
            sink = chunks.append if streamed else None
            return await llm.async_chat(messages, tools, on_chunk=sink, **options), chunks, server.requests

    return run(main())


class City(pydantic.BaseModel):
    people: int


def test_the_request_is_what_the_api_documents():
    long_id = "toolu_" + "x" * 80
    conversation = [
        Message("system", "Be brief."),
        Message("user", (TextPart("What is it?"), ImagePart("data:image/png;base64,AA=="))),
        Message(
            "assistant",
            "I look.",
            tool_calls=(ToolCall(long_id, "look", {"q": "ä"}), ToolCall("c2", "look", malformed="{oops")),
            thinking=(Thinking("theirs", "anthropic", "sig"), Thinking("of chat completions", "openai")),
        ),
        Message("tool", "a tree", tool_call_id=long_id),
        Message("tool", (TextPart("see"), ImagePart("https://example.com/a.png")), tool_call_id="c2"),
        Message("user", "Sure?"),
    ]
    options = {
        "temperature": 0.5,
        "max_tokens": 9,
        "text": {"verbosity": "low"},
        "include": ["message.output_text.logprobs"],
    }
    plays = [reply(response_of(said('{"people": 3}')))]
    traits = ["schema-beside-tools"]  # as at OpenAI's own address
    _, _, (seen,) = ask(plays, conversation, [LOOK], traits=traits, output_schema=City, **options)
    new_id = seen.body["input"][3]["call_id"]
    assert len(new_id) <= 64
    assert seen.path == "/v1/responses"
    assert seen.body == {
        "model": "m",
        "store": False,
        "input": [
            {"type": "message", "role": "system", "content": "Be brief."},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
                ],
            },
            own_words("msg_2", "I look."),
            {"type": "function_call", "call_id": new_id, "name": "look", "arguments": '{"q":"ä"}'},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": '{"not_json":"{oops"}'},
            {"type": "function_call_output", "call_id": new_id, "output": "a tree"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
                ],
            },
            {"type": "message", "role": "user", "content": "Sure?"},
        ],
        "tools": [
            {
                "type": "function",
                "name": "look",
                "description": "Looks.",
                "parameters": LOOK.parameters,
                "strict": False,
            }
        ],
        "temperature": 0.5,
        "max_output_tokens": 9,
        "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
        "text": {
            "verbosity": "low",
            "format": {
                "type": "json_schema",
                "name": "City",
                "schema": City.model_json_schema() | {"additionalProperties": False},
                "strict": True,
            },
        },
    }
    taken = pydantic.TypeAdapter(ResponseCreateParamsNonStreaming).validate_python(seen.body)
    assert [item["role"] for item in taken["input"] if "role" in item] == ["system", "user", "assistant", "user"]


@pytest.mark.promise("provider-ids")
@pytest.mark.parametrize("streamed", [True, False])
def test_reasoning_goes_back_in_front_of_what_it_led_to(streamed):
    items = [
        reasoned("rs_1", "First ", "then."),
        said("I look.", phase="commentary"),
        reasoned("rs_2"),
        called("a"),
        called("b"),
        reasoned("rs_3", "left over"),
    ]
    play = stream(sse(last(*items))) if streamed else reply(response_of(*items))
    seen = {}

    async def main():
        plays = [play, *[reply(response_of(said("Done.")))] * 4]
        async with WireServer(plays) as server, llm_at(server) as llm:
            first = await llm.async_chat("Hi", [LOOK], on_chunk=(lambda _: None) if streamed else None)
            # a session store keeps messages as JSON
            kept = msgspec.json.decode(msgspec.json.encode(first.message), type=Message)
            after = [Message("tool", "x", tool_call_id=call.id) for call in kept.tool_calls]
            conversation = [Message("user", "Hi"), kept, *after]
            for name, other in (
                ("same", llm),
                ("model", llm_at(server, model="other")),
                ("server", llm_at(server, base_url=server.url + "/x")),
            ):
                await other.async_chat(conversation)
                seen[name] = server.requests[-1].body
                await other.aclose()
            return first

    first = run(main())
    assert [block.text for block in first.thinking if block.text] == ["First \n\nthen.", "left over"]
    back = seen["same"]["input"]
    assert [item.get("role") or item.get("id") or item.get("call_id") for item in back] == [
        *("user", "rs_1", "assistant", "rs_2", "a", "b", "a", "b")
    ]
    assert back[1] == reasoned("rs_1", "First ", "then.")
    assert back[2] == own_words("msg_1", "I look.") | {"phase": "commentary"}
    assert back[3] == reasoned("rs_2")
    for other in (seen["model"], seen["server"]):
        assert "rs_" not in str(other)
        assert "sealed" not in str(other)
        assert "I look." in str(other)


def test_reasoning_goes_back_only_with_what_it_led_to_and_only_where_it_can_be_read():
    plain = {"content": [{"type": "reasoning_text", "text": "In words."}], "encrypted_content": None}
    items = [
        reasoned("rs_1"),
        called("a"),
        reasoned("rs_2", **plain),
        called("b"),
        reasoned("rs_3") | {"encrypted_content": None},
        called("c"),
    ]

    async def main():
        async with (
            WireServer([reply(response_of(*items)), reply(response_of(said("Done.")))]) as server,
            llm_at(server) as llm,
        ):
            first = (await llm.async_chat("Hi", [LOOK])).message
            # what came of the first call is lost: the window of a session begins behind it
            cut = msgspec.structs.replace(first, tool_calls=first.tool_calls[1:])
            after = [Message("tool", "x", tool_call_id=call.id) for call in cut.tool_calls]
            await llm.async_chat([Message("user", "Hi"), cut, *after])
            return first, server.requests[-1].body["input"][1:-2]

    first, back = run(main())
    assert [block.text for block in first.thinking] == ["", "In words."]
    assert back == [
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": plain["content"]},
        *({key: called(call_id)[key] for key in ("type", "call_id", "name", "arguments")} for call_id in "bc"),
    ]


def test_reasoning_that_the_server_cannot_read_any_more_is_left_out():
    why = "The encrypted content gAAA could not be verified."
    refused = reply({"error": {"message": why, "code": "invalid_encrypted_content"}}, 400)
    answer = reply(response_of(reasoned("rs_2"), said("Done.")))

    async def main():
        plays = [reply(response_of(reasoned("rs_1"), said("Hello."))), refused, answer, answer]
        async with WireServer(plays) as server, llm_at(server, TWICE) as llm:
            conversation = [Message("user", "Hi")]
            for question in ("And?", "Well?", "So?"):
                conversation += [(await llm.async_chat(conversation)).message, Message("user", question)]
            sent = [seen.body["input"] for seen in server.requests]
            return [[item["id"] for item in items if item["type"] == "reasoning"] for items in sent]

    assert run(main()) == [[], ["rs_1"], [], ["rs_2"]]


def test_a_model_without_encrypted_reasoning_is_not_asked_for_it_again():
    refused = reply({"error": {"message": "Encrypted content is not supported with this model."}}, 400)
    answer = reply(response_of(said("Hello.")))

    async def main():
        async with WireServer([refused, answer, answer]) as server, llm_at(server, TWICE) as llm:
            await llm.async_generate("Hi")
            await llm.async_generate("Hi")
            return ["include" in seen.body for seen in server.requests]

    assert run(main()) == [True, False, False]


@pytest.mark.promise("output-fits")
def test_structured_output_uses_the_mode_of_the_api_or_words():
    message = "Invalid parameter: 'text.format' of type 'json_schema' is not supported with this model."
    refused, answer = reply({"error": {"message": message}}, 400), reply(response_of(said('{"people": 3}')))
    response, _, (native, told) = ask([refused, answer], "?", resilience=TWICE, output_schema=City)
    assert response.parsed == City(people=3)
    assert native.body["text"]["format"]["strict"] is True
    assert "text" not in told.body
    assert "JSON Schema" in told.body["input"][-1]["content"]


def test_an_answer_is_read_whole():
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    other = {"type": "tool_search_call", "id": "ts_1", "arguments": {"goal": "x"}, "content": "text"}
    refused = {"type": "message", "content": [{"type": "refusal", "refusal": " I won't."}], "phase": None}
    items = [search, other, said("Hm."), refused, called("a"), called("", arguments=""), called("b", '{"q": ')]
    response, _, _ = ask([reply(response_of(*items))])
    assert response.text == "Hm. I won't."
    assert response.tool_calls[0] == ToolCall("a", "look", {"q": "x"})
    assert response.tool_calls[1].id
    assert response.tool_calls[2] == ToolCall("b", "look", malformed='{"q": ')
    assert (response.usage, response.model, response.finish_reason) == (Usage(7, 3, 4, 10), "m-2026", "tool_calls")


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_cut_short_says_so_and_its_half_call_is_not_made(streamed):
    items = [said("Half"), called("a", "", status="incomplete")]
    why = {"incomplete_details": {"reason": "max_output_tokens"}}
    whole = response_of(*items, status="incomplete", **why)
    play = stream(sse(delta("Half"), last(*items, kind="incomplete", **why))) if streamed else reply(whole)
    response, _, _ = ask([play], streamed=streamed)
    assert (response.text, response.finish_reason) == ("Half", "length")
    assert response.tool_calls == (ToolCall("a", "look", malformed=""),)


def test_the_status_counts_and_not_the_name_of_the_last_event():
    cut_short = last(said("Half"), kind="completed", status="incomplete")
    assert ask([stream(sse(cut_short))], streamed=True)[0].finish_reason == "length"
    careless = last(said("All."), kind="completed", status="in_progress")
    assert ask([stream(sse(careless))], streamed=True)[0].finish_reason == "stop"


def test_what_the_stream_left_out_comes_from_its_last_event():
    thinking = reasoned("rs_1", "Why.", "So.")
    _, chunks, _ = ask([stream(sse(delta("Al"), last(thinking, said("All of it."), called("a"))))], streamed=True)
    assert [(chunk.kind, chunk.text) for chunk in chunks] == [
        ("text", "Al"),
        ("thinking", "Why.\n\nSo."),
        ("text", "l of it."),
        ("tool_call", ""),
    ]


def test_what_the_last_event_left_out_comes_from_the_stream():
    items = [said("All."), called("a")]
    events = [delta("All."), *[done(index, item) for index, item in enumerate(items)], last()]
    response, _, _ = ask([stream(sse(*events))], streamed=True)
    assert (response.text, response.tool_calls) == ("All.", (ToolCall("a", "look", {"q": "x"}),))
    assert ask([stream(sse(delta("All."), last(), "[DONE]"))], streamed=True)[0].text == "All."
    assert ask([stream(sse(last()))], streamed=True)[0].text == ""


def test_a_server_may_trim_what_it_repeats_and_name_its_calls_anew():
    opened = {"type": "response.output_item.added", "output_index": 1, "item": called("other", "")}
    events = [delta(" All.\n"), opened, last(said("All."), called("a"))]
    response, chunks, _ = ask([stream(sse(*events))], streamed=True)
    assert response.text == "".join(chunk.text for chunk in chunks) == " All.\n"
    assert [call.id for call in response.tool_calls] == ["a"]


def test_paragraphs_of_a_summary_are_told_apart():
    part = {"type": "response.reasoning_summary_part.added", "part": {"type": "summary_text", "text": ""}}
    events = []
    for index, text in enumerate(("One.", "Two.")):
        events += [part | {"summary_index": index}, delta(text, "reasoning_summary_text")]
    events += [delta("No.", "refusal"), last(reasoned("rs_1", "One.", "Two."), said("No."))]
    response, chunks, _ = ask([stream(sse(*events))], streamed=True)
    assert "".join(chunk.text for chunk in chunks if chunk.kind == "thinking") == response.thinking[0].text
    assert response.thinking[0].text == "One.\n\nTwo."


FAILED = {"code": "server_error", "message": f"it broke {KEY}"}


@pytest.mark.parametrize(
    ("events", "kind", "why"),
    [
        ([delta("Half")], StreamInterrupted, "without its end marker"),
        ([delta("Half"), "[DONE]"], StreamInterrupted, "without its end marker"),
        ([delta("Half"), {"type": "error", **FAILED}], ProviderUnavailable, r"it broke \[key\]"),
        ([{"type": "error", "code": "rate_limit_exceeded", "message": "slow"}], RateLimited, "slow"),
        ([{"error": {"message": "gone", "type": "server_error"}}], ProviderUnavailable, "gone"),
        ([last(kind="failed", error=FAILED)], ProviderUnavailable, r"it broke \[key\]"),
        ([last(kind="failed", error={"code": "invalid_prompt", "message": "no"})], BadRequest, "no"),
        ([last(kind="failed")], ProviderUnavailable, "without a reason"),
        ([last(kind="cancelled")], StreamInterrupted, "cancelled"),
        (
            [delta("Half"), last(kind="incomplete", incomplete_details={"reason": "content_filter"})],
            ContentFiltered,
            "content_filter",
        ),
        # a piece twice, a piece lost, a call lost
        ([delta("All."), delta("All."), last(said("All."))], MalformedResponse, "contradicts"),
        ([delta("l."), last(said("All."))], MalformedResponse, "contradicts"),
        ([delta("All."), done(1, called("a")), last(said("All."))], MalformedResponse, "contradicts"),
        ([last(called("a", name=None))], MalformedResponse, "without a name"),
        ([delta("Half"), "{oops"], MalformedResponse, "malformed"),
    ],
)
def test_a_fault_in_a_stream_becomes_its_error(events, kind, why):
    with pytest.raises(kind, match=why) as caught:
        ask([stream(sse(*events))], streamed=True)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (response_of(status="failed", error=FAILED), ProviderUnavailable, r"it broke \[key\]"),
        (response_of(status="queued"), MalformedResponse, "not finished: its status is queued"),
        ({"id": "resp_1"}, MalformedResponse, "no output"),
    ],
)
def test_a_fault_becomes_its_error(body, kind, why):
    with pytest.raises(kind, match=why):
        ask([reply(body)])


@pytest.mark.promise("provider-ids")
def test_a_conversation_goes_on_with_a_fallback_of_another_kind():
    busy = reply({"error": {"message": "busy"}}, 503)
    chat = {"choices": [{"message": {"content": "Done."}, "finish_reason": "stop"}]}
    plays = [reply(response_of(reasoned("rs_1"), called("a"))), busy, reply(chat)]

    async def main():
        async with WireServer(plays) as server:
            fallback = OpenAILLM("m", api_key=KEY, base_url=server.url)
            async with llm_at(server, fallbacks=[fallback]) as llm:
                first = await llm.async_chat("Hi", [LOOK], max_tokens=9)
                after = [Message("user", "Hi"), first.message, Message("tool", "x", tool_call_id="a")]
                second = await llm.async_chat(after, [LOOK], max_tokens=9)
            return second.text, [seen.body for seen in server.requests]

    text, (first, again, fallen) = run(main())
    assert text == "Done."
    assert first["max_output_tokens"] == again["max_output_tokens"] == fallen["max_tokens"] == 9
    assert "rs_1" in str(again)
    assert "rs_1" not in str(fallen)
    assert [message["role"] for message in fallen["messages"]] == ["user", "assistant", "tool"]


def test_embeddings_and_the_sdks_client_work_as_ever():
    plays = [reply({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}), SPEAKS.whole("Hello."), SPEAKS.stream(["Hm."])]

    async def main():
        async with WireServer(plays) as server, openai.AsyncOpenAI(api_key=KEY, base_url=server.url) as client:
            llm = OpenAILLM("m", api="responses", client=client, resilience=ONCE)
            vectors = (await llm.async_embed(["a"])).tolist()
            texts = [(await llm.async_chat("Hi", on_chunk=sink)).text for sink in (None, lambda _: None)]
            await llm.aclose()
            return vectors, texts, [seen.path for seen in server.requests]

    assert run(main()) == ([[1, 2]], ["Hello.", "Hm."], ["/v1/embeddings", "/v1/responses", "/v1/responses"])


def test_another_api_is_misuse():
    with pytest.raises(MisuseError, match="'assistants' is none of OpenAI's; allowed: chat, responses"):
        OpenAILLM("m", api="assistants")
