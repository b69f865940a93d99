"""A definition under check: as it is written, as it is meant, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared_libs.atomic.errors import NotInstalled
from shared_libs.atomic.secrets import names_a_secret
from shared_libs.factory.environment import Environment
from shared_libs.factory.ports import OUTSIDE, Ports
from shared_libs.factory.problems import Path, Problems, printable


@dataclass(frozen=True, slots=True)
class Draft:
    """
    What the parts of the factory share while they check one definition.

    Args:
        written: the data as it is written; the only one that may stand in an error.
        data: the same with the environment's variables in place.
        problems: what is wrong so far.
        environment: hides what it has put in.
        origin: where the definition stands; given to what asks for it by a parameter `origin`.
        ports: gives what takes the place of a model, a tool or the memory.
        library: the collections of the definition; given to what asks for it by a parameter `library`.

    """

    written: Any
    data: Any
    problems: Problems
    environment: Environment
    origin: Any
    ports: Ports = OUTSIDE
    library: dict[str, Any] = field(default_factory=dict)

    @property
    def agent(self) -> str:
        """The name of the agent, as far as it has one."""
        name = self.data.get("name") if isinstance(self.data, Mapping) else None
        return name if isinstance(name, str) else ""

    def blame(self, path: Path, error: Exception, settings: Iterable[str] = ()) -> None:
        """
        Note what foreign code said about a value, without the secrets it may repeat.

        A text that begins with the name of one of the settings is placed there, without a `name: `.
        """
        text = printable(self.environment.hidden(str(error)) or type(error).__name__, limit=500)
        first = text.partition(" ")[0].strip("`':")
        needs = error.needs if isinstance(error, NotInstalled) else ()
        if first in settings:
            self.problems.add((*path, first), text.removeprefix(f"{first}: "), needs=needs)
        else:
            self.problems.add(path, text, needs=needs)

    def shown(self, path: Path) -> str:
        """Describe a value as it is written, for an error; secrets and addresses only by their kind."""
        value = self.at(path)
        kind = kind_of(value)
        secret = any(isinstance(part, str) and (part == "key" or names_a_secret(part)) for part in path)
        if isinstance(value, str) and not secret and "://" not in value and "@" not in value:
            return f"{kind} '{printable(value)}'"
        if isinstance(value, int | float) and not isinstance(value, bool) and not secret:
            return f"{kind} {value}"
        return kind

    def named(self, path: Path) -> str:
        """Describe a value that should be a name."""
        return self.shown(path).removeprefix("text ")

    def at(self, path: Path) -> Any:
        """Return the value at a path as it is written; None where there is none."""
        node = self.written
        for part in path:
            inside = isinstance(node, Mapping) if isinstance(part, str) else isinstance(node, Sequence)
            try:
                node = node[part] if inside else None
            except LookupError:
                return None
        return node


def kind_of(value: Any) -> str:
    """Say in words what a value is."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list) and not value:
        return "an empty mapping" if isinstance(value, Mapping) else "an empty list"
    kinds = ((str, "text"), (int | float, "the number"), (Mapping, "a mapping"), (list, "a list"))
    return next((words for kind, words in kinds if isinstance(value, kind)), f"a Python {type(value).__name__}")
