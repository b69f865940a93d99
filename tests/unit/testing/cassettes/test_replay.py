"""What was recorded replays: the same answers, failures, attempts and times, and nothing that was not recorded."""

from __future__ import annotations

import asyncio
import math
import random

import numpy as np
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import LLMError, Resilience, tool
from shared_libs.atomic.errors import (
    BadRequest,
    ContextOverflow,
    LLMConnectionError,
    MisuseError,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.llms import BaseLLMWrapper, ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, Thinking, ToolCall, Usage
from shared_libs.testing.cassettes import Cassette, CassetteMismatch, Player, Recorder, text_of
from shared_libs.testing.cassettes.file import cassette_of
from shared_libs.tools.agent import AgentTool
from tests.support import run_virtual

SIX = Usage(input_tokens=4, output_tokens=2, total_tokens=6)


@tool
async def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


class Pieces(BaseLLMWrapper):
    """A model whose stream is told chunk by chunk; a number is a pause."""

    provider = "pieces"

    def __init__(self, *streams, **more):
        super().__init__("m", **more)
        self.streams = list(streams)

    async def _stream(self, messages, tools, **options):
        for item in self.streams.pop(0):
            if isinstance(item, int | float):
                await asyncio.sleep(item)
            elif isinstance(item, Exception):
                raise item
            else:
                yield LLMChunk("finished", response=item) if isinstance(item, LLMResponse) else item


class Embedder(BaseLLMWrapper):
    """A model of embeddings."""

    provider = "embedder"

    async def _embed(self, texts, **options):
        return np.array([[len(text), 0.1] for text in texts], "float32")


def replayed(cassette: Cassette) -> Player:
    """A player of what was read back from the file's text."""
    text = text_of(cassette)
    assert text_of(cassette_of(text)) == text
    return Player(cassette_of(text))


async def outcome(call):
    try:
        return await call
    except LLMError as error:
        return error


def both(make, ask):
    """Ask the real chain and the replayed one; return what came of each, and the player."""
    recorder = Recorder()

    async def real():
        return await ask(recorder.chain(make()))

    first = run_virtual(real())
    player = replayed(recorder.cassette())

    async def again():
        return await ask(player.chain(make()))

    return first, run_virtual(again()), player


@pytest.mark.promise("replay-true")
def test_a_run_replays_with_its_attempts_events_and_times():
    def make():
        slow = ScriptedLLM([RateLimited("slow", status_code=429, retry_after_s=2), *turns], model="first")
        slow.fallbacks = (ScriptedLLM(["never asked"], model="second"),)
        return slow

    turns = [
        Turn(text="I add them.", calls=[("add", {"a": 2, "b": 3})], delay_s=0.4, chunk_delay_s=0.25, usage=SIX),
        Turn(text="The sum is 5.", delay_s=0.2, usage=SIX),
    ]

    async def ask(llm):
        agent = ReActAgent(llm=llm, tools=[add], instructions="You add.\n  Be brief. \n")
        return [event async for event in agent.async_stream("What is 2 + 3?", run_id="r")]

    def shown(events):
        result = events[-1].result
        rows = [(row.model, row.outcome, row.started_s, row.first_token_s, row.ended_s) for row in result.attempts]
        told = [(type(event).__name__, getattr(event, "text", "")) for event in events]
        steps = [(step.thought, [call.input for call in step.actions]) for step in result.steps]
        return result.answer, result.status, result.usage, result.elapsed_s, rows, steps, told

    real, again, player = both(make, ask)
    assert shown(real) == shown(again)
    assert real[-1].result.elapsed_s == pytest.approx(2 + 0.4 + 0.75 + 0.2)
    assert player.differences() == []


class Quota(LLMError):
    """An adapter's own."""

    kind = "quota"


@pytest.mark.promise("replay-true")
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        Quota("used up"),
        ContextOverflow("too long", status_code=400),
        LLMConnectionError("reset by the peer"),
        RateLimited("later", status_code=429, retry_after_s=7, retryable=False),
        LLMError("odd", retryable=True, replay_safe=False),
        ValueError("a bug of the adapter"),
    ],
)
def test_a_failure_replays_with_its_facts(error, streamed):
    def make():
        return ScriptedLLM([error] * 5, resilience=Resilience(retry={"attempts": 2, "base_s": 0}))

    async def ask(llm):
        return await outcome(llm.async_chat("Q", on_chunk=(lambda _: None) if streamed else None))

    def facts(failed):
        (*_, cause) = failed.causes
        told = cause.kind, str(cause), cause.status_code, cause.retryable, cause.retry_after_s, cause.replay_safe
        return told, [(row.outcome, row.status_code) for row in failed.attempts]

    real, again, player = both(make, ask)
    assert facts(real) == facts(again)
    assert player.differences() == []


