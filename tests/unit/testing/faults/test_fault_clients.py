"""Clients that nobody here wrote, sync and async, aimed at a fault server in a thread of its own."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import anthropic
import httpx
import ollama
import openai
import pytest

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import (
    BackgroundFaultServer,
    ContentFilter,
    ContextTooLong,
    Cut,
    FaultServer,
    Garbage,
    Healthy,
    ModelMissing,
    NoEndMarker,
    RateLimited,
    ResetBeforeHeaders,
    ServerError,
    Silence,
    Stall,
    TlsFailure,
    Unauthorized,
    UnexpectedRequest,
    UntrustedCertificate,
)
from tests.support import run, run_virtual

QUESTION = "Say grün 🌳 again."
MESSAGES = [{"role": "user", "content": QUESTION}]
CALL = ToolCall("call_1", "look", {"q": "é", "deep": [1, {"x": None}]})
SOON = RateLimited(retry_after_s=0.01)


@pytest.fixture
def openai_at():
    def client(server, model=None, **options):
        return openai.OpenAI(api_key="k", base_url=server.url("openai", model), **{"max_retries": 0, **options})

    return client


def chat(client):
    return client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content


def respond(client):
    return client.responses.create(model="m", input=QUESTION).output_text


def chat_streamed(client):
    with client.chat.completions.stream(model="m", messages=MESSAGES) as events:
        return events.get_final_completion().choices[0].message.content


def respond_streamed(client):
    with client.responses.stream(model="m", input=QUESTION) as events:
        return events.get_final_response().output_text


every_way = pytest.mark.parametrize("ask", [chat, respond, chat_streamed, respond_streamed])


@every_way
def test_the_sync_openai_sdk_reads_an_answer_and_its_own_retries_are_seen(fault_server, openai_at, ask):
    server = fault_server({"m": [SOON, SOON]})
    with openai_at(server, max_retries=2) as client:
        assert ask(client) == QUESTION
    assert [(seen.attempt, seen.fault) for seen in server.requests] == [
        (1, "rate_limited"),
        (2, "rate_limited"),
        (3, "healthy"),
    ]
    assert [seen.headers["x-stainless-retry-count"] for seen in server.requests] == ["0", "1", "2"]


@every_way
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (RateLimited(), openai.RateLimitError),
        (ServerError(503), openai.InternalServerError),
        (Unauthorized(401), openai.AuthenticationError),
        (Unauthorized(403), openai.PermissionDeniedError),
        (ModelMissing(), openai.NotFoundError),
        (ContextTooLong(), openai.BadRequestError),
        (ResetBeforeHeaders(), openai.APIConnectionError),
        (Garbage(), openai.APIConnectionError),
        (Cut(), openai.APIConnectionError),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_sync_openai_sdk_takes_each_fault_for_what_it_is(fault_server, openai_at, ask, fault, kind):
    server = fault_server({"m": fault})
    with openai_at(server) as client, pytest.raises(openai.APIError) as caught:
        ask(client)
    assert type(caught.value) is kind
    if isinstance(fault, ContextTooLong):
        assert caught.value.code == "context_length_exceeded"
    assert len(server.requests) == 1


@every_way
@pytest.mark.parametrize("fault", [Silence(), Stall()], ids=lambda fault: fault.name)
def test_the_sync_openai_sdk_waits_for_a_silent_server_as_long_as_it_is_told(fault_server, openai_at, ask, fault):
    server = fault_server({"m": fault})
    with openai_at(server, timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        ask(client)


def test_the_openai_sdk_reads_the_calls_and_the_usage_of_a_response(fault_server, openai_at):
    server = fault_server({"m": Healthy(tool_calls=(CALL,))})
    with openai_at(server) as client:
        whole = client.responses.create(model="m", input=QUESTION)
        with client.responses.stream(model="m", input=[{"role": "user", "content": QUESTION}]) as events:
            kinds = [event.type for event in events]
            streamed = events.get_final_response()
    for answer in (whole, streamed):
        text, call = answer.output
        assert (answer.status, text.content[0].text) == ("completed", QUESTION)
        assert (call.call_id, call.name, json.loads(call.arguments)) == (CALL.id, CALL.name, CALL.arguments)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 5)
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 4
    assert [seen.format for seen in server.requests] == ["openai-responses"] * 2


def test_the_openai_sdk_sees_that_a_filter_ended_a_response(fault_server, openai_at):
    server = fault_server({"m": ContentFilter()})
    with openai_at(server) as client:
        whole = client.responses.create(model="m", input=QUESTION)
        events = list(client.responses.create(model="m", input=QUESTION, stream=True))
    assert events[-1].type == "response.incomplete"
    for answer in (whole, events[-1].response):
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "content_filter")
        assert answer.output_text == "Say grün "


def test_the_openai_sdk_knows_that_a_response_without_its_last_event_is_none(fault_server, openai_at):
    server = fault_server({"m": NoEndMarker()})
    with openai_at(server) as client, pytest.raises(RuntimeError, match=r"response\.completed"):
        respond_streamed(client)


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}], ids=["base64", "float"])
def test_the_openai_sdk_reads_embeddings_and_retries_them(fault_server, openai_at, encoding):
    server = fault_server({"m": [SOON]})
    with openai_at(server, max_retries=1) as client:
        told = client.embeddings.create(model="m", input=["a b", "c", "a b"], dimensions=5, **encoding)
    first, other, again = (row.embedding for row in told.data)
    assert first == again != other
    assert len(first) == 5
    assert sum(number**2 for number in first) == pytest.approx(1)
    assert told.usage.prompt_tokens == 5
    assert [(seen.format, seen.attempt) for seen in server.requests] == [
        ("openai-embeddings", 1),
        ("openai-embeddings", 2),
    ]


@pytest.mark.parametrize("given", ["one text", [1, 2, 3]], ids=["text", "tokens"])
def test_one_text_has_one_embedding(fault_server, openai_at, given):
    server = fault_server({"*": Healthy()})
    with openai_at(server) as client:
        assert len(client.embeddings.create(model="m", input=given).data) == 1


@pytest.mark.parametrize("fault", [RateLimited(), ServerError(), Silence()], ids=lambda fault: fault.name)
def test_embeddings_fail_as_they_are_told(fault_server, openai_at, fault):
    server = fault_server({"m": fault})
    kinds = {
        "rate_limited": openai.RateLimitError,
        "server_error": openai.InternalServerError,
        "silence": openai.APITimeoutError,
    }
    with openai_at(server, timeout=0.2) as client, pytest.raises(kinds[fault.name]):
        client.embeddings.create(model="m", input="a")
    client = ollama.Client(host=server.url("ollama-embeddings"), timeout=0.2)
    with client._client, pytest.raises((ollama.ResponseError, httpx.ReadTimeout)):
        client.embed("m", "a")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (RateLimited(), anthropic.RateLimitError),
        (ServerError(529), anthropic.OverloadedError),
        (Unauthorized(), anthropic.AuthenticationError),
        (ModelMissing(), anthropic.NotFoundError),
        (ResetBeforeHeaders(), anthropic.APIConnectionError),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_sync_anthropic_sdk_takes_each_fault_for_what_it_is(fault_server, fault, kind):
    server = fault_server({"m": fault})
    with anthropic.Anthropic(api_key="k", base_url=server.url("anthropic"), max_retries=0) as client:
        with pytest.raises(kind):
            client.messages.create(model="m", messages=MESSAGES, max_tokens=99)
        with pytest.raises(kind), client.messages.stream(model="m", messages=MESSAGES, max_tokens=99) as events:
            events.get_final_text()


def test_the_sync_anthropic_sdk_retries_by_itself(fault_server):
    server = fault_server({"m": [SOON, SOON]})
    with anthropic.Anthropic(api_key="k", base_url=server.url("anthropic")) as client:
        answer = client.messages.create(model="m", messages=MESSAGES, max_tokens=99)
    assert answer.content[0].text == QUESTION
    assert len(server.seen("m")) == 3


@pytest.fixture
def ollama_at():
    clients = []

    def client(server):
        clients.append(ollama.Client(host=server.url("ollama")))
        return clients[-1]

    yield client
    for made in clients:
        made._client.close()


def test_the_ollama_client_reads_an_answer_its_stream_its_calls_and_embeddings(fault_server, ollama_at):
    client = ollama_at(fault_server({"m": Healthy(tool_calls=(CALL,))}))
    whole = client.chat("m", MESSAGES)
    streamed = list(client.chat("m", MESSAGES, stream=True))
    (call,) = whole.message.tool_calls
    assert (whole.message.content, call.function.name, call.function.arguments) == (QUESTION, "look", CALL.arguments)
    assert "".join(piece.message.content for piece in streamed) == QUESTION
    assert (streamed[-1].done, streamed[-1].prompt_eval_count, streamed[-1].eval_count) == (True, 4, 5)
    first, other, again = client.embed("m", ["a", "b", "a"]).embeddings
    assert first == again != other


def test_the_ollama_client_tells_a_refusal_and_does_not_retry(fault_server, ollama_at):
    server = fault_server({"m": [ServerError(503), ModelMissing()]})
    for status in (503, 404):
        with pytest.raises(ollama.ResponseError) as caught:
            ollama_at(server).chat("m", MESSAGES)
        assert caught.value.status_code == status
    assert [seen.fault for seen in server.requests] == ["server_error", "model_missing"]


def test_an_async_client_can_be_aimed_at_the_same_server(fault_server):
    server = fault_server({"m": [SOON]})

    async def main():
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url("openai")) as client:
            return (await client.responses.create(model="m", input=QUESTION)).output_text

    assert asyncio.run(main()) == QUESTION
    assert len(server.requests) == 2


def test_a_client_that_trusts_nobody_refuses_a_certificate_nobody_knows(fault_server, openai_at):
    server = fault_server({"m": UntrustedCertificate()})
    with openai_at(server, "m") as client, pytest.raises(openai.APIConnectionError) as caught:
        chat(client)
    reason = caught.value.__cause__
    assert "CERTIFICATE_VERIFY_FAILED" in str(reason)
    assert (server.requests, server.handshakes) == ([], 1)


def test_a_client_that_takes_any_certificate_is_answered():
    async def main():
        body = json.dumps({"model": "m", "messages": MESSAGES, "stream": False})
        async with FaultServer({"m": UntrustedCertificate()}) as server:
            url = server.url("ollama", "m") + "/api/chat"
            async with aiohttp.ClientSession() as session, session.post(url, data=body, ssl=False) as answer:
                return (await answer.json())["message"]["content"], server.handshakes, len(server.requests)

    assert run_virtual(main()) == (QUESTION, 0, 1)


def test_a_broken_handshake_is_no_matter_of_trust(fault_server, openai_at):
    server = fault_server({"m": TlsFailure()})
    with openai_at(server, "m") as client, pytest.raises(openai.APIConnectionError) as caught:
        chat(client)
    assert "CERTIFICATE" not in str(caught.value.__cause__)


def test_any_model_may_have_one_script_and_each_counts_its_own_attempts(fault_server, openai_at):
    server = fault_server({"*": [ServerError()], "special": Healthy("Special.")})
    with openai_at(server) as client:
        for model in ("a", "b"):
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model=model, messages=MESSAGES)
            assert client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content == QUESTION
        told = client.chat.completions.create(model="special", messages=MESSAGES)
    assert told.choices[0].message.content == "Special."
    assert [seen.attempt for seen in server.seen("b")] == [1, 2]


def test_a_server_in_the_background_tells_what_it_had_no_script_for_and_leaves_nothing():
    with (
        pytest.raises(UnexpectedRequest, match=r"GET /v1/models; served are POST /v1/chat/completions"),
        BackgroundFaultServer({"m": Healthy()}) as server,
    ):
        with (
            openai.OpenAI(api_key="k", base_url=server.url("openai"), max_retries=0) as client,
            pytest.raises(openai.NotFoundError, match="no script for GET /v1/models"),
        ):
            client.models.list()
        port = httpx.URL(server.url("ollama")).port
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}")


def test_a_server_in_the_background_can_be_waited_for(fault_server):
    server = fault_server({"m": Silence()})
    with pytest.raises(TimeoutError):
        server.wait_until_asked(1, timeout_s=0.01)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url('ollama')}/api/chat", json={"model": "m"}, timeout=0.1)
    server.wait_until_asked(1)
    assert server.requests[0].fault == "silence"


def test_a_port_that_is_taken_is_named():
    with BackgroundFaultServer({"m": Healthy()}) as server:
        port = httpx.URL(server.url("ollama")).port
        other = BackgroundFaultServer({"m": Healthy()}, port=port)
        with pytest.raises(MisuseError, match=f"127.0.0.1:{port} cannot be listened on"), other:
            pass


def test_a_listener_hears_of_everything():
    heard = []

    async def main():
        async with FaultServer({"m": ServerError()}, listener=heard.append) as server:
            async with aiohttp.ClientSession() as session:
                await (await session.post(server.url("ollama") + "/api/chat", data='{"model": "m"}')).read()
                assert (await session.get(server.url("ollama") + "/api/tags")).status == 404
            raise KeyError("not hidden")

    with pytest.raises(KeyError):
        run(main())
    request, *unexpected = heard
    assert (request.fault, request.attempt) == ("server_error", 1)
    assert {str(what).partition(";")[0] for what in unexpected} == {"GET /api/tags"}


@pytest.mark.parametrize("make", [lambda: Cut(after_bytes=-1), lambda: RateLimited(retry_after_s=-0.5)])
def test_a_number_below_zero_is_refused(make):
    with pytest.raises(MisuseError, match="must not be negative"):
        make()
