"""What is wrong with a definition, and where: collected, placed, and told all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.nearest import names_like

Path = tuple[str | int, ...]
"""Where a value stands in a definition: the keys and indexes that lead to it."""

_MAX_LINES = 100


class Mark(NamedTuple):
    """A place in a file; lines and columns count from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing that is wrong, at a path."""

    mark: Mark | None
    path: Path
    text: str
    needs: tuple[str, ...] = ()
    """What has to be installed, where that is all."""


class Problems:
    """
    The problems of one definition.

    A value that could not be read is blamed once: what its place or its inside would fail next is not told.
    """

    def __init__(self, name: str, keys: Mapping[Path, Mark], values: Mapping[Path, Mark]) -> None:
        self._name = name
        self._keys = keys
        self._values = values
        self._found: list[Problem] = []
        self._blamed: set[Path] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def __contains__(self, path: Path) -> bool:
        """Whether the path, or what holds it, is known to be wrong."""
        return any(path[:length] in self._blamed for length in range(len(path) + 1))

    def inside(self, path: Path) -> bool:
        """Whether something at, around or below the path is known to be wrong."""
        return path in self or any(blamed[: len(path)] == path for blamed in self._blamed)

    def add(
        self,
        path: Path,
        text: str,
        *,
        at_key: bool = False,
        mark: Mark | None = None,
        blame: bool = True,
        needs: tuple[str, ...] = (),
    ) -> None:
        """
        Note a problem.

        Args:
            path: what is wrong.
            text: what is wrong with it, and what is allowed.
            at_key: place it at the key and not at the value.
            mark: its place, where it is not that of the path.
            blame: the value cannot be used; False leaves it to further checks.
            needs: what has to be installed, where that is all that is wrong.

        """
        if path in self:
            return
        if blame:
            self._blamed.add(path)
        self._found.append(Problem(mark or self._mark(path, at_key=at_key), path, text, needs))

    def line_of(self, path: Path) -> str:
        """Where a path stands, in words for a sentence: "line 7", or its name where there is no file."""
        mark = self._mark(path, at_key=False)
        return f"line {mark.line}" if mark else path_text(path)

    def line(self) -> int:
        """Where the definition begins; 1 where there is no file."""
        mark = self._mark((), at_key=False)
        return mark.line if mark else 1

    def lines(self) -> list[str]:
        """Return one line per problem, in the order of the file; the first hundred of them."""
        ordered = sorted(self._found, key=lambda problem: problem.mark or (0, 0))
        more = len(ordered) - _MAX_LINES
        return [self._line(problem) for problem in ordered[:_MAX_LINES]] + [f"and {more} more problems"] * (more > 0)

    def raise_if_any(self) -> None:
        """
        End with all that was found.

        Raises:
            ConfigError: something was.

        """
        if self._found:
            needs = [name for problem in self._found for name in problem.needs]
            only_missing = all(problem.needs for problem in self._found)
            raise ConfigError(self.lines(), list(dict.fromkeys(needs)) if only_missing else ()) from None

    def take_missing(self) -> tuple[list[str], list[str]]:
        """Leave out the problems that installing something would mend; return them as lines, and what is needed."""
        missing = [problem for problem in self._found if problem.needs]
        self._found = [problem for problem in self._found if not problem.needs]
        needs = dict.fromkeys(name for problem in missing for name in problem.needs)
        return [self._line(problem) for problem in missing], list(needs)

    def _mark(self, path: Path, *, at_key: bool) -> Mark | None:
        if at_key and path in self._keys:
            return self._keys[path]
        for length in range(len(path), -1, -1):
            if path[:length] in self._values:
                return self._values[path[:length]]
        return None

    def _line(self, problem: Problem) -> str:
        place = [self._name] if self._name else []
        if problem.mark:
            place += [str(problem.mark.line), str(problem.mark.column)]
        parts = [":".join(place), path_text(problem.path), " ".join(problem.text.split())]
        return ": ".join(part for part in parts if part)


def path_text(path: Path) -> str:
    """Write a path as people do: `llm.chain[0].model`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}" if text else printable(part)
    return text


def printable(text: str, limit: int = 60) -> str:
    """Cut a text from a file to one short line that any terminal can show."""
    plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return plain if len(plain) <= limit else f"{plain[:limit]}…"


MOST_NAMES = 60
"""Names that are listed; a folder may define thousands."""


def choices(wrong: Any, allowed: Iterable[str], hint: str = "") -> str:
    """Say what is allowed, and what was meant: the hint where there is one, else the nearest name to the wrong one."""
    names = sorted(allowed)
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    text = f"allowed: {', '.join(names[:MOST_NAMES])}{more}" if names else "nothing is allowed here"
    if hint:
        return f"{text}; {hint}"
    near = nearest(wrong, names)
    return f"{text}; did you mean '{near}'?" if near else text


def nearest(wrong: Any, allowed: Iterable[str]) -> str | None:
    """Return the name that is most like the wrong one, if any is."""
    near = names_like(wrong, sorted(allowed)) if isinstance(wrong, str) else []
    return near[0] if near else None
