"""The LLM port itself: what every wrapper does, whoever the provider is."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest

from shared_libs.atomic import BaseLLMWrapper, LLMError, LLMResponse, MisuseError, Price, Resilience, Usage
from shared_libs.atomic.errors import BadRequest, ProviderUnavailable, StreamInterrupted
from shared_libs.atomic.llms import ScriptedLLM, Turn
from tests.support import run, run_virtual

ONCE = Resilience(retry={"attempts": 1})


class Embedder(BaseLLMWrapper):
    provider = "fake"

    def __init__(self, model, outcome=None, **options):
        super().__init__(model, resilience=ONCE, **options)
        self.outcome, self.asked, self.closed = outcome, 0, 0

    async def _embed(self, texts, **options):
        self.asked += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return np.full((len(texts), 2), len(self.model), dtype=np.float32)

    async def _close(self):
        self.closed += 1


def test_embeddings_come_only_from_the_same_model():
    other = Embedder("other")
    same = Embedder("m")
    down = ProviderUnavailable("down")
    first = Embedder("m", down, fallbacks=[other, ScriptedLLM([], model="m"), same])
    vectors = run(first.async_embed(["a", "b"]))
    assert (vectors.shape, vectors.dtype) == ((2, 2), np.float32)
    assert (first.asked, other.asked, same.asked) == (1, 0, 1)
    with pytest.raises(ProviderUnavailable, match="fake/m: down"):
        run(Embedder("m", down, fallbacks=[other]).async_embed(["a"]))


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: Embedder("m").async_embed("text"),
        lambda: Embedder("m").async_embed([]),
        lambda: ScriptedLLM([]).async_embed(["a"]),
        lambda: ScriptedLLM([]).async_chat([]),
        lambda: ScriptedLLM([]).async_chat([{"role": "robot"}]),
        lambda: ScriptedLLM([]).async_chat("x", tools=[3]),
        lambda: ScriptedLLM([]).async_chat("x", output_schema="text"),
        lambda: ScriptedLLM([]).async_chat("x", timeout=0),
        lambda: ScriptedLLM([]).async_chat("x", timeout=-1),
        lambda: ScriptedLLM([]).async_chat("x", timeout=float("nan")),
    ],
)
def test_misuse_is_told_at_once(misuse):
    with pytest.raises(MisuseError):
        run(misuse())


def test_a_wrapper_needs_a_model():
    with pytest.raises(MisuseError, match="name of a model"):
        ScriptedLLM([], model="")


def test_the_public_methods_are_final():
    with pytest.raises(MisuseError, match="`_chat` instead"):

        class Own(BaseLLMWrapper):
            async def async_chat(self, messages): ...


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_in_an_adapter_is_the_failure_of_its_attempt(stream):
    def broken(messages):
        raise MisuseError("inside")

    model = ScriptedLLM([broken, broken], resilience=ONCE)
    with pytest.raises(LLMError, match="the adapter failed: MisuseError: inside") as caught:
        run(model.async_chat("x", on_chunk=print if stream else None))
    assert (len(caught.value.attempts), caught.value.retryable) == (1, False)
    answered = ScriptedLLM([broken], resilience=ONCE, fallbacks=[ScriptedLLM(["b"])])
    assert run(answered.async_chat("x")).text == "b"


def test_the_response_says_who_answered_and_what_it_cost():
    answer = LLMResponse(text="b", model="b-2026", usage=Usage(1_000_000, 0, 0, 1_000_000))
    second = ScriptedLLM([answer], model="b", price=Price(2.0, 9.0))
    first = ScriptedLLM([BadRequest("no"), ProviderUnavailable("no")], model="a", resilience=ONCE, fallbacks=[second])
    with pytest.raises(BadRequest):
        run(first.async_chat("x"))
    response = run(first.async_chat("x"))
    assert (response.model, response.requested_model, response.provider) == ("b-2026", "b", "scripted")
    assert response.cost_usd == 2.0
    assert [(row.model, row.outcome, row.usage) for row in response.attempts] == [
        ("a", "unavailable", None),
        ("b", "ok", answer.usage),
    ]
    assert run(ScriptedLLM(["x"]).async_chat("x")).cost_usd is None


def test_half_a_character_of_an_adapter_goes_no_further():
    assert run(ScriptedLLM(["caf\ud800"]).async_chat("x")).text == "caf?"


@pytest.mark.parametrize("closed_after", ["the failure", "the first chunk"])
def test_closing_a_stream_early_complains_of_nothing(closed_after):
    async def main():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        chunks = ScriptedLLM([Turn(text="a b c", cut_after=2, chunk_delay_s=1)], resilience=ONCE).async_stream("x")
        async for _ in chunks:
            if closed_after == "the failure":
                await asyncio.sleep(10)
            break
        await chunks.aclose()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        gc.collect()
        return complaints, left

    assert run_virtual(main()) == ([], [])


@pytest.mark.promise("stream-restart")
def test_a_stream_that_stays_cut_raises_after_what_came():
    async def main():
        stream = ScriptedLLM([Turn(text="a b c", cut_after=2)], resilience=ONCE).async_stream("x")
        got = [(await anext(stream)).text for _ in range(2)]
        with pytest.raises(StreamInterrupted):
            await anext(stream)
        return got

    assert run_virtual(main()) == ["a", " b"]


@pytest.mark.promise("loop-per-client")
def test_closing_twice_is_fine_and_using_it_opens_it_again():
    fallback = Embedder("m")
    model = Embedder("m", fallbacks=[fallback])

    async def main():
        async with model:
            await model.async_embed(["a"])
        await model.aclose()
        await model.aclose()

    run(main())
    run(main())
    assert model.closed == fallback.closed == 6


def test_a_fallback_without_a_policy_takes_the_primarys():
    def last(own):
        return ScriptedLLM([ProviderUnavailable("no")] * 9, model="b", resilience=own)

    def asked(own):
        fallback = last(own)
        first = ScriptedLLM(
            [ProviderUnavailable("no")] * 9, resilience=Resilience(retry={"attempts": 3}), fallbacks=[fallback]
        )
        with pytest.raises(LLMError):
            run_virtual(first.async_chat("x"))
        return len(first.requests), len(fallback.requests)

    assert asked(None) == (3, 3)
    assert asked(ONCE) == (3, 1)
