"""Retry, breaker and fallback: what is tried how often, and who is asked next. All on virtual time."""

from __future__ import annotations

import asyncio
import math
import pickle

import pytest

from shared_libs.atomic import LLMError, Resilience
from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    CircuitOpen,
    ContentFiltered,
    ContextOverflow,
    LLMConnectionError,
    LLMTimeout,
    MalformedResponse,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    StreamInterrupted,
)
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run_virtual

PASSING = [LLMConnectionError, LLMTimeout, RateLimited, ProviderUnavailable, MalformedResponse, StreamInterrupted]


def chain(*scripts, **policy):
    models = [ScriptedLLM(script, model=name) for name, script in zip("abcd", scripts, strict=False)]
    return ScriptedLLM(scripts[0], model="a", fallbacks=models[1:], resilience=Resilience(**policy))


def ask(llm, **options):
    async def main():
        try:
            return await llm.async_chat("x", **options), asyncio.get_running_loop().time()
        except LLMError as error:
            return error, asyncio.get_running_loop().time()

    return run_virtual(main())


def asked(outcome):
    return "".join(row.model for row in outcome.attempts)


@pytest.mark.promise("retry-once")
@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_failure_is_tried_as_often_as_configured(kind, attempts):
    llm = chain([kind("no")] * 9, retry={"attempts": attempts})
    error, now = ask(llm)
    assert type(error) is kind
    assert len(llm.requests) == len(error.attempts) == attempts
    assert now <= sum([1, 2, 4, 8][: attempts - 1])


@pytest.mark.promise("retry-once")
@pytest.mark.parametrize("kind", [AuthenticationFailed, ModelNotFound, BadRequest, ContextOverflow, ContentFiltered])
def test_a_lasting_failure_is_not_tried_again(kind):
    llm = chain([kind("no")], retry={"attempts": 5})
    error, now = ask(llm)
    assert (type(error), len(llm.requests), now) == (kind, 1, 0)


def test_the_ledger_tells_every_try():
    response, _ = ask(chain([ProviderUnavailable("busy", status_code=503), "yes"], retry={"attempts": 2}))
    first, second = response.attempts
    assert (first.outcome, first.why, first.status_code, first.number) == ("unavailable", "busy", 503, 1)
    assert (second.outcome, second.number) == ("ok", 2)
    assert second.waited_s == pytest.approx(second.started_s, abs=1e-3)


@pytest.mark.promise("retry-fit")
def test_a_retry_after_that_fits_is_honoured_whole_beyond_our_own_cap():
    response, now = ask(chain([RateLimited("slow down", retry_after_s=20), "yes"], retry={"max_s": 8}), timeout=60)
    assert (response.text, now) == ("yes", 20)


@pytest.mark.promise("retry-fit")
def test_a_retry_after_that_does_not_fit_fails_over_at_once():
    response, now = ask(chain([RateLimited("slow down", retry_after_s=20)], ["other"]), timeout=10)
    assert (response.text, asked(response), now) == ("other", "ab", 0)


@pytest.mark.promise("retry-fit")
def test_a_retry_after_that_does_not_fit_fails_at_once_without_a_fallback():
    error, now = ask(chain([RateLimited("slow down", retry_after_s=20)]), timeout=10)
    assert (type(error), error.retry_after_s, now) == (RateLimited, 20, 0)


@pytest.mark.promise("retry-silent")
def test_a_silent_model_is_not_tried_again_while_a_fallback_is_left():
    response, now = ask(chain([Turn(delay_s=99), "late"], ["other"], attempt_timeout_s=5))
    assert (response.text, asked(response), now) == ("other", "ab", 5)


@pytest.mark.promise("retry-silent")
def test_a_silent_model_without_a_fallback_is_tried_again():
    response, _ = ask(chain([Turn(delay_s=99), "late"], attempt_timeout_s=5))
    assert (response.text, asked(response)) == ("late", "aa")


def test_a_silent_model_leaves_the_others_their_share_of_the_time():
    response, now = ask(chain([Turn(delay_s=99)], [Turn(delay_s=99)], ["third"]), timeout=9)
    assert (response.text, asked(response), now) == ("third", "abc", 6)


