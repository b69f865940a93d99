"""Several models at once: who is started when, who wins, and what becomes of the losers."""

from __future__ import annotations

import asyncio
import gc

import pytest

from shared_libs.atomic import BaseLLMWrapper, LLMChunk, LLMError, LLMResponse, Resilience, ToolCall
from shared_libs.atomic.errors import ContentFiltered, LLMTimeout, ProviderUnavailable
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run_virtual

ONCE = {"attempts": 1}


def chain(first, *others, **policy):
    fallbacks = [ScriptedLLM(script, model=name) for name, script in zip("bcd", others, strict=False)]
    return ScriptedLLM(first, model="a", fallbacks=fallbacks, resilience=Resilience(retry=ONCE, **policy))


async def ask(llm, *, stream):
    began = asyncio.get_running_loop().time()
    chunks = []
    response = await llm.async_chat("x", on_chunk=chunks.append if stream else None)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return response, asyncio.get_running_loop().time() - began, chunks, left


@pytest.mark.promise("hedge-late")
@pytest.mark.parametrize("stream", [False, True])
def test_the_next_model_starts_when_the_first_is_late(stream):
    llm = chain([Turn(text="late", delay_s=100)], [Turn(text="in time", delay_s=1)], strategy="hedged", hedge_after_s=2)
    response, took, chunks, left = run_virtual(ask(llm, stream=stream))
    assert (response.text, response.requested_model, took) == ("in time", "b", 3)
    assert [(row.model, row.outcome) for row in response.attempts] == [("b", "ok"), ("a", "cancelled")]
    assert "".join(chunk.text for chunk in chunks) == ("in time" if stream else "")
    assert left == []


@pytest.mark.promise("hedge-late")
@pytest.mark.parametrize("at_s", [1.53, 1.78, 1.28])
def test_the_next_model_starts_also_where_a_timer_fires_a_rounding_error_early(at_s):
    async def main():
        await asyncio.sleep(at_s)
        return await ask(chain([Turn(delay_s=100)], ["in time"], strategy="hedged", hedge_after_s=1), stream=False)

    assert run_virtual(main())[0].text == "in time"


@pytest.mark.promise("hedge-late")
@pytest.mark.parametrize("stream", [False, True])
def test_a_first_model_in_time_is_the_only_one_asked(stream):
    llm = chain([Turn(text="in time", delay_s=1)], ["never"], strategy="hedged", hedge_after_s=2)
    response, took, _, _ = run_virtual(ask(llm, stream=stream))
    assert (response.text, took, len(response.attempts)) == ("in time", 1, 1)


@pytest.mark.promise("hedge-late")
def test_a_model_that_speaks_is_not_hedged_however_long_it_takes():
    llm = chain([Turn(text="a b c d e", chunk_delay_s=3)], ["never"], strategy="hedged", hedge_after_s=4)
    response, took, _, _ = run_virtual(ask(llm, stream=True))
    assert (response.text, took, len(response.attempts)) == ("a b c d e", 15, 1)


class Slow(BaseLLMWrapper):
    """Begins to write a tool call at once, and takes its time."""

    async def _stream(self, messages, tools, **options):
        yield LLMChunk("text")
        await asyncio.sleep(9)
        call = ToolCall("1", "look", {})
        yield LLMChunk("tool_call", tool_call=call)
        yield LLMChunk("finished", response=LLMResponse(tool_calls=(call,)))


