"""Cutting documents: every character accounted for, in every alphabet, and an edit costs its own chunks."""

from __future__ import annotations

import random

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.retrieval import Chunker, Document
from shared_libs.retrieval.chunking import Pieces, normalised
from tests.unit.retrieval.conftest import filler

TEXTS = {
    "english": "# Leave\n\nStaff have 25 days.  Ask first! Then go.\n\n## Sick leave\n\nCall before nine. " * 12,
    "chinese": "# 年假\n\n员工每年有二十五天年假。请先申请！然后休假；病假须在九点前打电话。" * 20,
    "vietnamese": "Nghỉ phép\n=========\n\nNhân viên có 25 ngày phép mỗi năm. Hãy xin trước! Sau đó nghỉ.\n" * 15,
    "portuguese": "Férias: o funcionário tem 25 dias. Peça antes! Não esqueça: ligue até às nove…\n\n" * 20,
    "emoji": "Família 👨‍👩‍👧‍👦 e bandeira 🇵🇹 e café\u0301 🧑🏽‍🚀! " * 40,
    "one word": "x" * 5_000,
    "signs": "!?" * 1_000,
    "blank lines": "\n\n \n a \n\n\n\t b \n\n" * 50,
    "repeats": "the same line\n" * 500,
    "nothing": " \n\t ",
    "empty": "",
}


def cut(text, budget=32, **known):
    return Chunker(budget=budget).chunks(Document(source="s", text=normalised(text), **known))


def check(text, chunks, budget):
    """Whatever the text: the quote stands where it is said to stand, and only white space is left out."""
    at = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip() == chunk.text != ""
        assert not text[at : chunk.start].strip()
        assert len(Pieces().starts(chunk.text)) <= budget
        at = chunk.end
    assert not text[at:].strip()
    assert len({chunk.id for chunk in chunks}) == len(chunks)


@pytest.mark.promise("chunks-exact")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("budget", [8, 32, 200])
def test_a_chunk_is_what_stands_at_its_place(text, budget):
    text = normalised(text)
    check(text, cut(text, budget), budget)


@pytest.mark.promise("chunks-exact")
@pytest.mark.parametrize("whole", ["1\ufe0f\u20e3", "👋🏽", "क्षत्रि", "ក្រុ"])
def test_what_is_read_as_one_is_cut_nowhere(whole):
    places = {at for chunk in cut(whole * 60, 8) for at in (chunk.start, chunk.end)}
    assert {at % len(whole) for at in places} <= ({0, 4} if whole == "क्षत्रि" else {0})


@pytest.mark.promise("chunks-exact")
def test_so_it_is_for_texts_nobody_thought_of():
    alphabet = "ab .!\n\n#=-é漢字。\u0301\u200d👍🏽\u00a0ไทย\t1_"
    for seed in range(300):
        draw = random.Random(seed)
        text = normalised("".join(draw.choices(alphabet, k=draw.randrange(400))))
        check(text, cut(text, 8), 8)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a\r\nb\rc", "a\nb\nc"), ("\ufeffa\0b", "ab"), ("cafe\u0301", "café"), ("a\x0cb", "a\nb"), ("\ud800x", "?x")],
)
def test_what_is_stored_is_composed_and_has_no_control_characters(text, kept):
    assert normalised(text) == kept


def test_a_heading_begins_a_chunk_and_names_it():
    chunks = cut("\n\n".join(["# One", *filler(3), "# Two", *filler(3, 5)]), budget=200)
    assert chunks[0].heading == "One"
    assert next(chunk for chunk in chunks if chunk.heading == "Two").text.startswith("# Two")


@pytest.mark.promise("index-once")
def test_an_edit_changes_the_chunks_around_it_and_no_other():
    paragraphs = filler(1_000)
    before = {chunk.id for chunk in cut("\n\n".join(paragraphs), budget=200)}
    for edit in (["A new paragraph that was not here before."], paragraphs[500:520] * 2, []):
        after = {chunk.id for chunk in cut("\n\n".join([*paragraphs[:300], *edit, *paragraphs[301:]]), budget=200)}
        assert len(after - before) <= 4 + len(cut("\n\n".join(edit), budget=200))


def test_chunks_depend_on_the_title_the_place_and_the_chunker():
    text = "The same sentence.\n\n" * 3
    one = cut(text, 8)
    assert len({chunk.id for chunk in one}) == len(one) == 3
    assert not {chunk.id for chunk in one} & {chunk.id for chunk in cut(text, 8, title="Another")}
    assert not {chunk.id for chunk in one} & {chunk.id for chunk in cut(text, 9)}


def test_a_budget_without_room_is_refused():
    with pytest.raises(MisuseError, match="8 tokens"):
        Chunker(budget=7)
