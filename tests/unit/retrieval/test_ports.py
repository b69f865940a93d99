"""What every port does, whatever is behind it."""

from __future__ import annotations

import asyncio

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import RetrievalError, RetrievalUnavailable
from shared_libs.retrieval import Chunk, DocumentStore, LexicalIndex, VectorStore
from shared_libs.retrieval.stores import open_stores
from shared_libs.retrieval.types import DocumentRow, Found
from tests.support import run, run_virtual
from tests.unit.retrieval.conftest import (
    OURS,
    points,
    unit,
)


class FakeVectors(VectorStore):
    name = "fake"

    def __init__(self, answer):
        self.answer = answer

    async def _search(self, space, vector, k, where):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer", [[("a", 1.0)], [Found("a", float("nan"))], ValueError("boom"), SystemExit(1), asyncio.CancelledError()]
)
def test_a_store_that_misbehaves_is_an_error_of_one_kind(answer):
    async def main():
        with pytest.raises(RetrievalError, match="fake"):
            await FakeVectors(answer).async_search(OURS, unit(1)[0], 3)

    run(main())


class Slow(VectorStore):
    async def _upsert(self, space, points):
        await asyncio.sleep(100)

    async def _search(self, space, vector, k, where):
        await asyncio.sleep(11)


def test_a_write_may_take_longer_than_anybody_waits_for_an_answer():
    async def main():
        await Slow().async_upsert(OURS, points(unit(1)))
        with pytest.raises(RetrievalUnavailable, match="within 10 s"):
            await Slow().async_search(OURS, unit(1)[0], 1)

    run_virtual(main())


def test_a_public_method_cannot_be_overridden():
    with pytest.raises(MisuseError, match="_search"):

        class Mine(LexicalIndex):
            async def async_search(self, *arguments):
                return []


@pytest.mark.promise("citations-checked")
def test_no_passage_is_kept_that_does_not_stand_where_it_says():
    class Kept(DocumentStore):
        async def _commit(self, space, document, text, chunks):
            return True

    async def main():
        there = Chunk(id="a", document="d", start=2, end=4, text="🙂c")
        assert await Kept().async_commit(OURS, DocumentRow(id="d", source="d"), "ab🙂cd", [there])
        with pytest.raises(RetrievalError, match="chunk a is not what stands at 2 to 4"):
            await Kept().async_commit(OURS, DocumentRow(id="d", source="d"), "ab-🙂cd", [there])

    run(main())


def test_a_server_that_is_not_there_is_told():
    async def main():
        with pytest.raises(RetrievalUnavailable, match="does not answer"):
            await open_stores(vectors="qdrant://127.0.0.1:1").vectors.async_count(OURS)

    run(main())
