"""`factory scenario`: scenarios without pytest."""

from __future__ import annotations

import pytest

from shared_libs.cli import main

AGENT = "name: a\nllm: {provider: openai, model: m}\ntools: [calculator]\n"
PASSING = "scenario: it greets\nagent: agent.yaml\nquestion: Hi.\nmodels: {'*': [Hello.]}\nexpect: {answer: Hello.}\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.yaml").write_text(AGENT)
    (tmp_path / "a.scenario.yaml").write_text(PASSING)
    return tmp_path


def test_what_passes_is_a_line_and_what_fails_says_what_a_person_needs(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    (here / "b.scenario.yaml").write_text(PASSING.replace("answer: Hello.", "answer: Bye."))
    assert main(["scenario", "."]) == 1
    out, err = capsys.readouterr()
    assert "a.scenario.yaml:1: it greets: passed\n" in out
    assert "b.scenario.yaml:1: it greets: FAILED\n" in out
    assert "Difference: answer: expected" in out
    assert "openai" in out or "Step 1" in out
    assert all(len(line) <= 60 for line in out.splitlines())
    assert "Again: factory scenario b.scenario.yaml --seed 0" in out
    assert err.startswith("1 passed, 1 failed in ")
    assert main(["scenario", "a.scenario.yaml", "--seed", "7"]) == 0


def test_a_question_to_a_real_model_is_left_out_and_a_scripted_one_judged(here, capsys):
    (here / "a.scenario.yaml").write_text(
        "scenario: sums\nagent: agent.yaml\nevaluators: [exact]\nquestions:\n"
        "  - {question: '1 + 1?', expected: '2', models: {'*': ['2']}}\n"
        "  - {question: '2 + 2?', expected: '4'}\n"
    )
    assert main(["scenario", "a.scenario.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "sums: 1 + 1?: passed" in out
    assert "sums: 2 + 2?: left out" in out
    assert err.startswith("1 passed, 1 left out in ")


def test_files_that_do_not_hold_and_folders_without_any_are_misuse(here, capsys):
    (here / "a.scenario.yaml").write_text(PASSING + "sed: 3\n")
    assert main(["scenario", "."]) == 2
    assert "a.scenario.yaml:6:1: sed: unknown key" in capsys.readouterr().err
    (here / "empty").mkdir()
    assert main(["scenario", "empty"]) == 2
    assert "empty holds no *.scenario.yaml" in capsys.readouterr().err
