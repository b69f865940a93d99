"""`factory chat`: one conversation, on a terminal or through a pipe."""

from __future__ import annotations

import os
import pty
import select
import signal

from tests.unit.cli.conftest import PATIENCE_S


def test_piped_every_line_is_a_question_of_one_conversation(factory):
    code, out, _ = factory("chat", factory.agent("echo"), said=b"one\n\n two \nthree\n")
    assert (code, out) == (0, "1 so far, last: one\n2 so far, last:  two \n3 so far, last: three\n")


def test_slash_exit_leaves(factory):
    assert factory("chat", factory.agent("echo"), said=b"one\n/exit\ntwo\n")[:2] == (0, "1 so far, last: one\n")


def test_a_line_that_is_no_text_is_told_and_the_next_is_answered(factory):
    code, out, err = factory("chat", factory.agent("echo"), said=b"caf\xe9\none\n")
    assert (code, out) == (0, "1 so far, last: one\n")
    assert "not valid UTF-8" in err


def test_a_session_is_kept_where_the_definition_has_a_memory(factory):
    agent = factory.agent("echo", memory="{url: 'sqlite+aiosqlite:///talk.db'}")
    assert factory("chat", agent, "--session", "s", said=b"one\n")[:2] == (0, "1 so far, last: one\n")
    assert factory("chat", agent, "--session", "s", said=b"two\n")[:2] == (0, "2 so far, last: two\n")
    assert factory("chat", agent, said=b"other\n")[:2] == (0, "1 so far, last: other\n")


def test_on_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_leaves(factory):
    leader, follower = pty.openpty()
    with factory.start("chat", factory.agent("slow"), stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        terminal = Terminal(leader)
        terminal.until(b"you> ")
        os.write(leader, b"hello\n")
        terminal.until(b"one two three\r\n")
        terminal.until(b"you> ")
        os.write(leader, b"again\n")
        terminal.until(b"s left")
        process.send_signal(signal.SIGINT)
        terminal.until(b"stopped; nothing of this turn is remembered")
        terminal.until(b"you> ")
        os.write(leader, b"\x04")
        assert process.wait(PATIENCE_S) == 0
    os.close(leader)


class Terminal:
    """Reads what a terminal shows."""

    def __init__(self, leader):
        self._leader = leader
        self._shown = b""

    def until(self, words):
        while words not in self._shown:
            ready, _, _ = select.select([self._leader], [], [], PATIENCE_S)
            assert ready, f"{words!r} was not shown, only {self._shown!r}"
            self._shown += os.read(self._leader, 65536)
        self._shown = self._shown.split(words, 1)[1]
