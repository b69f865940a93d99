"""What a model says in one turn, as it comes: which of it is the answer, in work that grows with the text alone."""

from __future__ import annotations

from collections.abc import Callable

from shared_libs.agents.reasoning import Opening

AnswerStart = Callable[[str, str | None], int | None]
"""
Where in a text the answer begins: None while nothing tells, `NO_ANSWER` when none can follow any more, `UNDECIDED` when
what has come may yet be part of it.
"""

NO_ANSWER = -1
UNDECIDED = -2

BEFORE = ".\n"
"""Stands for the lines that are over: what begins a turn, such as a fence around it, means nothing on a later line."""


class Speech:
    """One turn of a model, heard piece by piece."""

    __slots__ = ("_answer_start", "_held", "_labelled", "_opening", "_pieces", "_size", "_start", "_tail", "_whole")

    def __init__(self, answer_start: AnswerStart) -> None:
        self._answer_start = answer_start
        self.clear()

    def clear(self) -> None:
        """What was said is void."""
        self._opening = Opening()
        self._pieces: list[str] = []
        self._held = ""
        self._size = 0
        self._whole: str | None = ""
        self._tail = ""  # the line that is not over: a label stands at the beginning of one
        self._labelled = False
        self._start: int | None = None

    def hear(self, piece: str) -> tuple[str, str]:
        """Take a piece; return what of it is no part of the answer, and what is; what is undecided waits."""
        thinking, said = self._opening.hear(piece)
        if not said:
            return thinking, ""
        self._pieces.append(said)
        self._size += len(said)
        self._whole = None
        undecided = self._start is None and self._look_for_answer(said)
        said, self._held = self._held + said, ""
        if undecided:
            self._held = said
            return thinking, ""
        if self._start is None or self._start == NO_ANSWER:
            return thinking + said, ""
        before = self._start - self._size + len(said)
        return thinking, said[before:] if before > 0 else said

    @property
    def text(self) -> str:
        """Everything said, without the reasoning that it began with."""
        if self._whole is None:
            self._whole = "".join(self._pieces)
            self._pieces = [self._whole]
        return self._whole

    @property
    def answer(self) -> str:
        """What of the answer has been said."""
        start = self._answer_start(self.text, None)
        return "" if start is None or start < 0 else self.text[start:]

    @property
    def told(self) -> str:
        """What has been returned as the answer."""
        return "" if self._start is None or self._start < 0 else self.text[self._start :]

    def _look_for_answer(self, piece: str) -> bool:
        """Look for the beginning of the answer; say whether that is undecided."""
        self._tail += piece
        found = self._answer_start(self._tail, None if self._labelled else piece)
        self._labelled = found == len(self._tail)  # the label is there, and nothing behind it yet
        if self._labelled:
            return False
        if found == UNDECIDED:
            return True
        if found is None:
            if "\n" in piece and not self._tail.isspace():
                self._tail = BEFORE + self._tail[self._tail.rfind("\n") + 1 :]
        elif found == NO_ANSWER:
            self._start = NO_ANSWER
        else:
            self._start = self._size - len(self._tail) + found
        return False
