"""What a refusal teaches, and what a lesson costs: one request, no retry, no failure of the model."""

from __future__ import annotations

import asyncio
import json
import re

import msgspec
import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import BadRequest
from shared_libs.atomic.json_schema import portable
from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.llms.dialect import MAX_KNOWN, Dialect, dialect_of, forget, lessons
from shared_libs.atomic.llms.lessons import learn
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.llms.payload import id_of_nine, portable_name
from shared_libs.atomic.llms.tool_schema import named_tools, plain_parameters, restored
from shared_libs.atomic.resilience.route import MAX_LESSONS
from shared_libs.atomic.types import Message, ToolCall, ToolSpec
from tests.support import run
from tests.wire_server import WireServer, reply, sse, stream

ONCE = Resilience(retry={"attempts": 1}, breaker={"failures": 1, "reset_s": 60})
HI = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}


def refused(field):
    return reply({"error": {"message": f"Unsupported parameter: '{field}'", "param": field}}, 400)


@pytest.mark.promise("asks-as-told")
def test_a_lesson_is_a_request_of_its_own_in_the_ledger_and_no_failure_of_the_model():
    async def main():
        async with WireServer([refused("temperature"), reply(HI), reply(HI)]) as server:
            llm = OpenAILLM("m", api_key="k", base_url=server.url, resilience=ONCE, options={"temperature": 0.2})
            async with llm:
                first, second = await llm.async_generate("Hi"), await llm.async_generate("Hi")
            return first, second, llm.health.breaker.state, server.requests

    first, second, breaker, requests = run(main())
    assert [(row.number, row.outcome) for row in first.attempts] == [(1, "bad_request"), (2, "ok")]
    assert [row.outcome for row in second.attempts] == ["ok"]
    assert breaker == "closed"
    assert [("temperature" in seen.body) for seen in requests] == [True, False, False]


@pytest.mark.promise("asks-as-told")
def test_what_one_wrapper_has_learnt_the_next_one_knows_and_it_can_be_seen(caplog):
    async def main():
        async with WireServer([refused("top_p"), reply(HI), reply(HI)]) as server:
            for _ in range(2):
                llm = OpenAILLM("m", api_key="k", base_url=server.url, resilience=ONCE, options={"top_p": 0.5})
                async with llm:
                    await llm.async_generate("Hi")
            return server

    server = run(main())
    told = f"openai/m at {server.url}"
    assert list(lessons()) == [(told, ("top_p is left out",))]
    assert [record.getMessage() for record in caplog.records] == [f"{told}: top_p is left out, from now on"]


@pytest.mark.promise("asks-as-told")
@pytest.mark.parametrize("strategy", ["sequential", "hedged", "race"])
def test_a_lesson_holds_in_streams_and_in_contests(strategy):
    said = stream([*sse({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}, "[DONE]")])

    def play(request):
        return refused("stream_options") if "stream_options" in request.body else said

    async def main():
        async with WireServer(play) as server:
            policy = Resilience(retry={"attempts": 1}, strategy=strategy, hedge_after_s=5)
            second = OpenAILLM("second", api_key="k", base_url=server.url)
            async with OpenAILLM("m", api_key="k", base_url=server.url, resilience=policy, fallbacks=[second]) as llm:
                chunks = [chunk async for chunk in llm.async_stream("Hi")]
            return chunks, server.requests

    chunks, requests = run(main())
    assert [chunk.text for chunk in chunks if chunk.kind == "text"] == ["Hi"]
    assert len(chunks[-1].response.attempts) == len(requests)


def test_a_server_that_teaches_without_end_is_left():
    numbers = iter(range(1000))

    async def main():
        def play(request):
            field = f"field_{next(numbers)}"
            return reply({"error": {"message": f"Unsupported parameter: '{field}'", "param": field}}, 400)

        async with WireServer(play) as server:
            options = {f"field_{number}": 1 for number in range(100)}
            async with OpenAILLM("m", api_key="k", base_url=server.url, resilience=ONCE, options=options) as llm:
                with pytest.raises(BadRequest):
                    await llm.async_generate("Hi")
            return len(server.requests)

    assert run(main()) == MAX_LESSONS + 1


