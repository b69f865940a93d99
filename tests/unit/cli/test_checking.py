"""`factory check`: every kind of file of ours, and what is missing told apart from what is wrong."""

from __future__ import annotations

import sys

import pytest

from shared_libs.cli import main

GOOD = "name: a\nllm: {provider: openai, model: m}\n"
SCENARIO = "scenario: it greets\nagent: good.yaml\nquestion: Hi.\nmodels: {'*': [Hello.]}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD)
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


def test_settings_of_a_service_that_are_named_and_not_there_do_not_hold(here, capsys):
    assert main(["check", "service.yaml"]) == 2
    assert capsys.readouterr().err == "service.yaml: there is no such file\n"


def test_a_folder_as_the_documents_lay_it_out_is_checked_file_by_file_by_its_kind(here, capsys):
    files = {
        "good.scenario.yaml": SCENARIO,
        "greet.cassette.yaml": "cassette: 1\nrequests: []\n",
        "service.yaml": "slots: 4\n",
        "prices.yaml": "openai:\n  m: {input: 1, output: 2}\n",
        "faults.yaml": "m: [rate_limited, {fault: cut, after_bytes: 2}]\n'*': healthy\n",
        "suite/sums.scenario.yaml": "scenario: sums\nagent: ../good.yaml\nmodels: {'*': ['2']}\n"
        "questions: [{question: '1 + 1?', expected: '2', evaluators: [exact]}]\n",
        "docker-compose.yml": "services:\n  web: {image: nginx}\n",
        ".github/workflows/ci.yml": "on: push\njobs: {test: {steps: []}}\n",
    }
    for name, text in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    assert main(["check", "."]) == 0
    out, err = capsys.readouterr()
    ours = ["faults.yaml", "good.scenario.yaml", "good.yaml", "greet.cassette.yaml", "prices.yaml", "service.yaml"]
    assert out.splitlines() == [f"{name}: ok" for name in [*ours, "suite/sums.scenario.yaml"]]
    assert "2 other YAML left out: .github/workflows/ci.yml, docker-compose.yml" in err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.scenario.yaml", SCENARIO + "sed: 3\n", "a.scenario.yaml:5:1: sed: unknown key"),
        ("a.scenario.yaml", SCENARIO.replace("good.yaml", "godo.yaml"), "did you mean 'good.yaml'?"),
        ("a.scenario.yaml", SCENARIO + "override: {limits: {max_stps: 3}}\n", "limits.max_stps: unknown key"),
        ("a.scenario.yml", SCENARIO + "sed: 3\n", "a.scenario.yml:5:1: sed: unknown key"),
        ("a.cassette.yaml", "cassette: 7\n", "`cassette: 7` is not the version"),
        ("prices.yaml", "opnai: {}\n", "prices.yaml:1:1: opnai: is no provider"),
        ("faults.yaml", "m: [rate_limited, {fault: ctu}]\n", "faults.yaml:1:27: m[1].fault: there is no fault 'ctu'"),
        ("service.yaml", "slotz: 3\n", "service.yaml:1:1: slotz: unknown key"),
        ("a.yaml", "name: a\ninstrutions: x\nllm: {provider: openai, model: m}\n", "did you mean 'instructions'?"),
    ],
)
def test_what_is_wrong_with_a_file_of_any_kind_is_an_error(here, capsys, name, text, said):
    (here / name).write_text(text)
    assert main(["check", "."]) == 2
    assert said in capsys.readouterr().err


def test_what_is_not_installed_is_told_and_is_no_error(here, capsys, monkeypatch):
    for name in ("mcp", "asyncpg"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    (here / "good.yaml").write_text(
        GOOD + "description: d\ntools: [{use: mcp, command: [x]}]\nmemory: {url: 'postgresql+asyncpg://u@h/d'}\n"
    )
    (here / "outer.yaml").write_text(GOOD.replace("name: a", "name: b") + "tools: [{use: agent, path: good.yaml}]\n")
    assert main(["check", "."]) == 0
    out, err = capsys.readouterr()
    needs = "genai-factory[mcp], genai-factory[postgres]"
    assert out.splitlines() == [f"good.yaml: ok, needs {needs}", f"outer.yaml: ok, needs {needs}"]
    assert "good.yaml:4:15: tools[0].use: tool 'mcp' needs the package mcp: pip install 'genai-factory[mcp]'" in err
    (here / "good.yaml").write_text((here / "good.yaml").read_text() + "limts: {}\n")
    assert main(["check", "good.yaml"]) == 2
    assert "limts: unknown key" in capsys.readouterr().err


def test_a_note_that_is_true_of_several_agents_is_told_once(factory):
    keyed = "{provider: openai, model: m, api_key: '${OPENAI_API_KEY:-}'}"
    chain = f"llm: {{chain: [{keyed}, {{provider: rehearsal, script: hello}}]}}\n"
    here = factory.folder
    (here / "inner.yaml").write_text(f"name: i\ndescription: d\n{chain}")
    (here / "outer.yaml").write_text(f"name: o\n{chain}tools: [calculator, {{use: agent, path: inner.yaml}}]\n")
    code, _, err = factory("run", "outer.yaml", "What is 17 * 23?")
    assert code == 0
    assert err.count("openai is left out") == 1