@pytest.mark.promise("hedge-late")
def test_a_model_that_writes_a_tool_call_speaks():
    policy = Resilience(retry=ONCE, strategy="hedged", hedge_after_s=2)
    llm = Slow("a", resilience=policy, fallbacks=[ScriptedLLM(["never"], model="b")])
    response, took, chunks, _ = run_virtual(ask(llm, stream=True))
    assert (response.requested_model, took, len(response.attempts)) == ("a", 9, 1)
    assert [chunk.kind for chunk in chunks] == ["tool_call"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_first_model_starts_the_next_at_once(stream):
    llm = chain([ProviderUnavailable("no")], [Turn(text="yes", delay_s=1)], strategy="hedged", hedge_after_s=9)
    response, took, _, _ = run_virtual(ask(llm, stream=stream))
    assert (response.text, took) == ("yes", 1)


@pytest.mark.promise("hedge-late")
@pytest.mark.parametrize("stream", [False, True])
def test_a_race_asks_all_and_the_first_wins(stream):
    script = [[Turn(text=name, delay_s=delay)] for name, delay in (("a", 5), ("b", 1), ("c", 3))]
    response, took, _, left = run_virtual(ask(chain(*script, strategy="race"), stream=stream))
    assert (response.text, took) == ("b", 1)
    assert {(row.model, row.outcome) for row in response.attempts} == {
        ("a", "cancelled"),
        ("b", "ok"),
        ("c", "cancelled"),
    }
    assert left == []


@pytest.mark.promise("hedge-late")
def test_a_slow_winner_of_a_race_is_heard_to_the_end():
    llm = chain([Turn(text="a b c", delay_s=1, chunk_delay_s=2)], [Turn(text="b", delay_s=4)], strategy="race")
    response, took, chunks, left = run_virtual(ask(llm, stream=True))
    assert (response.text, took, len(chunks), left) == ("a b c", 7, 3, [])


@pytest.mark.parametrize("strategy", ["hedged", "race"])
def test_a_failure_in_a_race_is_not_the_end_of_it(strategy):
    llm = chain([Turn(text="slow", delay_s=3)], [LLMTimeout("no")], strategy=strategy, hedge_after_s=1)
    response, took, _, _ = run_virtual(ask(llm, stream=False))
    assert (response.text, took) == ("slow", 3)


@pytest.mark.promise("stream-restart")
@pytest.mark.parametrize("strategy", ["hedged", "race"])
def test_a_winner_that_breaks_off_is_void_and_another_model_is_asked(strategy):
    whole = Turn(text="the whole text", delay_s=1)
    llm = chain([Turn(text="the whole text", cut_after=1)], [whole, whole], strategy=strategy, hedge_after_s=5)
    response, _, chunks, left = run_virtual(ask(llm, stream=True))
    assert response.text == "the whole text"
    assert [chunk.text or chunk.kind for chunk in chunks] == ["the", "restarted", "the", " whole", " text"]
    assert left == []


@pytest.mark.parametrize("strategy", ["hedged", "race"])
def test_when_all_fail_the_error_names_each(strategy):
    llm = chain([ProviderUnavailable("down")], [LLMTimeout("silent")], strategy=strategy)
    with pytest.raises(LLMError, match=r"scripted/a: down; scripted/b: silent") as caught:
        run_virtual(ask(llm, stream=False))
    assert [row.outcome for row in caught.value.attempts] == ["unavailable", "timeout"]


@pytest.mark.promise("filter-reported")
def test_a_filter_refusal_is_reported_and_not_hedged_away():
    llm = chain([ContentFiltered("refused")], ["never"], strategy="hedged", hedge_after_s=1)
    with pytest.raises(ContentFiltered, match="refused"):
        run_virtual(ask(llm, stream=False))


def test_a_cancelled_race_leaves_nothing_behind():
    async def main():
        llm = chain([Turn(delay_s=50)], [Turn(delay_s=50)], strategy="race")
        task = asyncio.create_task(llm.async_chat("x"))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert run_virtual(main()) == []


def test_the_usual_latency_decides_when_nothing_is_told():
    async def main():
        llm = chain([Turn(text="x", delay_s=0.5)] * 20 + [Turn(delay_s=100)], ["hedge"], strategy="hedged")
        for _ in range(20):
            await llm.async_chat("x")
        return await ask(llm, stream=False)

    response, took, _, _ = run_virtual(main())
    assert (response.text, took) == ("hedge", pytest.approx(0.5))


@pytest.mark.parametrize("strategy", ["hedged", "race"])
def test_an_answer_in_one_piece_is_heard_though_nobody_could_be_ahead_with_it(strategy):
    llm = chain([Turn(text="late", delay_s=9)], [Turn(text="whole", delay_s=1)], strategy=strategy, hedge_after_s=0)
    chunks = []
    run_virtual(llm.async_chat("x", on_chunk=chunks.append, stream=False))
    assert [(chunk.kind, chunk.text) for chunk in chunks] == [("text", "whole")]


def test_the_error_of_one_that_ends_together_with_the_winner_is_nobodys_surprise():
    told = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        llm = chain(["won"], [ProviderUnavailable("down")], strategy="race")
        assert (await llm.async_chat("x")).text == "won"
        gc.collect()

    run_virtual(main())
    assert told == []


@pytest.mark.promise("retry-once")
def test_one_that_lost_a_race_which_nobody_won_goes_on_with_the_tries_it_has_left():
    down = ProviderUnavailable("down")
    policy = Resilience(retry={"attempts": 6, "base_s": 1, "max_s": 1}, strategy="race", breaker={"failures": 99})
    loser = ScriptedLLM([down] * 20, model="b", resilience=policy)
    first = ScriptedLLM(
        [Turn(text="a b c", delay_s=2, cut_after=1)] * 9, model="a", fallbacks=[loser], resilience=policy
    )

    async def main():
        with pytest.raises(LLMError) as caught:
            await first.async_chat("x", on_chunk=lambda _: None)
        return caught.value

    error = run_virtual(main())
    tries = [(row.model, row.number) for row in error.attempts]
    numbers = [number for model, number in tries if model == "b"]
    assert numbers == sorted(set(numbers))
    assert len([model for model, _ in tries if model == "b"]) <= 7  # six, and one that was cancelled