@pytest.mark.promise("replay-true", "asks-as-told")
def test_a_lesson_and_a_refusal_that_lets_the_chain_go_on_replay_as_they_were():
    def make():
        lesson, only_here = BadRequest("learnt"), BadRequest("only this model")
        lesson.learnt, only_here.another_may_answer = True, True
        once = Resilience(retry={"attempts": 1})
        return ScriptedLLM([lesson, only_here], resilience=once, fallbacks=[ScriptedLLM(["Hi"], model="second")])

    async def ask(llm):
        response = await llm.async_chat("Q")
        return response.text, [(row.model, row.number, row.outcome) for row in response.attempts]

    real, again, player = both(make, ask)
    assert real == again
    assert [outcome for _, _, outcome in real[1]] == ["bad_request", "bad_request", "ok"]
    assert player.differences() == []


@pytest.mark.promise("replay-true")
@pytest.mark.parametrize(
    "stream",
    [
        ["Once ", 0.3, "upon", 0.2],
        ["Once ", 0.3, LLMConnectionError("reset")],
        [LLMChunk("thinking", "Hm, "), LLMChunk("thinking", "well."), 1.5, "", 1, "a time", math.inf],
        [math.inf],
        [],
        [LLMChunk("tool_call", tool_call=ToolCall("x1", "add", {"a": 1})), 0.5, LLMConnectionError("reset")],
    ],
    ids=["without its end", "reset", "stalled", "silent", "empty", "reset after a call"],
)
def test_a_stream_that_breaks_replays_piece_by_piece(stream):
    stream = [LLMChunk("text", item) if isinstance(item, str) else item for item in stream]
    whole = [LLMChunk("text", "Done."), 0.1, LLMResponse(text="Done.")]

    async def ask(llm):
        now, heard = asyncio.get_running_loop().time, []
        response = await llm.async_chat(
            "Q", on_chunk=lambda chunk: heard.append((round(now(), 1), chunk.kind, chunk.text, chunk.reason))
        )
        rows = [(row.outcome, row.why, round(row.ended_s, 1)) for row in response.attempts]
        return response.text, rows, heard

    real, again, player = both(
        lambda: Pieces(stream, whole, resilience=Resilience(retry={"base_s": 0, "max_s": 0})), ask
    )
    assert real == again
    assert player.differences() == []


def test_an_answer_replays_whole_with_thinking_calls_and_what_was_streamed_otherwise():
    call = ToolCall("toolu_9", "add", {"a": 1, "b": {"c": ["ü", None, 1e20]}})
    broken = ToolCall("toolu_7", "add", malformed='{"a": ')
    said = LLMResponse(
        text="Line 1\n\n  line 2 \n",
        tool_calls=(call, broken),
        thinking=(Thinking("Hm", "anthropic", "c2ln"), Thinking("", "openai", data={"id": "rs_1"})),
        usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3, cached_input_tokens=1),
        model="m-2026",
        finish_reason="tool_calls",
    )
    otherwise = [LLMChunk("text", "Line"), LLMChunk("thinking", "Hmm"), LLMChunk("tool_call", tool_call=call), said]

    async def ask(llm):
        heard = []
        response = await llm.async_chat("Q", on_chunk=heard.append)
        return response.text, response.thinking, response.usage, response.model, response.tool_calls, heard

    real, again, _ = both(lambda: Pieces(otherwise), ask)
    assert real[:4] == again[:4]
    assert [(made.name, made.input) for made in real[4]] == [(made.name, made.input) for made in again[4]]
    assert [(chunk.kind, chunk.text) for chunk in real[5]] == [(chunk.kind, chunk.text) for chunk in again[5]]
    assert [made.id for made in again[4]] == ["call_1", "call_2"]


