"""OpenAILLM over the real wire: requests, answers, streams, faults."""

from __future__ import annotations

import asyncio
import base64
import json
import struct

import numpy as np
import pydantic
import pytest

from shared_libs.atomic import MisuseError, Resilience
from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    LLMConnectionError,
    MalformedResponse,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    StreamInterrupted,
)
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.types import ImagePart, Message, TextPart, Thinking, ToolCall, ToolSpec, Usage
from tests.support import run, run_virtual
from tests.wire_server import WireServer, reply, sse, stream

KEY = "sk-test-0123456789"
ONCE = Resilience(retry={"attempts": 1})
TWICE = Resilience(retry={"attempts": 2, "base_s": 0})
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}}})
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}


def completion(content="Hello.", finish="stop", **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "model": "m-2026", "choices": [choice], "usage": USAGE}


def chunk(finish=None, **delta):
    return {"model": "m-2026", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(index=None, id=None, name=None, arguments=None):
    piece = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in piece.items() if value is not None}


def piece(*calls):
    return chunk(tool_calls=list(calls))


TALK = [
    chunk(role="assistant", content=""),
    chunk(reasoning_content="Hm."),
    chunk(content="Grün "),
    chunk(content="🌳."),
    piece(call(0, "call_a", "look", "")),
    piece(call(1, "call_b", "look", '{"q":')),
    piece(call(0, arguments='{"q":"é"}')),
    piece(call(1, arguments="2}")),
    chunk("tool_calls"),
    {"choices": [], "usage": USAGE},
    "[DONE]",
]
CALLS = (ToolCall("call_a", "look", {"q": "é"}), ToolCall("call_b", "look", {"q": 2}))


def llm_at(server, resilience=ONCE, model="m", **options):
    return OpenAILLM(model, api_key=KEY, base_url=server.url, resilience=resilience, **options)


def ask(plays, messages="Hi", tools=(), *, streamed=False, resilience=ONCE, **options):
    """Ask a server that plays these answers; return the response, the chunks and the server."""

    async def main():
        chunks = []
        async with WireServer(plays) as server, llm_at(server, resilience) as llm:
            sink = chunks.append if streamed else None
            return await llm.async_chat(messages, tools, on_chunk=sink, **options), chunks, server

    return run(main())


def test_the_request_is_what_the_api_documents(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    long_id = "toolu_" + "x" * 60
    conversation = [
        Message("system", "Be brief."),
        Message("user", (TextPart("What is it?"), ImagePart("data:image/png;base64,AA=="))),
        Message(
            "assistant",
            tool_calls=(ToolCall(long_id, "look", {"q": "ä"}), ToolCall("c2", "look", malformed="{oops")),
            thinking=(Thinking("secret", "anthropic", "sig"),),
        ),
        Message("tool", "a tree", tool_call_id=long_id),
        Message("tool", "not JSON", tool_call_id="c2", is_error=True),
        Message("assistant", "A tree."),
        Message("user", "Sure?", name="Ann"),
    ]
    _, _, server = ask([reply(completion())], conversation, [LOOK], temperature=0.5, max_completion_tokens=9)
    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert (seen.headers["openai-organization"], seen.headers["openai-project"]) == ("org-1", "proj-1")
    new_id = seen.body["messages"][3]["tool_call_id"]
    assert len(new_id) <= 40
    function = {"name": "look", "arguments": '{"q":"ä"}'}
    assert seen.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": new_id, "type": "function", "function": function},
                    {
                        "id": "c2",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"not_json":"{oops"}'},
                    },
                ],
            },
            {"role": "tool", "tool_call_id": new_id, "content": "a tree"},
            {"role": "tool", "tool_call_id": "c2", "content": "not JSON"},
            {"role": "assistant", "content": "A tree."},
            {"role": "user", "content": "Sure?", "name": "Ann"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Looks.", "parameters": LOOK.parameters},
            }
        ],
        "temperature": 0.5,
        "max_completion_tokens": 9,
    }


def test_an_answer_is_read_whole():
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "look", "arguments": '{"q": '}},
        {"function": {"name": "look", "arguments": {"q": 2}}},
    ]
    response, _, _ = ask([reply(completion("Hm", "length", tool_calls=calls, reasoning="why"))])
    assert response.text == "Hm"
    assert response.tool_calls[:2] == (ToolCall("c1", "look", {"q": 1}), ToolCall("c2", "look", malformed='{"q": '))
    assert response.tool_calls[2].arguments == {"q": 2}
    assert response.tool_calls[2].id
    (thinking,) = response.thinking
    assert (thinking.text, thinking.provider) == ("why", "openai")
    assert response.usage == Usage(7, 3, 4, 10)
    assert (response.model, response.requested_model, response.provider) == ("m-2026", "m", "openai")
    assert response.finish_reason == "length"
    assert len(response.attempts) == 1


