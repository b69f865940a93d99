"""A definition that names another one: built, checked with places, never in a circle."""

from __future__ import annotations

import pytest

from shared_libs.atomic import ConfigError
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.factory import agent_from_dict, check_file, load_agent
from tests.support import run

OUTER = """name: outer
llm: {{provider: openai, model: m, api_key: "${{NO_SUCH_KEY_HERE:-}}"}}
tools:
  - {{use: agent, path: {path}{more}}}
"""
INNER = """name: inner
description: Knows the answer.
llm: {provider: openai, model: m, api_key: "${NO_SUCH_KEY_HERE:-}"}
"""


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder / "outer.yaml"


def test_the_other_definition_answers_with_what_the_caller_brings(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "inner.yaml").write_text(INNER)
    outer = write(tmp_path, outer=OUTER.format(path="deep/inner.yaml", more=", name: expert"))
    events = []
    model = ScriptedLLM([Turn(calls=[("expert", {"question": "q"})]), "because", "done"])
    agent = load_agent(outer, llm=model, observers=[events.append])
    assert agent.tools[0].spec.description == "Knows the answer."
    result = run(agent.async_run("go"))
    assert result.steps[0].observations[0].content == "because"
    assert {event.agent for event in events if hasattr(event, "agent")} == {"outer", "inner"}


def test_a_definition_that_holds_is_checked_without_keys(tmp_path):
    outer = write(tmp_path, inner=INNER, outer=OUTER.format(path="inner.yaml", more=", description: Ask it."))
    assert check_file(outer) == []


@pytest.mark.promise("config-told")
def test_what_is_wrong_inside_is_told_with_both_places(tmp_path):
    outer = write(tmp_path, inner=INNER + "limits: {max_step: 3}\n", outer=OUTER.format(path="inner.yaml", more=""))
    (line,) = check_file(outer)
    assert line.startswith(f"{outer}:4:24: tools[0].path: path inner.yaml does not hold: {tmp_path}/inner.yaml:4:10: ")
    assert "max_steps" in line


@pytest.mark.promise("config-told")
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"outer": OUTER.format(path="outer.yaml", more="")}, "makes a circle: outer.yaml → outer.yaml"),
        (
            {"outer": OUTER.format(path="b.yaml", more=""), "b": OUTER.format(path="./outer.yaml", more="")},
            "makes a circle: outer.yaml → b.yaml → outer.yaml; an agent cannot call itself",
        ),
        ({"outer": OUTER.format(path="none.yaml", more="")}, "there is no such file"),
        (
            {
                "outer": OUTER.format(path="n0.yaml", more=""),
                **{f"n{n}": OUTER.format(path=f"n{n + 1}.yaml", more="") for n in range(8)},
            },
            "nested too deep; agents call agents at most 5 deep",
        ),
    ],
)
def test_a_circle_a_gap_and_a_pit_are_told(tmp_path, files, said):
    (line,) = check_file(write(tmp_path, **files))
    assert "tools[0].path: " in line
    assert said in line
    with pytest.raises(ConfigError, match="tools"):
        load_agent(tmp_path / "outer.yaml", llm=ScriptedLLM([]))


def test_a_definition_without_a_description_needs_words_of_the_caller(tmp_path):
    bare = INNER.replace("description: Knows the answer.\n", "")
    (line,) = check_file(write(tmp_path, inner=bare, outer=OUTER.format(path="inner.yaml", more="")))
    assert "description" in line
    assert check_file(write(tmp_path, inner=bare, outer=OUTER.format(path="inner.yaml", more=", description: d"))) == []


def test_plain_data_names_files_from_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path, inner=INNER)
    monkeypatch.chdir(tmp_path)
    data = {"name": "outer", "tools": [{"use": "agent", "path": "inner.yaml"}]}
    agent = agent_from_dict(data, llm=ScriptedLLM([]))
    assert agent.tools[0].name == "inner"
