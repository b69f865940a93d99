"""The generated JSON Schema: fresh, valid, and of one mind with the factory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema.validators import validator_for

from shared_libs.factory import agent_schema, check_file

CONFIGS = Path(__file__).parents[3] / "configs"
LLM = {"provider": "fake", "model": "m"}


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


def test_every_key_has_words():
    schema = agent_schema()
    without = []

    def visit(node, path):
        for key, inner in node.get("properties", {}).items():
            if not ({"const", "$ref"} & set(inner)) and not inner.get("description"):
                without.append(f"{path}.{key}")
        for branch in node.get("anyOf", ()):
            visit(branch, path)

    visit(schema, "agent")
    for name, section in schema["$defs"].items():
        visit(section, name)
    assert without == []
