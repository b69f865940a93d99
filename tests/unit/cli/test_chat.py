"""`factory chat`: one conversation, on a terminal or through a pipe."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import sys
import threading

from tests.unit.cli.conftest import PATIENCE_S


def test_piped_every_line_is_a_question_of_one_conversation(factory):
    code, out, _ = factory("chat", factory.agent("echo"), said=b"one\n\n two \nthree\n")
    assert (code, out) == (0, "1 so far, last: one\n2 so far, last:  two \n3 so far, last: three\n")


def test_slash_exit_leaves(factory):
    assert factory("chat", factory.agent("echo"), said=b"one\n/exit\ntwo\n")[:2] == (0, "1 so far, last: one\n")


def test_what_an_answer_took_is_shown_before_the_next_question_is_asked_for(factory, told, monkeypatch):
    """A view in a thread of its own that is slow must not write into the prompt, which then reads as if it hung."""
    shown = Slow()
    monkeypatch.setattr(sys, "stderr", shown)
    asked = Asking(["one", "two"], shown)
    monkeypatch.setattr(sys, "stdin", asked)
    told("chat", factory.agent("echo"))
    assert asked.seen == [0, 1, 2]


class Slow(io.StringIO):
    """Shows what an answer took only after the next question is asked for, where that does not wait for it."""

    def __init__(self):
        super().__init__()
        self.asked = threading.Event()

    def write(self, text):
        if "answered" in text:
            self.asked.clear()
            self.asked.wait(0.05)
        return super().write(text)


class Asking:
    """A stdin that notes, whenever it is asked, how many answers have been concluded."""

    def __init__(self, lines, shown):
        self.seen = []
        self._lines, self._shown = iter(lines), shown

    def isatty(self):
        return False

    def readline(self, *_):
        self.seen.append(self._shown.getvalue().count("s  answered"))
        self._shown.asked.set()
        return next(self._lines, "")


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
