"""The fault server, driven by clients that nobody here wrote, and by plain sockets."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import anthropic
import msgspec
import openai
import pytest

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import (
    ConnectionRefused,
    Cut,
    Fault,
    FaultServer,
    Healthy,
    HtmlPage,
    MalformedChunk,
    NameNotResolved,
    RateLimited,
    ServerError,
    Silence,
    SlowFirstToken,
    TlsFailure,
    Unauthorized,
    UnexpectedRequest,
    WireCase,
)
from shared_libs.testing.faults.catalogue import Exchange
from shared_libs.testing.faults.formats import FORMATS
from shared_libs.testing.faults.wire_cases import PATHS, wire_cases
from tests.support import run, run_virtual

ASKED = [{"role": "user", "content": "Say grün 🌳."}]
CALL = ToolCall("call_1", "look", {"q": "é", "deep": [1, {"x": None}]})
LOOK = {"type": "object", "properties": {"q": {"type": "string"}}}


def openai_client(server, **more):
    return openai.AsyncOpenAI(api_key="sk-secret-key", base_url=server.url("openai"), **{"max_retries": 0, **more})


def anthropic_client(server, **more):
    return anthropic.AsyncAnthropic(api_key="sk-secret-key", base_url=server.url("anthropic"), max_retries=0, **more)


def on_the_plain_loop(main):
    """The vendors' clients read files on the loop, which is theirs to do."""
    return asyncio.run(main)


def test_every_case_of_a_real_server_can_be_played():
    """In the format it is of; a request of another one is refused."""
    for name, case in wire_cases().items():
        path = PATHS[case.get("api", "chat")][0]
        spoken = next(one for one in FORMATS.values() if one.path == path)
        for answer in WireCase.answers(name):
            assert answer.play(Exchange(spoken, "m", {"messages": [], "input": []}, stream=False)).steps
    assert len(wire_cases()) > 450
    other = Exchange(FORMATS["ollama"], "m", {}, stream=False)
    assert b"is a case of /v1/chat/completions" in WireCase("tc-no-index-no-id").play(other).body


def test_a_case_of_a_real_server_wants_of_any_client_what_the_server_does():
    async def main():
        script = WireCase.answers("deepseek-reasoning-back")
        async with FaultServer({"m": script}) as server, openai_client(server) as client:
            await client.chat.completions.create(model="m", messages=ASKED)
            with pytest.raises(openai.BadRequestError, match="reasoning_content"):
                await client.chat.completions.create(model="m", messages=ASKED)
            return [seen.fault for seen in server.requests]

    assert on_the_plain_loop(main()) == ["wire_case", "wire_case"]


def test_the_openai_sdk_reads_an_answer_its_stream_and_its_calls():
    async def main():
        async with FaultServer({"m": Healthy(tool_calls=(CALL,))}) as server, openai_client(server) as client:
            tools = [{"type": "function", "function": {"name": "look", "strict": True, "parameters": LOOK}}]
            whole = await client.chat.completions.create(model="m", messages=ASKED, tools=tools)
            options = {"stream_options": {"include_usage": True}}
            async with client.chat.completions.stream(model="m", messages=ASKED, tools=tools, **options) as events:
                streamed = await events.get_final_completion()
            return [whole, streamed], server.requests

    answers, requests = on_the_plain_loop(main())
    for answer in answers:
        message = answer.choices[0].message
        assert (message.content, answer.choices[0].finish_reason) == ("Say grün 🌳.", "tool_calls")
        (call,) = message.tool_calls
        assert (call.id, call.function.name, json.loads(call.function.arguments)) == (CALL.id, "look", CALL.arguments)
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4, 7)
    assert [(seen.format, seen.model, seen.attempt, seen.stream) for seen in requests] == [
        ("openai", "m", 1, False),
        ("openai", "m", 2, True),
    ]
    assert requests[0].body["messages"] == ASKED
    assert "secret" not in str(requests)


