"""`factory eval` in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
from xml.etree import ElementTree as ET

import pytest

SUITE = """
scenario: sums
agent: ../none.yaml
evaluators: [numeric]
questions:
  - question: "What is 17 * 23?"
    expected: 391
    models: {"*": [{calls: [{tool: look, input: {place: here}}]}, "It is 391."]}
  - question: "What is 2 + 2?"
    expected: 4
    models: {"*": ["It is 5, sk-verysecretverysecret \\e[31m"]}
"""
LIVE = """
scenario: live
agent: none.yaml
evaluators: [contains]
questions:
  - {question: "one", expected: "one"}
  - {question: "two", expected: "nothing of it"}
"""
ALLOWED = {
    "testsuites": {"name", "tests", "failures", "errors", "time", "disabled"},
    "testsuite": {"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id"},
    "testcase": {"name", "classname", "time", "assertions", "status"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "system-out": set(),
}
"""The elements and attributes that continuous integration knows."""


@pytest.fixture
def suite(factory):
    def write(text, name="suite/a.scenario.yaml"):
        path = factory.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return "suite"

    factory.agent("echo", "look")
    return write


def test_figures_failures_and_the_code(factory, suite):
    code, out, err = factory("eval", "agent.yaml", "--suite", suite(SUITE))
    assert code == 1
    assert "1 of 2" in out
    assert "FAILED agent: sums: What is 2 + 2?" in out
    assert "expected 4" in out
    assert "got      It is 5" in out
    assert "SCRIPTED" in out
    assert "unknown" in out  # the cost
    assert err == ""
    assert "verysecret" not in out
    assert "\x1b" not in out


def test_all_passed_is_zero(factory, suite):
    code, out, _ = factory("eval", "agent.yaml", "--suite", suite(LIVE.replace("nothing of it", "two")))
    assert (code, "2 of 2" in out, "SCRIPTED" in out) == (0, True, False)


def test_json_is_all_there_is_on_stdout(factory, suite):
    code, out, _ = factory("eval", "agent.yaml", "agent.yaml", "--suite", suite(SUITE), "--json", "--repeat", "2")
    told = json.loads(out)
    assert code == 1
    assert "verysecret" not in out
    assert [report["name"] for report in told["reports"]] == ["agent.yaml (1)", "agent.yaml (2)"]
    first = told["reports"][0]
    assert (first["questions"], first["passed"], first["cost_usd"], first["complete"]) == (4, 2, None, True)
    assert first["answered_by"] == {"model": 0, "rehearsal": 0, "script": 4}
    assert [row["repetition"] for row in first["rows"]] == [1, 2, 1, 2]
    assert told["comparisons"][0]["p_value"] == 1.0


def test_definitions_side_by_side(factory, suite):
    (factory.folder / "other.yaml").write_text("name: other\nllm: {provider: played, model: length}\n")
    code, out, _ = factory("eval", "agent.yaml", "other.yaml", "--suite", suite(LIVE), "--concurrency", "1")
    assert code == 1
    assert "differs" in out
    assert "other against agent: better on 0, worse on 1 of 2 questions; sign test p = 1" in out
    assert "no evidence of a difference" in out


def test_a_rehearsal_says_so(factory, suite):
    (factory.folder / "agent.yaml").write_text(
        "name: a\nllm: {provider: rehearsal, script: hello}\ntools: [calculator]\n"
    )
    _, out, _ = factory("eval", "agent.yaml", "--suite", suite(LIVE))
    assert "REHEARSAL: in 2 of 2 questions to agent no model was asked" in out


def test_the_junit_file_is_as_continuous_integration_reads_it(factory, suite):
    suite(SUITE)
    code, _, _ = factory("eval", "agent.yaml", "--suite", suite(LIVE, "suite/b.scenario.yaml"), "--junit", "junit.xml")
    root = ET.parse(factory.folder / "junit.xml").getroot()
    assert code == 1
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "4",
        "failures": "2",
        "errors": "0",
    }
    for element in root.iter():
        assert set(element.attrib) <= ALLOWED[element.tag]
    failure = root.find(".//failure")
    assert failure.get("message").startswith("numeric: expected 4")
    assert "verysecret" not in ET.tostring(root, encoding="unicode")


def test_a_judge_that_does_not_answer_is_an_error_and_no_score(factory, suite):
    judge = "{use: judge, criteria: It is right., llm: {provider: openai, model: m, api_key: k}}"
    text = (
        "scenario: judged\nagent: x\nquestions:\n"
        f"  - question: one\n    evaluators: [{judge}]\n"
        '    models: {"*": [One.], "judge@m": ["no JSON", "again none"]}\n'
        f"  - question: two\n    evaluators: [{judge}]\n"
        """    models: {"*": [Two.], "judge@m": ['{"reason": "Right.", "mark": 5}']}\n"""
    )
    code, out, _ = factory("eval", "agent.yaml", "--suite", suite(text), "--junit", "junit.xml")
    assert code == 1
    assert "could not judge" in out
    assert "not judged" in out
    assert ET.parse(factory.folder / "junit.xml").getroot().get("errors") == "1"


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("scenario: one\nagent: x\nquestion: q\n", (), "none of its 1 scenarios has `questions`"),
        (SUITE.replace("numeric", "nmeric"), (), "'nmeric' is not known"),
        (SUITE.replace("391\n", "much\n"), (), "numeric_match needs a finite number"),
        (SUITE.replace("evaluators: [numeric]\n", ""), (), "add `evaluators`"),
        (SUITE.replace("[numeric]", "[{use: numeric, order: exact}]"), (), "order: numeric has no such option"),
        (SUITE.replace("[numeric]", "[{use: judge}]"), (), "judge needs `llm`"),
        (SUITE.replace('"*": [{', '"*": [{txt: x, '), (), "unknown key"),
        (SUITE, ("--concurrency", "0"), "a whole number from 1"),
        (SUITE, ("--junit", "none/junit.xml"), "there is no such folder"),
        (SUITE, ("none.yaml",), "none.yaml: there is no such file"),
    ],
)
def test_misuse_is_told_before_anything_is_asked(told, suite, text, arguments, said):
    code, out, err = told("eval", "agent.yaml", *arguments, "--suite", suite(text))
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_ctrl_c_gives_what_there_is(factory, suite):
    done = 'models: {"*": [One.]}'
    text = LIVE.replace('{question: "one", expected: "one"}', f"{{question: one, expected: one, {done}}}")
    suite(text)
    factory.agent("silent")
    leader, follower = pty.openpty()
    with factory.start("eval", "agent.yaml", "--suite", "suite", "--junit", "junit.xml", stderr=follower) as process:
        os.close(follower)
        seen = b""
        while b"1 passed" not in seen:
            seen += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 130
    assert b"1 of 1" in out
    assert "STOPPED: agent was asked 1 of 2 questions" in " ".join(out.decode().split())
    assert ET.parse(factory.folder / "junit.xml").getroot().get("tests") == "1"


def test_a_narrow_terminal_without_colours(factory, suite):
    factory.environment |= {"COLUMNS": "40", "NO_COLOR": "1"}
    code, out, _ = factory("eval", "agent.yaml", "--suite", suite(SUITE))
    assert code == 1
    assert max(map(len, out.splitlines())) <= 40