@pytest.mark.parametrize(
    ("address", "options", "sent"),
    [
        ("https://api.openai.com/v1", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("https://api.mistral.ai/v1", {"stream_options": {}}, {}),
        ("https://r.openai.azure.com/openai/v1", {"max_tokens": 5}, {"max_tokens": 5}),
        ("http://127.0.0.1:8000/v1", {"max_tokens": 5}, {"max_tokens": 5}),
    ],
)
def test_known_servers_need_not_be_learnt(address, options, sent):
    request = dict(options)
    dialect_of("openai", address, "m").fit(request)
    assert request == sent


def test_what_is_remembered_is_bounded():
    for number in range(MAX_KNOWN + 10):
        dialect_of("openai", f"http://127.0.0.1:1/{number}", "m").learnt.append("x")
    assert len(list(lessons())) == MAX_KNOWN
    forget()


@pytest.mark.parametrize(
    ("request_", "text", "field"),
    [
        ({"model": "m", "user": "ann"}, "Unexpected role 'user' after role 'system'", ""),
        ({"model": "m", "temperature": 3}, "temperature must be at most 2", "temperature"),
        ({"model": "m", "stop": ["a"]}, "the model was made to stop; not supported here", ""),
        ({"model": "m", "messages": []}, "messages: not supported", "messages"),
        ({"model": "m", "max_tokens": 10}, "max_tokens is too large", "max_tokens"),
    ],
)
def test_what_is_not_meant_is_not_learnt(request_, text, field):
    error = BadRequest(f"HTTP 400: {text}")
    error.field = field
    assert not learn(Dialect("x"), request_, error, chat=True, schema=True)


@pytest.mark.parametrize(
    ("name", "sent"),
    [("look", "look"), ("functions.search", "functions_search"), ("", "unnamed"), ("x" * 80, "x" * 64), ("ä b", "__b")],
)
def test_names_fit_every_provider(name, sent):
    assert portable_name(name) == sent


def test_ids_fit_mistral():
    made = id_of_nine("call_PTLP8xhu3uwZk4l3nlnrrJha")
    assert (len(made), made.isalnum(), made == id_of_nine("call_PTLP8xhu3uwZk4l3nlnrrJha")) == (9, True, True)
    assert id_of_nine("abcDEF123") == "abcDEF123"
    assert id_of_nine("ä" * 9) != "ä" * 9


@pytest.mark.parametrize("given", [{}, {"type": "object"}, {"properties": {}}, {"type": "object", "properties": {}}])
def test_parameters_always_say_what_they_are(given):
    assert portable(given) == {"type": "object", "properties": {}}


TEXT = {"type": "string"}
EITHER = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
FIT = "The arguments also have to fit"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"type": ["object", "null"], "properties": None}, {"properties": {}}),
        ({"type": "string"}, {"properties": {}}),
        (
            {"allOf": [{"properties": {"a": TEXT}}, {"properties": {"b": TEXT}, "required": ["b"]}]},
            {"properties": {"a": TEXT, "b": TEXT}, "required": ["b"]},
        ),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"x": TEXT}}}}, {"properties": {"x": TEXT}}),
        (
            {"type": "object", "properties": {"a": TEXT}, **EITHER},
            {"properties": {"a": TEXT}, "description": f"{FIT} {json.dumps(EITHER)}"},
        ),
        (
            {"anyOf": [{"properties": {"k": {"const": "a"}}, "required": ["k"]}, {"properties": {"k": TEXT}}]},
            {"properties": {"k": {"anyOf": [{"const": "a"}, TEXT]}}},
        ),
        ({"$ref": "#"}, {"properties": {}}),
        (
            {"type": "object", "properties": {"t": {"type": "array"}, "u": {"anyOf": [{"type": ["array"]}]}}},
            {"properties": {"t": {"type": "array", "items": {}}, "u": {"anyOf": [{"type": ["array"], "items": {}}]}}},
        ),
    ],
)
def test_parameters_keep_what_openai_and_anthropic_refuse_requests_for(given, sent):
    """At the top an object, and nothing that puts it together; a list says of what."""
    made = portable(given)
    assert {key: made[key] for key in ("type", *sent)} == {"type": "object", **sent}
    assert not made.keys() & {"anyOf", "oneOf", "allOf", "$ref", "not", "enum"}