@pytest.mark.parametrize(
    ("message", "finish", "text", "expected"),
    [
        ({"content": "a"}, "stop", "a", "stop"),
        ({"content": None}, None, "", "stop"),
        ({"content": None, "refusal": "I won't."}, "stop", "I won't.", "stop"),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "b"}]}, "eos", "b", "stop"),
        ({"content": "a", "tool_calls": None}, "max_tokens", "a", "length"),
    ],
)
def test_the_dialects_of_imitating_servers(message, finish, text, expected):
    response, _, _ = ask([reply(completion(finish=finish, **message))])
    assert (response.text, response.finish_reason) == (text, expected)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream_is_put_together(size):
    response, chunks, server = ask([stream(sse(*TALK)).in_pieces_of(size)], tools=[LOOK], streamed=True)
    assert [(piece.kind, piece.text or piece.tool_call) for piece in chunks] == [
        ("thinking", "Hm."),
        ("text", "Grün "),
        ("text", "🌳."),
        ("tool_call", CALLS[0]),
        ("tool_call", CALLS[1]),
    ]
    assert (response.text, response.tool_calls, response.finish_reason) == ("Grün 🌳.", CALLS, "tool_calls")
    assert (response.usage, response.model) == (Usage(7, 3, 4, 10), "m-2026")
    assert server.requests[0].body["stream"] is True
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "events",
    [
        # the whole call at once; index missing; the id again in every piece; one index for all; a new id in every piece
        [piece(call(0, "a", "look", '{"q":1}'), call(1, "b", "look", '{"q":2}'))],
        [
            piece(call(None, "a", "look", '{"q":1}')),
            piece(call(None, "b", "look", '{"q":')),
            piece(call(arguments="2}")),
        ],
        [
            piece(call(0, "a", "look", '{"q"')),
            piece(call(0, "a", "look", ":1}")),
            piece(call(1, "b", "look", '{"q":2}')),
        ],
        [piece(call(0, "a", "look", '{"q":1}')), piece(call(0, "b", "look", '{"q":')), piece(call(1, arguments="2}"))],
        [piece(call(0, "a", "look", '{"q"')), piece(call(0, "z", None, ":1}")), piece(call(1, "b", "look", '{"q":2}'))],
    ],
)
def test_tool_calls_are_put_together_from_every_dialect(events):
    response, _, _ = ask([stream(sse(*events, chunk("stop"), "[DONE]"))], streamed=True)
    assert response.tool_calls == (ToolCall("a", "look", {"q": 1}), ToolCall("b", "look", {"q": 2}))
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize("ending", [[chunk("stop"), "[DONE]"], [chunk("stop")], ["[DONE]"]])
def test_either_end_marker_is_enough(ending):
    response, _, _ = ask([stream(sse(chunk(content="All."), *ending))], streamed=True)
    assert response.text == "All."


def test_of_several_choices_the_first_is_taken():
    other = {"index": 1, "delta": {"content": "No."}, "finish_reason": "length"}
    both = [chunk(content="Yes."), {"choices": [other]}, chunk("stop"), "[DONE]"]
    response, _, _ = ask([stream(sse(*both))], streamed=True, n=2)
    assert (response.text, response.finish_reason) == ("Yes.", "stop")


def test_a_server_that_forgets_to_end_is_not_waited_for():
    async def main():
        async with WireServer([stream(sse(chunk("stop", content="All."))).unfinished()]) as server:
            llm = llm_at(server)
            started = asyncio.get_running_loop().time()
            response = await llm.async_chat("Hi", on_chunk=lambda _: None)
            await llm.aclose()
            return response.text, asyncio.get_running_loop().time() - started

    text, took_s = run_virtual(main())
    assert text == "All."
    assert took_s < 2


def test_a_server_that_does_not_stream_is_understood():
    response, chunks, _ = ask([reply(completion(reasoning="Hm."))], streamed=True)
    assert [piece.kind for piece in chunks] == ["thinking", "text"]
    assert response.text == "Hello."


