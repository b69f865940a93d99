"""Clients that give up, and come again: one run, and an answer in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from openai import OpenAIError

from shared_libs.service.deadlines import keep_alive_s
from shared_libs.service.streams import EventStream
from shared_libs.testing import Cut, Healthy, Silence, SlowFirstToken
from tests.support import run, run_virtual
from tests.unit.service.faces.ground import ground

ASK = [{"role": "user", "content": "hello there"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.promise("face-patience")
def test_an_sdk_with_a_timeout_of_a_second_gets_a_partial_answer_of_one_run(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": Silence()}, bot={}) as at, at.openai(timeout=1, max_retries=2) as client:
            answer = await client.chat.completions.create(model="bot", messages=ASK)
            assert (answer.choices[0].finish_reason, answer.factory["status"]) == ("length", "partial")
            response = await client.responses.create(model="bot", input="hello")
            assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
            assert response.metadata["factory_stop_reason"] == "deadline"
            async with at.anthropic(timeout=1, max_retries=2) as other:
                message = await other.messages.create(model="bot", max_tokens=9, messages=ASK)
                assert message.stop_reason == "max_tokens"
            assert len({request.at_s for request in at.upstream.requests}) <= 6  # three runs: a turn and a last word

    run(main())


@pytest.mark.promise("face-patience")
def test_a_stream_shows_that_it_lives_to_a_client_that_waits_less_than_a_second(tmp_path):
    async def main():
        async with (
            ground(tmp_path, {"m": SlowFirstToken(1.6)}, bot={}) as at,
            at.openai(timeout=0.8) as client,
        ):
            stream = await client.chat.completions.create(model="bot/chain", messages=ASK, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert text == "hello there"

    run(main())


@pytest.mark.promise("face-patience", "serve-once")
def test_who_repeats_a_request_waits_as_long_as_its_own_client_and_leaves_the_first_alone(tmp_path):
    asks = {
        "/v1/chat/completions": {"model": "bot", "messages": ASK},
        "/v1/messages": {"model": "bot", "messages": ASK, "max_tokens": 9},
        "/v1/responses": {"model": "bot", "input": "hello there"},
        "/v1/agents/bot/runs": {"question": "hello there"},
        "/v1/embeddings": {"model": "slow/chain", "input": "hello there"},
    }

    async def main():
        scripts = {"m": SlowFirstToken(0.4), "slow": SlowFirstToken(0.4)}
        async with ground(tmp_path, scripts, bot={}, slow={"llm": ["slow"]}) as at:

            async def ask(path, **headers):
                status, _, told = await at.post(path, asks[path], **{"Idempotency-Key": "k", **headers})
                own = ("id", "created")  # each answer has its own
                return status, {key: value for key, value in told.items() if key not in own}

            first = []
            for path in asks:
                first.append(asyncio.create_task(ask(path)))
                await at.upstream.until_asked(len(first))
                hurried, told = await ask(path, **{"X-Request-Timeout": "0.01"})
                assert (path, hurried) == (path, 504), told
            again = await asyncio.gather(*(ask(path) for path in asks))
            assert [status for status, _ in again] == [200] * len(asks), again
            assert again == await asyncio.gather(*first)
            assert len(at.upstream.requests) == len(asks)

    run(main())


@asynccontextmanager
async def impatient_proxy(url: str, idle_s: float) -> AsyncIterator[str]:
    """Stand before a server, and cut what has been silent for so long, as load balancers do."""
    host, port = url.removeprefix("http://").split(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError):
            while data := await asyncio.wait_for(reader.read(65_536), idle_s):
                writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(port))
        going = asyncio.create_task(pump(reader, there[1]))
        await back(there[0], writer)
        going.cancel()
        for each in (writer, there[1]):
            each.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.promise("face-patience")
def test_streams_of_every_face_come_through_a_proxy_that_cuts_what_is_silent(tmp_path):
    asks = {
        "/v1/chat/completions": {"messages": ASK, "stream": True},
        "/v1/messages": {"messages": ASK, "max_tokens": 9, "stream": True},
        "/v1/responses": {"input": "hello there", "stream": True},
        "/v1/agents/bot/runs": {"question": "hello there"},
    }

    async def main():
        async with (
            ground(tmp_path, {"m": SlowFirstToken(1.8)}, bot={}) as at,
            impatient_proxy(at.url, 1.2) as url,
            aiohttp.ClientSession(url) as http,
        ):

            async def ask(path, **headers):
                body = asks[path] if "runs" in path else asks[path] | {"model": "bot"}
                headers = {"accept": "text/event-stream"} | headers
                try:
                    async with http.post(path, json=body, headers=headers) as answer:
                        return "hello there" in (await answer.text()).replace('"}\n\n', "")
                except aiohttp.ClientError:
                    return "cut"

            told = {"x-stainless-read-timeout": "0.6"}  # a comment at each third of it; else each 15 s
            return await asyncio.gather(*(ask(path, **told) for path in asks), ask("/v1/chat/completions"))

    assert run(main()) == [True, True, True, True, "cut"]


@pytest.mark.promise("face-patience")
def test_nothing_that_a_client_or_a_proxy_usually_waits_for_passes_in_silence():
    gaps = []

    async def main():
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def send(message):
            nonlocal last
            gaps.append(loop.time() - last)
            last = loop.time()

        stream = EventStream(send, keep_alive_s=keep_alive_s({}), cut=lambda: None)
        await asyncio.sleep(1_000)
        await stream.close(b"data: at last\n\n")

    run_virtual(main())
    assert max(gaps) < 60  # the shortest of ALB 60, Cloudflare 100, Envoy 240 s
    assert len(gaps) > 1_000 / 60


@pytest.mark.promise("face-patience")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": ASK}),
        ("/v1/messages", {"messages": ASK, "max_tokens": 9}),
    ],
)
def test_a_retry_joins_the_request_that_it_repeats(tmp_path, path, body):
    async def main():
        async with ground(tmp_path, {"m": SlowFirstToken(0.3)}, bot={}) as at:
            told = await asyncio.gather(
                *(
                    at.post(path, body | {"model": "bot"}, **{"x-stainless-retry-count": str(count)})
                    for count in range(3)
                )
            )
            assert len({answer["factory"]["run_id"] for _, _, answer in told}) == 1
            assert len(at.upstream.requests) == 1
            await at.post(path, body | {"model": "bot"}, **{"x-stainless-retry-count": "0"})
            assert len(at.upstream.requests) == 2

    run(main())


@pytest.mark.promise("face-patience")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_a_stream_under_a_key_is_asked_for_once_and_told_to_all(tmp_path, path, model):
    body, key = {"model": model, "messages": ASK, "max_tokens": 9, "stream": True}, {"idempotency-key": "k"}

    async def main():
        async with ground(tmp_path, {"m": SlowFirstToken(0.3)}, bot={}) as at:
            told = await asyncio.gather(*(at.lines(path, body, **key) for _ in range(3)))
            told.append(await at.lines(path, body, **key))
            assert len(at.upstream.requests) == 1
            assert ["hello there" in "\n".join(lines) for lines in told] == [True] * 4
            assert len({lines[-1] for lines in told}) == 1
            await at.lines(path, body)
            assert len(at.upstream.requests) == 2

    run(main())


@pytest.mark.promise("face-patience")
def test_a_stream_under_a_key_that_was_given_up_is_begun_anew(tmp_path):
    body, key = {"model": "bot/chain", "messages": ASK, "stream": True}, {"idempotency-key": "k"}

    async def main():
        async with ground(tmp_path, {"m": [Silence(), Healthy("Hi.")]}, bot={}) as at:
            first = asyncio.create_task(at.lines("/v1/chat/completions", body, **key))
            await at.upstream.until_asked(1)
            second = asyncio.create_task(at.status("/v1/chat/completions", body, **key))
            first.cancel()
            await at.upstream.until_left()
            assert await second in (200, 400)  # it waited for the first, or came behind its end
            assert "Hi." in "".join(await at.lines("/v1/chat/completions", body, **key))

    run(main())


@pytest.mark.promise("face-chat")
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
def test_a_stream_has_the_headers_of_an_answer_in_one_piece(tmp_path, model):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at:
            told = []
            for stream in (False, True):
                body = {"model": model, "messages": ASK, "stream": stream, "verbosity": "low", "tools": [{"type": "x"}]}
                async with at.http.post("/v1/chat/completions", json=body) as answer:
                    await answer.read()
                    told.append({name.lower() for name in answer.headers})
            framing = {"content-length", "transfer-encoding", "cache-control", "x-accel-buffering"}
            assert told[0] - framing == told[1] - framing
            assert {"x-request-id", "x-factory-deadline", "x-factory-overhead-ms", "openai-processing-ms"} <= told[1]

    run(main())


@pytest.mark.promise("face-gone")
@pytest.mark.parametrize("model", ["bot", "bot/chain"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_takes_its_model_with_it(tmp_path, model, stream):
    async def main():
        async with ground(tmp_path, {"m": Silence()}, bot={}) as at:
            for path, body in (
                ("/v1/chat/completions", {"messages": ASK}),
                ("/v1/responses", {"input": "hello"}),
            ):
                before = len(at.upstream.requests)
                asking = asyncio.create_task(at.post(path, body | {"model": model, "stream": stream}))
                await at.upstream.until_asked(before + 1)
                asking.cancel()
                await at.upstream.until_left()

    run(main())


@pytest.mark.promise("face-chat")
@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_s_answer_fits_the_schema_that_the_client_sends(tmp_path, stream):
    async def main():
        scripts = {"m": [Healthy("no json"), Healthy('{"n": 7}')]}
        form = {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA, "strict": True}}
        async with ground(tmp_path, scripts, bot={}) as at, at.openai() as client:
            asked = {"model": "bot", "messages": ASK, "response_format": form}
            if stream:
                chunks = await client.chat.completions.create(**asked, stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
            else:
                text = (await client.chat.completions.create(**asked)).choices[0].message.content
            assert text == '{"n": 7}'

    run(main())


@pytest.mark.promise("face-streams")
@pytest.mark.parametrize("at_byte", [0, 1, 60, 200, 400, 700, 1100])
def test_a_cut_at_any_byte_is_rescued_or_told(tmp_path, at_byte):
    """The first model breaks off, and another one stands behind it: a whole answer, or an error, and nothing else."""

    async def main():
        scripts = {"m": Cut(after_bytes=at_byte, answer=Healthy("one two three four")), "other": Healthy("another")}
        async with ground(tmp_path, scripts, bot={"llm": ["m", "other"]}) as at, at.openai() as client:
            for model in ("bot", "bot/chain"):
                try:
                    stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
                    told = [chunk.choices[0] async for chunk in stream]
                except OpenAIError:
                    continue
                text = "".join(choice.delta.content or "" for choice in told)
                assert text in ("one two three four", "another")
                assert told[-1].finish_reason == "stop"

    run(main())
