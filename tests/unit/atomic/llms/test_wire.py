"""The wire where there is no server, or not the one that is wanted."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from contextlib import asynccontextmanager, nullcontext

import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import LLMConnectionError, LLMTimeout, ProviderUnavailable
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.framing import AnyFraming
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.llms.wire import STALE_S
from shared_libs.atomic.scope import use_deadline
from tests.support import run, run_virtual
from tests.wire_server import Play, WireServer, reply, sse, stream

ONCE = Resilience(retry={"attempts": 1})
HELLO = {"choices": [{"message": {"role": "assistant", "content": "Hello."}}]}


def test_nobody_listens():
    async def main(url):
        async with OpenAILLM("m", base_url=url, resilience=ONCE) as llm:
            await llm.async_generate("Hi")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        LLMConnectionError, match=r"127.0.0.1:\d+/v1/chat/completions: cannot connect .Connection refused"
    ):
        run(main(f"http://127.0.0.1:{port}/v1"))


def test_a_name_that_does_not_exist(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    async def main():
        async with OpenAILLM("m", base_url="http://nowhere.test/v1", resilience=ONCE) as llm:
            await llm.async_generate("Hi")

    with pytest.raises(LLMConnectionError, match=r"the name nowhere.test cannot be resolved \(Name or service"):
        run(main())


def test_a_server_without_tls():
    async def main():
        async def serve(reader, writer):
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, OpenAILLM("m", base_url=url, resilience=ONCE) as llm:
            await llm.async_generate("Hi")

    with pytest.raises(LLMConnectionError, match="TLS failed"):
        run(main())


def test_a_connection_that_is_never_accepted_is_given_up_on():
    async def main():
        # the backlog of one is full: the kernel drops every further attempt to connect
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        plugs = [socket.socket() for _ in range(4)]
        for plug in plugs:
            plug.settimeout(0)
            plug.connect_ex(full.getsockname())
        llm = OpenAILLM("m", base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1", resilience=ONCE)
        try:
            async with llm:
                await llm.async_generate("Hi")
        finally:
            for plug in (full, *plugs):
                plug.close()

    with pytest.raises(LLMTimeout, match=r"no connection to .* within 5 s"):
        run_virtual(main())


@pytest.mark.promise("loop-per-client")
def test_a_loop_that_was_closed_is_not_kept():
    """A loop for each request, as Flask, Celery and notebooks have it."""
    llm, loops = OpenAILLM("m", base_url="http://127.0.0.1:9/v1", resilience=ONCE), weakref.WeakSet()

    async def main():
        loops.add(asyncio.get_running_loop())
        with pytest.raises(LLMConnectionError):
            await llm.async_generate("Hi")

    for _ in range(5):
        asyncio.run(main())
    gc.collect()
    assert len(loops) == 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_whose_answer_was_read_is_used_again(streamed):
    words = {"choices": [{"delta": {"content": "Hi."}, "finish_reason": "stop"}]}
    play = stream(sse(words, "[DONE]")) if streamed else reply(HELLO)

    async def main():
        async with WireServer([play] * 3) as server, OpenAILLM("m", base_url=server.url, resilience=ONCE) as llm:
            for _ in range(3):
                await llm.async_chat("Hi", on_chunk=print if streamed else None)
            return server.connections

    assert run(main()) == 1


def test_a_connection_that_was_given_up_is_not_used_again():
    """What comes late on it would be taken for the answer to the next request."""
    late = Play([1.0, *reply({"choices": [{"message": {"content": "Too late."}}]}).pieces])

    async def main():
        async with WireServer([late, reply(HELLO)]) as server, OpenAILLM("m", base_url=server.url) as llm:
            with pytest.raises(LLMTimeout):
                await llm.async_generate("Hi", timeout=0.4)
            response = await llm.async_generate("Hi")
            return response.text, server.connections

    assert run(main()) == ("Hello.", 2)


@pytest.mark.parametrize("then", ["close", "reset"])
def test_a_connection_that_its_server_closed_in_the_moment_of_the_request_costs_no_wait_and_no_health(then):
    policy = Resilience(breaker={"failures": 1})

    async def main():
        loop, gone = asyncio.get_running_loop(), Play([], then)
        async with WireServer([reply(HELLO), reply(HELLO), gone, gone, reply(HELLO)]) as server:
            async with OpenAILLM("m", base_url=server.url, resilience=policy) as llm:
                await asyncio.gather(*(llm.async_chat("Hi") for _ in range(2)))
                answer = await llm.async_chat("Hi")
            return [row.outcome for row in answer.attempts], server.connections, len(server.requests), loop.time()

    assert run_virtual(main()) == (["connection", "connection", "ok"], 3, 5, 0)


def test_a_new_connection_that_breaks_and_one_that_breaks_late_are_the_servers_fault():
    async def main():
        late = Play([STALE_S + 1], "close")
        async with WireServer([Play([], "close"), reply(HELLO), late]) as server:
            async with OpenAILLM("m", base_url=server.url, resilience=ONCE) as llm:
                for broken in (True, False, True):
                    with pytest.raises(LLMConnectionError) if broken else nullcontext():
                        await llm.async_chat("Hi")
            return len(server.requests)

    assert run_virtual(main()) == 3


def test_what_only_says_that_it_goes_on_is_no_answer():
    goes_on = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

    async def main():
        plays = [Play([goes_on, goes_on, *reply(HELLO).pieces])]
        async with WireServer(plays) as server, OpenAILLM("m", base_url=server.url, resilience=ONCE) as llm:
            return (await llm.async_generate("Hi")).text

    assert run(main()) == "Hello."


def test_the_head_of_an_answer_may_be_as_long_as_proxies_make_it():
    headers = {"Content_Security_Policy": "x" * 20_000} | {f"X_{number}": "y" for number in range(300)}

    async def main():
        async with (
            WireServer([reply(HELLO, **headers)]) as server,
            OpenAILLM("m", base_url=server.url, resilience=ONCE) as llm,
        ):
            return (await llm.async_generate("Hi")).text

    assert run(main()) == "Hello."


def test_what_is_no_http_is_told_as_such():
    async def main():
        plays = [Play([b"+PONG 200 hello\r\n\r\n"], "close")]
        async with WireServer(plays) as server, OpenAILLM("m", base_url=server.url, resilience=ONCE) as llm:
            await llm.async_generate("Hi")

    with pytest.raises(LLMConnectionError, match=r"chat/completions: what came is no HTTP \(.+\)"):
        run(main())


def test_a_key_cannot_add_a_header():
    async def main():
        async with WireServer([]) as server:
            async with OpenAILLM("m", base_url=server.url, api_key="k\r\nX-Other: 1", resilience=ONCE) as llm:
                with pytest.raises(LLMConnectionError, match="line break") as caught:
                    await llm.async_generate("Hi")
            return str(caught.value), server.requests

    text, requests = run(main())
    assert requests == []
    assert "X-Other" not in text


def loops_kept(orderly):
    """How many of five loops are still there while the wrapper that was used on them is."""
    policy = Resilience(retry={"attempts": 1}, breaker={"failures": 9})
    llm = OpenAILLM("m", base_url=f"http://127.0.0.1:1/{orderly}", resilience=policy)
    loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    async def one():
        loops.add(asyncio.get_running_loop())
        with pytest.raises(LLMConnectionError):
            await llm.async_generate("Hi")

    for _ in range(5):
        if orderly:
            asyncio.run(one())
        else:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(one())
            loop.close()
            del loop
    gc.collect()
    return len(loops)


@pytest.mark.promise("health-own")
@pytest.mark.parametrize(("orderly", "kept"), [(True, 0), (False, 1)])
@pytest.mark.filterwarnings("ignore:.*:ResourceWarning", "ignore:.*:pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_over_is_forgotten(orderly, kept):
    assert loops_kept(orderly) <= kept
    gc.collect()  # what the last loop has left open is told of here, not in the next test


def test_a_wrapper_that_nobody_closes_goes_with_its_last_reference_and_closes_its_connection():
    """A wrapper for each request, as web handlers make them: none waits for the collector, nor warns when it comes."""

    async def main():
        async with WireServer([reply(HELLO)]) as server:
            gc.collect()
            gc.disable()
            try:
                llm = OpenAILLM("m", base_url=server.url, resilience=ONCE)
                await llm.async_generate("Hi")
                gone = weakref.ref(llm)
                wire = weakref.ref(llm._wire())
                del llm
                return gone(), wire()
            finally:
                gc.enable()

    assert run(main()) == (None, None)
    gc.collect()  # an unclosed session would warn now


def moved(server, location, status=307):
    return reply({}, status, Location=location.replace("HERE", server.url.removesuffix("/v1")))


@pytest.mark.promise("wire-read")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("/v1/chat/completions/", "/v1/chat/completions/"),
        ("completions/?version=2", "/v1/chat/completions/?version=2"),
        ("HERE/eu/v1/chat/completions#top", "/eu/v1/chat/completions"),
        ("?region=eu", "/v1/chat/completions?region=eu"),
    ],
)
def test_a_redirect_within_the_server_is_followed_with_the_same_request(streamed, location, asked):
    words = {"choices": [{"delta": {"content": "Hello."}, "finish_reason": "stop"}]}
    good = stream(sse(words, "[DONE]")) if streamed else reply(HELLO)

    async def main():
        def play(seen):
            first = seen.path == "/v1/chat/completions"
            return moved(server, location, 308 if streamed else 307) if first else good

        server = WireServer(play)
        async with server, OpenAILLM("m", api_key="k", base_url=server.url, resilience=ONCE) as llm:
            answer = await llm.async_chat("Hi", on_chunk=print if streamed else None)
            return answer.text, server.requests, server.connections

    text, (first, second), connections = run(main())
    assert (text, second.path, connections) == ("Hello.", asked, 1)
    told = [float(seen.headers.pop("x-request-timeout")) for seen in (first, second)]
    assert told[0] >= told[1] > 0
    assert (second.body, second.headers) == (first.body, first.headers)
    assert second.headers["authorization"] == "Bearer k"


@pytest.mark.promise("secrets-masked")
@pytest.mark.parametrize(
    ("status", "location", "requests", "told"),
    [
        (307, "http://127.0.0.1:9/v1/chat/completions?key=s3cret-key", 1, "http://127.0.0.1:9/v1/chat/completions;"),
        (308, "//me:s3cret-key@example.com/v1", 1, "redirects to //example.com/v1;"),
        (307, "https://127.0.0.1/v1?x", 1, "redirects to https://127.0.0.1/v1;"),
        (307, "http://[::1/", 1, "redirects to http://[::1/;"),
        (307, "/v1/s3cret-key", 4, "redirects to /v1/[key];"),  # it never ends
        (302, "/v1/chat/completions/", 1, "redirects to /v1/chat/completions/;"),  # it would be a GET
        (303, "/login", 1, "redirects to /login;"),
        (307, None, 1, "redirects to nowhere;"),
    ],
)
def test_another_redirect_is_told_with_its_place_and_without_the_key(status, location, requests, told):
    async def main():
        play = reply({}, status, **({"Location": location} if location else {}))
        server = WireServer([play] * 9)
        async with server, OpenAILLM("m", api_key="s3cret-key", base_url=server.url, resilience=ONCE) as llm:
            with pytest.raises(ProviderUnavailable) as caught:
                await llm.async_chat("Hi")
        return str(caught.value), len(server.requests)

    text, asked = run(main())
    assert told in text
    assert "set base_url to the final address" in text
    assert "s3cret-key" not in text
    assert asked == requests


@pytest.mark.promise("time-told-on")
def test_a_server_is_told_how_long_its_answer_is_waited_for():
    async def main():
        policy = Resilience(retry={"attempts": 2, "base_s": 2, "max_s": 2}, attempt_timeout_s=30)
        async with WireServer([reply({}, 503), reply(HELLO), reply(HELLO), reply(HELLO), reply(HELLO)]) as server:
            async with OpenAILLM("m", api_key="k", base_url=server.url, resilience=policy) as llm:
                await llm.async_generate("Hi", timeout=10)
                await llm.async_generate("Hi")
                with use_deadline(Deadline.after(4)):
                    await llm.async_generate("Hi")
                await llm.async_generate("Hi", timeout=0.002)
            return [float(seen.headers["x-request-timeout"]) for seen in server.requests]

    first, again, alone, within, short = run_virtual(main())
    assert first == 9.5  # it has to come back, too
    assert 7 <= again <= 9.5  # a wait of up to two seconds later
    assert alone == 29.0  # one attempt
    assert within == 3.8
    assert short > 0


class GoesOn:
    """A server that has said all, and its end marker, and goes on with comments."""

    secrets = ()

    @asynccontextmanager
    async def stream(self, path, body, framing=None):
        events = iter(sse({"choices": [{"delta": {"content": "Hi."}, "finish_reason": "stop"}]}, "[DONE]"))

        async def read():
            await asyncio.sleep(0.02)
            return next(events, b": still here\n\n")

        yield EventStream(read, AnyFraming())


def test_behind_the_end_marker_nobody_is_waited_for():
    async def main():
        llm = OpenAILLM("m", api_key="k", resilience=ONCE)
        llm._opened = GoesOn()
        began = asyncio.get_running_loop().time()
        response = await llm.async_chat("Hi", on_chunk=print)
        return response.text, asyncio.get_running_loop().time() - began < 0.2

    assert run_virtual(main()) == ("Hi.", True)
