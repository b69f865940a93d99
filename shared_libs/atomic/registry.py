"""
Names that stand for classes: the built-in ones, and those that installed packages add.

Packages add names through one entry-point group, `genai_factory`, whose entries are called `llm.NAME`, `tool.NAME`,
`memory.SCHEME` or `limit.SCHEME`; a built-in name cannot be taken over. Nothing is imported before somebody names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import needs

GROUP = "genai_factory"


class Builtin(NamedTuple):
    """Where a built-in stands; `needs` is the package of the extra it wants, if any."""

    module: str
    attribute: str
    needs: str = ""


class Registry:
    """The names of one kind."""

    def __init__(self, kind: str, builtins: Mapping[str, Builtin]) -> None:
        self.kind = kind
        self._builtins = dict(builtins)

    def names(self) -> list[str]:
        """Return every name, sorted."""
        return sorted({*self._builtins, *self._plugins()})

    def __contains__(self, name: str) -> bool:
        return name in self._builtins or name in self._plugins()

    def load(self, name: str) -> Any:
        """
        Import what a name stands for: a class, a function, or an object ready for use.

        Raises:
            MisuseError: it cannot be used here; the text says what to mend, or (`NotInstalled`) to install.

        """
        if name in self._builtins:
            return self._builtin(name)
        found = self._plugins()[name]
        packages = sorted({entry.dist.name if entry.dist else entry.value for entry in found})
        if len(found) > 1:
            raise MisuseError(f"{self.kind} {name!r} is offered by {', '.join(packages)}; uninstall all but one")
        try:
            return found[0].load()
        except Exception as error:  # a plugin is foreign code: whatever its import raises has one cause here
            raise MisuseError(f"{self.kind} {name!r} of {packages[0]} cannot be loaded: {error}") from error

    def _builtin(self, name: str) -> Any:
        home = self._builtins[name]
        if home.needs:
            needs(home.needs, f"{self.kind} {name!r}")
        return getattr(import_module(home.module), home.attribute)

    def _plugins(self) -> dict[str, list[EntryPoint]]:
        start = f"{self.kind}."
        found: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=GROUP):
            name = entry.name.removeprefix(start)
            if entry.name.startswith(start) and name not in self._builtins:
                found.setdefault(name, []).append(entry)
        return found
