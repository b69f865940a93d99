"""What a scenario has models and tools say: scripts that are followed to the letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from shared_libs.atomic.types import Usage

T = TypeVar("T")


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """
    One answer of a model.

    Args:
        think: its reasoning.
        text: what it says.
        calls: the tools it calls, as (name, input); an input that is a text is no JSON object.
        chunks: the text piece by piece; a number is a pause in seconds. Without, it comes word by word.
        delay_s: seconds before the answer begins.
        usage: the tokens it reports; None: it reports none.

    """

    think: str = ""
    text: str = ""
    calls: tuple[tuple[str, dict[str, Any] | str], ...] = ()
    chunks: tuple[str | float, ...] = ()
    delay_s: float = 0.0
    usage: Usage | None = None

    @property
    def said(self) -> str:
        """The whole text."""
        return self.text or "".join(piece for piece in self.chunks if isinstance(piece, str))

    @property
    def pieces(self) -> tuple[str | float, ...]:
        """The text as it is streamed, with the pauses."""
        if self.chunks:
            return self.chunks
        return tuple(f" {word}" if index else word for index, word in enumerate(self.text.split(" "))) * bool(self.text)

    def __str__(self) -> str:
        calls = ", ".join(f"{name}({value})" for name, value in self.calls)
        return calls or f"{self.said[:60]!r}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of a tool ends in: a result, or an error, after `delay_s` seconds."""

    result: Any = None
    error: str | None = None
    delay_s: float = 0.0

    def __str__(self) -> str:
        return f"error {self.error[:60]!r}" if self.error is not None else f"{str(self.result)[:60]!r}"


class Script(Generic[T]):
    """
    Turns that are taken one by one; one more than there are is a problem, and so is one that is left.

    Args:
        name: whose it is.
        turns: what comes, in order; a single turn that is not in a list comes every time.
        strict: whether it is followed to the letter; else its last turn comes again, and what is left is no problem.

    """

    def __init__(self, name: str, turns: Sequence[T] | T, *, strict: bool = True) -> None:
        self.name = name
        self._strict = strict
        self._endless = not isinstance(turns, list | tuple)
        self._turns: Sequence[Any] = turns if isinstance(turns, list | tuple) else (turns,)
        self._taken = 0
        self._refused = 0

    def coming(self) -> T | None:
        """Return the turn that comes next, and leave it; None (and a problem) where there is none."""
        if self._endless:
            return self._turns[0]  # type: ignore[no-any-return]
        if self._taken >= len(self._turns):
            if not self._strict:
                return self._turns[-1]  # type: ignore[no-any-return]
            self._refused += 1
            return None
        return self._turns[self._taken]  # type: ignore[no-any-return]

    def take(self) -> None:
        """Take the turn that comes next."""
        self._taken += 1

    def astray(self) -> list[str]:
        """Say that more was asked than there is."""
        if not self._refused:
            return []
        turns = f"{len(self._turns)} turn{'' if len(self._turns) == 1 else 's'}"
        return [f"script of {self.name}: asked {len(self._turns) + self._refused} times; it has {turns}"]

    def left_over(self) -> list[str]:
        """Say that something was not asked for."""
        left = 0 if self._endless or not self._strict else len(self._turns) - self._taken
        if not left:
            return []
        following = self._turns[self._taken]
        return [f"script of {self.name}: {left} of {len(self._turns)} turns not used; next is {following}"]
