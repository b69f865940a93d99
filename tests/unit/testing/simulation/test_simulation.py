from __future__ import annotations

from pathlib import Path

import pytest

from shared_libs.testing.scenarios.play import play
from shared_libs.testing.scenarios.scenario import scenarios_of
from shared_libs.testing.simulation.drawing import Drawing
from shared_libs.testing.simulation.evidence import Broken
from shared_libs.testing.simulation.shrinking import shrunk
from shared_libs.testing.simulation.simulation import Simulation, Violation

CONFIGS = Path(__file__).parents[4] / "configs"


@pytest.mark.promise("time-total")
@pytest.mark.promise("history-valid")
@pytest.mark.promise("no-cross")
@pytest.mark.parametrize("name", ["hello", "flights", "clock", "planner"])
def test_an_agent_keeps_its_promises_whatever_goes_wrong(name):
    violations = [found for found in Simulation(CONFIGS / f"{name}.yaml", seed=7).violations(range(40)) if found]

    assert violations == []


def test_a_number_of_a_seed_is_the_same_scenario_each_time():
    drawn, again = (Drawing(CONFIGS / "flights.yaml", 3).scenario(11) for _ in range(2))

    assert drawn == again
    assert drawn != Drawing(CONFIGS / "flights.yaml", 4).scenario(11)


def test_a_drawn_scenario_is_played_the_same_way_each_time():
    drawn = Drawing(CONFIGS / "flights.yaml", 3)

    def told(number):
        played = play(scenarios_of(drawn.scenario(number))[0])
        return [(type(event).__name__, event.at_s) for event in played.events], played.virtual_s

    assert [told(number) for number in range(20)] == [told(number) for number in range(20)]


def test_shrinking_leaves_what_the_failure_needs_and_nothing_else():
    data = {
        "scenario": "s",
        "question": "q",
        "timeout_s": 3.75,
        "override": {"limits": {"max_steps": 3, "timeout_s": 9.5}},
        "faults": [{"on": "model", "fault": kind, "delay_s": 1.0} for kind in "abcde"],
        "models": {"m": [{"text": "a long word"}, {"text": "another one", "think": "so"}]},
    }

    def fails(smaller):
        kinds = {fault["fault"] for fault in smaller.get("faults", [])}
        return {"b", "e"} <= kinds and smaller.get("override", {}).get("limits", {}).get("max_steps") == 3

    assert shrunk(data, fails) == {
        "scenario": "s",
        "question": "q",
        "override": {"limits": {"max_steps": 3}},
        "faults": [{"on": "model", "fault": "b"}, {"on": "model", "fault": "e"}],
        "models": {"m": [{}]},
    }


def test_shrinking_gives_up_after_so_many_plays():
    plays = []

    def fails(smaller):
        plays.append(smaller)
        return False

    assert shrunk({"faults": [1, 2, 3]}, fails, max_plays=2) == {"faults": [1, 2, 3]}
    assert len(plays) == 2


def test_a_promise_that_was_broken_reads_as_a_sentence():
    assert str(Violation(1, Broken("ledger", "one is missing")).broken) == "promise ledger: one is missing"


def test_runs_beside_a_caller_that_cancels_and_weather_that_clears():
    [scenario] = scenarios_of(
        {
            "scenario": "three runs on one agent",
            "agent": str(CONFIGS / "hello.yaml"),
            "strict": False,
            "question": "one?",
            "cancel_after_s": 2,
            "models": {"*": ["Here I am."]},
            "faults": [{"on": "model", "fault": "silence"}],
            "clear_after_s": 100,
            "beside": [{"question": "two?", "timeout_s": 5}, {"question": "three?", "after_s": 200}],
        }
    )

    played = play(scenario)

    ends = {event.run_id: event.result for event in played.events if event.__struct_config__.tag == "run_finished"}
    assert played.differences == []
    assert played.result is None
    assert [(ends[name].status, ends[name].elapsed_s) for name in ("run-1", "run-3")] == [
        ("cancelled", 2),
        ("answered", 0),
    ]
    assert ends["run-2"].stop_reason in ("deadline", "error")


@pytest.mark.promise("time-orphans")
def test_of_several_calls_that_are_cancelled_the_one_that_runs_on_is_named():
    [scenario] = scenarios_of(
        {
            "scenario": "two calls at once, and one of them ignores its cancellation",
            "agent": str(CONFIGS / "hello.yaml"),
            "strict": False,
            "question": "one?",
            "cancel_after_s": 1,
            "models": {"*": [{"calls": [{"tool": "calculator", "input": {"expression": text}} for text in "12"]}]},
            "tools": {"calculator": [{"result": "late", "delay_s": 5}]},
            "faults": [{"on": "tool calculator", "fault": "ignore_cancel", "attempts": [2], "delay_s": 9}],
        }
    )

    played = play(scenario)

    assert played.differences == []
    assert [left.call_id for left in played.events[-1].result.still_running] == ["call_1_2"]
