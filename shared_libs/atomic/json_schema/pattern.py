"""
Regular expressions of foreign schemas, matched in time that grows with the text and not with what the pattern can do.

The engine is the one pydantic has (Rust's `regex`): no pattern backtracks. What it does not know (look-around, back
references, which need backtracking) is not checked: a pattern that is a hint too many is no reason to lose a tool.
What it knows and JavaScript does not (the bounds of a word, classes in classes) is written as JavaScript means it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_LENGTH = 1_000
"""Characters of the longest pattern that is checked."""

MAX_STATES = 500
"""States of the largest pattern that is checked, its counted repetitions written out."""

_ATOM = re.compile(
    r"\\(?:[pPkugx]\{[^}]*\}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<least>\d+)(?:,(?P<most>\d*))?\}|.", re.DOTALL
)


_DELIMITED = re.compile(r"/\^.*/[a-z]{0,8}", re.DOTALL)
"""A literal of JavaScript or PHP as it stands in their code: as a pattern it fits nothing."""


class Pattern:
    """One pattern; compiled when the first text is matched."""

    __slots__ = ("_compiled", "_matches", "states", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.states = _states(text) if len(text) <= MAX_LENGTH else MAX_STATES + 1
        self._compiled = False
        self._matches: Callable[[str], bool] | None = None

    def cost(self, text: str) -> int:
        """How much work it is to match a text, in visits of a schema."""
        if self.states > MAX_STATES:
            return 1
        return 1 + (len(text) * self.states) // 40 + (0 if self._compiled else self.states * 60)

    def found_in(self, text: str) -> bool | None:
        """Whether the pattern is found somewhere in a text; None where it cannot be checked."""
        if not self._compiled:
            self._matches = _compiled(self.text) if self.states <= MAX_STATES else None
            self._compiled = True
        return None if self._matches is None else self._matches(text)


def _compiled(text: str) -> Callable[[str], bool] | None:
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    if _DELIMITED.fullmatch(text):
        return None
    meant = _ATOM.sub(lambda found: _as_meant(found[0]), text)
    try:
        return SchemaValidator(core_schema.str_schema(pattern=meant, regex_engine="rust-regex")).isinstance_python
    except SchemaError:
        return None


def _as_meant(atom: str) -> str:
    """What a part of a pattern is in JavaScript, for an engine that reads more into it."""
    if atom in (r"\<", r"\>"):
        return atom[1]
    if len(atom) < 3 or atom[0] != "[":
        return atom
    if "--" in atom:
        return r"\K"  # a range from or to a hyphen, and a difference of classes to the engine: not checked
    inner = re.sub(r"\\[<>]|\\.|\[(?!:)|&(?=&)|~(?=~)", _in_a_class, atom[1:], flags=re.DOTALL)
    return f"[{inner}"


def _in_a_class(found: re.Match[str]) -> str:
    said = found[0]
    return said[1] if said in (r"\<", r"\>") else said if said[0] == "\\" else f"\\{said}"


def _states(text: str) -> int:
    """About how many states the pattern has: a counted repetition is as many copies."""
    outer: list[tuple[int, int]] = []  # what a group stands behind: the sum so far
    total = last = 0
    for atom in _ATOM.finditer(text):
        piece = atom[0]
        if piece == "(":
            outer.append((total, last))
            total = last = 0
        elif piece == ")":
            last = total
            before, _ = outer.pop() if outer else (0, 0)
            total = before + last
        elif atom["least"] is not None:
            times = max(int(atom["least"][:6]), int((atom["most"] or "0")[:6]), 1)
            total += last * (times - 1)
            last *= times
        else:
            last = 1
            total += 1
        if total > MAX_STATES:
            return total
    return total
