"""What the time of a run went on: the parts add up, the cause is named, and a sentence says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bench.attribution import CAUSES, drawn, off_s, planted
from shared_libs.agents import ReActAgent
from shared_libs.atomic import events as e
from shared_libs.atomic import tool as as_tool
from shared_libs.atomic.errors import ProviderUnavailable
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.resilience.policy import Breaker, Resilience, Retry
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.types import Attempt, LLMResponse, Usage
from shared_libs.observability.attribution import NAMES, Part, attribute
from shared_libs.observability.redact import redact_text
from shared_libs.observability.timeline import timelines
from shared_libs.testing.clock import run_virtual

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
        "try 2 of m had to wait 5.00 s because HTTP 429: slow down. It was ended early: the time is up."
    )


def test_of_a_wait_that_the_run_did_not_live_to_see_the_end_of_nothing_is_said_that_was_not():
    events = told(
        *attempt("m", 0.0, None, 0.0, "unavailable", why="busy"),
        e.RetryScheduled(provider="p", model="m", wait_s=8.0, why="busy", at_s=0.0),
        elapsed_s=5.0,
    )
    assert attribute(events).why == (
        "5.00 s of 5.00 s went on backing off before asking m again; try 2 of m had to wait 8.00 s because busy."
    )


def test_nothing_of_what_a_part_is_called_looks_like_a_secret():
    """ "first token gpt-5.4-mini" was shown, listed and stored as "first token [redacted]"."""
    told = [Part(kind, "claude-sonnet-5-20260115", 1.0) for kind in NAMES]
    assert [part for part in told if redact_text(said := f"{part.label} 1.80 s · {part.words}") != said] == []


def test_of_parallel_tools_the_one_that_ends_last_is_waited_for():
    events = told(*tool("quick", "1", 0, 2), *tool("slow", "2", 0, 5), *tool("late", "3", 4, 6), elapsed_s=6)
    assert parts(events) == {"tool slow": 4, "tool late": 2}


def test_of_models_asked_at_once_the_one_that_answers_is_waited_for():
    events = told(
        *attempt("a", 0, 3, 4, "cancelled"), *attempt("b", 1, 2, 4), *attempt("c", 1, None, 1.5, "timeout"), elapsed_s=4
    )
    assert parts(events) == {"first token of a": 1, "first token of b": 1, "writing b": 2}


def test_what_blocks_the_loop_is_not_the_models_time():
    blocked = e.LoopBlocked(tool="", call_id="", blocked_s=3.0, stack="", at_s=4.0)
    assert parts(told(*attempt("m", 0, 4.5, 5), blocked, elapsed_s=5)) == {
        "blocked loop something": 3,
        "first token of m": 1.5,
        "writing m": 0.5,
    }


def test_our_own_limit_is_told_from_the_providers():
    waited = e.LimitWaited(provider="p", model="m", waited_s=7.0, at_s=7.5)
    assert parts(told(waited, *attempt("m", 7.5, 8, 8), elapsed_s=8)) == {
        "rate limit m": 7,
        "overhead": 0.5,
        "first token of m": 0.5,
    }


def test_what_did_not_end_and_what_failed_to_store_has_its_part():
    events = told(
        e.StepStarted(step=1), *attempt("m", 0, 1, 1), *tool("hang", "1", 1, None), elapsed_s=5, session_id="s"
    )
    assert parts(events) == {"first token of m": 1, "tool hang": 4}
    events = told(e.StepStarted(step=1), *attempt("m", 0, 1, 1), elapsed_s=5, session_id="s")
    assert parts(events) == {"first token of m": 1, "memory storing": 4}
    assert parts(told(elapsed_s=2, session_id="s")) == {"memory loading": 2}


def test_a_run_that_waited_for_a_process_says_so():
    given = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 60.0, "model": "m", "protocol": "native"}
    again = e.RunStarted(**given, resumed=True, at_s=9.0)
    assert parts(told(*attempt("m", 0, 1, 1), again, elapsed_s=10)) == {"first token of m": 1, "away": 8, "overhead": 1}


def failed(name, call_id, start_s, end_s, content):
    yield e.ToolStarted(step=1, tool=name, input={}, call_id=call_id, at_s=start_s)
    took_s = end_s - start_s
    yield e.ToolFinished(
        step=1, tool=name, call_id=call_id, content=content, is_error=True, elapsed_s=took_s, at_s=end_s
    )


def why(*events, elapsed_s, **given):
    return attribute(told(*events, elapsed_s=elapsed_s, **given)).why


def test_the_sentence_says_how_often_and_what_the_longest_request_read():
    """Thirty short turns and two long ones were the same "15 s went on waiting for the first token"."""
    usage = Usage(181_000, 30, 0, 181_030)
    long = e.AttemptFinished(
        attempt=Attempt(provider="p", model="m", number=2, outcome="ok", started_s=4.0, ended_s=12.0, usage=usage),
        at_s=12.0,
    )
    assert why(*attempt("m", 0.0, 4.0, 4.0), long, elapsed_s=12.0) == (
        "12.0 s of 12.0 s went on waiting for the first token of m "
        "(2 requests, the longest 8.00 s: tokens 181,000 in, 30 out)."
    )


def test_the_sentence_says_what_a_model_was_asked_again_for():
    ask = [event for n in range(3) for event in (*attempt("m", 3 * n, 3 * n + 3, 3 * n + 3), *wrong(n))]
    assert why(*ask, *attempt("m", 9, 12, 12), elapsed_s=12.0).endswith(
        "(4 requests, the longest 3.00 s); asked again because look failed: itm: unknown argument (3 of 4 requests)."
    )
    restarted = e.StreamRestarted(reason="the answer does not fit its output_schema", at_s=4.0)
    assert why(*attempt("m", 0, 4, 4), restarted, *attempt("m", 4, 8, 8), elapsed_s=8.0).endswith(
        "; asked again because the answer does not fit its output_schema (1 of 2 requests)."
    )
    mixed = [*attempt("m", 0, 4, 4), *failed("look", "1", 4, 4, "no"), *tool("look", "2", 4, 4)]
    assert "asked again" not in why(*mixed, *attempt("m", 4, 8, 8), elapsed_s=8.0)


def wrong(number):
    response = LLMResponse(text="", model="m", requested_model="m", provider="p")
    yield e.ModelFinished(step=1, response=response, at_s=3 * number + 3)
    yield from failed("look", f"{number}", 3 * number + 3, 3 * number + 3, "itm: unknown argument")


def test_the_sentence_says_why_a_tool_failed_that_took_the_time():
    calls = [event for n in range(4) for event in failed("look", f"{n}", 2 * n, 2 * n + 2, "upstream  503")]
    assert why(*calls, elapsed_s=8.0).endswith(
        "the tool look (4 calls, the longest 2.00 s); look failed: upstream 503 (4 of 4 calls)."
    )
    # a short call that failed is not why a long one took its time
    assert "failed" not in why(*tool("look", "1", 0, 9), *failed("look", "2", 9, 9.5, "no"), elapsed_s=9.5)


def test_a_sub_agents_run_is_named_by_what_its_own_time_went_on():
    outer = [*told(*tool("scout", "c1", 0, 9), elapsed_s=9)]
    inner = [*told(*tool("crawl", "1", 0.0, 8.5), elapsed_s=9)]
    for event in inner:
        event.run_id = "inner"
    inner[0].parent_run_id, inner[0].parent_call_id = "", "c1"
    said = "9.00 s of 9.00 s went on the tool scout; its run: 8.50 s of 9.00 s went on the tool crawl."
    for events in ([outer[0], outer[1], *inner, *outer[2:]], [*outer, *inner]):  # as it happened, as a store gives it
        for event in events:
            event.run_id = event.run_id or "outer"
        inner[0].parent_run_id = "outer"
        drawn = timelines(events)
        assert [line.run_id for line in drawn] == ["outer", "inner"]
        assert drawn[0].spent.why == said


def test_a_wait_for_a_decision_is_told_while_it_lasts_and_behind_it():
    asked = e.ApprovalRequested(step=1, tool="pay", input={}, call_id="1", at_s=1.0)
    assert why(*attempt("m", 0, 1, 1), asked, elapsed_s=1.0).endswith(" It waits for a decision on pay.")
    given = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 60.0, "model": "m", "protocol": "native"}
    again = e.RunStarted(**given, resumed=True, waited_s=900.0, at_s=1.0)
    assert why(*attempt("m", 0, 1, 1), asked, again, elapsed_s=1.0).endswith(
        " Besides, it waited 15 m 00 s for a decision on pay, which is none of its time."
    )
    durable = e.RunStarted(**given, resumed=True, at_s=9.0)  # its time goes on
    assert parts(told(*attempt("m", 0, 1, 1), asked, durable, elapsed_s=9.0)) == {
        "first token of m": 1,
        "decision pay": 8,
    }


@pytest.mark.anyio
async def test_a_run_that_waited_for_its_turn_says_so():
    events = []
    agent = ReActAgent(llm=ScriptedLLM(["x"]), observers=[events.append])
    with use_scope(Scope(waited_s=8.0)):
        await agent.async_run("q")
    assert events[0].waited_s == 8.0
    assert attribute(events).why.endswith(" Besides, it waited 8.00 s for its turn, which is none of its time.")


@pytest.mark.anyio
async def test_a_paused_run_tells_how_long_it_was_paused():
    @as_tool(needs_approval=True)
    async def pay() -> str:
        """Pay it."""
        return "paid"

    events = []
    agent = ReActAgent(llm=ScriptedLLM([Turn(calls=[("pay", {})]), "x"]), tools=[pay], observers=[events.append])
    paused = await agent.async_run("q")
    hour_ago = datetime.now(UTC) - timedelta(hours=1, seconds=paused.elapsed_s)
    state = {**paused.state, "started_at": hour_ago.isoformat(timespec="milliseconds")}
    await agent.async_resume(state, {call.call_id: True for call in paused.pending})
    assert 3600 <= next(event.waited_s for event in events if isinstance(event, e.RunStarted) and event.resumed) < 3700
    assert "it waited 1 h 00 m" in attribute(events).why


def test_a_circuit_of_ours_is_not_the_providers_word():
    """Its wait was told as "as long as m had asked for (Retry-After)"."""
    policy = Resilience(retry=Retry(attempts=4, base_s=1, max_s=1), breaker=Breaker(failures=2, reset_s=20))
    model = ScriptedLLM([ProviderUnavailable("down", status_code=503)] * 2 + ["x"], model="m", resilience=policy)
    events = []
    run_virtual(ReActAgent(llm=model, observers=[events.append]).async_run("q"))
    found = attribute(events)
    assert [part.label for part in found.parts] == ["backoff m"]
    assert "because not asked: it failed too often lately and is probed again in 1" in found.why


def test_a_run_of_many_steps_is_parted_in_time_that_grows_with_it():
    steps = [
        event for n in range(5_000) for event in (*attempt("m", n, n + 0.5, n + 0.7), *tool("t", n, n + 0.7, n + 1))
    ]
    assert parts(told(*steps, elapsed_s=5_000.0)) == {"first token of m": 2_500, "writing m": 1_000, "tool t": 1_500}


def test_the_parts_add_up_to_the_result_where_a_clock_was_set_back():
    """A run that another machine went on with: its clock stood four seconds behind."""
    given = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 60.0, "model": "m", "protocol": "native"}
    again = e.RunStarted(**given, resumed=True, at_s=5.0)
    events = [*told(*attempt("m", 0, 3, 9), again, *tool("t", "1", 5, 7), elapsed_s=7.5)]
    found = attribute(events)
    assert off_s(events, found) < 0.001
    assert found.elapsed_s == 7.5


def test_nothing_is_said_of_nothing():
    assert attribute([]).why == ""
    assert parts(told(elapsed_s=0.0)) == {}