def test_the_deadline_ends_everything():
    error, now = ask(chain([Turn(delay_s=99)] * 3, [Turn(delay_s=99)] * 3), timeout=4)
    assert (type(error), asked(error), now) == (LLMTimeout, "ab", 4)


@pytest.mark.parametrize("kind", [AuthenticationFailed, ModelNotFound, ContextOverflow, ProviderUnavailable])
def test_what_another_model_may_answer_goes_to_the_next(kind):
    response, _ = ask(chain([kind("no")], ["other"], retry={"attempts": 1}))
    assert (response.text, response.requested_model) == ("other", "b")


def test_a_conversation_that_is_too_long_is_not_sent_to_a_model_that_takes_no_more():
    llm = chain([ContextOverflow("9 > 8")], ["small"], ["same"], ["large"])
    for model, window in zip([llm, *llm.fallbacks], [8, 4, 8, 9], strict=True):
        model.context_window = window
    response, _ = ask(llm)
    assert (response.text, asked(response)) == ("large", "ad")
    llm = chain([ContextOverflow("9 > 8")], ["small"])
    llm.context_window, llm.fallbacks[0].context_window = 8, 4
    error, _ = ask(llm)
    assert (type(error), asked(error)) == (ContextOverflow, "a")
    assert "scripted/b: not asked: its context of 4 tokens is no larger than the 8 that were too few" in str(error)


def test_a_conversation_that_is_too_long_goes_to_a_model_of_unknown_size():
    llm = chain([ContextOverflow("9 > 8")], ["unknown"])
    llm.context_window = 8
    assert asked(ask(llm)[0]) == "ab"


def test_a_call_ends_when_nobody_says_how_long_it_may_take():
    error, now = ask(chain([RateLimited("come back tomorrow", retry_after_s=86400)]))
    assert (type(error), now) == (RateLimited, 0)
    error, now = ask(chain([Turn(delay_s=math.inf)] * 99, retry={"attempts": 99}, attempt_timeout_s=100))
    assert (type(error), now) == (LLMTimeout, 600)


@pytest.mark.promise("filter-reported")
@pytest.mark.parametrize("kind", [BadRequest, ContentFiltered])
def test_what_all_would_refuse_is_reported(kind):
    error, _ = ask(chain([kind("no")], ["never"]))
    assert (type(error), asked(error)) == (kind, "a")


def test_the_error_names_each_model_and_its_reason():
    error, _ = ask(chain([ProviderUnavailable("busy")] * 2, [AuthenticationFailed("bad key")], retry={"attempts": 2}))
    assert str(error) == "no model answered: scripted/a after 2 attempts: busy; scripted/b: bad key"
    assert [type(cause) for cause in error.causes] == [ProviderUnavailable, ProviderUnavailable, AuthenticationFailed]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.attempts, again.retryable) == (str(error), error.attempts, error.retryable)


def test_a_bug_in_an_adapter_is_a_failure_of_that_model():
    def bug(messages):
        raise KeyError("choices")

    response, _ = ask(chain([bug], ["other"]))
    assert (response.text, response.attempts[0].why) == ("other", "the adapter failed: KeyError: 'choices'")


@pytest.mark.promise("breaker-probe")
def test_a_breaker_opens_probes_once_and_recovers():
    script = [ProviderUnavailable("no")] * 3 + [Turn(text="well", delay_s=1)] + ["again"] * 5

    async def main():
        loop = asyncio.get_running_loop()
        llm = chain(script, ["other"] * 40, retry={"attempts": 1}, breaker={"failures": 3, "reset_s": 30})
        for _ in range(3):
            await llm.async_chat("x")
        assert (llm.health.breaker.state, len(llm.requests)) == ("open", 3)
        assert (await llm.async_chat("x")).text == "other"
        assert len(llm.requests) == 3
        await asyncio.sleep(31)
        texts = [response.text for response in await asyncio.gather(*(llm.async_chat("x") for _ in range(20)))]
        assert sorted(texts) == ["other"] * 19 + ["well"]
        assert (llm.health.breaker.state, len(llm.requests)) == ("closed", 4)
        assert (await llm.async_chat("x")).text == "again"
        return loop.time()

    assert run_virtual(main()) == 32


