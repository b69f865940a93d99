"""Reading by several models: the first valid answer wins, and everyone who was asked is booked."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import ProviderUnavailable, RetrievalError
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import Price, Usage
from shared_libs.retrieval import Collection
from shared_libs.retrieval.extraction import PROBE, Extractor, read_answer
from tests.support import run, run_virtual
from tests.unit.retrieval.conftest import document, filler, indexed

TEXT = "Ada Lovelace wrote for the Analytical   Engine of Charles Babbage."
GOOD = {
    "entities": [
        {"name": "Ada Lovelace", "type": "Person"},
        {"name": "the Analytical Engine", "type": "machine"},
        {"name": "ada lovelace", "type": "person"},
        {"name": "Napoleon", "type": "person"},
    ],
    "relations": [
        {"source": "Ada Lovelace", "kind": "Wrote For", "target": "Analytical Engine"},
        {"source": "Napoleon", "kind": "met", "target": "Ada Lovelace"},
    ],
}
EMPTY = {"entities": [], "relations": []}
MADE_UP = {"entities": [{"name": "Napoleon", "type": "person"}], "relations": []}


def model(name, *turns, price=None):
    return ScriptedLLM(
        list(turns),
        model=name,
        price=price,
        resilience=Resilience(retry={"attempts": 1}, attempt_timeout_s=1e6, first_token_timeout_s=1e6),
    )


def says(answer, delay_s=0.0):
    return Turn(
        text=answer if isinstance(answer, str) else json.dumps(answer),
        delay_s=delay_s,
        usage=Usage(input_tokens=10, output_tokens=5),
    )


def test_what_does_not_stand_in_the_text_is_left_out():
    (entities, relations), wrong = read_answer(GOOD, TEXT)
    assert wrong == ""
    assert [(entity.name, entity.type) for entity in entities] == [
        ("Ada Lovelace", "person"),
        ("the Analytical Engine", "machine"),
    ]
    assert [(one.source, one.kind, one.target) for one in relations] == [
        ("Ada Lovelace", "wrote for", "the Analytical Engine")
    ]
    assert read_answer(MADE_UP, TEXT)[0] is None
    assert read_answer(EMPTY, TEXT)[0] == ((), ())
    assert read_answer(None, TEXT)[0] is None


@pytest.mark.promise("extract-races")
def test_the_healthy_one_answers_in_its_own_time_and_all_are_booked():
    async def main():
        extractor = Extractor(
            [
                model("hangs", says(GOOD, math.inf)),
                model("fails", ProviderUnavailable("out of order")),
                model("nonsense", says("lorem ipsum", 0.1), says("dolor", 0.1)),
                model("invents", says(MADE_UP, 0.05)),
                model("healthy", says(GOOD, 2.0)),
            ]
        )
        clock = asyncio.get_running_loop().time
        began = clock()
        found = await extractor.async_extract(TEXT)
        assert clock() - began < 2.1
        assert found.model == "healthy"
        by_name = {reading.model: reading for reading in found.readings}
        assert {name: reading.state for name, reading in by_name.items()} == {
            "hangs": "cancelled",
            "fails": "failed",
            "nonsense": "failed" if by_name["nonsense"].state == "failed" else "invalid",
            "invents": "invalid",
            "healthy": "valid",
        }
        assert all(reading.reason for name, reading in by_name.items() if name != "healthy")
        assert by_name["fails"].attempts == 1
        assert by_name["invents"].usage.input_tokens == 10
        assert by_name["healthy"].elapsed_s == pytest.approx(2.0, abs=0.05)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    run_virtual(main())


@pytest.mark.promise("extract-losers-cost")
def test_what_the_losers_cost_is_told_and_of_those_cut_off_about():
    price = Price(input=1.0, output=10.0)

    async def main():
        extractor = Extractor(
            [
                model("hangs", says(GOOD, math.inf), price=price),
                model("nonsense", says("lorem ipsum"), says("dolor"), price=price),
                model("down", ProviderUnavailable("out of order"), price=price),
                model("healthy", says(GOOD, 2.0), price=price),
                model("unpriced", says(GOOD, math.inf)),
            ]
        )
        told = {one.model: one for one in (await extractor.async_extract(TEXT)).readings}
        sent = told["hangs"].usage.input_tokens
        assert 100 < sent < 400
        assert {name: (one.attempts, one.estimated, one.usage, one.cost_usd) for name, one in told.items()} == {
            "hangs": (1, True, Usage(input_tokens=sent), pytest.approx(sent / 1e6)),
            "nonsense": (2, False, Usage(input_tokens=20, output_tokens=10), pytest.approx(120 / 1e6)),
            "down": (1, False, None, None),
            "healthy": (1, False, Usage(input_tokens=10, output_tokens=5), pytest.approx(60 / 1e6)),
            "unpriced": (1, True, Usage(input_tokens=sent), None),
        }

    run_virtual(main())


@pytest.mark.promise("extract-races")
def test_who_is_cancelled_while_the_losers_end_is_cancelled():
    class Slow(ScriptedLLM):
        async def _chat(self, messages, tools, **options):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)
                raise

    async def main():
        extractor = Extractor([Slow([], model="slow"), model("healthy", says(GOOD, 1.0))])
        task = asyncio.create_task(extractor.async_extract(TEXT))
        await asyncio.sleep(1.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())


@pytest.mark.promise("extract-once")
def test_two_readings_of_the_same_answer_tell_the_same_in_the_same_order():
    turned = {name: list(reversed(rows)) for name, rows in GOOD.items()}
    turned["entities"] = [one for one in turned["entities"] if one["name"] != "ada lovelace"]
    assert read_answer(GOOD, TEXT) == read_answer(turned, TEXT)


@pytest.mark.promise("extract-races")
def test_an_empty_answer_is_taken_only_when_nobody_finds_more():
    async def main():
        quick = Extractor([model("lazy", says(EMPTY, 1.0)), model("good", says(GOOD, 1.5))])
        assert (await quick.async_extract(TEXT)).model == "good"
        slow = Extractor([model("lazy", says(EMPTY, 1.0)), model("hangs", says(GOOD, math.inf))])
        clock = asyncio.get_running_loop().time
        began = clock()
        assert (await slow.async_extract(TEXT)).entities == ()
        assert clock() - began < 2.1

    run_virtual(main())


@pytest.mark.promise("extract-races")
def test_where_nobody_can_it_is_told_what_each_of_them_did():
    async def main():
        extractor = Extractor(
            [model("hangs", says(GOOD, math.inf)), model("fails", ProviderUnavailable("broken"))], timeout_s=3.0
        )
        clock = asyncio.get_running_loop().time
        began = clock()
        with pytest.raises(RetrievalError, match=r"hangs (failed|cancelled).*fails failed: .*broken"):
            await extractor.async_extract(TEXT)
        assert clock() - began < 3.1

    run_virtual(main())


@pytest.mark.promise("extract-races")
def test_a_probe_tells_who_can():
    good = {"entities": [{"name": "Ada Lovelace", "type": "person"}], "relations": []}
    assert "Ada Lovelace" in PROBE

    async def main():
        extractor = Extractor(
            [model("good", says(good, 0.5)), model("bad", says(MADE_UP)), model("down", ProviderUnavailable("x"))]
        )
        assert [reading.state for reading in await extractor.async_probe()] == ["valid", "invalid", "failed"]

    run_virtual(main())


def test_an_extractor_needs_a_model():
    with pytest.raises(MisuseError):
        Extractor([])


class Reader(ScriptedLLM):
    """Says the first two words of the passage, and fails where it is told to."""

    def __init__(self, refused="<none>"):
        super().__init__([], model="reader")
        self.refused, self.asked = refused, 0

    async def _chat(self, messages, tools, **options):
        self.asked += 1
        text = next(message.text for message in messages if "<passage>" in message.text)
        if self.refused in text:
            raise ProviderUnavailable("not this one")
        names = text.split("\n")[1].split()[:2]
        from shared_libs.atomic import LLMResponse

        answer = {"entities": [{"name": name, "type": "word"} for name in names], "relations": []}
        return LLMResponse(text=json.dumps(answer))


@pytest.mark.promise("extract-once")
def test_a_collection_is_read_once_and_what_fails_is_read_later(file_url, embedder):
    reader = Reader(refused="ibis")
    reader.resilience = Resilience(retry={"attempts": 1})
    collection = Collection("c", tenant="t", stores=file_url, embedder=embedder, extractor=Extractor([reader]))

    async def read():
        return [progress async for progress in collection.async_extract()][-1]

    async def main():
        await indexed(
            collection, [document(f"d{at}", *filler(2, at)) for at in range(5)] + [document("e", "The ibis is red.")]
        )
        first = await read()
        assert (first.embedded, first.failed) == (5, 1)
        assert "not this one" in first.problems[0]
        reader.refused, reader.asked = "<none>", 0
        second = await read()
        assert (second.embedded, second.reused, second.failed) == (1, 5, 0)
        assert reader.asked == 1
        assert (await read()).embedded == 0
        word = filler(1, 0)[0].split()[0]
        assert word in (await collection.async_retrieve(f"{word}?")).hits[0].text

    run(main())


def test_without_an_extractor_nothing_is_read(collection):
    async def main():
        await indexed(collection, [document("a", "One.")])
        with pytest.raises(MisuseError, match="no extractor"):
            [progress async for progress in collection.async_extract()]

    run(main())