def test_what_was_streamed_can_be_asked_whole_and_the_other_way_round():
    for first, second in [(None, lambda _: None), (lambda _: None, None)]:
        recorder = Recorder()
        turn = Turn(text="Hello you.", calls=[("add", {"a": 1, "b": 2})], delay_s=1)
        llm = recorder.chain(ScriptedLLM([turn]))
        run_virtual(llm.async_chat("Q", on_chunk=first))
        player = replayed(recorder.cassette())
        response = run_virtual(player.chain(ScriptedLLM([])).async_chat("Q", on_chunk=second))
        assert (response.text, response.tool_calls[0].input) == ("Hello you.", {"a": 1, "b": 2})


@pytest.mark.promise("replay-true")
@pytest.mark.parametrize("strategy", ["race", "hedged"])
def test_models_asked_at_the_same_time_replay_to_the_same_winner(strategy):
    def make():
        policy = Resilience(strategy=strategy, hedge_after_s=0.5)
        fallback = ScriptedLLM([Turn(text="fast", delay_s=0.3)] * 2, model="b")
        return ScriptedLLM([Turn(text="slow", delay_s=5)] * 2, model="a", resilience=policy, fallbacks=[fallback])

    async def ask(llm):
        response = await llm.async_chat("Q")
        return response.text, [(row.model, row.outcome, round(row.ended_s, 1)) for row in response.attempts]

    real, again, player = both(make, ask)
    assert real == again
    assert real[0] == "fast"
    assert player.differences() == []


def test_concurrent_calls_match_by_content_and_the_file_has_one_order():
    recorder = Recorder()
    questions = ["one", "two", "three"]

    def make():
        return ScriptedLLM([lambda messages: messages[-1].text.upper()] * 6)

    async def ask(llm, order):
        async def talk(question):
            first = await llm.async_chat(question)
            return await llm.async_chat([Message("user", question), first.message, Message("user", f"{question}!")])

        return [response.text for response in await asyncio.gather(*map(talk, order))]

    run_virtual(ask(recorder.chain(make()), questions))
    player = replayed(recorder.cassette())
    answers = run_virtual(ask(player.chain(ScriptedLLM([])), questions[::-1]))
    assert answers == ["THREE!", "TWO!", "ONE!"]
    assert player.differences() == []
    read = cassette_of(text_of(recorder.cassette()))
    assert [entry.asked.messages[-1].content for entry in read.entries] == [
        *("one", "one!", "two", "two!", "three", "three!")
    ]


def test_embeddings_replay():
    async def ask(llm):
        return await llm.async_embed(["one", "three"], dimensions=2)

    real, again, player = both(lambda: Embedder("e"), ask)
    assert np.array_equal(real, again)
    assert again.dtype == np.float32
    assert player.differences() == []
    with pytest.raises(CassetteMismatch, match=r"e is asked once more than was recorded: embeddings of 1 texts"):
        run_virtual(player.chain(Embedder("e")).async_embed(["one"]))


def test_what_is_not_recorded_is_not_answered_and_what_is_not_asked_is_told():
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM(["A", "B"]))
    run_virtual(llm.async_chat("first"))
    run_virtual(llm.async_chat("second"))

    player = replayed(recorder.cassette())
    stand_in = player.chain(ScriptedLLM([]))
    assert run_virtual(stand_in.async_chat("first")).text == "A"
    assert player.differences() == [
        "request 2 was recorded and not made; the first asked scripted/scripted: 1 messages, the last (user) “second”"
    ]
    with pytest.raises(CassetteMismatch, match=r"request 2 \(scripted/scripted\) is not as recorded") as raised:
        run_virtual(stand_in.async_chat("zweite"))
    assert [row.outcome for row in raised.value.attempts] == ["cassette"]
    run_virtual(stand_in.async_chat("second"))
    with pytest.raises(CassetteMismatch, match="is asked once more than was recorded"):
        run_virtual(stand_in.async_chat("second"))
    assert len(player.differences()) == 2

    other = Player(recorder.cassette()).chain(ScriptedLLM([], model="other", fallbacks=[ScriptedLLM([])]))
    with pytest.raises(CassetteMismatch, match=r"scripted/other was not asked when .*; asked were: scripted/scripted"):
        run_virtual(other.async_chat("first"))


