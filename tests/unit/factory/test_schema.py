"""The generated JSON Schema: fresh, valid, and of one mind with the factory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource

from shared_libs.factory import agent_schema, check_file
from shared_libs.testing import scenario_schema

CONFIGS = Path(__file__).parents[3] / "configs"
LLM = {"provider": "fake", "model": "m"}
OPENAI = {"provider": "openai", "model": "m"}


def validator():
    schema = agent_schema()
    kind = validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def test_the_written_schema_is_fresh():
    written = (CONFIGS / "agent.schema.json").read_text()
    assert json.loads(written) == agent_schema(), "renew it: factory schema > configs/agent.schema.json"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_definition_of_ours_holds(path, request):
    if path.stem == "local":
        request.getfixturevalue("local_model")
    assert check_file(path) == []
    if path.name != "prices.yaml":
        assert not list(validator().iter_errors(yaml.safe_load(path.read_text())))


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    "definition",
    [
        {"llm": LLM},
        {"llm": LLM | {"strategy": "race", "retry": {"attempts": 2}}},
        {"llm": {"chain": [LLM, {"provider": "standin"}], "rate_limit": None}},
        {"llm": LLM, "tools": ["ready", {"use": "made", "name": "m"}, {"use": "weather", "place": "x"}]},
        {"llm": LLM, "limits": {"timeout_s": 5, "max_tokens": None}, "memory": {}, "protocol": "text"},
    ],
)
def test_the_schema_takes_what_the_factory_takes(definition, write):
    definition = {"name": "a"} | definition
    assert check_file(write(json.dumps(definition))) == []
    assert validator().is_valid(definition)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"llm": {"provider": "fake"}},
        {"llm": LLM | {"chain": []}},
        {"llm": LLM, "more": 1},
        {"llm": LLM, "tools": ["weather"]},
        {"llm": LLM, "tools": ["nowhere"]},
        {"llm": LLM, "tools": [{"use": "weather", "place": "x", "units": "none"}]},
        {"llm": LLM, "tools": [{"use": "weather", "place": "x", "more": 1}]},
        {"llm": LLM, "limits": {"max_steps": 0}},
        {"llm": LLM | {"retry": {"tries": 1}}},
    ],
)
def test_the_schema_refuses_what_the_factory_refuses(definition, write):
    definition = {"name": "a"} | definition
    assert check_file(write(json.dumps(definition))) != []
    assert not validator().is_valid(definition)


NO_DEFAULT = {"description", "model", "name"}
"""What has none of its own: the packaged model of `local`, and what a maker of tools calls its tools."""


@pytest.mark.parametrize("schema", [agent_schema(), scenario_schema()], ids=["agent", "scenario"])
def test_every_key_has_words_an_example_that_fits_and_a_default(schema):
    registry = Registry().with_resource("agent.schema.json", Resource.from_contents(agent_schema()))
    registry = registry.with_resource("urn:here", Resource.from_contents(schema))
    lacks = []
    for path, key, told, required in keys(schema, ()):
        here = resolved(told, schema)
        if not told.get("description"):
            lacks.append(f"{path} {key}: words")
        if "default" not in told and key not in required and key not in NO_DEFAULT:
            lacks.append(f"{path} {key}: default")
        fits = Draft7Validator(absolute(here), registry=registry)
        for value in [*told["examples"], *([told["default"]] if told.get("default") else [])]:
            lacks += [f"{path} {key}: {value!r}: {error.message}" for error in fits.iter_errors(value)]
    assert lacks == []


def keys(node, path):
    """Give every key a file may have: where it is described, and what the mapping around it requires."""
    if isinstance(node, list):
        for item in node:
            yield from keys(item, path)
    if not isinstance(node, dict):
        return
    for key, told in node.get("properties", {}).items():
        if isinstance(told, dict) and "const" not in told:
            yield path, key, told, node.get("required", ())
    for key, inner in node.items():
        if key not in ("default", "examples"):
            yield from keys(inner, (*path, key))


def resolved(told, schema):
    """Return what a key is checked against, without what is only said of it."""
    return {key: value for key, value in told.items() if key not in ("description", "default", "examples")}


def absolute(node):
    """Let references find the whole schema from a part of it."""
    if isinstance(node, list):
        return [absolute(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: f"urn:here{value}" if key == "$ref" and value.startswith("#") else absolute(value)
        for key, value in node.items()
    }


@pytest.mark.parametrize(
    ("more", "place", "said"),
    [
        ({"llm": {"provider": "opnai", "model": "m"}}, ["llm", "provider"], "'opnai' is not one of"),
        ({"llm": OPENAI | {"temperature": 1}}, ["llm"], "'temperature' was unexpected"),
        ({"llm": {"chain": [OPENAI | {"temperature": 1}]}}, ["llm", "chain", 0], "'temperature' was unexpected"),
        ({"llm": {"chain": [OPENAI], "retri": {}}}, ["llm"], "'retri' was unexpected"),
        ({"tools": [{"use": "sql", "ulr": "x"}]}, ["tools", 0], "'ulr' was unexpected"),
        ({"tools": [{"use": "sqll"}]}, ["tools", 0, "use"], "'sqll' is not one of"),
        ({"tools": ["calculater"]}, ["tools", 0], "'calculater' is not one of"),
        ({"limits": {"max_tokens": "many"}}, ["limits", "max_tokens"], "'many' is not of type"),
        ({"memory": {"windw": 3}}, ["memory"], "'windw' was unexpected"),
    ],
)
def test_a_plain_validator_names_the_wrong_key_and_nothing_else(more, place, said):
    (error,) = Draft7Validator(agent_schema()).iter_errors({"name": "a", "llm": OPENAI} | more)
    assert list(error.absolute_path) == place
    assert said in error.message


@pytest.mark.parametrize(
    ("more", "place", "said"),
    [
        ({"faults": [{"on": "modell", "fault": "cut"}]}, ["faults", 0, "on"], "does not match"),
        ({"faults": [{"on": "model", "fault": "ctu"}]}, ["faults", 0, "fault"], "'ctu' is not one of"),
        ({"expect": {"steps": {"atleast": 1}}}, ["expect", "steps"], "'atleast' was unexpected"),
        ({"expect": {"steps": "two"}}, ["expect", "steps"], "'two' does not match"),
        ({"models": {"*": [{"txt": "x"}]}}, ["models", "*", 0], "'txt' was unexpected"),
        ({"expect": {"status": "answerd"}}, ["expect", "status"], "'answerd' is not one of"),
    ],
)
def test_so_it_does_of_a_scenario(more, place, said):
    (error,) = Draft7Validator(scenario_schema()).iter_errors({"scenario": "s", "agent": "a.yaml"} | more)
    assert list(error.absolute_path) == place
    assert said in error.message


def test_neither_schema_leaves_a_choice_open():
    assert '"anyOf"' not in json.dumps([agent_schema(), scenario_schema()])
