"""What every provider has to do, over the real wire, in its own format."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pydantic
import pytest

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    ContextOverflow,
    LLMConnectionError,
    LLMError,
    MalformedResponse,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    StreamInterrupted,
)
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.framing import AnyFraming
from shared_libs.atomic.types import Message, Thinking, ToolCall, ToolSpec, Usage
from tests.support import run, run_virtual
from tests.unit.atomic.llms.dialects import DIALECTS, KEY
from tests.wire_server import Play, WireServer, reply, stream

ONCE = Resilience(retry={"attempts": 1})
TWICE = Resilience(retry={"attempts": 2, "base_s": 0})
LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"q": {"type": "string"}}})
CALLS = [("call_a", "look", {"q": "é"}), ("call_b", "look", {"q": 2, "deep": [1, {"x": None}]})]
MADE = tuple(ToolCall(*call) for call in CALLS)

pytestmark = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
streamed_or_not = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


def ask(dialect, plays, messages="Hi", tools=(), *, streamed=False, resilience=ONCE, **options):
    """Ask a server that plays these answers; return the response, the chunks and the requests."""

    async def main():
        chunks = []
        async with WireServer(plays) as server, dialect.llm(server, resilience=resilience) as llm:
            sink = chunks.append if streamed else None
            return await llm.async_chat(messages, tools, on_chunk=sink, **options), chunks, server.requests

    return run(main())


@streamed_or_not
def test_text_calls_usage_and_names_are_read(dialect, streamed):
    play = dialect.stream(["Grün ", "🌳."], CALLS) if streamed else dialect.whole("Grün 🌳.", CALLS)
    response, chunks, (seen,) = ask(dialect, [play], tools=[LOOK], streamed=streamed)
    assert (response.text, response.tool_calls, response.finish_reason) == ("Grün 🌳.", MADE, "tool_calls")
    assert (response.usage, response.model) == (Usage(7, 3, 0, 10), "m-2026")
    assert (response.provider, response.requested_model, len(response.attempts)) == (dialect.provider.provider, "m", 1)
    assert seen.path == dialect.path
    assert KEY in (seen.headers.get("authorization", "") + seen.headers.get("x-api-key", ""))
    assert seen.body["model"] == "m"
    assert bool(seen.body.get("stream")) is streamed
    if streamed:
        told = [(chunk.kind, chunk.text or chunk.tool_call) for chunk in chunks]
        assert told == [("text", "Grün "), ("text", "🌳."), *[("tool_call", call) for call in MADE]]


@pytest.mark.parametrize("size", [1, 5, 100_000])
def test_a_stream_may_come_in_pieces_of_any_size(dialect, size):
    play = dialect.stream(["Grün ", "🌳."], CALLS, "Hm é.").in_pieces_of(size)
    response, _, _ = ask(dialect, [play], streamed=True)
    assert (response.text, response.tool_calls, response.finish_reason) == ("Grün 🌳.", MADE, "tool_calls")
    assert [block.text for block in response.thinking] == ["Hm é."]


def test_an_answer_that_was_cut_short_says_so(dialect):
    assert ask(dialect, [dialect.whole("Half", cut_short=True)])[0].finish_reason == "length"
    assert ask(dialect, [dialect.whole("All")])[0].finish_reason == "stop"


def test_a_server_that_does_not_stream_is_understood(dialect):
    response, chunks, _ = ask(dialect, [dialect.whole("Hello.", CALLS)], streamed=True)
    assert [chunk.kind for chunk in chunks] == ["text", "tool_call", "tool_call"]
    assert (response.text, response.tool_calls) == ("Hello.", MADE)


@pytest.mark.promise("provider-ids")
def test_a_conversation_begun_elsewhere_goes_on(dialect):
    foreign = "toolu 1/é" + "x" * 80
    conversation = [
        Message("system", "Be brief."),
        Message("user", "Look twice."),
        Message(
            "assistant",
            tool_calls=(ToolCall(foreign, "look", {"q": "1"}), ToolCall("fits-1", "look", malformed="{oops")),
            thinking=(Thinking("hidden thought", "elsewhere", "hidden signature"),),
        ),
        Message("tool", "first", tool_call_id=foreign),
        Message("tool", "second", tool_call_id="fits-1", is_error=True),
    ]
    _, _, (seen,) = ask(dialect, [dialect.whole("Done.")], conversation, [LOOK])
    sent = str(seen.body)
    assert "hidden" not in sent
    assert "Be brief." in sent
    assert "{oops" in sent
    assert sent.index("'first'") < sent.index("'second'")
    if dialect.provider.provider != "ollama":  # which sets no rules for ids
        assert foreign not in sent
    assert sent.count("fits-1") == 2


class City(pydantic.BaseModel):
    name: str
    people: int


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize("tools", [(), (LOOK,)], ids=["alone", "with-tools"])
def test_structured_output_reaches_the_model_and_comes_back_checked(dialect, tools):
    response, _, (seen,) = ask(
        dialect, [dialect.whole('{"name": "Bonn", "people": 3}')], "?", tools, output_schema=City
    )
    assert response.parsed == City(name="Bonn", people=3)
    assert "people" in str(seen.body)


FAULTS = {
    "empty": (lambda d: reply(b"", kind="text/plain"), MalformedResponse),
    "page": (lambda d: reply(b"<html><title>Login</title>", kind="text/html"), MalformedResponse),
    "other-json": (lambda d: reply({"id": 1}), MalformedResponse),
    "truncated-json": (lambda d: _shortened(d.whole("Hello.")), MalformedResponse),
    "cut-body": (lambda d: d.whole("Hello.").cut(130), LLMConnectionError),
    "cut-head": (lambda d: d.whole("Hello.").cut(30), LLMConnectionError),
    "no-head": (lambda d: d.whole("Hello.").cut(0), LLMConnectionError),
    "reset": (lambda d: d.whole("Hello.").cut(0, "reset"), LLMConnectionError),
    "401": (lambda d: reply(d.error(f"bad {KEY}"), 401), AuthenticationFailed),
    "403": (lambda d: reply(d.error("no"), 403), AuthenticationFailed),
    "404": (lambda d: reply(d.error("model m not found"), 404), ModelNotFound),
    "400": (lambda d: reply(d.error("no"), 400), BadRequest),
    "overflow": (lambda d: reply(d.error("prompt is too long: 9 > 8 maximum"), 400), ContextOverflow),
    "429": (lambda d: reply(d.error("slow down"), 429, Retry_After="7"), RateLimited),
    "500": (lambda d: reply(d.error("oh"), 500), ProviderUnavailable),
    "529-page": (lambda d: reply(b"<title>Busy</title>", 529, "text/html"), ProviderUnavailable),
    "error-in-200": (lambda d: reply(d.error("oh")), ProviderUnavailable),
    "redirect": (lambda d: reply(b"", 307, Location="http://127.0.0.1:9/"), ProviderUnavailable),
}


def _shortened(play: Play) -> Play:
    """The same answer with less in it than it should have, but of the length it says."""
    return reply(b"".join(play.pieces).partition(b"\r\n\r\n")[2][:-9])


@streamed_or_not
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_becomes_its_error_after_one_request(dialect, fault, streamed):
    play, kind = FAULTS[fault]
    if fault in {"empty", "cut-body"} and streamed:
        kind = StreamInterrupted
    if dialect.provider.provider == "ollama" and fault.endswith("-json") and streamed:
        kind = StreamInterrupted  # to whom a line is an event
    with pytest.raises(kind) as caught:
        ask(dialect, [play(dialect)], streamed=streamed)
    assert len(caught.value.attempts) == 1
    assert KEY not in str(caught.value)
    if fault == "429":
        assert caught.value.retry_after_s == 7


STREAM_FAULTS = {
    "empty": (lambda d: stream([]), StreamInterrupted),
    "no-end": (lambda d: d.cut_off("Half"), StreamInterrupted),
    "garbled": (lambda d: Play([*d.cut_off("Half").pieces[:-1], *_chunks(b"data: {oops\n\n")]), MalformedResponse),
    "cut": (lambda d: d.cut_off("Half").unfinished("close"), StreamInterrupted),
    "reset": (lambda d: d.cut_off("Half").unfinished("reset"), StreamInterrupted),
}


def _chunks(data: bytes) -> list[bytes]:
    return [b"%x\r\n%s\r\n" % (len(data), data), b"0\r\n\r\n"]


@pytest.mark.promise("stream-restart")
@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_a_broken_stream_is_an_error_and_with_a_retry_the_whole_text(dialect, fault):
    play, kind = STREAM_FAULTS[fault]
    with pytest.raises(kind):
        ask(dialect, [play(dialect)], streamed=True)
    plays = [play(dialect), dialect.stream(["All ", "of it."])]
    response, chunks, _ = ask(dialect, plays, streamed=True, resilience=TWICE)
    assert response.text == "All of it."
    kinds = [chunk.kind for chunk in chunks]
    heard = chunks[kinds.index("restarted") + 1 :] if "restarted" in kinds else chunks
    assert "".join(chunk.text for chunk in heard) == "All of it."


class Body:
    """Connections that carry one body without a wire, which ends or breaks off."""

    secrets = ()

    def __init__(self, body, *, breaks):
        self._pieces = [body, b""]
        self._breaks = breaks

    @asynccontextmanager
    async def stream(self, path, body, framing=None):
        yield EventStream(self._read, framing or AnyFraming())

    async def _read(self):
        piece = self._pieces.pop(0)
        if not piece and self._breaks:
            raise StreamInterrupted("broke off")
        return piece

    async def aclose(self):
        pass


@pytest.mark.promise("stream-bytes")
def test_a_body_cut_at_any_byte_is_the_whole_answer_or_a_failure(dialect):
    body = b"".join(dialect.events(["Grün ", "🌳."], CALLS))

    async def heard(offset):
        chunks = []
        llm = dialect.llm(SimpleNamespace(port=1), resilience=ONCE, model=str(offset))
        llm._opened = Body(body[:offset], breaks=offset % 2 > 0)  # both at every byte: `bench.adapter_cuts`
        try:
            response = await llm.async_chat("Hi", on_chunk=chunks.append)
        except LLMError:
            return False
        assert (response.text, response.tool_calls) == ("Grün 🌳.", MADE), offset
        assert "".join(chunk.text for chunk in chunks) == "Grün 🌳.", offset
        return True

    async def main():
        return [await heard(offset) for offset in range(len(body) + 1)]

    whole = run_virtual(main())
    assert whole[-1]
    assert whole.index(True) > 0.6 * len(whole)


@pytest.mark.promise("stream-bytes")
@pytest.mark.parametrize("shape", ["chunked", "closed", "whole"])
def test_a_cut_at_any_byte_is_rescued_and_never_passes_as_success(dialect, shape):
    if shape == "whole":
        play = dialect.whole("Grün ", CALLS)
    else:
        play = dialect.stream(["Grün "], CALLS)
        if shape == "closed":
            kind = "application/x-ndjson" if dialect.provider.provider == "ollama" else "text/event-stream"
            play = stream(dialect.events(["Grün "], CALLS), kind, chunked=False)

    async def cut_at(server, offset):
        async with dialect.llm(server, resilience=TWICE, model=str(offset)) as llm:
            chunks = []
            response = await llm.async_chat("Hi", on_chunk=None if shape == "whole" else chunks.append)
            assert (response.text, response.tool_calls) == ("Grün ", MADE), offset
            kinds = [chunk.kind for chunk in chunks]
            heard = kinds[kinds.index("restarted") + 1 :] if "restarted" in kinds else kinds
            assert heard in ([], ["text", "tool_call", "tool_call"]), offset
            return len(response.attempts)

    async def main():
        cut = set()

        def plays(seen):
            offset = int(seen.body["model"])
            if offset in cut:
                return play
            cut.add(offset)
            return play.cut(offset, "reset" if offset % 2 else "close")

        # what is around the events is the same for all: HTTP is cut at many bytes of one, and at some of the others'
        step = 3 if (dialect.name, shape) == ("openai", "chunked") else 31
        async with WireServer(plays) as server:
            attempts = [await cut_at(server, offset) for offset in range(0, len(play), step)]
            assert sum(attempts) == len(server.requests)
        return attempts

    attempts = run(main())
    rescued = attempts.index(1) if 1 in attempts else len(attempts)
    # up to the model's last word every cut costs a second attempt; what is cut off behind it is no loss
    assert rescued > 0.6 * len(attempts)
    assert set(attempts[rescued:]) <= {1, 2}


def test_what_breaks_behind_the_last_word_is_no_loss(dialect):
    response, _, requests = ask(dialect, [dialect.stream(["All."]).unfinished("close")], streamed=True)
    assert (response.text, response.usage, len(requests)) == ("All.", Usage(7, 3, 0, 10), 1)


@pytest.mark.promise("loop-per-client")
def test_two_event_loops_in_a_row_and_no_aclose(dialect):
    llm, port = None, 0

    async def main():
        nonlocal llm, port
        async with WireServer([dialect.whole("Hello.")], port) as server:
            port = server.port
            llm = llm or dialect.llm(server, resilience=ONCE)
            return (await llm.async_generate("Hi")).text

    assert [run(main()), run(main())] == ["Hello.", "Hello."]
    gc.collect()  # an unclosed session or transport would warn now


def test_closing_twice_and_using_it_afterwards(dialect):
    async def main():
        async with WireServer([dialect.whole("Hello.")] * 3) as server:
            llm = dialect.llm(server, resilience=ONCE)
            await llm.aclose()
            await llm.async_generate("Hi")
            await llm.async_generate("Hi")
            assert server.connections == 1
            await llm.aclose()
            await server.until(lambda: not server.open)
            await llm.aclose()
            await llm.async_generate("Hi")
            await llm.aclose()
            return server.connections

    assert run(main()) == 2


def test_a_stream_gives_its_connection_back(dialect):
    async def main():
        play = dialect.stream(["Hello."], CALLS)
        async with WireServer([play] * 3) as server, dialect.llm(server, resilience=ONCE) as llm:
            for _ in range(3):
                await llm.async_chat("Hi", on_chunk=lambda _: None)
            return server.connections

    assert run(main()) == 1


@pytest.mark.promise("cancel-wins")
@streamed_or_not
def test_cancelling_closes_the_connection(dialect, streamed):
    async def main():
        half = dialect.cut_off("Half").unfinished()
        async with WireServer([half]) as server, dialect.llm(server, resilience=ONCE) as llm:
            heard = asyncio.Event()
            sink = (lambda _: heard.set()) if streamed else None
            task = asyncio.create_task(llm.async_chat("Hi", on_chunk=sink))
            await server.until(lambda: bool(server.requests))
            async with asyncio.timeout(10):
                await (heard.wait() if streamed else asyncio.sleep(0))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.until(lambda: not server.open)

    run(main())


def test_closing_a_stream_early_closes_the_connection(dialect):
    async def main():
        half = dialect.cut_off("Half").unfinished()
        async with WireServer([half]) as server, dialect.llm(server, resilience=ONCE) as llm:
            chunks = llm.async_stream("Hi")
            assert (await anext(chunks)).text == "Half"
            await chunks.aclose()
            await server.until(lambda: not server.open)

    run(main())


@pytest.mark.promise("no-cross")
@streamed_or_not
def test_concurrent_calls_do_not_cross_and_the_ledger_is_what_the_server_saw(dialect, streamed):
    faults = iter(range(1_000_000))

    def plays(seen):
        if next(faults) % 5 == 0:
            return reply(dialect.error("busy"), 503)
        question = dialect.question(seen)
        return dialect.stream(list(question)) if streamed else dialect.whole(question)

    async def main():
        policy = Resilience(retry={"attempts": 6, "base_s": 0}, breaker={"failures": 1000})
        async with WireServer(plays) as server, dialect.llm(server, resilience=policy) as llm:
            sink = (lambda _: None) if streamed else None
            questions = [f"question {number}" for number in range(50)]
            asked = [llm.async_chat(question, on_chunk=sink) for question in questions]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            for question, answer in zip(questions, answers, strict=True):
                assert isinstance(answer, LLMError) or answer.text == question
            assert sum(len(answer.attempts) for answer in answers) == len(server.requests) > 50

    run(main())