ODD = ["$filter", "@odata.type", "filter[id]", "filter[", "filter_", "a b", "a.b", "имя", "x" * 70, "x" * 80, "", "a-b"]


@pytest.mark.promise("asks-as-told")
@pytest.mark.parametrize("whole", [False, True])
def test_parameters_have_names_that_anthropic_takes_and_calls_come_back_with_their_own(whole):
    inner = {"type": "object", "properties": dict.fromkeys(ODD, TEXT), "required": ODD}
    tool = ToolSpec("t", "d", {"anyOf": [inner]} if whole else inner)
    (told,) = named_tools([tool])
    names = list(told.parameters["properties"])
    assert len(set(names)) == len(ODD)
    assert all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name) for name in names)
    assert sorted(told.parameters["required"]) == sorted(names)
    call = ToolCall("1", "t", {name: number for number, name in enumerate(names)})
    assert restored(call, [tool]).arguments == {name: number for number, name in enumerate(ODD)}
    assert restored(msgspec.structs.replace(call, name="another"), [tool]).name == "another"


@pytest.mark.promise("work-bounded")
def test_a_schema_that_refers_to_itself_is_written_out_to_an_end():
    itself = {"type": "object", "properties": {f"p{number}": {"$ref": "#"} for number in range(30)}}
    assert len(str(plain_parameters(itself))) < 300_000
    assert portable({"anyOf": [{"$ref": "#"}] * 30})["properties"] == {}


def test_anthropics_schema_mode_is_learnt_for_all_wrappers():
    no = reply({"type": "error", "error": {"type": "invalid_request_error", "message": "output_config: no"}}, 400)
    good = reply({"type": "message", "content": [{"type": "text", "text": '{"n": 5}'}], "stop_reason": "end_turn"})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    async def main():
        async with WireServer([no, good, good]) as server:
            for _ in range(2):
                async with AnthropicLLM("m", api_key="k", base_url=server.url[:-3], resilience=ONCE) as llm:
                    assert (await llm.async_generate("?", output_schema=schema)).parsed == {"n": 5}
            await asyncio.sleep(0)
            return [("output_config" in seen.body) for seen in server.requests]

    assert run(main()) == [True, False, False]


@pytest.mark.promise("asks-as-told")
def test_what_stands_beside_tools_and_turns_is_left_out_once_the_server_refuses_it():
    tool = ToolSpec("look", "Looks.", {"type": "object", "properties": {}}, {"openai": {"function": {"strict": True}}})
    turn = Message("assistant", "I look.", extra={"openai": {"reasoning_content": "Hm.", "prefix": True}})

    async def main():
        async with WireServer([refused("tools[0].function.strict"), refused("reasoning_content"), reply(HI)]) as server:
            async with OpenAILLM("m", api_key="k", base_url=server.url, resilience=ONCE) as llm:
                await llm.async_chat([Message("user", "So?"), turn, Message("user", "Now?")], [tool])
            return [seen.body for seen in server.requests]

    asked = run(main())
    assert [("strict" in body["tools"][0]["function"]) for body in asked] == [True, False, False]
    assert [("reasoning_content" in body["messages"][1]) for body in asked] == [True, True, False]
    assert all(body["messages"][1]["prefix"] for body in asked)
