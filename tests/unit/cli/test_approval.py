"""Calls that a person decides on: at a terminal at once, elsewhere by whoever reads the result."""

from __future__ import annotations

import json
import os
import pty

import pytest

from tests.unit.cli.conftest import PATIENCE_S
from tests.unit.cli.test_chat import Terminal

GUARDED = "{use: look, needs_approval: true}"


@pytest.mark.parametrize(("said", "seen"), [(b"y\n", b"seen here"), (b"\n", b"did not approve"), (b"\x04", b"did not")])
def test_on_a_terminal_the_person_is_asked(factory, said, seen):
    leader, follower = pty.openpty()
    agent = factory.agent("look", GUARDED)
    with factory.start("run", agent, "Go", stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        terminal = Terminal(leader)
        terminal.until(b'look wants to run with {"place": "here"}')
        terminal.until(b"allow it? [y/N] ")
        os.write(leader, said)
        terminal.until(seen)
        terminal.until(b"It is 42.")
        assert process.wait(PATIENCE_S) == 0
    os.close(leader)


def test_elsewhere_the_run_says_what_it_waits_for(factory):
    agent = factory.agent("look", GUARDED)
    code, out, err = factory("run", agent, "Go")
    assert (code, out) == (3, "")
    assert 'waits for approval: look {"place": "here"}' in err
    code, out, _ = factory("run", agent, "Go", "--json")
    result = json.loads(out)
    assert (code, result["status"], result["stop_reason"]) == (3, "paused", "approval")
    assert result["pending"][0]["input"] == {"place": "here"}
    assert result["state"]["run_id"] == result["run_id"]
