"""Signals: the first cancels cleanly, the second ends at once, and nothing holds the process."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

import genai_factory
from shared_libs.atomic.events import RunFinished
from shared_libs.observability import read_record
from tests.unit.cli.conftest import PATIENCE_S


def until(stream, words):
    """Read lines until one has the words."""
    for line in stream:
        if words in line:
            return
    raise AssertionError(f"{words} never came")


def ended(process):
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.promise("cancel-wins")
@pytest.mark.parametrize("tool", ["absorb", "sleep"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_whatever_a_tool_does(factory, tool, number, code):
    with factory.start("run", factory.agent(tool, "look", tool), "Go", "--trace", "run.jsonl") as process:
        until(process.stderr, b"action       " + tool.encode())
        process.send_signal(number)
        got, out, err = ended(process)
    assert (got, out) == (code, "")
    assert "interrupted after " in err
    assert "Traceback" not in err
    last = read_record(factory.folder / "run.jsonl")[-1]
    assert isinstance(last, RunFinished)
    assert last.result.status == "cancelled", last.result


def test_an_interrupted_run_gives_its_result_as_json(factory):
    with factory.start(
        "run", factory.agent("absorb", "look", "absorb"), "Go", "--json", "--trace", "/dev/stderr"
    ) as process:
        until(process.stderr, b'"tool":"absorb"')
        process.send_signal(signal.SIGINT)
        code, out, _ = ended(process)
    assert (code, json.loads(out)["status"]) == (130, "cancelled")


def test_even_a_tool_that_holds_the_loop_cannot_keep_the_process(factory):
    with factory.start("run", factory.agent("block", "look", "block"), "Go") as process:
        until(process.stderr, b"blocking")
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert (code, out) == (130, "")
    assert "interrupted" in err


def test_the_second_signal_ends_at_once(factory):
    with factory.start("run", factory.agent("block", "look", "block"), "Go") as process:
        until(process.stderr, b"blocking")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        code, out, _ = ended(process)
    assert (code, out) == (130, "")


def test_a_conversation_survives_an_interruption_of_its_memory(factory):
    agent = factory.agent("absorb", "look", "absorb", memory="{url: 'sqlite+aiosqlite:///talk.db'}")
    with factory.start("run", agent, "Go", "--session", "s") as process:
        until(process.stderr, b"action       absorb")
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == 130
    factory.agent("echo", memory="{url: 'sqlite+aiosqlite:///talk.db'}")
    code, out, err = factory("run", agent, "Again", "--session", "s")
    assert code == 0, err
    assert "last: Again" in out
    assert factory("run", agent, "More", "--session", "s")[1].endswith("last: More\n")


STARTS = ["-m shared_libs.cli", "-c from genai_factory.command import main; main()"]


@pytest.mark.parametrize(
    ("start", "command", "number", "end"),
    [
        (STARTS[1], "check agent.yaml", signal.SIGINT, (130, "", "")),
        *((STARTS[0], command, signal.SIGINT, (130, "", "")) for command in ("run agent.yaml Go", "init x", "serve")),
        *(
            (STARTS[0], command, signal.SIGTERM, (143, "", "factory: told to stop before it had begun\n"))
            for command in ("serve", "worker")
        ),
        (STARTS[0], "worker", signal.SIGHUP, (143, "", "factory: told to stop before it had begun\n")),
    ],
)
def test_a_signal_while_libraries_load_ends_without_a_traceback(factory, start, command, number, end):
    """What stays says that it goes: in a container, whose first process it is, no signal would end it unheeded."""
    factory.agent("echo")
    (factory.folder / ".env").write_text("A=1\n")
    (factory.site / "dotenv.py").write_text(
        "import os, sys\nprint('importing', file=sys.stderr, flush=True)\n"
        "try:\n    os.read(0, 1)\nexcept BaseException as error:\n    raise RuntimeError('wrapped') from error\n"
    )
    given = [*start.split(" ", 1), *command.split()]
    heeds = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
    with factory.start(*given, program=(), stdin=subprocess.PIPE, preexec_fn=heeds) as process:
        until(process.stderr, b"importing")
        process.send_signal(number)
        assert ended(process) == end
    assert not (factory.folder / "x").exists()


def test_little_is_read_before_ctrl_c_is_heard():
    """`importlib.abc`, `pathlib` and `typing` made it four times as long, and Ctrl-C in it a traceback."""
    before = [genai_factory.__file__, find_spec("genai_factory.command").origin]
    read = [node for file in before for node in ast.parse(Path(file).read_text()).body]
    names = {name for node in read if isinstance(node, ast.Import) for name in (each.name for each in node.names)}
    names |= {node.module for node in read if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "importlib", "importlib.machinery", "os", "signal", "sys"}


def test_ctrl_c_while_files_are_read_ends_without_a_word(factory):
    os.mkfifo(factory.folder / ".env")
    settings = factory.folder / ".env"
    with factory.start("check", "agent.yaml") as process, settings.open("w"):  # opens once it is being read
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "", "")
