"""Names: the built-in ones, and those that installed packages add."""

from __future__ import annotations

import pytest

from shared_libs.atomic import ConfigError, MisuseError
from shared_libs.factory import agent_from_dict
from shared_libs.factory.registry import LLMS, MEMORIES, TOOLS, Builtin, Registry
from tests.unit.factory.conftest import install

LLM = {"provider": "fake", "model": "m"}


def agent_with(*tools):
    return agent_from_dict({"name": "a", "llm": LLM, "tools": list(tools)})


def refused(*tools):
    with pytest.raises(ConfigError) as caught:
        agent_with(*tools)
    return caught.value.problems


def test_every_built_in_name_stands_for_something():
    for registry in (LLMS, TOOLS, MEMORIES):
        for name in registry.names():
            assert callable(registry.load(name))


@pytest.mark.usefixtures("plugin")
def test_an_installed_package_adds_names():
    assert {"fake", "standin"} <= set(LLMS.names())
    assert {"weather", "ready", "made"} <= set(TOOLS.names())
    assert "shelf" in MEMORIES
    assert "weather" not in LLMS


@pytest.mark.usefixtures("plugin")
def test_a_tool_is_a_class_a_function_or_a_ready_object():
    rome = {"use": "weather", "place": "Rome", "units": "imperial", "days": [1]}
    agent = agent_with(rome, "ready", {"use": "made", "name": "m"})
    weather, ready, made = agent.tools
    assert (weather.place, weather.units, weather.days) == ("Rome", "imperial", [1])
    assert ready.spec.name == "ready"
    assert made.spec.name == "m"


@pytest.mark.usefixtures("plugin")
def test_the_declarations_of_a_tool_can_be_set_and_do_not_leak_into_the_next_agent():
    options = {"use": "ready", "name": "own", "description": "Mine.", "timeout_s": 3, "sequential": True}
    (own,) = agent_with(options | {"needs_approval": True, "max_observation_chars": 10}).tools
    assert (own.spec.name, own.spec.description, own.timeout_s) == ("own", "Mine.", 3.0)
    assert (own.sequential, own.needs_approval, own.max_observation_chars) == (True, True, 10)
    (plain,) = agent_with("ready").tools
    assert (plain.spec.name, plain.timeout_s, plain.sequential) == ("ready", 30.0, False)


@pytest.mark.usefixtures("plugin")
def test_one_entry_may_give_several_tools_that_share_its_options():
    agent = agent_with({"use": "twins", "timeout_s": 3}, "ready")
    assert [(tool.spec.name, tool.timeout_s) for tool in agent.tools] == [
        ("left", 3.0),
        ("right", 3.0),
        ("ready", 30.0),
    ]
    named = {"use": "twins", "name": "both"}
    assert refused(named, {"use": "twins", "description": "Both."}, "twins", "twins") == (
        "tools[0].name: name cannot be set: twins gives left, right",
        "tools[1].description: description cannot be set: twins gives left, right",
        "tools[3]: a second tool named 'left' (see tools[2]); give one another `name`",
    )


@pytest.mark.usefixtures("plugin")
def test_a_built_in_name_cannot_be_taken_over():
    assert TOOLS.load("calculator").__module__ == "shared_libs.tools.calculator"


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_does_not_work_is_told_by_its_name():
    assert refused("lost", "nothing", "odd") == (
        "tools[0].use: tool 'lost' of weather-plugin cannot be loaded: No module named 'weather_lost'",
        "tools[1]: tool nothing gives a NoneType, not a BaseTool",
        "tools[2].use: Odd cannot stand in a definition: its parameter helper is no plain data",
    )


def test_a_name_of_two_packages_is_refused(plugin):
    install(plugin, "other-plugin", "[genai_factory]\ntool.ready = weather_plugin:ready\n")
    assert refused("ready") == (
        "tools[0].use: tool 'ready' is offered by other-plugin, weather-plugin; uninstall all but one",
    )


def test_a_missing_library_names_its_extra():
    registry = Registry("llm", {"far": Builtin("far.away", "FarLLM", needs="far_sdk")})
    with pytest.raises(MisuseError) as caught:
        registry.load("far")
    assert str(caught.value) == "llm 'far' needs the package far_sdk: pip install 'far_sdk'"
