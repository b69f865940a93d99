"""`factory schema`, `trace` and the command itself."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

from shared_libs.cli import main
from shared_libs.cli.drawn import print_answer


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text("name: a\nllm: {provider: openai, model: m}\n")
    return tmp_path


def test_schema_is_a_schema_that_the_example_fits(here, capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(yaml.safe_load((here / "good.yaml").read_text()), schema)


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("no record\n", (), "run.jsonl:1: not an event of a run record"),
        ("", (), "holds no events"),
        (None, (), "cannot be read"),
        ('{"type":"warned","message":"m"}\n', ("--html", "run.jsonl"), "is the run record itself"),
        ('{"type":"warned","message":"m"}\n', ("--html", "none/page.html"), "cannot be written"),
    ],
)
def test_trace_says_what_is_wrong(here, capsys, content, arguments, said):
    if content is not None:
        (here / "run.jsonl").write_text(content)
    assert main(["trace", "run.jsonl", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_trace_of_a_cut_record_draws_what_there_is(here, capsys):
    (here / "run.jsonl").write_text('{"type":"warned","message":"mind the gap","run_id":"r"}\n{"type":"war')
    assert main(["trace", "run.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert "mind the gap" in out
    assert "unfinished" in out
    assert "run.jsonl:2: the last line is cut off" in err


def test_trace_reads_records_from_stdin_and_writes_a_page_to_stdout(here, capsys, monkeypatch):
    """Of several files: `cat runs/*.jsonl | factory trace -`."""
    said = b'{"type":"warned","message":"mind the gap","run_id":"r"}\n'
    for arguments, words in (([], "mind the gap"), (["--html", "-"], "<!doctype html>")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
        assert main(["trace", "-", *arguments]) == 0
        assert words in capsys.readouterr().out
    assert list(here.iterdir()) == [here / "good.yaml"]


def test_code_in_an_answer_has_the_colours_of_the_terminal(monkeypatch):
    """It was black on white, on a dark terminal too."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_answer("So, with `name`:\n\n```sql\nSELECT name -- all\n```\n", shown := io.StringIO())
    assert "\x1b[1mSELECT" in shown.getvalue()
    assert not re.search(r"\x1b\[(?:\d+;)*(?:4[0-8]|10[0-7])[;m]", shown.getvalue())


def test_of_an_address_in_an_answer_nothing_is_cut(monkeypatch):
    """In a table it ended in an ellipsis, and a picture had none."""
    monkeypatch.setenv("COLUMNS", "40")
    address = f"https://example.com/{'way/' * 12}end"
    print_answer(f"| a | b |\n|---|---|\n| x | {address} |\n\n![the chart]({address})\n", shown := io.StringIO())
    said = "".join(shown.getvalue().split())
    assert said.count(address) == 2
    assert f"thechart({address})" in said


def test_trace_writes_one_page(here, capsys):
    (here / "run.jsonl").write_text('{"type":"warned","message":"mind the gap","run_id":"r"}\n')
    assert main(["trace", "run.jsonl", "--html", "page.html"]) == 0
    assert capsys.readouterr().out == "page.html\n"
    assert "mind the gap" in (here / "page.html").read_text()


def test_without_a_command_or_with_a_wrong_one_the_usage_is_told(capsys):
    for arguments in ([], ["walk"], ["run"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: factory" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    script = (
        "import sys\nfrom shared_libs.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = 'pydantic rich structlog openai aiohttp yaml numpy jsonschema sqlalchemy asyncio msgspec'.split()\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "exit codes: 0 answered" in done.stdout
