"""Search by meaning: with an embedder by cosine, without an answer of it by words; no message is lost to it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from shared_libs.atomic import Message, MisuseError, Resilience, Retry
from shared_libs.atomic.errors import ProviderUnavailable
from shared_libs.atomic.llms import BaseLLMWrapper, ScriptedLLM
from shared_libs.memory import SQLMemory
from shared_libs.memory.meaning import Meaning, fused
from tests.support import run_virtual

MEANINGS = {"dog": 0, "puppy": 0, "hound": 0, "car": 1, "van": 1, "rain": 2}


class Embedder(BaseLLMWrapper):
    """Knows a few words: those of one meaning point in one direction."""

    def __init__(self, model="small", dimensions=3):
        super().__init__(model, resilience=Resilience(retry=Retry(attempts=1)))
        self.dimensions = dimensions
        self.asked = []
        self.down = self.hangs = False
        self.answered = asyncio.Event()

    async def _embed(self, texts, **options):
        self.asked.append(texts)
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise ProviderUnavailable("the embedder is down")
        vectors = np.full((len(texts), self.dimensions), 0.01, dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split():
                if word in MEANINGS:
                    row[MEANINGS[word]] += 1
        self.answered.set()
        return vectors


SAID = [Message("user", "a hound barks"), Message("assistant", "the van is red"), Message("user", "rain again")]


def memory_of(url, embedder):
    return SQLMemory(url, embedder=embedder)


def texts(messages):
    return [message.text for message in messages]


def test_messages_are_found_by_meaning_the_nearest_first(store_url, session):
    async def main():
        memory = memory_of(store_url, Embedder())
        await memory.async_store(session, SAID)
        found = await memory.async_search(session, "puppy", k=2), await memory.async_search(session, "car", k=1)
        await memory.aclose()
        return found

    dogs, cars = asyncio.run(main())
    assert texts(dogs)[0] == "a hound barks"
    assert texts(cars) == ["the van is red"]


def test_embeddings_are_made_in_the_background_and_kept(store_url, session):
    async def main():
        first = Embedder()
        memory = memory_of(store_url, first)
        await memory.async_store(session, SAID)
        async with asyncio.timeout(30):
            await first.answered.wait()
            while memory._meaning._tasks:
                await asyncio.wait([*memory._meaning._tasks.values()])
        await memory.aclose()
        second = Embedder()
        memory = memory_of(store_url, second)
        found = await memory.async_search(session, "dog", k=1)
        await memory.aclose()
        return found, second.asked

    found, asked = asyncio.run(main())
    assert texts(found) == ["a hound barks"]
    assert asked == [["dog"]]


def test_while_the_embedder_is_down_words_find_messages_and_none_is_lost(store_url, session):
    async def main():
        embedder = Embedder()
        memory = memory_of(store_url, embedder)
        await memory.async_store(session, SAID[:1])
        await memory.async_search(session, "dog")
        embedder.down = True
        await memory.async_store(session, SAID[1:])
        down = await memory.async_search(session, "the red dog"), await memory.async_load(session)
        embedder.down = False
        up = await memory.async_search(session, "car", k=1)
        await memory.aclose()
        return down, up

    (by_words, loaded), by_meaning = asyncio.run(main())
    assert texts(by_words) == ["the van is red"]
    assert loaded == SAID
    assert texts(by_meaning) == ["the van is red"]


def test_another_model_or_length_of_vectors_is_never_compared_but_made_anew(store_url, session):
    async def main():
        await (one := memory_of(store_url, Embedder())).async_store(session, SAID)
        await one.async_search(session, "dog")
        await one.aclose()
        found = []
        for embedder in (Embedder(dimensions=5), Embedder("large", 5)):
            memory = memory_of(store_url, embedder)
            found.append(texts(await memory.async_search(session, "puppy", k=1)))
            await memory.aclose()
        return found

    assert asyncio.run(main()) == [["a hound barks"], ["a hound barks"]]


def test_an_embedder_that_hangs_leaves_time_to_look_for_words():
    async def main():
        embedder = Embedder()
        embedder.hangs = True
        found = await Meaning(embedder, None).nearest("s", "the red dog", 5, 9.0)
        return found, asyncio.get_running_loop().time()

    assert run_virtual(main()) == (None, 3)


def test_sessions_are_kept_apart(store_url, session):
    async def main():
        memory = memory_of(store_url, Embedder())
        await memory.async_store(session, SAID)
        found = await memory.async_search(session + "x", "dog")
        await memory.aclose()
        return found

    assert asyncio.run(main()) == []


def test_rankings_are_merged_the_best_of_each_first():
    assert fused([3, 1], [7, 3]) == [3, 7, 1]
    assert fused([], [5, 4]) == [5, 4]


def test_a_model_without_embeddings_is_misuse():
    with pytest.raises(MisuseError, match="ScriptedLLM has no embeddings"):
        SQLMemory(embedder=ScriptedLLM([]))