def test_the_anthropic_sdk_reads_an_answer_its_stream_and_its_calls():
    async def main():
        async with FaultServer({"m": Healthy(tool_calls=(CALL,))}) as server, anthropic_client(server) as client:
            asked = {"model": "m", "messages": ASKED, "max_tokens": 99}
            whole = await client.messages.create(**asked)
            async with client.messages.stream(**asked) as events:
                streamed = await events.get_final_message()
            return [whole, streamed], server.requests

    answers, requests = on_the_plain_loop(main())
    for answer in answers:
        text, call = answer.content
        assert (text.text, answer.stop_reason) == ("Say grün 🌳.", "tool_use")
        assert (call.id, call.name, call.input) == (CALL.id, "look", CALL.arguments)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 4)
    assert [seen.attempt for seen in requests] == [1, 2]
    assert "secret" not in str(requests)


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (RateLimited(retry_after_s=3), openai.RateLimitError, 429),
        (ServerError(503), openai.InternalServerError, 503),
        (Unauthorized(401), openai.AuthenticationError, 401),
        (Unauthorized(403), openai.PermissionDeniedError, 403),
        (HtmlPage(), openai.InternalServerError, 502),
    ],
)
def test_the_openai_sdk_takes_a_refusal_for_what_it_is(fault, kind, status):
    async def main():
        async with FaultServer({"m": [fault]}) as server, openai_client(server) as client:
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(model="m", messages=ASKED)
            assert (await client.chat.completions.create(model="m", messages=ASKED)).choices[0].message.content
            return caught.value

    error = on_the_plain_loop(main())
    assert error.status_code == status
    if status == 429:
        assert error.response.headers["retry-after"] == "3"


def test_the_own_retries_of_an_sdk_are_seen():
    async def main():
        async with FaultServer({"m": [ServerError(500)] * 2}) as server, openai_client(server, max_retries=2) as client:
            await client.chat.completions.create(model="m", messages=ASKED)
            return [seen.attempt for seen in server.seen("m")]

    assert on_the_plain_loop(main()) == [1, 2, 3]


async def post(server, path, body):
    url = server.url("ollama") + path
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        return await answer.text()


def test_ollama_streams_unless_told_otherwise():
    async def main():
        async with FaultServer({"m": Healthy()}) as server:
            streamed = await post(server, "/api/chat", json.dumps({"model": "m", "messages": ASKED}))
            whole = await post(server, "/api/chat", json.dumps({"model": "m", "messages": ASKED, "stream": False}))
            return streamed, whole

    streamed, whole = run(main())
    lines = [json.loads(line) for line in streamed.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Say grün 🌳."
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert json.loads(whole)["message"]["content"] == "Say grün 🌳."


def test_a_request_may_come_chunked():
    async def body():
        yield b'{"model": "m", "stream": false,'
        yield b'"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}'

    async def main():
        async with FaultServer({"m": Healthy()}) as server:
            return await post(server, "/api/chat", body())

    assert json.loads(run(main()))["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("/api/chat", '{"model": "other"}', 404, "for model 'other'; there are m"),
        ("/api/chat", "{oops", 400, "without a JSON object"),
        ("/v2/elsewhere", '{"model": "m"}', 404, "POST /v2/elsewhere"),
        ("/chat/completions", '{"model": "m"}', 404, "served are POST /v1/chat/completions"),
    ],
)
def test_what_has_no_script_is_refused_with_its_reason_and_told_at_the_end(path, body, status, why):
    async def main():
        async with FaultServer({"m": Healthy()}) as server:
            place = server.url("ollama") + path
            async with aiohttp.ClientSession() as client, client.post(place, data=body) as answer:
                assert (answer.status, why in (await answer.json())["error"]["message"]) == (status, True)

    with pytest.raises(UnexpectedRequest, match=why):
        run(main())


def test_an_error_of_the_test_is_not_hidden_by_one_of_the_server():
    async def main():
        async with FaultServer({"m": Healthy()}) as server:
            await post(server, "/nowhere", "{}")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main())


