"""What a model says in one turn, as it comes: which of it is the answer, in work that grows with the text alone."""

from __future__ import annotations

from collections.abc import Callable

AnswerStart = Callable[[str, str | None], int | None]
"""Where in a text the answer begins: None while nothing tells, `NO_ANSWER` when none can follow any more."""

NO_ANSWER = -1

_BEFORE = ".\n"
"""Stands for the lines that are over: what begins a turn, such as a fence around it, means nothing on a later line."""


class Speech:
    """One turn of a model, heard piece by piece."""

    __slots__ = ("_answer_start", "_labelled", "_pieces", "_size", "_start", "_tail", "_whole")

    def __init__(self, answer_start: AnswerStart) -> None:
        self._answer_start = answer_start
        self.clear()

    def clear(self) -> None:
        """What was said is void."""
        self._pieces: list[str] = []
        self._size = 0
        self._whole: str | None = ""
        self._tail = ""  # the line that is not over: a label stands at the beginning of one
        self._labelled = False
        self._start: int | None = None

    def hear(self, piece: str) -> str | None:
        """Take a piece; return what of it belongs to the answer, or None where the answer has not begun."""
        before = self._size
        self._pieces.append(piece)
        self._size += len(piece)
        self._whole = None
        if self._start is None:
            self._look_for_answer(piece)
        if self._start is None or self._start == NO_ANSWER:
            return None
        return piece[max(0, self._start - before) :]

    @property
    def text(self) -> str:
        """Everything said."""
        if self._whole is None:
            self._whole = "".join(self._pieces)
            self._pieces = [self._whole]
        return self._whole

    @property
    def answer(self) -> str:
        """What of the answer has been said."""
        start = self._answer_start(self.text, None)
        return "" if start is None or start == NO_ANSWER else self.text[start:]

    def _look_for_answer(self, piece: str) -> None:
        self._tail += piece
        found = self._answer_start(self._tail, None if self._labelled else piece)
        self._labelled = found == len(self._tail)  # the label is there, and nothing behind it yet
        if self._labelled:
            return
        if found is None:
            if "\n" in piece and not self._tail.isspace():
                self._tail = _BEFORE + self._tail[self._tail.rfind("\n") + 1 :]
        elif found == NO_ANSWER:
            self._start = NO_ANSWER
        else:
            self._start = self._size - len(self._tail) + found
