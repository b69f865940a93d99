"""The scenario file: documents, matrices, problems with their places, and the schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from shared_libs.atomic.errors import ConfigError
from shared_libs.factory.source import read_documents
from shared_libs.testing import load_scenarios, scenarios_of
from shared_libs.testing.scenarios.port_faults import KINDS
from shared_libs.testing.scenarios.schema import scenario_schema

ROOT = Path(__file__).parents[4]
CONFIGS = ROOT / "configs"
FILES = sorted((ROOT / "tests" / "scenarios").glob("*.scenario.yaml"))
HEAD = "scenario: one\nagent: a.yaml\nquestion: q\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "a.scenario.yaml"
        path.write_text(text)
        return load_scenarios(path)

    return read_text


def problems(read, text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [problem.partition("a.scenario.yaml:")[2] for problem in caught.value.problems]


def test_a_file_holds_several_scenarios_and_each_knows_its_line(read):
    found = read(f"{HEAD}---\n# more\n{HEAD.replace('one', 'two')}")
    assert [(scenario.name, scenario.line) for scenario in found] == [("one", 1), ("two", 6)]


def test_a_matrix_is_played_each_with_each_and_keeps_types(read):
    found = read(
        f'{HEAD}matrix: {{n: [1, 2], on: [true, "x"]}}\nseed: "${{{{n}}}}"\n'
        'session: {id: "s-${{ n }}-${{on}}"}\nmodels: {"m${{n}}": ["${{on}} ${{n}}"]}\n'
    )
    assert [scenario.name for scenario in found] == [
        "one [n=1, on=True]",
        "one [n=1, on=x]",
        "one [n=2, on=True]",
        "one [n=2, on=x]",
    ]
    assert [scenario.spec.seed for scenario in found] == [1, 1, 2, 2]
    assert found[3].spec.session.id == "s-2-x"
    assert found[3].spec.models["m2"][0].text == "x 2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sed: 3", "4:1: sed: unknown key; allowed: agent, beside, "),
        ("models: {x: [{txt: a}]}", "4:15: models.x[0].txt: unknown key; allowed: calls, chunks, delay_s, text, think"),
        ("models: {x: {txt: a}}", "models.x.txt: unknown key"),
        ("faults: [{on: model, fault: cutt}]", "did you mean 'cut'?"),
        ("faults: [{on: model, fault: cut, attempts: [0]}]", "expected a number from 1, got the number 0"),
        ("clock: reel", "'reel' is not known; allowed: real, virtual; did you mean 'real'?"),
        ('seed: "${{m}}"\nmatrix: {n: [1]}', "4:7: seed: the matrix has no 'm'; allowed: n"),
        ("matrix: {n: []}", "matrix.n: expected a list that is not empty"),
        ("expect: {answer: {matches: '('}}", "expect.answer.matches: is no regular expression"),
        ("expect: {answer: {schema: {type: txt}}}", "expect.answer.schema: schema is not a JSON Schema"),
        ("expect: {events: [retry_schedule]}", "did you mean 'retry_scheduled'?"),
        ("expect: {never: [{type: fell_back, modle: x}]}", "fell_back has no field 'modle'"),
        ("expect: {stauts: failed}", "did you mean 'status'?"),
        ("expect: {steps: many}", "expect.steps: expected a mapping, got text 'many'"),
        ("question: again", "the key stands twice"),
        ("seed: !!python/name:os.system x", "is not allowed"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(read, text, says):
    assert says in "\n".join(problems(read, f"{HEAD}{text}\n"))


def test_all_problems_of_all_documents_come_at_once(read):
    found = problems(read, f"{HEAD}sed: 1\nclok: real\n---\nscenario: two\n")
    assert [line.partition(": ")[0] for line in found] == ["4:1", "5:1", "7:1", "7:1"]


def test_the_definition_of_an_agent_is_told_as_that_and_not_key_by_key(read):
    with pytest.raises(ConfigError) as caught:
        read("name: a\ninstructions: x\nllm: {provider: rehearsal, script: hello}\n")
    assert len(caught.value.problems) == 1
    assert "no scenario, but the definition of an agent" in caught.value.problems[0]


def test_an_empty_file_is_told(read):
    assert problems(read, "") or problems(read, "# nothing\n")


def test_plain_data_is_taken_as_well():
    with pytest.raises(ConfigError, match=r"faults\[0\]: fault: a tool has no fault 'cut'"):
        scenarios_of({"scenario": "s", "agent": "a", "question": "q", "faults": [{"on": "tool", "fault": "cut"}]})


def test_the_written_schema_is_fresh():
    written = json.loads((CONFIGS / "scenario.schema.json").read_text())
    assert written == scenario_schema(), "renew it: see docs/scenarios.md"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_scenario_of_ours_fits_the_schema(path):
    agent = json.loads((CONFIGS / "agent.schema.json").read_text())
    registry = Registry().with_resource("agent.schema.json", Resource.from_contents(agent))
    validator = jsonschema.Draft7Validator(scenario_schema(), registry=registry)
    for document, _ in read_documents(path):
        assert [error.message for error in validator.iter_errors(document)] == []


def test_the_schema_refuses_what_the_reader_refuses():
    validator = jsonschema.Draft7Validator(scenario_schema())
    base = {"scenario": "s", "agent": "a.yaml", "question": "q"}
    wrong = [{"sed": 1}, {"faults": [{"on": "model", "fault": "cutt"}]}, {"expect": {"stauts": "x"}}, {"seed": "x"}]
    for more in wrong:
        assert not validator.is_valid(base | more), more
    assert validator.is_valid(base | {"seed": "${{n}}", "models": {"*": "Hello."}, "expect": {"steps": 2}})


def test_our_scenarios_play_every_fault_of_every_port():
    played = {
        (fault.fault_of_port().port, fault.fault)
        for path in FILES
        for scenario in load_scenarios(path)
        for fault in scenario.spec.faults
    }
    assert played == {(port, kind) for port, kinds in KINDS.items() for kind in kinds}


@pytest.mark.promise("config-told")
def test_a_missing_definition_and_every_wrong_fault_are_told_at_once(tmp_path):
    (tmp_path / "agent.yaml").write_text("name: a\nllm: {provider: openai, model: m}\n")
    path = tmp_path / "a.scenario.yaml"
    path.write_text(
        "scenario: s\nagent: agentt.yaml\nquestion: q\nmodels: {'*': [a]}\n"
        "faults: [{on: modell x, fault: hang}, {on: tool, fault: hung}]\n"
    )
    with pytest.raises(ConfigError) as told:
        load_scenarios(path, with_agents=True)
    first, second, third = told.value.problems
    assert first == f"{path}:2:8: agent: {tmp_path}/agentt.yaml: there is no such file; did you mean 'agent.yaml'?"
    assert "did you mean 'model'?" in second
    assert "did you mean 'hang'?" in third
