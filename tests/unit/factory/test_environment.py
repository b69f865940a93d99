"""Variables: where they are expanded, what they cannot do, and that their values stay out of every error."""

from __future__ import annotations

import io
import logging
import traceback

import pytest

from shared_libs.atomic import ConfigError
from shared_libs.factory import agent_from_dict, check_file, definition_hash, load_agent, load_definition
from shared_libs.factory.environment import Environment, variables
from shared_libs.factory.problems import Problems

SECRET = "hunter2-\n'secret"


def expand(value):
    problems = Problems("", {}, {})
    return Environment(problems).expanded(value), problems.lines()


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("${A:-2}", "1"),
        ("${EMPTY:-2}", "2"),
        ("${EMPTY}", ""),
        ("${NOT_SET:-}", ""),
        ("${NOT_SET:-a:-b c}", "a:-b c"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A and $ and {A}", "$A and $ and {A}"),
        ("${YAML}", "[1, {a: !!python/x 1}]\n---"),
    ],
)
def test_variables_are_expanded_in_text_and_stay_text(written, expanded, monkeypatch):
    monkeypatch.setenv("A", "1")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("YAML", "[1, {a: !!python/x 1}]\n---")
    assert expand({"k": [written, 5], "${A}": None}) == ({"k": [expanded, 5], "${A}": None}, [])


@pytest.mark.parametrize("written", ["${}", "${1A}", "${A B}", "${A", "${A:?x}", "${${A}}", "${B:-${A}}"])
def test_what_names_no_variable_is_an_error(written):
    _, (line,) = expand({"k": written})
    assert line.startswith("k: ")
    assert line.endswith("names no variable; write ${NAME}, ${NAME:-default}, or $${ for the characters")


def test_a_variable_that_is_not_utf8_is_an_error(monkeypatch):
    monkeypatch.setenv("A", "\udcff")
    assert expand(["${A}"])[1] == ["[0]: the environment variable A is not UTF-8 text"]


def test_the_variables_of_a_text_can_be_named():
    assert variables("${A} $${B} ${C:-d} ${!}") == ["A", "C"]


LEAKY = """
name: "${SECRET}"
description: x
llm:
  chain:
    - {provider: "${SECRET}", model: m}
    - {provider: fake, model: m, api_key: "${SECRET}", base_url: refused}
    - {provider: fake, model: m, api_key: ["${SECRET}"]}
  strategy: ${SECRET}
  retry: {attempts: "${SECRET}"}
tools:
  - use: ${SECRET}
  - {use: weather, place: "${SECRET}", days: 0}
  - {use: weather, place: x, days: 13, password: "a ${SECRET} b"}
  - {use: weather, place: x, units: "${SECRET}"}
  - {use: weather, place: x, days: "${SECRET}"}
memory: {url: "${SECRET}://x"}
"""


@pytest.mark.promise("secrets-kept")
@pytest.mark.usefixtures("plugin")
def test_no_value_of_a_variable_is_in_an_error_or_its_traceback(write, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    lines = check_file(path := write(LEAKY))
    assert [line.split(": ")[1] for line in lines] == [
        "name",
        "llm.chain[0].provider",
        "llm.chain[1]",
        "llm.chain[2].api_key",
        "llm.strategy",
        "llm.retry.attempts",
        "tools[0].use",
        "tools[1]",
        "tools[2]",
        "tools[3].units",
        "tools[4].days",
        "memory.url",
    ]
    assert "agent.yaml:7:7: llm.chain[1]: the key ${SECRET} is refused" in lines
    assert "agent.yaml:14:5: tools[2]: a ${SECRET} b" in lines
    with pytest.raises(ConfigError) as caught:
        load_agent(path)
    text = "".join(traceback.format_exception(caught.value)) + "\n".join(lines) + repr(caught.value)
    assert "hunter2" not in text
    assert "${SECRET}" in text


@pytest.mark.usefixtures("plugin")
def test_a_secret_written_into_the_file_is_not_repeated(write):
    text = (
        "name: a\nllm: {provider: fake, model: m, api_key: 12345678}\n"
        "tools: [{use: weather, place: x, password: 87654321}]\nmemory: {url: 'redis://u:hunter2@h'}\n"
    )
    lines = "\n".join(check_file(write(text)))
    assert lines.count("\n") == 2
    assert "5678" not in lines
    assert "8765" not in lines
    assert "hunter2" not in lines


@pytest.mark.usefixtures("plugin")
def test_the_definition_and_its_hash_hold_no_value_of_a_variable(write, monkeypatch):
    path = write("name: a # a comment\nllm: {model: m, provider: fake, api_key: '${SECRET}'}\n")
    hashes = set()
    for value in ("one", "two"):
        monkeypatch.setenv("SECRET", value)
        definition = load_definition(path)
        hashes.add(definition_hash(definition))
        assert definition["llm"]["api_key"] == "${SECRET}"
        assert agent_from_dict(definition).llm.api_key == value
    other = write("llm:\n  provider: fake\n  model: m\n  api_key: ${SECRET}\nname: a\n")
    hashes.add(definition_hash(load_definition(other)))
    assert len(hashes) == 1
    assert definition_hash({**definition, "name": "b"}) not in hashes
    with pytest.raises(ConfigError, match="expected a mapping, got a list"):
        load_definition(write("- a"))


@pytest.mark.usefixtures("plugin")
def test_a_note_names_the_variable_to_set(write, monkeypatch):
    monkeypatch.delenv("FAKE_KEY", raising=False)
    links = ["{provider: fake, model: m, api_key: '${FAKE_KEY:-}'}", "{provider: standin}"]
    path = write(f"name: a\nllm: {{chain: [{', '.join(links)}]}}\n")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("shared_libs.factory").addHandler(handler)
    try:
        load_agent(path)
    finally:
        logging.getLogger("shared_libs.factory").removeHandler(handler)
    assert stream.getvalue() == "fake is left out: its key is empty; set FAKE_KEY\n"
