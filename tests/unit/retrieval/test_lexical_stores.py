"""One suite for indexes by words, run by every back end."""

from __future__ import annotations

import pytest

from shared_libs.retrieval.filters import among, read_filter
from shared_libs.retrieval.types import Found, Words
from tests.support import run
from tests.unit.retrieval.conftest import (
    OURS,
    THEIRS,
)

TEXTS = [
    Words("en", "Annual leave is twenty-five days; ask your manager.", {"lang": "en", "n": 1}),
    Words("zh", "员工每年有二十五天年假。请先向经理申请。", {"lang": "zh", "n": 2}),
    Words("vi", "Nhân viên có 25 ngày nghỉ phép mỗi năm.", {"lang": "vi", "n": 3}),
    Words("pt", "O funcionário tem 25 dias de férias por ano; não esqueça de avisar.", {"lang": "pt", "n": 4}),
    Words("none", "The quick brown fox.", {"lang": "en", "n": 5}),
    Words("hi", "कर्मचारियों को वार्षिक अवकाश मिलता है।", {}),
    Words("he", "כל עובד זכאי לחופש; חוּפשָׁה בתשלום.", {}),
    Words("de", "Jeder hat dreißig Urlaubstage im Jahr.", {}),
]


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("How many days of annual leave?", "en"),
        ("年假有多少天", "zh"),
        ("nghi phep", "vi"),
        ("nghỉ phép mỗi năm", "vi"),
        ("ferias do funcionario", "pt"),
        ("férias", "pt"),
        ("MANAGERS", "en"),
        ("वार्षिक अवकाश", "hi"),
        ("חופשה", "he"),
        ("Urlaubstage", "de"),
    ],
)
def test_words_are_found_in_every_language(words, asked, first):
    async def main():
        await words.async_upsert(OURS, TEXTS)
        found = await words.async_search(OURS, asked, 5)
        assert found[0].id == first
        assert all(row.score > 0 for row in found) or found[0].score > found[-1].score

    run(main())


@pytest.mark.promise("retrieval-filter")
def test_words_are_filtered_deleted_and_written_over(words):
    async def main():
        assert await words.async_search(OURS, "leave", 5) == []
        for _ in range(2):
            await words.async_upsert(OURS, TEXTS)
        every = "days 25 fox 年假 férias leave"
        assert {row.id for row in await words.async_search(OURS, every, 9)} == {"en", "zh", "vi", "pt", "none"}
        for where, ids in (
            ({"lang": "en"}, {"en", "none"}),
            ({"lang": ["zh", "vi"]}, {"zh", "vi"}),
            ({"n": {"from": 2, "to": 3}}, {"zh", "vi"}),
            ({"lang": {"not": "en"}}, {"zh", "vi", "pt"}),
            ({"lang": "en", "n": {"from": 2}}, {"none"}),
            ({"absent": {"not": 1}}, set()),
            ({"n": "2"}, set()),
        ):
            assert {row.id for row in await words.async_search(OURS, every, 9, read_filter(where))} == ids, where
        assert len(await words.async_search(OURS, every, 2, read_filter({"lang": ["zh", "vi", "pt"]}))) == 2
        named = (among(["zh", "pt", "never-there"]), *read_filter({"n": {"to": 2}}))
        assert {row.id for row in await words.async_search(OURS, every, 9, named)} == {"zh"}
        assert await words.async_search(OURS, every, 9, (among([]),)) == []
        await words.async_upsert(OURS, [Words("en", "Nothing of that kind.", {})])
        assert [row.id for row in await words.async_search(OURS, "annual leave", 9)] == []
        await words.async_delete(OURS, ["pt", "never-there"])
        assert [row.id for row in await words.async_search(OURS, "férias", 9)] == []
        assert await words.async_search(THEIRS, every, 9) == []
        await words.async_drop(OURS)
        assert await words.async_search(OURS, every, 9) == []

    run(main())


@pytest.mark.promise("retrieval-inert")
@pytest.mark.parametrize(
    "asked",
    [
        '"',
        "' OR 1=1 --",
        "NEAR(a b)",
        "a* AND",
        "{lang}: x",
        "^",
        "-leave",
        "(" * 50,
        "\0",
        "leave " * 3_000,
        "🙂",
        "AND",
    ],
)
def test_a_question_is_words_and_no_query(words, asked):
    async def main():
        await words.async_upsert(OURS, TEXTS)
        found = await words.async_search(OURS, asked, 3)
        assert all(isinstance(row, Found) for row in found)

    run(main())
