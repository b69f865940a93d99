"""The evaluators that compute: what passes, what fails and why, what is misuse."""

from __future__ import annotations

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.evaluators import Contains, ExactMatch, JSONSchemaMatch, NumericMatch, ToolTrajectory
from shared_libs.atomic.evaluators.checks import numbers_in
from shared_libs.atomic.results import Action, AgentResult, Step
from shared_libs.atomic.types import Usage
from tests.support import run

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def judged(evaluator, answer="", expected=None, result=None):
    found = run(evaluator.async_evaluate(answer, expected, result))
    return found.score, found.passed, found.reason


@pytest.mark.parametrize(
    ("evaluator", "answer", "expected", "judgement"),
    [
        (ExactMatch(), " Paris\n", "Paris", (1, True, "")),
        (ExactMatch(), "paris", "Paris", (0, False, "expected 'Paris'")),
        (ExactMatch(ignore_case=True), "STRASSE", ["x", "straße"], (1, True, "")),
        (ExactMatch(), "x", ["a", "b"], (0, False, "expected 'a' or 'b'")),
        (Contains(), "It is PARIS, France", ["paris", "france"], (1, True, "")),
        (Contains(), "It is Paris", ["paris", "france"], (0.5, False, "missing: 'france'")),
        (Contains(), "Cafe\u0301", "caf\u00e9", (1, True, "")),
        (Contains(ignore_case=False), "paris", "Paris", (0, False, "missing: 'Paris'")),
        (JSONSchemaMatch(SCHEMA), '```json\n{"n": 1}\n```', None, (1, True, "")),
        (JSONSchemaMatch(), '{"n": 1}', SCHEMA, (1, True, "")),
        (JSONSchemaMatch(SCHEMA), '{"n": "1"}', None, (0, False, "n: '1' is not of type 'integer'")),
        (NumericMatch(), "about 12,600 flights in 3 tables", 12600, (1, True, "")),
        (NumericMatch(relative=0.01), "12.6 minutes", 12.7, (1, True, "")),
        (NumericMatch(absolute=0.5), "\u22123.2", -3, (1, True, "")),
        (NumericMatch(), "1 or 2", 3, (0, False, "expected 3 within 3e-06, found 1, 2")),
        (NumericMatch(), "none", 0, (0, False, "expected 0 within 0, found no number")),
    ],
)
def test_answers_are_judged(evaluator, answer, expected, judgement):
    assert judged(evaluator, answer, expected) == judgement


def test_what_is_not_json_says_so():
    score, passed, reason = judged(JSONSchemaMatch(SCHEMA), "n is 1")
    assert (score, passed) == (0, False)
    assert reason.startswith("the answer is not JSON")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234.5 and .5, -2 +3 1e3 7.", [1234.5, 0.5, -2, 3, 1000, 7]),
        ("42% of A320s on 2013-01-02", [42, 2013, 1, 2]),
        ("(12)", [12]),
        ("- e . ,", []),
        ("1,2,3", [1, 2, 3]),
    ],
)
def test_numbers_are_found_in_text(text, numbers):
    assert numbers_in(text) == numbers


def a_run(*calls):
    steps = tuple(Step("", (Action(tool, arguments, str(number)),)) for number, (tool, arguments) in enumerate(calls))
    return AgentResult(
        run_id="r", status="answered", stop_reason="final_answer", answer="", steps=steps, usage=Usage(), elapsed_s=0.0
    )


RUN = a_run(("schema", {}), ("sql", {"query": "a", "limit": 5}), ("sql", {"query": "b"}))


@pytest.mark.parametrize(
    ("order", "expected", "score", "passed"),
    [
        ("exact", ["schema", "sql", "sql"], 1, True),
        ("exact", ["schema", "sql"], 1, False),
        ("exact", ["sql", "schema", "sql"], 1 / 3, False),
        ("in_order", ["schema", {"tool": "sql", "input": {"query": "b"}}], 1, True),
        ("in_order", [{"tool": "sql", "input": {"query": "b"}}, "schema"], 0.5, False),
        ("any_order", ["sql", {"tool": "sql", "input": {"query": "a"}}, "schema"], 1, True),
        ("any_order", ["sql", "sql", "sql"], 2 / 3, False),
        ("any_order", [], 1, True),
        ("exact", [], 0, False),
        ("in_order", [{"tool": "sql", "input": {"query": "c"}}], 0, False),
    ],
)
def test_the_calls_of_a_run_are_compared(order, expected, score, passed):
    found = run(ToolTrajectory(order=order).async_evaluate("", expected, RUN))
    assert (found.score, found.passed) == (pytest.approx(score), passed)
    assert passed or "called schema, sql, sql" in found.reason


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: judged(ExactMatch(), "a"),
        lambda: judged(ExactMatch(), "a", 5),
        lambda: judged(Contains(), "a", []),
        lambda: judged(JSONSchemaMatch(), "{}"),
        lambda: JSONSchemaMatch({"type": "nonsense"}),
        lambda: judged(NumericMatch(), "1", "1"),
        lambda: judged(NumericMatch(), "1", expected=True),
        lambda: NumericMatch(relative=-1),
        lambda: judged(ToolTrajectory(), "", ["sql"]),
        lambda: judged(ToolTrajectory(), "", "sql", RUN),
        lambda: judged(ToolTrajectory(), "", [5], RUN),
        lambda: ToolTrajectory(order="some"),
    ],
)
def test_misuse_is_told(misuse):
    with pytest.raises(MisuseError):
        misuse()
