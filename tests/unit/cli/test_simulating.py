from __future__ import annotations

from pathlib import Path

import pytest

from shared_libs.atomic.resilience.health import CircuitBreaker
from shared_libs.cli import main

CONFIGS = Path(__file__).parents[3] / "configs"


def test_a_simulation_without_a_violation_ends_with_0(capsys):
    assert main(["simulate", str(CONFIGS / "hello.yaml"), "--runs", "20", "--seed", "3"]) == 0

    assert "seed 3: 20 scenarios in" in capsys.readouterr().out


def test_a_violation_ends_with_1_and_names_the_promise_the_seed_and_the_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(CircuitBreaker, "succeeded", lambda self, policy: None)  # a bug: it never closes

    assert main(["simulate", str(CONFIGS / "hello.yaml"), "--runs", "40", "--seed", "1", "--out", str(tmp_path)]) == 1

    told = capsys.readouterr().out
    [file] = tmp_path.glob("recovery-1-*.scenario.yaml")
    assert "seed 1: 40 scenarios" in told
    assert "broke promise recovery: " in told
    assert f"pytest {file}" in told


@pytest.mark.parametrize("runs", ["0", "-1", "many"])
def test_a_number_of_runs_that_is_none_is_misuse(capsys, runs):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "x.yaml", "--runs", runs])

    assert ended.value.code == 2
    assert "a whole number from 1" in capsys.readouterr().err


def test_a_definition_that_does_not_hold_is_misuse(capsys, tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("name: a\n")

    assert main(["simulate", str(file)]) == 2
    assert "agent.yaml:1" in capsys.readouterr().err
