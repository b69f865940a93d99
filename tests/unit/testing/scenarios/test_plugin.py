"""The pytest plugin as its users see it: pytest in a process of its own, over files of theirs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.nursery import ROOT, ran

HELLO = ROOT / "configs" / "hello.yaml"
PASSING = f"scenario: it greets\nagent: {HELLO}\nquestion: Hi.\nmodels: {{'*': [Hello.]}}\nexpect: {{answer: Hello.}}\n"
FAILING = (
    f"scenario: it calculates (twice)\nagent: {HELLO}\nquestion: What is 6 * 7?\n"
    "matrix: {n: [41, 42, 43]}\n"
    "models: {'*': [{calls: [{tool: calculator, input: {expression: 6 * 7}}]}, It is 42.]}\n"
    "faults: [{on: model, fault: rate_limited, retry_after_s: 3, attempts: [1]}]\n"
    'expect: {answer: {number: {value: "${{n}}"}}}\n'
)


@pytest.fixture
def run_pytest(tmp_path):
    def run(*arguments, **files):
        for name, text in files.items():
            (tmp_path / name.replace("__", ".")).write_text(text)
        # the one of this checkout, whichever is installed, and of others what is used here
        plugin = ["--disable-plugin-autoload", "-p", "genai_factory_pytest", "-p", "xdist", "-p", "random_order"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = ran("-m", "pytest", *plugin, *arguments, cwd=tmp_path, env=environment)
        return done.stdout + done.stderr

    return run


def test_a_failing_scenario_says_what_a_person_needs(run_pytest):
    said = run_pytest(a__scenario__yaml=FAILING, b__scenario__yaml=PASSING)
    assert "2 failed, 2 passed" in said
    assert 'Difference: answer: expected the number 41, got "It is 42."' in said
    for shown in ("What is 6 * 7?", "Retry-After", "gpt-5.4-mini · try 2", "calculator", "3.00 s", "Seed: 0"):
        assert shown in said
    assert "call 1 of model openai/gpt-5.4-mini: rate_limited" in said
    assert "Traceback" not in said
    again = re.search(r"Again: pytest '(.+)' --scenario-seed 0", said)[1]
    assert again == "a.scenario.yaml::it calculates (twice)[n=41]"
    assert "1 failed" in run_pytest(again, "--scenario-seed", "0")


def test_problems_of_a_file_are_told_with_their_places(run_pytest):
    said = run_pytest(a__scenario__yaml=PASSING + "sed: 3\n")
    assert "a.scenario.yaml:6:1: sed: unknown key" in said
    assert "Traceback" not in said


def test_a_definition_that_does_not_hold_fails_its_scenario_in_a_line(run_pytest):
    said = run_pytest(a__scenario__yaml=PASSING + "override: {limits: {max_stps: 3}}\n")
    assert "a.scenario.yaml:1: agent: limits.max_stps: unknown key" in said
    assert "def runtest" not in said


def test_scenarios_stand_beside_other_tests_in_any_order_and_on_several_processes(run_pytest):
    files = {"a__scenario__yaml": FAILING, "b__scenario__yaml": PASSING, "test_c__py": "def test_c(): pass\n"}
    assert "2 failed, 3 passed" in run_pytest("-n", "2", **files)
    assert "2 failed, 3 passed" in run_pytest("--random-order", **files)
    assert "2 failed, 2 passed, 1 deselected" in run_pytest("-m", "scenario", **files)
    assert "1 passed, 4 deselected" in run_pytest("-m", "not scenario", **files)
    assert "1 passed, 4 deselected" in run_pytest("-k", "twice and 42", **files)


def test_two_scenarios_of_one_name_are_two_tests(run_pytest):
    said = run_pytest("--collect-only", "-q", a__scenario__yaml=f"{PASSING}---\n{PASSING}")
    assert "a.scenario.yaml::it greets\na.scenario.yaml::it greets#2\n" in said


def test_the_fixtures_give_agents_whose_ports_are_taken(run_pytest):
    test = f"""
HELLO = {str(HELLO)!r}

def test_agent(factory_agent, virtual_clock):
    agent = factory_agent(HELLO, models={{"*": ["Hello."]}},
                          faults=[{{"on": "model", "fault": "rate_limited", "retry_after_s": 9, "attempts": [1]}}])
    assert virtual_clock.run(agent.async_run("Hi.")).answer == "Hello."
    assert virtual_clock.elapsed_s == 9

def test_left_over(factory_agent):
    factory_agent(HELLO, models={{"*": ["Hello."]}})

def test_llm(scripted_llm, virtual_clock):
    llm = scripted_llm(["One.", "Two."])
    assert virtual_clock.run(llm.async_generate("?")).text == "One."

def test_wrong(factory_agent):
    factory_agent(HELLO, modles={{}})
"""
    said = run_pytest("-q", test_a__py=test)
    assert "1 failed, 3 passed, 2 errors" in said
    assert "script of *: 1 of 1 turns not used; next is 'Hello.'" in said
    assert "1 of 2 turns of the script were not used" in said
    assert "modles: unknown key" in said


def test_the_plugin_costs_nothing_without_scenarios(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import sys\n"
        "def test_lean():\n"
        "    heavy = {'pydantic', 'yaml', 'aiohttp', 'openai', 'rich', 'msgspec', 'shared_libs.atomic'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--disable-plugin-autoload", "-p", "genai_factory_pytest"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "1 passed" in done.stdout


def test_installing_the_package_registers_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"genai_factory": "genai_factory_pytest"}
    assert any(need.startswith("pytest") for need in project["optional-dependencies"]["testing"])