@pytest.mark.promise("breaker-probe")
def test_a_cancelled_probe_gives_its_place_back():
    async def main():
        script = [ProviderUnavailable("no"), Turn(delay_s=99), "well"]
        llm = chain(script, retry={"attempts": 1}, breaker={"failures": 1, "reset_s": 10})
        with pytest.raises(ProviderUnavailable):
            await llm.async_chat("x")
        with pytest.raises(CircuitOpen, match="probed again in 10 s"):
            await llm.async_chat("x")
        await asyncio.sleep(10)
        probe = asyncio.create_task(llm.async_chat("x"))
        await asyncio.sleep(1)
        probe.cancel()
        await asyncio.wait([probe])
        return (await llm.async_chat("x")).text

    assert run_virtual(main()) == "well"


def test_impatient_callers_do_not_open_the_breaker():
    async def main():
        llm = chain([Turn(delay_s=5)] * 5 + ["well"], breaker={"failures": 3})
        for _ in range(5):
            with pytest.raises(LLMTimeout):
                await llm.async_chat("x", timeout=1)
        return await llm.async_chat("x")

    assert run_virtual(main()).text == "well"


def test_retries_have_a_budget():
    async def main():
        llm = chain([ProviderUnavailable("no")] * 500, retry={"attempts": 3, "base_s": 0}, breaker={"failures": 10**6})
        await asyncio.gather(*(llm.async_chat("x") for _ in range(100)), return_exceptions=True)
        return len(llm.requests)

    assert run_virtual(main()) < 200


@pytest.mark.promise("stream-restart")
@pytest.mark.parametrize("cut_after", [0, 1, 2, 3])
def test_a_stream_cut_anywhere_ends_in_the_whole_text(cut_after):
    chunks = []
    whole = "one two three four"
    llm = chain([Turn(text=whole, cut_after=cut_after), whole], retry={"attempts": 2})
    response, _ = ask(llm, on_chunk=chunks.append)
    kinds = [chunk.kind for chunk in chunks]
    assert response.text == whole
    assert kinds.count("restarted") == (1 if cut_after else 0)
    rest = chunks[kinds.index("restarted") + 1 :] if cut_after else chunks
    assert "".join(chunk.text for chunk in rest) == whole


@pytest.mark.promise("stream-restart")
def test_a_stream_that_stays_cut_is_an_error():
    error, _ = ask(chain([Turn(text="one two", cut_after=1)] * 2, retry={"attempts": 2}), on_chunk=lambda _: None)
    assert type(error) is StreamInterrupted
    assert error.response_started


@pytest.mark.parametrize(
    ("turn", "why", "after"),
    [
        (Turn(text="x", delay_s=99), "no first token within 3 s", 3),
        (Turn(text="x y z", chunk_delay_s=2.5), "no token for 2 s", 4.5),
        (Turn(text="x y z u v w", chunk_delay_s=1.9), "the answer took too long", 8),
    ],
)
def test_each_timeout_of_a_stream(turn, why, after):
    policy = {"first_token_timeout_s": 3, "idle_timeout_s": 2, "attempt_timeout_s": 8, "retry": {"attempts": 1}}
    error, now = ask(chain([turn], **policy), on_chunk=lambda _: None)
    assert (type(error), error.attempts[0].why) == (LLMTimeout, why)
    assert now == pytest.approx(after, abs=0.1)


def test_closing_a_stream_early_cancels_the_request():
    async def main():
        llm = chain([Turn(text="one two three", chunk_delay_s=1)])
        stream = llm.async_stream("x")
        first = await anext(stream)
        await stream.aclose()
        return first.text, [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert run_virtual(main()) == ("one", [])


def test_the_last_chunk_of_a_stream_is_the_whole_response():
    async def main():
        return [chunk async for chunk in chain(["one two"]).async_stream("x")]

    chunks = run_virtual(main())
    assert [chunk.kind for chunk in chunks] == ["text", "text", "finished"]
    assert chunks[-1].response.text == "one two"
