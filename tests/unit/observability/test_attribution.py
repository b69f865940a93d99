"""What the time of a run went on: the parts add up, the cause is named, and a sentence says it."""

from __future__ import annotations

import pytest

from bench.attribution import CAUSES, drawn, off_s, planted
from shared_libs.atomic import events as e
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Attempt
from shared_libs.observability.attribution import attribute
from shared_libs.observability.timeline import timelines

pytestmark = pytest.mark.promise("why-slow")


def told(*events, elapsed_s, session_id=None):
    """A run around what happened in it."""
    given = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 60.0, "model": "m", "protocol": "native"}
    yield e.RunStarted(**given, session_id=session_id)
    yield from events
    result = AgentResult(run_id="r", status="answered", stop_reason="final_answer", answer="", elapsed_s=elapsed_s)
    yield e.RunFinished(at_s=elapsed_s, result=result)


def attempt(model, start_s, first_s, end_s, outcome="ok", number=1, why=""):
    yield e.AttemptStarted(provider="p", model=model, number=number, at_s=start_s)
    facts = {"started_s": start_s, "first_token_s": first_s, "ended_s": end_s, "outcome": outcome, "why": why}
    yield e.AttemptFinished(attempt=Attempt(provider="p", model=model, number=number, **facts), at_s=end_s)


def tool(name, call_id, start_s, end_s):
    yield e.ToolStarted(step=1, tool=name, input={}, call_id=call_id, at_s=start_s)
    if end_s is not None:
        yield e.ToolFinished(
            step=1, tool=name, call_id=call_id, content="", is_error=False, elapsed_s=end_s - start_s, at_s=end_s
        )


def parts(events):
    found = attribute(sorted(events, key=lambda event: event.at_s))
    assert sum(part.seconds for part in found.parts) == pytest.approx(found.elapsed_s, abs=1e-9)
    return {part.label: pytest.approx(part.seconds) for part in found.parts}


def test_simulated_runs_are_parted_without_a_rest():
    for events in drawn(30, seed=7):
        found = attribute(events)
        assert off_s(events, found) < 0.001
        # the clock stands still while our own code runs: what was left to it would be something nobody named
        assert [part.seconds for part in found.parts if part.kind == "overhead"] == []


@pytest.mark.parametrize("cause", CAUSES)
def test_a_planted_cause_is_the_first_one_named(cause):
    for seed in range(6):
        name, events = planted(cause, seed)
        found = attribute(events)
        assert (found.parts[0].kind, found.parts[0].name) == (cause, name)
        assert found.why.partition(" went on ")[2].startswith(found.parts[0].words)
        assert timelines(events)[0].spent == found


def test_the_sentence_says_how_much_on_what_and_why():
    events = told(
        *attempt("m", 0.0, None, 0.3, "rate_limited", why="HTTP 429: slow  down"),
        e.RetryScheduled(provider="p", model="m", wait_s=5.0, why="HTTP 429: slow  down", told=True, at_s=0.3),
        *attempt("m", 5.3, 7.4, 9.3, number=2),
        e.LimitReached(stop_reason="deadline", why="the time is up", at_s=9.3),
        elapsed_s=9.4,
    )
    assert attribute(events).why == (
        "5.00 s of 9.40 s went on waiting as long as m had asked for (Retry-After), "
        "2.10 s on waiting for the first token of m; "
        "try 2 of m waited 5.00 s because HTTP 429: slow down. It was ended early: the time is up."
    )


def test_of_parallel_tools_the_one_that_ends_last_is_waited_for():
    events = told(*tool("quick", "1", 0, 2), *tool("slow", "2", 0, 5), *tool("late", "3", 4, 6), elapsed_s=6)
    assert parts(events) == {"tool slow": 4, "tool late": 2}


def test_of_models_asked_at_once_the_one_that_answers_is_waited_for():
    events = told(
        *attempt("a", 0, 3, 4, "cancelled"), *attempt("b", 1, 2, 4), *attempt("c", 1, None, 1.5, "timeout"), elapsed_s=4
    )
    assert parts(events) == {"first token a": 1, "first token b": 1, "writing b": 2}


def test_what_blocks_the_loop_is_not_the_models_time():
    blocked = e.LoopBlocked(tool="", call_id="", blocked_s=3.0, stack="", at_s=4.0)
    assert parts(told(*attempt("m", 0, 4.5, 5), blocked, elapsed_s=5)) == {
        "blocked loop something": 3,
        "first token m": 1.5,
        "writing m": 0.5,
    }


def test_our_own_limit_is_told_from_the_providers():
    waited = e.LimitWaited(provider="p", model="m", waited_s=7.0, at_s=7.5)
    assert parts(told(waited, *attempt("m", 7.5, 8, 8), elapsed_s=8)) == {
        "rate limit m": 7,
        "overhead": 0.5,
        "first token m": 0.5,
    }


def test_what_did_not_end_and_what_failed_to_store_has_its_part():
    events = told(
        e.StepStarted(step=1), *attempt("m", 0, 1, 1), *tool("hang", "1", 1, None), elapsed_s=5, session_id="s"
    )
    assert parts(events) == {"first token m": 1, "tool hang": 4}
    events = told(e.StepStarted(step=1), *attempt("m", 0, 1, 1), elapsed_s=5, session_id="s")
    assert parts(events) == {"first token m": 1, "memory storing": 4}
    assert parts(told(elapsed_s=2, session_id="s")) == {"memory loading": 2}


def test_a_run_that_waited_for_a_process_says_so():
    given = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 60.0, "model": "m", "protocol": "native"}
    again = e.RunStarted(**given, resumed=True, at_s=9.0)
    assert parts(told(*attempt("m", 0, 1, 1), again, elapsed_s=10)) == {"first token m": 1, "away": 8, "overhead": 1}


def test_a_run_of_many_steps_is_parted_in_time_that_grows_with_it():
    steps = [
        event for n in range(5_000) for event in (*attempt("m", n, n + 0.5, n + 0.7), *tool("t", n, n + 0.7, n + 1))
    ]
    assert parts(told(*steps, elapsed_s=5_000.0)) == {"first token m": 2_500, "writing m": 1_000, "tool t": 1_500}


def test_nothing_is_said_of_nothing():
    assert attribute([]).why == ""
    assert parts(told(elapsed_s=0.0)) == {}