class Broken(Fault, frozen=True):
    def play(self, exchange):
        raise ZeroDivisionError(exchange.model)


def test_a_fault_of_ones_own_that_fails_is_told_at_the_end():
    async def main():
        async with FaultServer({"m": Broken()}) as server:
            with pytest.raises(aiohttp.ClientError):
                await post(server, "/api/chat", '{"model": "m"}')

    with pytest.raises(UnexpectedRequest, match="ZeroDivisionError: m"):
        run(main())


def test_a_fault_of_the_address_is_past_when_a_request_has_come():
    async def main():
        async with FaultServer({"m": lambda _: TlsFailure()}) as server:
            for _ in range(2):
                with pytest.raises(aiohttp.ClientError):
                    await post(server, "/api/chat", '{"model": "m"}')

    with pytest.raises(UnexpectedRequest, match="tls_failure cannot be played for model 'm'") as caught:
        run(main())
    assert str(caught.value).count("tls_failure") == 1


def test_a_script_may_look_at_the_request():
    async def main():
        script = lambda seen: Healthy("odd" if seen.attempt % 2 else "even")  # noqa: E731 - as one writes it
        async with FaultServer({"m": script}) as server:
            asked = json.dumps({"model": "m", "stream": False})
            return [json.loads(await post(server, "/api/chat", asked))["message"]["content"] for _ in range(3)]

    assert run(main()) == ["odd", "even", "odd"]


def test_faults_are_data():
    faults = [RateLimited(retry_after_s=1), Cut(after_bytes=7, answer=Healthy("x")), TlsFailure()]
    wire = msgspec.json.encode(faults)
    assert json.loads(wire)[0] == {"fault": "rate_limited", "retry_after_s": 1}
    assert msgspec.json.decode(wire, type=list[RateLimited | Cut | TlsFailure]) == faults
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"fault": "rate_limited", "retry_after": 1}', type=RateLimited)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ([Silence(), ConnectionRefused()], "holds connection_refused, but it is a fault of the address"),
        ([Healthy(), "503"], "holds '503', which is no fault"),
        (Silence, "allowed are a fault such as"),
        (None, "allowed are a fault such as"),
    ],
)
def test_a_script_that_cannot_be_is_refused_at_once(script, why):
    with pytest.raises(MisuseError, match=why):
        FaultServer({"m": script})


def test_an_address_that_cannot_be_is_refused():
    async def main():
        async with FaultServer({"m": Healthy(), "gone": NameNotResolved()}) as server:
            with pytest.raises(MisuseError, match="allowed are openai, anthropic, ollama"):
                server.url("gemini")
            with pytest.raises(MisuseError, match="there are m, gone"):
                server.url("openai", "other")
            assert server.url("openai", "gone").endswith(".invalid/v1")
            assert server.url("openai", "m") == server.url("openai")

    run(main())


def test_minutes_cost_nothing_on_a_virtual_clock():
    async def main():
        async with FaultServer({"m": SlowFirstToken(delay_s=240)}) as server:
            asked = json.dumps({"model": "m", "messages": ASKED})
            await post(server, "/api/chat", asked)
            return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(240, abs=1)


def test_the_end_breaks_off_what_is_going_on():
    async def main():
        async with FaultServer({"m": Silence()}) as server:
            asked = asyncio.create_task(post(server, "/api/chat", '{"model": "m"}'))
            await server.until_asked(1)
            assert server.connections == 1
        with pytest.raises(aiohttp.ClientError):
            await asked
        assert server.connections == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_broken_event_is_broken_for_a_foreign_client_too():
    async def main():
        async with FaultServer({"m": MalformedChunk()}) as server, openai_client(server) as client:
            stream = await client.chat.completions.create(model="m", messages=ASKED, stream=True)
            with pytest.raises(json.JSONDecodeError):
                async for _ in stream:
                    pass

    on_the_plain_loop(main())
