"""The files tools: useful inside their folder, and nothing outside it, whatever the path says or the disk does."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
import unicodedata
from pathlib import Path

import pytest

from shared_libs.atomic import MisuseError, ToolError
from shared_libs.factory import agent_from_dict
from shared_libs.tools.files import files
from shared_libs.tools.rooted import Root
from tests.support import run

SECRET = "the neighbour's secret"


@pytest.fixture
def home(tmp_path):
    """A folder with things in it, beside a neighbour it must not reach."""
    home = tmp_path / "home"
    (home / "notes" / "old").mkdir(parents=True)
    (home / "notes" / "tea.md").write_text("# Tea\ngreen\nBlack tea\n")
    (home / "notes" / "old" / "tea.txt").write_text("old tea")
    (home / "long.txt").write_text("".join(f"line {number}\n" for number in range(1, 5001)))
    (home / "empty.txt").touch()
    (home / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "neighbour").mkdir()
    (tmp_path / "neighbour" / "secret.txt").write_text(SECRET)
    return home


def use(home, action, arguments=None, **options):
    tools = {tool.name: tool for tool in files(root=str(home), **options)}
    return run(tools[f"files_{action}"].async_run(arguments or {}))


def said(home, action, arguments=None, **options):
    result = use(home, action, arguments, **options)
    assert not result.is_error, result.content
    return result.content


def refused(home, action, arguments=None, **options):
    result = use(home, action, arguments, **options)
    assert result.is_error, result.content
    assert str(home) not in result.content
    return result.content


def test_a_folder_is_listed(home):
    (home / "shortcut").symlink_to("notes")
    assert said(home, "list").splitlines() == [
        "empty.txt (0 bytes)",
        "long.txt (48893 bytes)",
        "notes/",
        "picture.png (10 bytes)",
        "shortcut (link, not to be read)",
    ]
    assert said(home, "list", {"path": "./notes//"}) == "old/\ntea.md (22 bytes)"
    (home / "void").mkdir()
    assert said(home, "list", {"path": "void"}) == "[the folder is empty]"


def test_a_large_folder_is_cut_with_a_word(home):
    for number in range(600):
        (home / "notes" / f"{number:04}").touch()
    lines = said(home, "list", {"path": "notes"}).splitlines()
    assert lines[-1] == "[500 of 602 entries; find the others by searching with a glob]"
    assert len(lines) == 501


def test_a_file_is_read_as_it_is(home):
    assert said(home, "read", {"path": "notes/tea.md"}) == "# Tea\ngreen\nBlack tea\n"
    assert said(home, "read", {"path": "empty.txt"}) == "[empty.txt is empty]"
    assert said(home, "read", {"path": "notes/tea.md", "start_line": 2, "lines": 1}) == (
        "green\n\n[lines 2 to 2 of 3; for the rest read again with start_line 3]"
    )
    assert said(home, "read", {"path": "notes/tea.md", "start_line": 3}) == "Black tea\n\n[lines 3 to 3 of 3]"


def test_a_long_file_comes_in_parts_that_join(home):
    parts, start = [], 1
    while start:
        content = said(home, "read", {"path": "long.txt", "start_line": start})
        assert len(content) <= 20_000
        body, _, note = content.rpartition("\n\n[")
        parts.append(body)
        start = int(note.rstrip("]").rpartition("start_line ")[2]) if "start_line" in note else 0
    assert len(parts) == 3
    assert "\n".join(parts) + "\n" == (home / "long.txt").read_text()


def test_a_line_that_is_too_long_is_cut_and_the_next_can_be_read(home):
    (home / "wide.json").write_text("x" * 30_000 + "needle" + "y" * 30_000 + "\nnext\n")
    content = said(home, "read", {"path": "wide.json"})
    assert len(content) <= 20_000
    assert "[line 1 has 60006 characters, of which 19750 are shown" in content
    assert said(home, "read", {"path": "wide.json", "start_line": 2}) == "next\n\n[lines 2 to 2 of 2]"
    found = said(home, "search", {"text": "NEEDLE"})
    assert found == f"wide.json:1: …{'x' * 100}needle{'y' * 100}…"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9", "café"),
        ("café".encode("utf-16"), "café"),
        (b"a\r\nb", "a\r\nb"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    ],
)
def test_text_of_other_encodings_is_read(home, content, text):
    (home / "file").write_bytes(content)
    assert said(home, "read", {"path": "file"}) == text


WRITTEN = [
    ("caf\u00e9", "cp1252", "cp1252"),
    ("会議は月曜日の午前十時に始まります。資料を忘れないでください。", "shift_jis", "cp932"),
    ("会議は月曜日の午前十時に始まります。資料を忘れないでください。", "iso2022_jp", "iso2022_jp_2"),
    ("会议将于星期一上午十点开始。请不要忘记带上资料。", "gbk", "gb18030"),
    ("這是一個中文文本。會議將於星期一上午十點開始。請不要忘記帶上資料。", "big5", "big5"),
    ("회의는 월요일 오전 열 시에 시작합니다. 자료를 잊지 마세요.", "euc_kr", "cp949"),
    ("Совещание начнётся в понедельник в десять часов утра.", "cp1251", "cp1251"),
    ("Zażółć gęślą jaźń. Spotkanie zaczyna się o dziesiątej.", "cp1250", "cp1250"),
    ("plain words, as Windows writes them", "utf-16-le", "utf-16-le"),
]


@pytest.mark.parametrize(("text", "encoding", "guess"), WRITTEN)
def test_what_is_not_utf_8_is_read_by_a_guess_that_is_told(home, text, encoding, guess):
    (home / "file").write_bytes(text.encode(encoding))
    told = f"[the file is not UTF-8; it is read as {guess}, which is a guess]"
    assert said(home, "read", {"path": "file"}) == f"{text}\n{told}"
    found = said(home, "search", {"text": text[:9], "glob": "file"})
    assert found == f"file:1: {text}\n[of these, files that are not UTF-8 were read by a guess: 1 as {guess}]"


def test_what_is_in_no_alphabet_is_refused_and_not_searched(home):
    (home / "file").write_bytes("plain words".encode("cp037"))
    assert refused(home, "read", {"path": "file"}) == "'file' is not UTF-8, and how it is written cannot be told"
    assert said(home, "search", {"text": "plain w", "glob": "file"}).endswith(
        "[1 files were not searched: too large or not readable]"
    )


@pytest.mark.parametrize("content", [b"a\0b", b"\x80\x02\xff\xfe\x01", b"\x7fELF\x02\x01\0"])
def test_what_is_binary_is_refused(home, content):
    (home / "file").write_bytes(content)
    assert refused(home, "read", {"path": "file"}) == "'file' is binary; this tool reads text"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"glob": "*.md"}, ["notes/tea.md (22 bytes)"]),
        ({"glob": "tea.*"}, ["notes/tea.md (22 bytes)", "notes/old/tea.txt (7 bytes)"]),
        ({"glob": "notes/*.txt"}, ["[nothing was found]"]),
        ({"glob": "notes/**/*.txt"}, ["notes/old/tea.txt (7 bytes)"]),
        ({"glob": "**/old/**"}, ["notes/old/tea.txt (7 bytes)"]),
        ({"glob": "*.txt", "path": "notes"}, ["notes/old/tea.txt (7 bytes)"]),
        ({"glob": "old/*", "path": "notes"}, ["notes/old/tea.txt (7 bytes)"]),
        ({"glob": "[el]*.tx?"}, ["empty.txt (0 bytes)", "long.txt (48893 bytes)"]),
        ({"text": "TEA"}, ["notes/tea.md:1: # Tea", "notes/tea.md:3: Black tea", "notes/old/tea.txt:1: old tea"]),
        ({"text": "tea", "glob": "*.txt"}, ["notes/old/tea.txt:1: old tea"]),
        ({"text": ".*"}, ["[nothing was found]"]),
        ({"glob": "*.{md,txt}", "path": "notes"}, ["notes/tea.md (22 bytes)", "notes/old/tea.txt (7 bytes)"]),
        ({"glob": "{notes,x}/{o,o{l,n}d}/*"}, ["notes/old/tea.txt (7 bytes)"]),
        ({"glob": "{}"}, ["[nothing was found]"]),
        ({"glob": "**/" * 30 + "*a" * 60 + "*.q"}, ["[nothing was found]"]),
    ],
)
def test_files_are_found_by_name_and_by_text(home, arguments, lines):
    assert said(home, "search", arguments).splitlines() == lines


def test_many_matches_are_cut_with_a_word(home):
    lines = said(home, "search", {"text": "line"}).splitlines()
    assert lines[99:] == [
        "long.txt:100: line 100",
        "[only the first 100 matches are shown; narrow the search down]",
    ]


def test_what_cannot_be_searched_is_told(home):
    assert said(home, "search", {"text": "line"}, max_bytes=1000) == (
        "[nothing was found]\n[1 files were not searched: too large or not readable]"
    )
    assert refused(home, "search", {"text": ""}) == "text is empty; leave it out to find files by name"
    assert refused(home, "search", {"text": "a\nb"}) == "text holds a line break; give a part of one line"
    assert "more than 20 globs" in refused(home, "search", {"glob": "{a,b}" * 10})


def test_a_file_that_is_too_large_to_read_does_not_end_a_search(home):
    (home / "film").touch()
    os.truncate(home / "film", 10**12)
    assert said(home, "search", {"text": "tea", "glob": "*"}).splitlines()[-2:] == [
        "notes/old/tea.txt:1: old tea",
        "[1 files were not searched: too large or not readable]",
    ]


OUTSIDE = [
    *("../neighbour/secret.txt", "notes/../../neighbour/secret.txt", "notes/..", "..", "./../neighbour"),
    *("/etc/passwd", "//etc/passwd", "NEIGHBOUR", "a\0b", "notes/\0/../../neighbour/secret.txt"),
    *(
        "‥/neighbour/secret.txt",
        "．．/neighbour/secret.txt",
        "․․/neighbour/secret.txt",
        "..\u200b/neighbour/secret.txt",
    ),
    *("..\\neighbour\\secret.txt", "%2e%2e/neighbour/secret.txt", "~/x", "link", "link/secret.txt", "linked.txt"),
    *("loop/loop/secret.txt", "dangling", "up/neighbour/secret.txt", "\ud800", "x" * 300, "notes/tea.md/x"),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_outside(home, path):
    (home / "link").symlink_to("../neighbour")
    (home / "linked.txt").symlink_to("../neighbour/secret.txt")
    (home / "loop").symlink_to("loop")
    (home / "dangling").symlink_to("nowhere")
    (home / "up").symlink_to("..")
    for action, more in (("read", {}), ("list", {}), ("search", {"text": "secret"}), ("write", {"content": "x"})):
        arguments = more | {"path": path}
        result = use(home, action, arguments, write=True)
        assert SECRET not in result.content
        assert str(home) not in result.content
        if action in ("read", "list"):
            assert result.is_error, result.content
    assert (home.parent / "neighbour" / "secret.txt").read_text() == SECRET
    assert sorted(entry.name for entry in home.parent.iterdir()) == ["home", "neighbour"]
    assert [entry.name for entry in (home.parent / "neighbour").iterdir()] == ["secret.txt"]


def test_the_reason_of_a_refusal_is_told(home):
    (home / "link").symlink_to("../neighbour")
    (home / "linked.txt").symlink_to("../neighbour/secret.txt")
    reasons = {
        "/etc/passwd": "'/etc/passwd' is absolute; a path starts in the folder of this tool, such as 'notes/a.txt'",
        "../x": "'../x' leads upwards; '..' is not allowed",
        "link/secret.txt": "'link' is a link (links are not followed), not a folder",
        "linked.txt": "'linked.txt' is a link (links are not followed), not a file",
        "notes": "'notes' is a folder, not a file",
        "notes/tea.md/x": "'notes/tea.md' is a file, not a folder",
        "notes/tee.md": "'notes/tee.md' is not there; notes holds: old/, tea.md; did you mean 'tea.md'?",
        "note/tea.md": (
            "'note' is not there; the folder holds: empty.txt, link, linked.txt, long.txt, notes/, picture.png; "
            "did you mean 'notes/'?"
        ),
        "a\0": "a path holds no NUL character",
        "x" * 300: f"{'x' * 300!r:.300}: File name too long",
        ".": "'.' is a folder, not a file",
    }
    for path, reason in reasons.items():
        assert refused(home, "read", {"path": path}) == reason


def test_devices_pipes_and_sockets_are_not_opened(home):
    os.mkfifo(home / "pipe")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(os.path.relpath(home / "plug"))
        for path in ("pipe", "plug"):
            assert refused(home, "read", {"path": path}) == f"'{path}' is a device, pipe or socket, not a file"
            assert refused(home, "write", {"path": path, "content": "x"}, write=True).endswith(
                "only a file can be replaced"
            )
    assert refused("/dev", "read", {"path": "null"}) == "'null' is a device, pipe or socket, not a file"


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="no /proc here")
def test_another_file_system_is_not_entered():
    told = refused_in_root("read", {"path": "proc/self/environ"})
    assert told == "'proc' is another file system, mounted there; it is not entered"


def refused_in_root(action, arguments):
    result = use("/", action, arguments)
    assert result.is_error
    return result.content


def test_a_folder_swapped_for_a_link_in_the_middle_of_a_call_leads_nowhere(home):
    """The handle that was opened stays the folder it was; and opening again finds the link, and refuses."""
    root = Root(str(home))
    stop, notes, aside = threading.Event(), home / "notes", home / "aside"

    def swap():
        while not stop.is_set():
            notes.rename(aside)
            notes.symlink_to("../neighbour")
            notes.unlink()
            aside.rename(notes)

    (notes / "secret.txt").write_text("harmless")
    (home.parent / "neighbour" / "only-the-neighbour-has.txt").touch()
    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3_000):
            try:
                seen.add(root.read("notes/secret.txt", 1000))
                seen |= {entry.name for entry in root.entries("notes")}
            except ToolError as error:
                seen.add(str(error))
    finally:
        stop.set()
        swapper.join()
    assert b"harmless" in seen
    assert SECRET.encode() not in seen
    assert "only-the-neighbour-has.txt" not in seen


def test_a_name_is_found_however_it_is_composed(home):
    decomposed = unicodedata.normalize("NFD", "café.txt")
    (home / decomposed).write_text("au lait")
    assert said(home, "read", {"path": "café.txt"}) == "au lait"
    said(home, "write", {"path": "café.txt", "content": "noir"}, write=True)
    assert (home / decomposed).read_text() == "noir"
    assert not (home / "café.txt").exists()


def test_a_name_that_is_no_text_is_listed_and_reaches_the_model(home):
    (home / os.fsdecode(b"bad\xff.txt")).write_text("x")
    assert "bad?.txt (1 bytes)" in said(home, "list")
    assert said(home, "read", {"path": "bad?.txt"}) == "x"


def test_writing_has_to_be_allowed(home):
    assert [tool.name for tool in files(root=str(home))] == ["files_list", "files_read", "files_search"]
    tools = files(root=str(home), write=True)
    assert tools[-1].name == "files_write"
    assert tools[-1].sequential
    assert not any(tool.needs_approval for tool in tools)


def test_a_file_is_written_whole(home):
    assert said(home, "write", {"path": "a/b/new.txt", "content": "é\n"}, write=True) == "wrote a/b/new.txt (3 bytes)"
    assert (home / "a" / "b" / "new.txt").read_bytes() == "é\n".encode()
    (home / "run.sh").write_text("old")
    (home / "run.sh").chmod(0o750)
    before = (home / "run.sh").stat().st_ino
    assert said(home, "write", {"path": "run.sh", "content": "new"}, write=True) == "replaced run.sh (3 bytes)"
    assert (home / "run.sh").read_text() == "new"
    assert stat.S_IMODE((home / "run.sh").stat().st_mode) == 0o750
    assert (home / "run.sh").stat().st_ino != before
    assert not list(home.rglob("*.partial"))


def test_a_hard_link_is_replaced_and_not_written_through(home):
    os.link(home.parent / "neighbour" / "secret.txt", home / "same.txt")
    said(home, "write", {"path": "same.txt", "content": "mine"}, write=True)
    assert (home.parent / "neighbour" / "secret.txt").read_text() == SECRET


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"path": "notes", "content": "x"}, "'notes' is a folder; only a file can be replaced"),
        ({"path": "new/", "content": "x"}, "'new/' names no file"),
        ({"path": "", "content": "x"}, "'' names no file"),
        ({"path": "notes/tea.md/x", "content": "x"}, "'notes/tea.md' is a file, not a folder"),
        ({"path": "new.txt", "content": "x" * 101}, "the content has 101 bytes; at most 100 are written"),
        ({"path": "new.txt", "content": 5}, "content: Input should be a valid string"),
        ({"path": "new.txt"}, "content: missing"),
    ],
)
def test_what_cannot_be_written_is_told(home, arguments, reason):
    assert reason in refused(home, "write", arguments, write=True, max_bytes=100)
    assert not list(home.rglob("*.partial"))
    assert not (home / "new").exists()


@pytest.mark.parametrize(
    ("action", "arguments", "reason"),
    [
        ("read", {"path": "long.txt"}, "'long.txt' has 48893 bytes; at most 100 are read"),
        ("read", {"path": "notes/tea.md", "start_line": 4}, "'notes/tea.md' has 3 lines; start_line is 4"),
        ("read", {"path": "notes/tea.md", "start_line": 0}, "start_line and lines are whole numbers from 1"),
        ("read", {"path": "notes/tea.md", "lines": -1}, "start_line and lines are whole numbers from 1"),
        ("read", {"file": "x"}, "file: unknown argument; allowed are: path, start_line, lines"),
        ("list", {"path": "notes/tea.md"}, "'notes/tea.md' is a file, not a folder"),
        ("search", {"path": "nots"}, "did you mean 'notes/'?"),
    ],
)
def test_a_wrong_call_is_told(home, action, arguments, reason):
    assert reason in refused(home, action, arguments, max_bytes=100)


def test_a_folder_that_is_gone_is_told_without_its_name(home):
    told = refused(home / "gone", "list")
    assert told == "the folder of this tool cannot be opened: No such file or directory; tell the owner"


@pytest.mark.parametrize("options", [{"root": ""}, {"root": "a\0b"}, {"root": ".", "max_bytes": 0}])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(MisuseError):
        files(**options)


def test_the_owner_may_open_a_folder_by_a_link(home):
    (home.parent / "current").symlink_to(home)
    assert "notes/" in said(home.parent / "current", "list")


def test_a_definition_gives_them_under_its_name(home):
    entry = {"use": "files", "root": str(home), "name": "docs", "write": True, "timeout_s": 3}
    agent = agent_from_dict(
        {"name": "a", "llm": {"provider": "openai", "model": "m", "api_key": "k"}, "tools": [entry]}
    )
    assert [tool.spec.name for tool in agent.tools] == ["docs_list", "docs_read", "docs_search", "docs_write"]
    assert {tool.timeout_s for tool in agent.tools} == {3.0}


def test_no_handle_is_left_open(home):
    def handles():
        return len(list(Path("/dev/fd").iterdir()))

    tools = {tool.name: tool for tool in files(root=str(home), write=True)}

    async def main():
        before = handles()
        for path in ("notes/tea.md", "notes/nothing", "notes", "../x", "picture.png"):
            for name in ("files_read", "files_list", "files_search"):
                await tools[name].async_run({"path": path})
            await tools["files_write"].async_run({"path": f"{path}/x", "content": "x"})
        return before, handles()

    before, after = asyncio.run(main())
    assert after == before
