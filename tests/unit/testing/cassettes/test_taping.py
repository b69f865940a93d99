"""The cassette of a scenario: recorded with its real models, replayed without them, renewed only if it passes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.chaos import llmock
from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.events import LoopBlocked
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.testing import load_scenarios, play, scenarios_of
from shared_libs.testing.cassettes.taping import Taping
from tests.nursery import ran
from tests.support import run_virtual

ROOT = Path(__file__).parents[4]
KEY = "llmock-key-that-has-no-shape"
SCENARIO = """\
scenario: a question with a tool
agent:
  name: asker
  instructions: |
    You look it up.
    Be brief.
  llm: {provider: openai, model: any-model, api_key: "${TAPED_KEY}", base_url: "${TAPED_URL}"}
  tools: [{use: calculator}]
question: What is 6 * 7?
tools: {calculator: "42"}
cassette: a.cassette.yaml
expect: {status: answered, tools: {exact: [calculator]}, attempts: {any-model: 2}}
"""


@pytest.fixture(scope="module")
def calm():
    with llmock() as url:
        yield url


@pytest.fixture
def file(tmp_path, calm, monkeypatch):
    """A scenario, and the environment in which it can be recorded."""
    monkeypatch.setenv("TAPED_KEY", KEY)
    monkeypatch.setenv("TAPED_URL", f"{calm}/v1")
    file = tmp_path / "a.scenario.yaml"
    file.write_text(SCENARIO)
    return file


def only(file):
    (scenario,) = load_scenarios(file)
    return scenario


@pytest.mark.promise("replay-true", "cassette-secrets")
def test_it_is_recorded_once_and_replayed_without_model_key_or_network(file, calm, monkeypatch):
    recorded = play(only(file), record=True)
    assert recorded.differences == []
    written = file.with_name("a.cassette.yaml").read_text()
    assert KEY not in written
    assert calm not in written
    monkeypatch.delenv("TAPED_KEY")
    monkeypatch.delenv("TAPED_URL")
    replayed = play(only(file))
    assert replayed.differences == []
    assert replayed.result.answer == recorded.result.answer
    assert replayed.result.usage == recorded.result.usage
    told = [[type(event) for event in run.events] for run in (replayed, recorded)]
    assert [kind for kind in told[0] if kind is not LoopBlocked] == [
        kind for kind in told[1] if kind is not LoopBlocked
    ]


@pytest.mark.promise("replay-named")
def test_a_changed_prompt_and_tool_are_named_first_and_the_file_stays(file):
    play(only(file), record=True)
    cassette = file.with_name("a.cassette.yaml")
    before = cassette.read_text()
    file.write_text(
        SCENARIO.replace("Be brief.", "Be very brief.").replace("{use: calculator}", "{use: time}, {use: calculator}")
    )
    first, *_ = play(only(file)).differences
    lines = first.split("\n  ")
    assert lines[0] == "request 1 (openai/any-model) is not as recorded:"
    assert "message 0 (system): line 2: “Be brief.” → “Be very brief.”" in lines
    assert any(line.startswith("tool ") and line.endswith(" is new") for line in lines)
    assert cassette.read_text() == before


def test_a_recording_that_does_not_pass_leaves_the_old_one(file):
    play(only(file), record=True)
    cassette = file.with_name("a.cassette.yaml")
    before = cassette.read_text()
    file.write_text(SCENARIO.replace("Be brief.", "Be long.").replace("status: answered", "status: failed"))
    played = play(only(file), record=True)
    assert played.differences == [
        "status: expected failed, got answered",
        "the cassette a.cassette.yaml was not renewed",
    ]
    assert cassette.read_text() == before


def test_a_missing_or_broken_cassette_says_how_to_get_one(file):
    with pytest.raises(ConfigError, match=r"a\.scenario\.yaml:1: cassette: there is no cassette .*--scenario-record"):
        play(only(file))
    file.with_name("a.cassette.yaml").write_text("cassette: 7")
    with pytest.raises(ConfigError, match=r"`cassette: 7` is not the version 1 .*--scenario-record"):
        play(only(file))


def test_what_does_not_replay_and_what_asked_nobody_is_not_kept(tmp_path):
    data = {"scenario": "s", "agent": {}, "question": "q", "cassette": str(tmp_path / "a.cassette.yaml")}
    taping = Taping(scenarios_of(data)[0], {})
    recorder = taping.recorder()
    unmade = "request 1 was recorded and not made; the first asked scripted/scripted: 1 messages, the last (user) “Q”"
    not_renewed = "the cassette a.cassette.yaml was not renewed"
    assert taping.keep(recorder, [], lambda _: []) == ["no model was asked: there is nothing to record", not_renewed]
    run_virtual(recorder.chain(ScriptedLLM(["A"])).async_chat("Q"))
    assert taping.keep(recorder, [], lambda player: player.differences()) == [
        f"what was recorded does not replay: {unmade}",
        not_renewed,
    ]
    assert list(tmp_path.iterdir()) == []
    assert taping.keep(recorder, [], lambda _: []) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.cassette.yaml"]


def pytest_here(folder: Path, *arguments: str) -> str:
    """What pytest says of a folder, with our plugin and no other."""
    command = ["-m", "pytest", "-p", "genai_factory_pytest", "-p", "no:cacheprovider", *arguments]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    done = ran(*command, cwd=folder, env=env)
    return done.stdout + done.stderr


def test_with_pytest(file):
    said = pytest_here(file.parent)
    assert "1 failed" in said
    assert "cassette: there is no cassette" in said
    assert "1 passed" in pytest_here(file.parent, "--scenario-record")
    assert "1 passed" in pytest_here(file.parent)
    file.write_text(SCENARIO.replace("Be brief.", "Be very brief."))
    said = pytest_here(file.parent)
    assert "message 0 (system): line 2: “Be brief.” → “Be very brief.”" in said
    assert "Record: pytest 'a.scenario.yaml::a question with a tool' --scenario-record" in said
    assert KEY not in said
