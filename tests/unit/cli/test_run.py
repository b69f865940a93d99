"""`factory run`: the answer on stdout, what happens on stderr, the outcome in the exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from shared_libs.atomic.events import RunFinished, RunStarted, Thought
from shared_libs.atomic.results import AgentResult
from shared_libs.cli.running import _OuterRuns
from shared_libs.observability import read_record
from tests.unit.cli.conftest import PATIENCE_S


def test_piped_it_is_plain_and_the_answer_alone_is_on_stdout(factory):
    code, out, err = factory("run", factory.agent("look", "look"), "Where?")
    assert (code, out) == (0, "It is 42.\n")
    told = [line.split("s  ", 1)[1].split(None, 1) for line in err.splitlines()]
    assert told[:2] == [["thought", "I look."], ["action", "look here"]]
    assert told[2][0] == "observation"
    assert "\x1b" not in err


def test_json_is_the_result_alone(factory):
    code, out, err = factory("run", factory.agent("look", "look"), "Where?", "--json")
    result = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert (result["status"], result["answer"]) == ("answered", "It is 42.")
    assert result["steps"][0]["actions"][0]["tool"] == "look"


def test_on_a_terminal_it_shows_what_happens_and_the_time_left(factory):
    leader, follower = pty.openpty()
    with factory.start("run", factory.agent("slow", limits="{timeout_s: 1}"), "Go", stderr=follower) as process:
        os.close(follower)
        shown = b""
        while piece := _read(leader):
            shown += piece
        out = process.stdout.read().decode()
        code = process.wait(PATIENCE_S)
    os.close(leader)
    assert (code, out) == (0, "one two three\n")
    assert b"\x1b[" in shown
    assert re.search(rb"thinking[^\n]* \d\.\d s left", shown)


def test_retries_are_told(factory):
    code, out, err = factory("run", factory.agent("retry"), "Go")
    assert (code, out) == (0, "After all.\n")
    assert "retry        played/retry again in 0.0 s: slow down" in err


def test_secrets_and_control_codes_are_not_shown(factory):
    code, out, err = factory("run", factory.agent("secret", "look"), "Go")
    assert (code, out) == (0, "Done.\n")
    assert "hunter2" not in err
    assert "[redacted]" in err
    assert "\x1b" not in err


@pytest.mark.parametrize("tool", ["absorb", "sleep"])
def test_a_tool_that_hangs_costs_no_more_than_the_time(factory, tool):
    code, out, err = factory(
        "run",
        factory.agent(tool, "look", tool),
        "Go",
        "--timeout",
        "0.6",
        "--json",
    )
    result = json.loads(out)
    assert (code, result["status"], result["stop_reason"]) == (3, "partial", "deadline")
    assert [left["tool"] for left in result["still_running"]] == [tool]
    assert result["steps"][0]["observations"][0]["content"].startswith("seen")
    assert err == ""


def test_a_silent_model_ends_partial_with_its_attempts(factory):
    code, out, err = factory("run", factory.agent("silent"), "Go", "--timeout", "0.4", "--json")
    result = json.loads(out)
    assert (code, result["status"], err) == (3, "partial", "")
    assert {attempt["outcome"] for attempt in result["attempts"]} == {"timeout"}


def test_a_partial_answer_is_still_an_answer(factory):
    code, out, err = factory("run", factory.agent("steps", "look", limits="{max_steps: 1}"), "Go")
    assert (code, out) == (3, "Half of it.\n")
    assert "partial (max_steps)" in err


def test_a_failed_run_says_why(factory):
    (factory.folder / "agent.yaml").write_text(
        "name: demo\nllm: {provider: openai, model: m, base_url: 'http://127.0.0.1:9/v1', api_key: k,"
        " retry: {attempts: 1}}\n"
    )
    code, out, err = factory("run", "agent.yaml", "Go")
    assert (code, out) == (1, "")
    assert "failed (error): " in err
    assert "openai/m" in err
    assert "Traceback" not in err


def test_a_tool_that_cannot_be_made_ready_is_told(factory):
    code, out, err = factory("run", factory.agent("echo", "unready"), "Go")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "factory: RuntimeError: no such thing (FACTORY_DEBUG=1 shows where)"
    factory.environment["FACTORY_DEBUG"] = "1"
    assert "Traceback" in factory("run", "agent.yaml", "Go")[2]


def test_what_does_not_close_does_not_hold_the_process(factory):
    assert factory("run", factory.agent("echo", "clinging"), "Go")[:2] == (0, "1 so far, last: Go\n")


def test_the_record_of_a_run_can_be_drawn(factory):
    code, _, err = factory("run", factory.agent("secret", "look"), "Go", "--trace", "deep/run.jsonl", "--json")
    assert (code, err) == (0, "")
    record = factory.folder / "deep" / "run.jsonl"
    assert isinstance(read_record(record)[-1], RunFinished)
    assert "hunter2" not in record.read_text()
    code, out, _ = factory("trace", "deep/run.jsonl")
    assert code == 0
    assert "answered" in out


def test_a_record_that_cannot_be_written_costs_no_answer(factory):
    code, out, err = factory("run", factory.agent("echo"), "Go", "--trace", "/dev/full")
    assert (code, out) == (0, "1 so far, last: Go\n")
    assert "warning: the run record /dev/full is not complete: No space left on device" in err
    code, out, err = factory("run", "agent.yaml", "Go", "--trace", "agent.yaml")
    assert (code, out) == (2, "")
    assert "agent.yaml holds something that is no run record" in err


def test_a_question_may_come_from_stdin_and_be_long(factory):
    agent = factory.agent("length")
    assert factory("run", agent, "-", said=b"\xef\xbb\xbfabc")[1] == "3\n"  # as some editors write it
    assert factory("run", agent, "-", said=b"x" * 1_000_000)[:2] == (0, "1000000\n")
    code, out, err = factory("run", agent, "-", said=b"x" * (9 << 20))
    assert (code, out) == (2, "")
    assert "longer than 8,388,608 bytes" in err
    assert factory("run", agent, "-", said=b"abc\xff")[::2] == (
        2,
        "the question on stdin is not valid UTF-8: invalid start byte at byte 3\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("agent.yaml", "  "), "the question is empty"),
        (("agent.yaml", b"caf\xe9"), "the question is not valid UTF-8: undecodable byte at character 3"),
        (("none.yaml", "Go"), "none.yaml"),
        (("agent.yaml", "Go", "--timeout", "0"), "a positive number of seconds, 3153600000 at most, not '0'"),
        (("agent.yaml", "Go", "--timeout", "inf"), "a positive number of seconds, 3153600000 at most, not 'inf'"),
        (("agent.yaml", "Go", "--timeout", "soon"), "a positive number of seconds, 3153600000 at most, not 'soon'"),
        (("agent.yaml", "Go", "-m", ""), "the name of the model is empty; write provider/model"),
        (("agent.yaml", "Go", "--session", "s"), "agent.yaml has no `memory`"),
        (("agent.yaml",), "required: QUESTION"),
        (("agent.yaml", "Go", "--trace", "agent.yaml/x"), "cannot be written"),
    ],
)
def test_misuse_is_told_in_one_breath(factory, arguments, said):
    factory.agent("echo")
    code, out, err = factory("run", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error_to_shout_about(factory):
    with factory.start("run", factory.agent("echo"), "Go") as process:
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait(PATIENCE_S)
    assert "Traceback" not in err
    assert "Exception" not in err


def test_streams_that_are_closed_or_narrow_lose_nothing(factory):
    agent = factory.agent("control")
    factory.environment["PYTHONIOENCODING"] = "ascii"
    assert factory("run", agent, "Go")[:2] == (0, "a\x1b[31mred\x07 caf\\xe9\n")
    del factory.environment["PYTHONIOENCODING"]
    for streams in ("2>&-", "2>/dev/full <&-"):
        assert redirected(factory, streams, "run", agent, "Go") == (0, "a\x1b[31mred\x07 café\n", ""), streams


def test_what_stdout_cannot_take_is_told_in_a_sentence(factory):
    no_room = (1, "", "factory: stdout cannot be written: No space left on device\n")
    assert redirected(factory, ">/dev/full", "--version") == no_room
    factory.environment["PYTHONUNBUFFERED"] = "1"
    assert redirected(factory, ">/dev/full", "--version") == no_room


def redirected(factory, streams, *arguments):
    """Run the command with streams as a shell redirects them."""
    shell = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "shared_libs.cli", *arguments]
    done = subprocess.run(
        shell, cwd=factory.folder, env=factory.environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_nobody_reading_what_happens_does_not_hold_the_run(factory):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    code, out, _ = factory("run", factory.agent("look", "look"), "Go", stderr=writing)
    os.close(writing)
    os.close(reading)
    assert (code, out) == (0, "It is 42.\n")


def test_an_answer_cannot_steer_a_terminal(factory):
    leader, follower = pty.openpty()
    with factory.start("run", factory.agent("control"), "Go", stdout=follower, stderr=subprocess.DEVNULL) as process:
        os.close(follower)
        shown = b""
        while piece := _read(leader):
            shown += piece
        process.wait(PATIENCE_S)
    os.close(leader)
    assert shown.decode() == "ared\N{REPLACEMENT CHARACTER} café\r\n"


def _read(leader):
    try:
        return os.read(leader, 65536)
    except OSError:  # on Linux the end of a terminal is an error
        return b""


def test_the_runs_of_agents_inside_are_not_shown_as_the_users_own():
    seen = []
    shown = _OuterRuns(seen.append)
    begun = {"agent": "a", "question": "q", "started_at": "", "timeout_s": 1.0, "model": "m", "protocol": "native"}
    ended = AgentResult(run_id="r", status="answered", stop_reason="final_answer", answer="x")
    told = [
        RunStarted(run_id="outer", **begun),
        RunStarted(run_id="inner", parent_run_id="outer", parent_call_id="call_1", **begun),
        Thought(run_id="inner", step=1, text="inside"),
        *(RunFinished(run_id=run_id, result=ended) for run_id in ("inner", "outer")),
    ]
    for event in told:
        shown(event)
    assert seen == [told[0], told[4]]