@pytest.mark.parametrize(
    ("play", "kind", "why"),
    [
        (reply(b"", kind="text/plain"), MalformedResponse, "it is empty"),
        (reply(b"<html><title>Login</title>", kind="text/html"), MalformedResponse, r"HTML page \(Login\)"),
        (reply({"id": "1"}), MalformedResponse, "no choices"),
        (reply({"choices": []}), MalformedResponse, "no choices"),
        (reply({"choices": [{"index": 0}]}), MalformedResponse, "no choices"),
        (reply({"choices": "x"}), MalformedResponse, "no choices"),
        (reply(json.dumps(completion()).encode()[:-9]), MalformedResponse, "truncated"),
        (reply(completion()).cut(150), LLMConnectionError, "broke off in the middle"),
        (reply(completion()).cut(0), LLMConnectionError, "the server closed the connection"),
        (reply(completion()).cut(0, "reset"), LLMConnectionError, "reset by peer"),
        (reply(completion()).cut(20), LLMConnectionError, "no answer"),
        (reply({"error": {"message": "overloaded", "code": 503}}), ProviderUnavailable, "overloaded"),
        (reply(completion("par", "content_filter")), ContentFiltered, "content_filter"),
        (reply(completion("par", "error")), ProviderUnavailable, "broke the answer off"),
        (reply(completion(None, tool_calls=[{"id": "1", "function": {}}])), MalformedResponse, "without a name"),
        (reply({}, 302, Location="http://127.0.0.1:1/"), ProviderUnavailable, "redirects to http://127.0.0.1:1/"),
        (reply({"error": {"message": f"bad key {KEY}"}}, 401), AuthenticationFailed, r"bad key \[key\]"),
        (reply({"error": {"message": "none"}}, 404), ModelNotFound, "asked at http://127.0.0.1"),
        (reply({}, 429, Retry_After="7"), RateLimited, "HTTP 429"),
    ],
)
def test_a_fault_becomes_its_error(play, kind, why):
    with pytest.raises(kind, match=why) as caught:
        ask([play])
    assert len(caught.value.attempts) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("play", "kind", "why"),
    [
        (stream([]), StreamInterrupted, "without its end marker"),
        (stream(sse("[DONE]")), StreamInterrupted, "without its end marker"),
        (stream(sse(chunk(content="Half"))), StreamInterrupted, "without its end marker"),
        (stream(sse(chunk(content="Half"))).cut(150), StreamInterrupted, "broke off"),
        (stream(sse(chunk(content="Half"), "{oops")), MalformedResponse, "malformed"),
        (stream(sse(chunk(content="Half"), chunk("content_filter"))), ContentFiltered, "content_filter"),
        (
            stream(sse(chunk(content="Half"), {"error": {"message": "gone", "type": "server_error"}})),
            ProviderUnavailable,
            "gone",
        ),
        (stream(sse({"object": "error", "message": "busy", "code": 429})), RateLimited, "busy"),
        (reply(b"<title>Login</title>", kind="text/html"), MalformedResponse, r"HTML page \(Login\)"),
        (reply({"error": {"message": "down"}}, 503), ProviderUnavailable, "HTTP 503: down"),
    ],
)
def test_a_fault_in_a_stream_becomes_its_error(play, kind, why):
    with pytest.raises(kind, match=why):
        ask([play], streamed=True)


def test_a_field_a_server_refuses_is_left_out():
    no_options = reply({"error": {"message": "Unknown field: stream_options"}}, 400)
    played = [no_options, stream(sse(chunk("stop", content="Yes."))), stream(sse(chunk("stop", content="Yes.")))]

    async def main():
        async with WireServer(played) as server, llm_at(server, TWICE) as llm:
            for _ in range(2):
                assert (await llm.async_chat("Hi", on_chunk=lambda _: None)).text == "Yes."
            return ["stream_options" in seen.body for seen in server.requests]

    assert run(main()) == [True, False, False]


class City(pydantic.BaseModel):
    people: int


@pytest.mark.promise("output-fits")
def test_structured_output_uses_the_mode_of_the_api_or_words():
    refused = reply({"error": {"message": "response_format json_schema is not supported"}}, 400)
    answer = reply(completion('{"people": 3}'))

    async def main():
        async with WireServer([answer, refused, answer]) as server, llm_at(server, TWICE) as llm:
            for _ in range(2):
                assert (await llm.async_generate("How many?", output_schema=City)).parsed == City(people=3)
            return [seen.body for seen in server.requests]

    native, again, told = run(main())
    schema = City.model_json_schema() | {"additionalProperties": False}
    assert native["response_format"]["json_schema"] == {"name": "City", "schema": schema, "strict": True}
    assert again == native
    assert told["response_format"] == {"type": "json_object"}
    assert "JSON Schema" in told["messages"][-1]["content"]


@pytest.mark.promise("output-fits")
def test_a_schema_that_strict_mode_refuses_is_sent_as_it_is_before_it_is_told_in_words():
    refused = reply({"error": {"message": "Invalid schema for response_format 'City': In context=()"}}, 400)
    answer = reply(completion('{"people": 3}'))
    thrice = Resilience(retry={"attempts": 3, "base_s": 0})
    loose = {"title": "Größe [m]", "type": "object", "properties": {"people": {"type": "integer"}}}

    async def main():
        async with WireServer([refused, answer, answer, refused, answer]) as server, llm_at(server, thrice) as llm:
            for schema in (City, loose, City):
                await llm.async_generate("How many?", output_schema=schema)
            return [seen.body.get("response_format", {}).get("json_schema") for seen in server.requests]

    strict, plain, never_strict, *rest = run(main())
    assert strict["strict"] is True
    assert plain == rest[0] == {"name": "City", "schema": City.model_json_schema()}
    assert never_strict == {"name": "Gr__e__m_", "schema": loose}
    assert rest[1] is None


