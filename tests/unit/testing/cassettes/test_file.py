"""The file of a cassette: it reads as it was written, says what is wrong with it, and a failed write harms nothing."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolSpec
from shared_libs.testing.cassettes import Player, Recorder, read_cassette, text_of, write_cassette
from shared_libs.testing.cassettes.file import cassette_of
from tests.support import run_virtual

PIECES = [*("a", " ", "\n", "\t", "ü", "🌳", ":", "#", "- ", '"', "'", "{", "}", "\r", "\x00", "\x85", "\u2028", "| ")]
PIECES += [
    *("\ufeff", "yes", "1_0", "0x1", "null", "---", "...", "%", "@", "`", "?", "*", "&", "!", "x" * 130, "\ud83c")
]


def recording(*turns, messages="Q", tools=()):
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM(list(turns)))
    for _ in turns:
        run_virtual(llm.async_chat(messages, tools, on_chunk=lambda _: None))
    return recorder.cassette()


def test_any_text_reads_as_it_was_written():
    words = random.Random(7)
    for _ in range(60):
        texts = ["".join(words.choices(PIECES, k=words.randint(0, 12))) for _ in range(4)]
        call = ("look", {texts[2] or "k": [texts[3], 1.5, None, True, 10**20, 1e300]})
        told = ToolSpec("look", texts[0], {"type": "object", "title": texts[1]})
        cassette = recording(Turn(text=texts[0], calls=[call]), messages=f"?{texts[1]}", tools=[told])
        text = text_of(cassette)
        assert cassette_of(text) == cassette
        assert text_of(cassette_of(text)) == text


def test_a_conversation_stands_there_once_and_long_texts_in_blocks(tmp_path):
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM([Turn(text="word " * 30 + "\nend", delay_s=1.5, chunk_delay_s=0.25), "B", "C"]))
    asked = [Message("system", "Be brief.\nBe kind."), Message("user", "A?")]
    first = run_virtual(llm.async_chat(asked, on_chunk=lambda _: None))
    run_virtual(llm.async_chat([*asked, first.message, Message("user", "B?")], temperature=0.5))
    run_virtual(llm.async_chat([*asked, Message("user", "C?")]))
    write_cassette(tmp_path / "deep" / "a.cassette.yaml", recorder.cassette())
    text = (tmp_path / "deep" / "a.cassette.yaml").read_text()
    assert text.count("Be brief.") == text.count("A?") == text.count("\n      word") == 1
    assert "    content: |-\n      Be brief.\n      Be kind.\n" in text
    assert "  after: 1\n  options:\n    temperature: 0.5\n  messages:\n  - role: user\n    content: B?\n" in text
    assert "  again: 1\n  messages:\n  - role: user\n    content: C?\n" in text
    assert max(map(len, text.splitlines())) < 180
    assert read_cassette(tmp_path / "deep" / "a.cassette.yaml") == cassette_of(text)


def test_tools_of_one_name_that_differ_are_both_kept():
    recorder = Recorder()
    llm = recorder.chain(ScriptedLLM(["A", "B", "C"]))
    for description in ("One.", "Two.", "One."):
        run_virtual(llm.async_chat("Q", [ToolSpec("look", description, {"type": "object"})]))
    text = text_of(recorder.cassette())
    assert text.count("description: One.") == text.count("description: Two.") == 1
    assert cassette_of(text) == recorder.cassette()


def test_images_are_known_by_their_digest():
    url = "data:image/png;base64," + "A" * 5000
    parts = (TextPart("What is it?"), ImagePart(url), ImagePart("https://example.org/a.png"))
    cassette = recording("A tree.", messages=[Message("user", parts)])
    text = text_of(cassette)
    assert len(text) < 1000
    assert "https://example.org/a.png" in text
    assert cassette_of(text) == cassette
    other = (parts[0], ImagePart(url[:-1] + "B"), parts[2])
    player = Player(cassette)
    assert run_virtual(player.chain(ScriptedLLM([])).async_chat([Message("user", parts)])).text == "A tree."
    player = Player(cassette)
    with pytest.raises(Exception, match=r"message 0 \(user\): content\[1\]\.image"):
        run_virtual(player.chain(ScriptedLLM([])).async_chat([Message("user", other)]))


def test_an_edited_answer_needs_no_new_pieces():
    text = text_of(recording(Turn(text="The sum is 5.", delay_s=1, chunk_delay_s=0.5)))
    for said in ("It is five, as you see.", "Five"):
        heard = []
        player = Player(cassette_of(text.replace("The sum is 5.", said)))
        run_virtual(player.chain(ScriptedLLM([])).async_chat("Q", on_chunk=heard.append))
        assert "".join(chunk.text for chunk in heard) == said


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda text: text.replace("cassette: 1", "cassette: 2"), "`cassette: 2` is not the version 1"),
        (lambda text: "", "Expected `object`, got `null`"),
        (lambda text: text + "\t- x", "found a tab character"),
        (lambda text: text.replace("text:", "txt:"), r"unknown field `txt` - at `\$.requests\[0\].came`"),
        (lambda text: text.replace("pieces: text 4", "pieces: text four"), "'text four @0.0' is no piece of a stream"),
        (lambda text: text.replace("request: 2", "request: 3"), "request 3 stands in place 2"),
        (lambda text: text.replace("again: 1", "again: 2"), "request 2 goes on from request 2, which does not stand"),
        (lambda text: text.replace("again: 1", "tools: [x]"), "has the tool x, which is not among the file's tools"),
    ],
)
def test_a_file_that_does_not_hold_is_told(tmp_path, broken, expected):
    file = tmp_path / "a.cassette.yaml"
    file.write_text(broken(text_of(recording("One.", "Two."))))
    with pytest.raises(MisuseError, match=f"a.cassette.yaml does not hold: .*{expected}"):
        read_cassette(file)


def test_there_is_none(tmp_path):
    with pytest.raises(MisuseError, match=r"there is no cassette .*a.cassette.yaml"):
        read_cassette(tmp_path / "a.cassette.yaml")
    (tmp_path / "b.cassette.yaml").write_bytes(b"\xff")
    with pytest.raises(MisuseError, match="cannot be read"):
        read_cassette(tmp_path / "b.cassette.yaml")


def test_several_threads_write_one_file_and_a_link_stays_one(tmp_path):
    (tmp_path / "link.yaml").symlink_to("a.cassette.yaml")
    cassette = recording("New.")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_cassette(tmp_path / "link.yaml", cassette), range(16)))
    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / "a.cassette.yaml").read_text() == text_of(cassette)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_writer_that_fails_leaves_the_old_one(tmp_path):
    file = tmp_path / "a.cassette.yaml"
    write_cassette(file, recording("Old."))
    before = file.read_text()
    (tmp_path / "b.cassette.yaml").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_cassette(tmp_path / "b.cassette.yaml", recording("New."))
    assert file.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cassette.yaml", "b.cassette.yaml"]
