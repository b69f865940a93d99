from __future__ import annotations

from pathlib import Path

import pytest

from bench.planted import bugs, copied, run
from shared_libs.cli import main
from shared_libs.testing import load_scenarios, play

CONFIGS = Path(__file__).parents[3] / "configs"


def test_a_simulation_without_a_violation_ends_with_0(capsys):
    assert main(["simulate", str(CONFIGS / "hello.yaml"), "--runs", "20", "--seed", "3"]) == 0

    assert "seed 3: 20 scenarios in" in capsys.readouterr().out


@pytest.fixture
def buggy(tmp_path):
    """A copy of the package with a bug: a breaker that has opened stays open."""
    package = copied(tmp_path / "copy")
    next(bug for bug in bugs() if bug.name == "a breaker never closes").plant(package)
    return package.parent


def test_what_breaks_a_promise_is_named_made_small_and_breaks_it_again_as_a_file(buggy, tmp_path):
    command = ["simulate", "configs/hello.yaml", "--runs", "40", "--seed", "2", "--out", str(tmp_path)]

    told = run(buggy, "-c", f"from shared_libs.cli import main; print('exit', main({command}))")

    assert "exit 1" in told
    assert "seed 2: 40 scenarios" in told
    assert "broke promise recovery: " in told
    [file] = tmp_path.glob("recovery-2-*.scenario.yaml")
    assert f"pytest {file}" in told
    assert f"# Play it again: pytest {file}" in file.read_text()
    assert "recovery: " in run(buggy, "-m", "pytest", "-q", str(file))
    [scenario] = load_scenarios(file)
    assert len(scenario.spec.faults) == 1
    assert [len(turns) for turns in scenario.spec.models.values()] == [1, 1]
    assert play(scenario).broken == []  # without the bug


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