def test_a_mismatch_is_not_routed_around():
    recorder = Recorder()
    run_virtual(recorder.chain(ScriptedLLM(["A"], model="a")).async_chat("first"))
    fallback = ScriptedLLM(["from the fallback"], model="b")
    chain = Player(recorder.cassette()).chain(ScriptedLLM([], model="a", fallbacks=[fallback]))
    with pytest.raises(CassetteMismatch):
        run_virtual(chain.async_chat("second"))


def test_nothing_asked_is_nothing_to_keep():
    with pytest.raises(MisuseError, match="no model was asked"):
        Recorder().cassette()


class Learner(ScriptedLLM):
    """A model that takes a schema until it is told that there is no such thing."""

    structured_output = True

    async def _chat(self, messages, tools, **options):
        if "output_schema" in options:
            self.structured_output = False
            raise BadRequest("unknown field", retryable=True)
        return await super()._chat(messages, tools, **options)


@pytest.mark.promise("replay-true", "output-fits")
def test_structured_output_replays_also_where_the_model_was_found_to_have_none():
    wanted = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    async def ask(llm):
        response = await llm.async_chat("Q", output_schema=wanted, temperature=0)
        return response.parsed, [row.outcome for row in response.attempts]

    real, again, player = both(lambda: Learner(['{"n": "x"}', '{"n": 5}']), ask)
    assert real == again
    assert real == ({"n": 5}, ["bad_request", "ok", "ok"])
    assert player.differences() == []


@tool
async def look(q: str) -> str:
    """Look something up."""
    return f"all about {q}"


class Moody(BaseLLMWrapper):
    """A model that takes its time, fails at times, asks four sub-agents at once, and has ids of its own making."""

    provider = "moody"

    def __init__(self, mood, name, **more):
        super().__init__(name, **more)
        self.mood = mood

    async def _chat(self, messages, tools, **options):
        await asyncio.sleep(self.mood.random() * 3)
        if self.mood.random() < 0.2:
            raise ProviderUnavailable("down", status_code=503)
        (name,), last = [spec.name for spec in tools], messages[-1]
        if last.role != "user":
            return LLMResponse(text="; ".join(message.text for message in messages if message.role == "tool"))
        wanted = [{"question": f"Q{index}"} for index in range(4)] if name == "inner" else [{"q": last.text}]
        calls = tuple(ToolCall(f"id_{self.mood.random()}", name, arguments) for arguments in wanted)
        return LLMResponse(tool_calls=calls, finish_reason="tool_calls")


@pytest.mark.promise("replay-true")
@pytest.mark.parametrize("seed", range(9))
def test_agents_in_parallel_with_races_and_failures_replay(seed):
    strategy = ("sequential", "race", "hedged")[seed % 3]

    def make():
        policy = Resilience(strategy=strategy, hedge_after_s=1, retry={"attempts": 5, "base_s": 0})
        return Moody(mood, "a", resilience=policy, fallbacks=[Moody(mood, "b")] * (strategy != "sequential"))

    async def ask(chain):
        inner = ReActAgent(llm=chain(make()), tools=[look], name="inner", instructions="You look it up.")
        called = AgentTool(inner, description="Looks it up.")
        return await ReActAgent(llm=chain(make()), tools=[called], instructions="You ask.").async_run("Go.")

    mood = random.Random(seed)
    recorder = Recorder()
    real = run_virtual(ask(recorder.chain))
    player = replayed(recorder.cassette())
    again = run_virtual(ask(player.chain))
    assert player.differences() == []
    assert (again.status, again.answer) == (real.status, real.answer)
    assert again.elapsed_s == pytest.approx(real.elapsed_s, abs=0.02)
    assert len(again.attempts) == len(real.attempts)
