"""Scenarios played: the agent is the factory's, its ports are taken, and what is not as written is told."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from shared_libs.atomic import ToolError, tool
from shared_libs.atomic.errors import ConfigError
from shared_libs.factory import load_agent
from shared_libs.testing import FaultPlan, Outcome, PortFault, Stage, Turn, play, run_virtual, scenarios_of
from shared_libs.tools.agent import AgentTool

CONFIGS = Path(__file__).parents[4] / "configs"
HELLO = str(CONFIGS / "hello.yaml")
ASK = {"calls": [{"tool": "calculator", "input": {"expression": "6 * 7"}}]}


def one(**keys):
    return scenarios_of({"scenario": "one", "agent": HELLO, "question": "What is 6 * 7?", **keys})[0]


def play_one(**keys):
    return play(one(**keys))


def test_an_agent_is_the_factorys_with_its_links_under_their_policy(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stage = Stage({"*": [Turn(text="Hello.")]})
    agent = load_agent(HELLO, ports=stage)
    assert (agent.llm.provider, agent.llm.model) == ("openai", "gpt-5.4-mini")
    assert agent.llm.price is not None
    assert run_virtual(agent.async_run("Hello?")).answer == "Hello."
    assert [asked.model for asked in stage.chances.asked] == ["openai/gpt-5.4-mini"]
    assert stage.finish() == []


def test_no_variable_of_a_model_has_to_be_set():
    link = {"provider": "openai", "model": "m", "api_key": "${NOBODY_SET_THIS}", "base_url": "${NOR_THIS}/v1"}
    played = play_one(override={"llm": {"chain": [link]}}, models={"m": ["Hello."]})
    assert played.result.answer == "Hello."
    with pytest.raises(ConfigError, match="NOBODY_ELSE"):
        play_one(override={"instructions": "${NOBODY_ELSE}"}, models={"*": ["Hello."]})


def test_what_is_known_of_a_model_begins_anew_with_each_scenario():
    down = one(models={"*": "Never said."}, faults=[{"on": "model", "fault": "server_error"}])
    first, second = play(down), play(down)
    assert len(first.result.attempts) == len(second.result.attempts) == 5
    assert first.virtual_s == second.virtual_s


def test_the_seed_decides_and_the_worlds_own_chance_goes_on():
    broken = one(models={"*": ["Yes."]}, faults=[{"on": "model", "fault": "cut", "attempts": [1, 2]}])
    random.seed(5)
    expected = random.random()
    random.seed(5)
    times = {play(broken, seed=seed).virtual_s for seed in (1, 1, 2, 3)}
    assert len(times) == 3
    assert random.random() == expected


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"models": {"*": ["a", "b"]}}, "script of *: 1 of 2 turns not used; next is 'b'"),
        ({"models": {"*": [ASK]}}, "script of *: asked 2 times; it has 1 turn"),
        ({"models": {"other": ["a"]}}, "openai/gpt-5.4-mini was asked, and the scenario has no script for it"),
        (
            {"models": {"*": "a"}, "tools": {"calculator": ["42"]}},
            "script of calculator: 1 of 1 turns not used; next is '42'",
        ),
        ({"models": {"*": "a"}, "tools": {"calc": "42"}}, "tools: the agent has no calc; it has: calculator"),
        (
            {"models": {"*": "a"}, "faults": [{"on": "tool calc", "fault": "hang"}]},
            "fault never met a call: hang on tool calc (every)",
        ),
        (
            {"models": {"*": [ASK, "a"]}, "faults": [{"on": "tool", "fault": "block"}]},
            "fault: block is for tools that run in a thread; calculator runs on the loop: use hang",
        ),
    ],
)
def test_a_script_is_followed_to_the_letter(keys, says):
    assert says in play_one(**keys).differences


def test_a_turn_that_stands_alone_comes_every_time():
    played = play_one(models={"*": ASK}, override={"limits": {"max_steps": 3}}, tools={"calculator": {"error": "no"}})
    assert played.result.stop_reason == "max_steps"
    assert played.differences == []


def test_a_definition_that_does_not_hold_tells_its_own_place(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nllm: {provider: openai, model: m}\nlimts: {}\n")
    with pytest.raises(ConfigError, match=r"bad.yaml:3:1: limts: unknown key.*did you mean 'limits'"):
        play_one(agent=str(bad))
    with pytest.raises(ConfigError, match=r"agent: limits\.max_stps: unknown key"):
        play_one(override={"limits": {"max_stps": 3}})


def test_a_session_needs_a_memory():
    with pytest.raises(ConfigError, match="the agent has no memory; give it one"):
        play_one(models={"*": "a"}, session={"id": "s"})
    assert play_one(models={"*": "a"}, session={"id": "s"}, override={"memory": {}}).differences == []


def test_null_takes_a_key_away_and_lists_are_replaced():
    played = play_one(
        agent=str(CONFIGS / "flights.yaml"), override={"memory": None, "tools": ["calculator"]}, models={"*": ["a"]}
    )
    assert played.result.answer == "a"
    assert not [event for event in played.events if type(event).__name__.startswith("Memory")]


def test_a_conversation_never_reaches_the_store_of_the_definition(tmp_path):
    store = tmp_path / "kept.db"
    definition = {
        "name": "keeper",
        "llm": {"provider": "openai", "model": "m"},
        "memory": {"url": f"sqlite+aiosqlite:///{store}", "window": 4, "pool_size": 3},
    }
    keys = {
        "agent": definition,
        "models": {"*": ["a"]},
        "session": {"id": "s", "history": [{"role": "user", "content": "b"}]},
    }
    assert play_one(**keys).result.answer == "a"
    assert not store.exists()


def test_a_real_store_is_used_in_real_time_where_the_scenario_names_one(tmp_path):
    played = play_one(
        agent=str(CONFIGS / "flights.yaml"),
        override={"memory": {"url": f"sqlite+aiosqlite:///{tmp_path}/kept.db"}, "tools": []},
        models={"*": ["a"]},
        session={"history": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]},
        faults=[{"on": "model", "fault": "rate_limited", "retry_after_s": 20, "attempts": [1]}],
        expect={"events": [{"type": "memory_loaded", "messages": 2}, {"type": "memory_stored", "messages": 2}]},
    )
    assert played.differences == []
    assert (tmp_path / "kept.db").exists()
    assert played.virtual_s >= 20


def test_a_tool_in_a_thread_works_in_real_time_and_waits_in_virtual_time():
    threads = []

    @tool(timeout_s=30)
    def worker(what: str) -> str:
        """Work."""
        threads.append(threading.current_thread().name)
        return what.upper()

    plan = FaultPlan([PortFault(on="tool worker", fault="delay", delay_s=20, attempts=(1,))])
    calls = (("worker", {"what": "a"}), ("worker", {"what": "b"}))
    stage = Stage({"*": [Turn(calls=calls), Turn(text="Done.")]}, plan=plan)
    began_at = time.monotonic()
    result = run_virtual(load_agent(HELLO, tools=[worker], ports=stage).async_run("Work."))
    assert [seen.content for seen in result.steps[0].observations] == ["A", "B"]
    assert all(name.startswith("factory-worker") for name in threads)
    assert 20 <= result.elapsed_s < 25
    assert time.monotonic() - began_at < 15
    assert stage.finish() == []


def test_a_thread_that_blocks_ends_with_the_scenario():
    @tool(timeout_s=2)
    def blocked() -> str:
        """Work."""
        return ""

    stage = Stage(
        {"*": [Turn(calls=(("blocked", {}),)), Turn(text="Done.")]},
        plan=FaultPlan([PortFault(on="tool", fault="block")]),
    )

    async def main():
        async with load_agent(HELLO, tools=[blocked], ports=stage) as agent:
            return await agent.async_run("Work.")

    assert [left.tool for left in run_virtual(main()).still_running] == ["blocked"]
    stuck = [thread for thread in threading.enumerate() if thread.name == "factory-blocked"]
    assert stuck
    assert stage.finish() == []
    for thread in stuck:
        thread.join(10)
        assert not thread.is_alive()


def test_the_callers_tool_is_not_changed():
    @tool
    def worker() -> str:
        """Work."""
        raise ToolError("for real")

    execute = worker.execute
    stage = Stage({"*": [Turn(calls=(("worker", {}),)), Turn(text="a")]}, {"worker": [Outcome(result={"rows": 1})]})
    result = run_virtual(load_agent(HELLO, tools=[worker], ports=stage).async_run("Work."))
    assert result.steps[0].observations[0].content == '{"rows":1}'
    assert worker.execute is execute


def test_a_scripted_tool_is_never_opened(monkeypatch, tmp_path):
    monkeypatch.setenv("FACTORY_CACHE_DIR", str(tmp_path))
    agent = str(CONFIGS / "flights.yaml")
    assert play_one(agent=agent, models={"*": ["a"]}, tools={"sql": "unused"}).differences == []
    assert not list(tmp_path.iterdir())


def test_agents_that_an_agent_calls_have_their_ports_taken_too():
    stage = Stage({"planner@*": [Turn(text="a")], "*": "x"}, {"get_current_time": Outcome(result="noon")})
    agent = load_agent(CONFIGS / "planner.yaml", ports=stage)
    inner = [one for one in agent.tools if isinstance(one, AgentTool)]
    assert len(inner) == 2
    assert run_virtual(agent.async_run("Go.")).answer == "a"


def test_a_scenario_on_the_real_clock_is_the_same():
    played = play_one(clock="real", models={"*": [ASK, "It is 42."]}, expect={"answer": "It is 42.", "steps": 2})
    assert played.differences == []
