"""Expectations: each that fails says what was expected and what came, in a line or two."""

from __future__ import annotations

import pytest

from shared_libs.atomic.events import AttemptFinished, FellBack, ToolFinished
from shared_libs.atomic.results import Action, AgentResult, Observation, Step, StillRunning
from shared_libs.atomic.types import Attempt, Usage
from shared_libs.testing.scenarios.expectations import differences
from shared_libs.testing.scenarios.spec import ExpectSpec

SQL, SUM = Action("sql", {"query": "q"}, "c1"), Action("sum", {"a": 1, "b": 2}, "c2")
ATTEMPT = Attempt(provider="openai", model="gpt", number=1, outcome="ok", waited_s=1.5)
RESULT = AgentResult(
    run_id="r",
    status="answered",
    stop_reason="final_answer",
    output_data={"rows": 2, "name": "x"},
    answer='{"rows": 1234.5, "name": "x"}',
    steps=(
        Step(
            "",
            (SQL, SUM),
            (Observation("c1", "a", is_error=False, elapsed_s=0), Observation("c2", "3", is_error=False, elapsed_s=0)),
        ),
        Step(""),
    ),
    usage=Usage(100, 20, 0, 120),
    cost_usd=0.02,
    elapsed_s=7.5,
    still_running=(StillRunning("sql", "c1", 2.0),),
    attempts=(ATTEMPT,),
    error="odd",
)
EVENTS = [
    AttemptFinished(attempt=ATTEMPT, at_s=1.5),
    ToolFinished(step=1, tool="sql", call_id="c1", content="42 rows", is_error=False, elapsed_s=2.0, at_s=3.0),
]


def found(**expect):
    return differences(ExpectSpec.model_validate(expect), RESULT, EVENTS)


@pytest.mark.parametrize(
    "expect",
    [
        {},
        {"status": "answered", "stop_reason": "final_answer"},
        {"answer": {"contains": ["rows", "name"], "matches": "x"}},
        {"answer": {"number": {"value": 1234.5}}},
        {"answer": {"number": {"value": 1230, "tolerance": 5}}},
        {"answer": {"schema": {"type": "object", "required": ["rows"]}}},
        {"output": {"rows": 2}},
        {"error": "odd"},
        {"error": {"equals": "odd"}},
        {"tools": {"exact": [{"tool": "sql", "input": {"query": "q"}}, "sum"]}},
        {"tools": {"any_order": ["sum", "sql"]}},
        {"tools": {"subset": ["sum"]}},
        {"attempts": {"gpt": 1}},
        {"attempts": {"openai/gpt": {"at_least": 1, "at_most": 3}}},
        {"elapsed_s": 7.5, "cost_usd": 0.02, "tokens": 120, "steps": 2},
        {"elapsed_s": {"at_least": 7, "at_most": 8}},
        {"still_running": ["sql"]},
        {"events": ["attempt_finished", {"type": "tool_finished", "content": {"contains": "42"}}]},
        {"events": [{"type": "attempt_finished", "attempt": {"outcome": "ok", "waited_s": {"at_least": 1}}}]},
        {"events": [{"type": "tool_finished", "at_s": 3, "is_error": False}]},
        {"never": ["fell_back", {"tool": "http"}, {"tool": "sql", "input": {}}, {"answer_contains": "secret"}]},
    ],
)
def test_what_is_as_expected_is_no_difference(expect):
    assert found(**expect) == []


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ({"status": "failed"}, "status: expected failed, got answered (odd)"),
        ({"answer": "x"}, 'answer: expected "x",\n             got "{\\"rows\\"'),
        ({"answer": {"equals": None}}, "answer: expected null,"),
        ({"answer": {"contains": "z"}}, 'answer: expected to contain "z", got'),
        ({"answer": {"matches": "^y"}}, 'answer: expected to match "^y", got'),
        ({"answer": {"number": {"value": 3, "tolerance": 1}}}, "answer: expected the number 3 ± 1, got"),
        ({"answer": {"schema": {"required": ["z"]}}}, "answer: expected to fit its schema, got"),
        ({"output": {"rows": 3}}, 'output: expected {"rows": 3}, got {"rows": 2, "name"'),
        ({"output": None}, "output: expected null, got {"),
        ({"error": "even"}, 'error: expected "even"'),
        ({"tools": {"exact": []}}, 'tools: call 1: expected no call, got sql({"query": "q"})'),
        ({"tools": {"exact": ["sql"]}}, "tools: call 2: expected no call, got sum("),
        ({"tools": {"exact": ["sql", "sum", "sql"]}}, "tools: call 3: expected sql, got no call"),
        ({"tools": {"exact": [{"tool": "sql", "input": {}}]}}, "tools: call 1: expected sql({}), got sql("),
        ({"tools": {"subset": ["sum", "sql"]}}, "tools: expected sql in this order, got sql("),
        ({"tools": {"any_order": ["sql"]}}, "tools: did not expect sum("),
        ({"tools": {"any_order": ["sql", "sql"]}}, "tools: expected sql, got sql("),
        ({"attempts": {"gpt": 2}}, "attempts of gpt: expected 2, got 1"),
        ({"attempts": {}}, "attempts: expected none of openai/gpt, got 1"),
        ({"elapsed_s": {"at_most": 7}}, "elapsed_s: expected at most 7, got 7.5"),
        ({"cost_usd": None}, "cost_usd: expected that it is not known, got 0.02"),
        ({"cost_usd": 0.01}, "cost_usd: expected 0.01, got 0.02"),
        ({"tokens": {"at_least": 200}}, "tokens: expected at least 200, got 120"),
        ({"still_running": []}, "still_running: expected [], got ['sql']"),
        ({"events": ["fell_back"]}, 'events: expected {"type": "fell_back"} (the 1st of the list); then came attempt'),
        (
            {"events": ["attempt_finished", {"type": "tool_finished", "content": "41 rows"}]},
            '(the 2nd of the list); of this type there is {"type": "tool_finished"',
        ),
        ({"events": ["tool_finished", "attempt_finished"]}, "(the 2nd of the list)"),
        ({"never": ["tool_finished"]}, 'never: {"type": "tool_finished"} happened at 3 s'),
        ({"never": [{"tool": "sql"}]}, 'never: sql({"query": "q"}) was called'),
        ({"never": [{"answer_contains": "name"}]}, 'never: the answer contains "name"'),
    ],
)
def test_what_is_not_says_what_was_expected_and_what_came(expect, says):
    first, *more = found(**expect)
    assert says in first
    assert not more
    assert first.count("\n") <= 1


def test_a_cost_that_is_not_known_is_told():
    unknown = AgentResult(run_id="r", status="answered", stop_reason="final_answer", answer="")
    spec = ExpectSpec.model_validate({"cost_usd": {"at_most": 1}})
    assert differences(spec, unknown, [FellBack(provider="", model="", next_provider="", next_model="", why="")]) == [
        "cost_usd: expected at most 1, got null: a price or the tokens are not known"
    ]
    assert differences(ExpectSpec.model_validate({"cost_usd": None}), unknown, []) == []
