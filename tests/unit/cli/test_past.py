"""`factory runs` and `factory trace ID`: what commands did is found again, and why it took so long is said."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic.events import AttemptFinished, AttemptStarted, RunFinished, RunStarted
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Attempt
from shared_libs.cli import main
from shared_libs.cli.past_options import moment
from shared_libs.observability import RunRecorder, RunStore
from shared_libs.tools.agent import AgentTool
from tests.support import run_virtual

pytestmark = pytest.mark.promise("runs-found")


@pytest.fixture
def kept(tmp_path, monkeypatch, request):
    """A store of three runs, as the one that is used when nobody says."""
    url = f"sqlite:///{tmp_path}/runs.db"
    monkeypatch.setenv("FACTORY_RUNS", url)
    store = RunStore(url)
    for number, (question, status, seconds) in enumerate(
        [("Which delays?", "answered", 2.0), ("Why \x1b[31mred?", "partial", 9.0), ("Which aircraft?", "answered", 1.0)]
    ):
        name = f"{'abc'[number]}{number}00000000"
        at = (datetime.now(UTC) - timedelta(hours=3 - number)).isoformat()
        given = {
            "agent": "scout",
            "model": "m",
            "protocol": "native",
            "timeout_s": 60.0,
            "session_id": f"s{number % 2}",
        }
        store.record(RunStarted(run_id=name, seq=1, question=question, started_at=at, **given))
        store.record(AttemptStarted(run_id=name, seq=2, provider="p", model="m-9", number=1))
        attempt = Attempt(provider="p", model="m-9", number=1, outcome="ok", first_token_s=seconds, ended_s=seconds)
        store.record(AttemptFinished(run_id=name, seq=3, at_s=seconds, attempt=attempt))
        reason = {"answered": "final_answer", "partial": "deadline"}[status]
        result = AgentResult(run_id=name, status=status, stop_reason=reason, answer="So.", elapsed_s=seconds)
        store.record(RunFinished(run_id=name, seq=4, at_s=seconds, result=result))
    assert store.close()
    return store


def listed(capsys, *arguments):
    assert main(["runs", *arguments]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["began", "run"] or head == "no runs"
    return [line.split()[1 if ":" in line.split()[0] else 2][:2] for line in lines]


def test_a_list_tells_when_what_how_long_and_what_took_longest(kept, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "\x1b" not in out
    for words in ("c2000000", "partial", "9.00 s", "first token of…", "Which aircraft?"):
        assert words in out
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    for words in ("scout", "s1", "9.00 s first token of m-9", "Why red?"):
        assert words in out


def test_lists_are_filtered_and_go_on(kept, capsys):
    assert listed(capsys) == ["c2", "b1", "a0"]
    assert listed(capsys, "--slowest") == ["b1", "a0", "c2"]
    assert listed(capsys, "--status", "partial") == ["b1"]
    assert listed(capsys, "--session", "s0") == ["c2", "a0"]
    assert listed(capsys, "--since", "90m") == ["c2"]
    assert listed(capsys, "--since", "1d", "--until", "150m") == ["a0"]
    assert listed(capsys, "--text", "which air") == ["c2"]
    assert listed(capsys, "--agent", "nobody") == []
    assert main(["runs", "-n", "2"]) == 0
    after = re.search(r"--after (\S+)", capsys.readouterr().err)[1]
    assert listed(capsys, "--after", after) == ["a0"]


def test_the_newest_run_is_called_last(kept, capsys):
    assert main(["runs", "last", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"].startswith("c2")
    assert main(["trace", "last"]) == 0
    assert "Which aircraft?" in capsys.readouterr().out


def test_one_run_is_drawn_with_why_and_beside_what_is_usual(kept, capsys):
    assert main(["runs", "b1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "run b100000000" in out
    assert "9.00 s of 9.00 s went on waiting for the first token of m-9" in out
    assert "usually 1.50 s (median of 2 other runs)" in out
    assert main(["runs", "b1", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["run_id"], row["status"], row["parts"]) == (
        "b100000000",
        "partial",
        [{"kind": "first_token", "name": "m-9", "seconds": 9.0}],
    )
    assert row["usual"]["runs"] == 2
    assert row["result"]["answer"] == "So."


def test_a_run_of_the_store_is_traced_and_followed(kept, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["trace", "a0"]) == 0
    assert "Which delays?" in capsys.readouterr().out
    assert main(["trace", "a0", "--html", "page.html"]) == 0
    assert "Which delays?" in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(["runs", "b1", "--follow"]) == 3
    assert capsys.readouterr().out == "So.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs", "zzz"], "there is no run 'zzz' in "),
        (["trace", "zzz"], "there is no run 'zzz' in "),
        (["trace", "zzz.jsonl"], "the run record zzz.jsonl cannot be read"),
        (["runs", "--status", "done"], "allowed are running, answered, partial"),
        (["runs", "--store", "mysql://h/d"], "allowed are sqlite:///file.db"),
        (["runs", "--store", "off"], "no runs are kept"),
    ],
)
def test_what_is_not_there_is_told(kept, capsys, arguments, said):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_before_the_first_run_that_is_what_is_said(tmp_path, capsys):
    assert main(["runs", "--store", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert "there is no such file; the first run that is kept makes it" in capsys.readouterr().err


def test_an_id_that_is_the_beginning_of_several_is_told_with_them(tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/runs.db"
    store = RunStore(url)
    given = {"agent": "a", "model": "m", "protocol": "native", "timeout_s": 60.0, "question": "q", "started_at": ""}
    for name in ("ab1", "ab2"):
        store.record(RunStarted(run_id=name, seq=1, **given))
    store.close()
    assert main(["runs", "ab", "--store", url]) == 2
    assert "is the beginning of several runs: ab" in capsys.readouterr().err


def test_commands_keep_their_runs_where_they_are_told_to(factory, tmp_path):
    agent = factory.agent("look", "look")
    factory.environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    del factory.environment["FACTORY_RUNS"]
    assert factory("run", agent, "Where?")[0] == 0
    kept = tmp_path / "data" / "genai-factory" / "runs.db"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert factory("run", agent, "Not kept?", "--store", "off")[0] == 0
    factory.environment["FACTORY_RUNS_CONTENTS"] = "0"
    assert factory("chat", agent, said=b"Unseen?\n")[0] == 0
    code, out, _ = factory("runs", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert [(row["question"], row["source"]) for row in rows] == [("", "cli"), ("Where?", "cli")]
    (tmp_path / "file").write_text("")
    code, out, err = factory("run", agent, "Answered?", "--store", f"sqlite:///{tmp_path}/file/runs.db")
    assert (code, out) == (0, "It is 42.\n")
    assert "note: this run is not kept: run store" in err
    assert "FACTORY_RUNS=off keeps none" in err


def test_moments_are_read_as_people_write_them():
    now = datetime.now().astimezone()
    assert abs(moment("90m") - (now - timedelta(minutes=90))) < timedelta(seconds=5)
    assert abs(moment("2d") - (now - timedelta(days=2))) < timedelta(seconds=5)
    assert (moment("yesterday").hour, moment("today") - moment("yesterday")) == (0, timedelta(days=1))
    assert moment("2026-11-26T14:00+00:00") == datetime(2026, 11, 26, 14, tzinfo=UTC)
    assert moment("2026-11-26").hour == 0
    for wrong in ("", "tomorrow", "5x", "m", "-5m"):
        with pytest.raises(argparse.ArgumentTypeError, match="a moment is"):
            moment(wrong)


def test_a_record_of_many_runs_is_listed_and_one_of_them_drawn(tmp_path, capsys, monkeypatch):
    """A service's record of a thousand runs was 14,000 lines."""
    monkeypatch.setenv("COLUMNS", "120")
    record = tmp_path / "served.jsonl"

    async def main_(recorder):
        sub = ReActAgent(llm=ScriptedLLM(["inner"]), name="scout", observers=[recorder])
        answers = [Turn(text=f"answer {n}", delay_s=1) for n in range(22)]
        llm = ScriptedLLM([*answers, Turn(calls=[("scout", {"question": "x"})]), "end"])
        agent = ReActAgent(llm=llm, tools=[AgentTool(sub, description="asks")], observers=[recorder])
        return [(await agent.async_run(f"Question {n}?", run_id=f"r{n}-{n}")).run_id for n in range(23)]

    with RunRecorder(record) as recorder:
        run_virtual(main_(recorder))
    assert main(["trace", str(record)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 + 24
    assert "Question 7?" in out
    assert "first token of scripted" in out
    assert err.startswith("24 runs; factory trace ")
    assert main(["trace", str(record), "--run", "r7-"]) == 0
    assert capsys.readouterr().out.startswith("Question 7?")
    assert main(["trace", str(record), "--run", "last"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line in ("Question 22?", "x")] == [
        "Question 22?",
        "x",
    ]
    assert main(["trace", str(record), "--run", "nobody"]) == 2
    assert "there is no run 'nobody' in this record" in capsys.readouterr().err
