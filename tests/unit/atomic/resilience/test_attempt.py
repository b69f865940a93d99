"""One attempt: its own moment, its own voice, and whatever a foreign adapter does in it."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from shared_libs.atomic import BaseLLMWrapper, LLMChunk, LLMError, LLMResponse, Message, Resilience, ToolCall, Usage
from shared_libs.atomic.errors import LLMTimeout, MalformedResponse, RunInterrupted
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.supervise import MAX_LEFT_RUNNING
from tests.support import run_virtual

ONCE = {"attempts": 1}


class Adapter(BaseLLMWrapper):
    """A foreign adapter that gives what a test wants."""

    provider = "foreign"

    def __init__(self, give, **options):
        options.setdefault("resilience", Resilience(retry=ONCE))
        super().__init__("m", **options)
        self._give = give

    async def _chat(self, messages, tools, **options):
        return self._give()

    async def _stream(self, messages, tools, **options):
        async for chunk in self._give():
            yield chunk


class Stalling(BaseLLMWrapper):
    """A stream that stalls after its first words, absorbs its cancellation, and goes on speaking."""

    provider = "foreign"

    def __init__(self, **options):
        super().__init__("stalling", **options)
        self.ended_by = None

    async def _stream(self, messages, tools, **options):
        try:
            yield LLMChunk("text", "[first half of A] ")
            for number in range(5):
                until = asyncio.get_running_loop().time() + 0.5
                while asyncio.get_running_loop().time() < until:
                    try:
                        await asyncio.sleep(until - asyncio.get_running_loop().time())
                    except asyncio.CancelledError:
                        continue
                yield LLMChunk("text", f"[A late {number}] ")
            yield LLMChunk("finished", response=LLMResponse(text="A"))
        except BaseException as error:
            self.ended_by = error
            raise


@pytest.mark.promise("attempt-moment")
@pytest.mark.parametrize(
    ("first_s", "idle_s", "total_s", "ends_s", "why"),
    [
        (10, 0.5, 30, 0.5, "no token for 0.5 s"),
        (3, 0.5, 30, 0.5, "no token for 0.5 s"),
        (0.5, 3, 30, 3, "no token for 3 s"),
        (10, 20, 5, 5, "the answer took too long"),
    ],
)
def test_a_stall_is_given_up_at_the_moment_its_reason_names(first_s, idle_s, total_s, ends_s, why):
    policy = Resilience(retry=ONCE, first_token_timeout_s=first_s, idle_timeout_s=idle_s, attempt_timeout_s=total_s)
    llm = ScriptedLLM([Turn(text="one two", chunk_delay_s=0)], resilience=policy)

    async def stalls():
        yield LLMChunk("text", "one ")
        await asyncio.sleep(math.inf)

    async def main():
        with pytest.raises(LLMTimeout, match=why):
            await Adapter(stalls, resilience=policy).async_chat("x", on_chunk=lambda _: None)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(ends_s)
    assert llm.requests == []


@pytest.mark.promise("attempt-fenced")
@pytest.mark.parametrize("strategy", ["sequential", "hedged", "race"])
def test_an_attempt_that_was_given_up_speaks_no_more_and_ends(strategy):
    policy = Resilience(retry=ONCE, idle_timeout_s=0.2, strategy=strategy, hedge_after_s=1)
    script = [Turn(text="b0 b1 b2 b3", delay_s=0.4, chunk_delay_s=0.5)]
    follower = ScriptedLLM(script * 2, model="b", resilience=Resilience(retry=ONCE))
    stalling = Stalling(resilience=policy, fallbacks=[follower])

    async def main():
        heard = [chunk async for chunk in stalling.async_stream("x")]
        await asyncio.sleep(10)
        return heard, asyncio.all_tasks() - {asyncio.current_task()}

    heard, left = run_virtual(main())
    kinds = [chunk.kind for chunk in heard]
    assert kinds.count("restarted") == 1
    after = heard[kinds.index("restarted") + 1 :]
    assert "".join(chunk.text for chunk in after) == "b0 b1 b2 b3" == heard[-1].response.text
    assert isinstance(stalling.ended_by, GeneratorExit)  # nobody asks it on
    assert left == set()


@pytest.mark.promise("attempt-fenced")
def test_a_model_that_leaves_too_many_requests_behind_is_asked_no_more():
    class Absorbing(BaseLLMWrapper):
        provider = "foreign"
        asked = 0

        async def _chat(self, messages, tools, **options):
            self.asked += 1
            while True:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    if stop.is_set():
                        raise

    stop = threading.Event()
    llm = Absorbing("m", resilience=Resilience(retry=ONCE, attempt_timeout_s=1, breaker={"failures": 1000}))

    async def main():
        for _ in range(MAX_LEFT_RUNNING + 3):
            with pytest.raises(LLMError) as caught:
                await llm.async_chat("x")
        stop.set()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(1)
        return str(caught.value)

    assert "were given up and still run" in run_virtual(main())
    assert llm.asked == MAX_LEFT_RUNNING


WRONG = {
    "no response": lambda: None,
    "a dict": lambda: {"text": "x"},
    "no text": lambda: LLMResponse(text=None),
    "no usage": lambda: LLMResponse(text="x", usage=None),
    "a call without a name": lambda: LLMResponse(tool_calls=(ToolCall("1", None),)),
    "a call with a number": lambda: LLMResponse(tool_calls=(ToolCall(1, "t"),)),
    "arguments as text": lambda: LLMResponse(tool_calls=(ToolCall("1", "t", "{}"),)),
    "calls in a list": lambda: LLMResponse(tool_calls=[ToolCall("1", "t")]),
    "a call as a dict": lambda: LLMResponse(tool_calls=({"name": "t"},)),
    "a reason nobody knows": lambda: LLMResponse(text="x", finish_reason="because"),
    "thinking as text": lambda: LLMResponse(text="x", thinking=("hm",)),
    "no model": lambda: LLMResponse(text="x", model=None),
    "half a token": lambda: LLMResponse(text="x", usage=Usage(1.5, 2)),
    "a part of a token": lambda: LLMResponse(text="x", usage=Usage(3, 2, cached_input_tokens=0.5, total_tokens=5.5)),
    "a price as text": lambda: LLMResponse(text="x", cost_usd="1"),
}


@pytest.mark.promise("adapter-checked")
@pytest.mark.parametrize("give", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_answer_of_an_adapter_fails_its_attempt_and_the_chain_goes_on(give, stream):
    async def streamed():
        yield LLMChunk("finished", response=give())

    llm = Adapter(streamed if stream else give, fallbacks=[ScriptedLLM(["right"])])

    async def main():
        return await llm.async_chat([Message("user", "x")], on_chunk=(lambda _: None) if stream else None)

    response = run_virtual(main())
    assert response.text == "right"
    assert response.attempts[0].outcome == "malformed" if give() is not None or not stream else "interrupted"
    assert "adapter" in response.attempts[0].why or "without its end" in response.attempts[0].why


@pytest.mark.promise("adapter-checked")
@pytest.mark.parametrize("chunk", [None, "text", {"kind": "text"}, LLMChunk("text", None), LLMChunk("text", b"x")])
def test_a_wrong_chunk_of_an_adapter_fails_its_attempt(chunk):
    async def streamed():
        yield chunk

    async def main():
        with pytest.raises(MalformedResponse, match="the adapter gave"):
            await Adapter(streamed).async_chat("x", on_chunk=lambda _: None)

    run_virtual(main())


class Panic(BaseException):
    """What a Rust extension raises when it panics."""


class Mute(Exception):
    """An error whose text fails."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.promise("adapter-checked")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Panic("panicked"), "Panic: panicked"),
        (SystemExit(3), "SystemExit: 3"),
        (GeneratorExit(), "GeneratorExit"),
        (Mute(), "Mute"),
        (
            ExceptionGroup("many", [ValueError("no such city"), KeyError("x")]),
            "ValueError: no such city; KeyError: 'x'",
        ),
        (BaseExceptionGroup("many", [Panic("deep")]), "Panic: deep"),
    ],
)
def test_whatever_an_adapter_raises_fails_its_attempt(error, told):
    def give():
        raise error

    async def main():
        with pytest.raises(LLMError) as caught:
            await Adapter(give).async_chat("x")
        return str(caught.value)

    assert told in run_virtual(main())


@pytest.mark.promise("adapter-checked")
def test_a_journal_that_stops_the_run_within_a_model_is_no_failure_of_the_model():
    def give():
        raise RunInterrupted("another process has the run")

    async def main():
        with pytest.raises(RunInterrupted):
            await Adapter(give, fallbacks=[ScriptedLLM(["never asked"])]).async_chat("x")

    run_virtual(main())


def test_a_time_that_is_over_is_never_told_as_a_negative_span():
    async def main():
        llm = ScriptedLLM([Turn(text="x", delay_s=100)], resilience=Resilience(retry=ONCE))
        with pytest.raises(LLMTimeout) as caught:
            await llm.async_chat("x", timeout=1e-9)
        return str(caught.value)

    assert "-" not in run_virtual(main()).replace("e-", "")


def test_tokens_are_summed_where_an_adapter_tells_no_sum():
    assert Usage(900, 100).total_tokens == 1000
    assert (Usage(900, 100) + Usage(1, 2)).total_tokens == 1003
    assert Usage(900, 100, total_tokens=1200).total_tokens == 1200