def test_a_request_that_cannot_be_written_is_a_bad_request():
    with pytest.raises(BadRequest, match="cannot be written as JSON"):
        ask([], "half a pair: \ud800")


@pytest.mark.parametrize("as_base64", [True, False])
def test_embeddings_are_rows_in_the_order_of_the_texts(as_base64):
    def embedding(index):
        numbers = [index, 0.5]
        packed = base64.b64encode(struct.pack("<2f", *numbers)).decode()
        return {"index": index, "embedding": packed if as_base64 else numbers}

    def plays(seen):
        assert seen.path == "/v1/embeddings"
        assert seen.body["encoding_format"] == "base64"
        return reply({"data": [embedding(index) for index in reversed(range(len(seen.body["input"])))]})

    async def main():
        async with WireServer(plays) as server, llm_at(server) as llm:
            few = await llm.async_embed(["a", "b", "c"])
            many = await llm.async_embed(["x"] * 2050)
            return few, many, [len(seen.body["input"]) for seen in server.requests]

    few, many, sizes = run(main())
    assert few.dtype == np.float32
    assert few.tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]
    assert many.shape == (2050, 2)
    assert sizes == [3, 2048, 2]


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}],
        [{"embedding": "!!"}, {"embedding": "!!"}],
        [{"embedding": "AAAA"}, {"embedding": "AAAA"}],
        [{"embedding": []}, {"embedding": []}],
    ],
)
def test_embeddings_that_are_no_matrix_are_malformed(data):
    async def main():
        async with WireServer([reply({"data": data})]) as server, llm_at(server) as llm:
            await llm.async_embed(["a", "b"])

    with pytest.raises(MalformedResponse, match="embedding"):
        run(main())


def test_a_piece_of_a_tool_call_is_a_sign_of_life():
    slow = [piece(call(0, "a", "look", '{"q":"')), *[piece(call(0, arguments="x"))] * 5, piece(call(0, arguments='"}'))]
    play = stream(sse(*slow, chunk("tool_calls")))
    play.pause_s = 0.9
    policy = Resilience(retry={"attempts": 1}, first_token_timeout_s=1, idle_timeout_s=1)

    async def main():
        async with WireServer([play]) as server, llm_at(server, policy) as llm:
            return (await llm.async_chat("Hi", on_chunk=lambda _: None)).tool_calls

    assert run_virtual(main()) == (ToolCall("a", "look", {"q": "xxxxx"}),)


def test_no_key_is_a_clear_error_and_only_where_one_is_needed(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(AuthenticationFailed, match="set OPENAI_API_KEY or pass api_key"):
        run(OpenAILLM("m").async_generate("Hi"))

    async def main():
        async with WireServer([reply(completion())] * 2) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
            async with OpenAILLM("m") as llm:
                await llm.async_generate("Hi")
            monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
            async with OpenAILLM("m") as llm:
                await llm.async_generate("Hi")
            return [seen.headers.get("authorization") for seen in server.requests]

    assert run(main()) == [None, f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://[", "http://x:0/", "http://me:pw@x/v1"]
)
def test_a_wrong_address_is_misuse(url):
    with pytest.raises(MisuseError, match="base_url") as caught:
        OpenAILLM("m", base_url=url)
    assert "pw" not in str(caught.value)


class OfTenant(OpenAILLM):
    """A proxy's customer, by a header."""

    tenant = "one"

    def _headers(self):
        return super()._headers() | {"x-tenant": self.tenant}


class OfAnother(OfTenant):
    tenant = "other"


@pytest.mark.parametrize(
    ("llm", "other", "given"),
    [
        (OpenAILLM, OpenAILLM, {"base_url": "http://127.0.0.1:2/v1"}),
        (OpenAILLM, OpenAILLM, {"api_key": "another"}),
        (OfTenant, OfAnother, {}),
    ],
)
def test_what_is_known_of_a_model_is_shared_by_address_and_by_who_pays(llm, other, given):
    own = {"base_url": "http://127.0.0.1:1/v1", "api_key": KEY}
    assert llm("m", **own).health is llm("m", **own).health
    assert llm("m", **own).health is not other("m", **own | given).health


@pytest.mark.parametrize("variable", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_what_is_known_of_a_model_is_an_organisations(variable, monkeypatch):
    one = OpenAILLM("m", api_key=KEY).health
    monkeypatch.setenv(variable, "other")
    assert OpenAILLM("m", api_key=KEY).health is not one
