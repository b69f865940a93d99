from __future__ import annotations

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import BadRequest, MisuseError
from shared_libs.atomic.evaluators import BaseEvaluator, Contains, NumericMatch
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.testing import Question, evaluate, load_scenarios
from shared_libs.testing.evaluation.comparison import compare, interval, percentile, sign_test
from shared_libs.testing.evaluation.suite import is_live
from tests.support import run

SCENARIO = """
scenario: two
agent: x.yaml
matrix: {n: [1, 2]}
evaluators: [exact]
questions:
  - {question: "a ${{n}}", expected: "is ${{n}}"}
  - {question: b, evaluators: [{use: contains, expected: c}]}
models: {"judge@*": [x]}
"""


class Broken(BaseEvaluator):
    name = "broken"

    def evaluate(self, answer, expected=None, result=None):
        raise ZeroDivisionError("of the evaluator")


def agent(*script):
    return ReActAgent(llm=ScriptedLLM(list(script)), tools=[], name="demo")


def test_questions_are_asked_and_judged():
    seen = []
    questions = [Question("What is 6 * 7?", 42), Question("And 2 * 3?", 6)]
    llm = agent("It is 42.", "It is 7.")
    report = run(evaluate(llm, questions, [NumericMatch()], concurrency=1, on_row=seen.append))
    assert [row.passed for row in report.rows] == [True, False]
    assert seen == list(report.rows)
    assert report.scores == {"numeric_match": 0.5}
    assert report.pass_rate == 0.5
    assert list(report.rows[1].whys()) == ["numeric_match: expected 6 within 6e-06, found 7"]
    assert report.cost_usd is None
    assert report.latency_s(0.5) is not None


def test_an_evaluator_that_breaks_costs_no_other_answer():
    report = run(evaluate(agent("yes", "yes"), [Question("q", "yes"), Question("r", "yes")], [Broken(), Contains()]))
    assert [row.unjudged for row in report.rows] == [True, True]
    assert report.scores == {"contains": 1.0}
    assert "ZeroDivisionError: of the evaluator" in next(report.rows[0].whys())


def test_only_a_run_that_answered_passes():
    report = run(evaluate(agent(BadRequest("no", status_code=400)), ["q"]))
    assert report.count("failed") == 1
    assert not report.rows[0].passed


def test_nothing_to_ask_is_misuse():
    with pytest.raises(MisuseError, match="at least one question"):
        run(evaluate(agent(), []))
    with pytest.raises(MisuseError, match="'2' at a time"):
        run(evaluate(agent(), ["q"], concurrency="2"))
    with pytest.raises(MisuseError, match="instances of a BaseEvaluator, not 'exact'"):
        run(evaluate(agent(), ["q"], ["exact"]))


def test_a_scenario_is_one_for_each_question_and_row(tmp_path):
    (tmp_path / "a.scenario.yaml").write_text(SCENARIO)
    found = load_scenarios(tmp_path / "a.scenario.yaml")
    assert [scenario.name for scenario in found] == ["two [n=1]: a 1", "two [n=1]: b", "two [n=2]: a 2", "two [n=2]: b"]
    assert found[2].spec.question == "a 2"
    assert all(is_live(scenario) for scenario in found)


@pytest.mark.parametrize(
    ("better", "worse", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (9, 1, 22 / 1024), (5, 5, 1.0)],
)
def test_the_sign_test_is_exact(better, worse, p_value):
    assert sign_test(better, worse) == pytest.approx(p_value)
    assert sign_test(worse, better) == pytest.approx(p_value)


def test_pairs_share_their_chance():
    first = dict.fromkeys("abcdef", 0.0)
    second = dict.fromkeys("abcdefg", 1.0)
    assert (compare(first, second).better, compare(first, second).questions) == (6, 6)
    assert compare(first, second, pairs=3).p_value == pytest.approx(3 / 32)


def test_intervals_and_percentiles():
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927, as tables give it
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
