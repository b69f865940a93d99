"""A visit of a value by the nodes of a schema: what it may cost, what it finds, what it has looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shared_libs.atomic.json_schema.values import MAX_PROBLEMS

Path = tuple[Any, ...]

_A_PROBLEM = 5
"""What it costs to put a problem into words, in visits."""


class TooMuchWork(Exception):
    """The check of a value was given up."""


class Enough(Exception):
    """As many problems have been found as anybody asks for."""


class Visit:
    """One check of one value: the work it may still do, what it found, and what was looked at of the current value."""

    __slots__ = ("_most", "fuel", "problems", "seen", "thorough")

    def __init__(self, fuel: int, *, thorough: bool = False) -> None:
        self.fuel = fuel
        self.thorough = thorough
        """Whether every member of a union is looked at to its end, as some checkers do it: to know their work."""
        self.problems: list[tuple[Path, str]] = []
        self.seen: set[Any] | None = None  # for `unevaluated…`: names and indices of the current value
        self._most = fuel if thorough else MAX_PROBLEMS

    def spend(self, work: int = 1) -> None:
        """Book work before it is done; raises `TooMuchWork`."""
        self.fuel -= work
        if self.fuel < 0:
            raise TooMuchWork

    def wrong(self, path: Path, why: str) -> None:
        """Note a problem; raises `Enough`."""
        self.spend(_A_PROBLEM)
        self.problems.append((path, why))
        if len(self.problems) >= self._most:
            raise Enough

    def into(self, node: Node, value: Any, path: Path) -> None:
        """Check a part of the current value."""
        seen, self.seen = self.seen, None
        node.check(value, path, self)
        self.seen = seen

    def fits(self, node: Node, value: Any, path: Path) -> bool:
        """Whether the current value fits; what is wrong is not told, and then nothing of it counts as seen."""
        before, seen, most = self.problems, self.seen, self._most
        self.problems, self.seen, self._most = [], None if seen is None else set(), self._most if self.thorough else 1
        try:
            node.check(value, path, self)
        except Enough:
            return False
        else:
            fits = not self.problems
            if fits and seen is not None and self.seen:
                seen |= self.seen
            return fits
        finally:
            self.problems, self.seen, self._most = before, seen, most


class Check(Protocol):
    """One keyword's check."""

    def __call__(self, value: Any, path: Path, visit: Visit, /) -> None:
        """Note what is wrong with a value that stands at a path."""


class Node:
    """One schema: its checks, in order."""

    __slots__ = ("checks", "last")

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.last: list[Check] = []  # `unevaluated…`, which asks what the others have looked at

    def check(self, value: Any, path: Path, visit: Visit) -> None:
        """Check a value that stands at a path."""
        visit.spend(1 + len(self.checks))
        if not self.last:
            for check in self.checks:
                check(value, path, visit)
            return
        outer, visit.seen = visit.seen, set()
        for check in (*self.checks, *self.last):
            check(value, path, visit)
        if outer is not None:
            outer |= visit.seen
        visit.seen = outer


class Around(Protocol):
    """What a keyword needs of the schema that it stands in."""

    schema: Mapping[str, Any]

    def node(self, schema: Any, *place: str) -> Node:
        """Make the node of a schema inside it."""

    def nodes(self, given: Any, word: str) -> list[Node]:
        """Make the nodes of a list of schemas."""

    def named(self, given: Any, word: str) -> dict[str, Node]:
        """Make the nodes of schemas under names."""

    def refuse(self, word: str, given: Any, due: str) -> Exception:
        """Make the error that a keyword's value is none."""


Rule = Callable[[Any, Around], Check | None]
