"""The `agent` tool of a definition: another definition, named by its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared_libs.atomic.errors import ConfigError, MisuseError, NotInstalled
from shared_libs.tools.agent import MAX_DEPTH, AgentTool

_BROKEN = " does not hold: "


class Origin:
    """
    Where a definition stands, for what it names relative to itself.

    Args:
        file: the definition's file; None where it is plain data, whose files are relative to the working directory.
        above: the files of the definitions that led here, the outermost first.
        build: makes the agent of a file named here, in the same way as this one is made, and tells its description.

    """

    def __init__(
        self, file: Path | None, above: tuple[Path, ...], build: Callable[[Path, Origin], tuple[Any, str]]
    ) -> None:
        self.file = file
        self.above = above
        self._build = build

    def inner(self, path: str) -> tuple[Any, str]:
        """
        Make the agent of another file.

        Raises:
            MisuseError: it does not hold, or leads back here.

        """
        line = (*self.above, self.file.resolve()) if self.file else self.above
        file = (self.file.parent if self.file else Path()) / path
        wanted = file.resolve()
        if wanted in line:
            circle = " → ".join(step.name for step in (*line[line.index(wanted) :], wanted))
            raise MisuseError(f"path {path} makes a circle: {circle}; an agent cannot call itself")
        if len(line) > MAX_DEPTH:
            raise MisuseError(f"path {path} is nested too deep; agents call agents at most {MAX_DEPTH} deep")
        try:
            return self._build(file, Origin(file, line, self._build))
        except ConfigError as error:
            # of a chain of files, the first and the last say all
            problems = (problem.rpartition(_BROKEN)[2] for problem in error.problems)
            text = f"path {path}{_BROKEN}{'; '.join(problems)}"
            raise (NotInstalled(text, *error.needs) if error.needs else MisuseError(text)) from error


def sub_agent(*, path: str, description: str | None = None, origin: Origin | None = None) -> AgentTool:
    """
    Another agent, which answers a question.

    Args:
        path: the file of its definition, relative to the file that names it.
        description: what the model reads about it; by default the description of the definition.
        origin: where the definition stands that names it.

    """
    if origin is None:
        raise MisuseError("sub_agent is for definitions; in code, use AgentTool")
    agent, said = origin.inner(path)
    if not (description or said):
        raise MisuseError(f"path {path} has no description; the model needs one to know what to ask")
    return AgentTool(agent, description=description or said)
