"""`factory init`: an agent, its scenario and a place for its key, that run as they are."""

from __future__ import annotations

import argparse
import os
import shlex
from importlib.resources import files
from pathlib import Path

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.secrets import private
from shared_libs.cli.exits import ExitCode

FILES = {"agent.yaml": "agent.yaml", "agent.scenario.yaml": "agent.scenario.yaml", ".env": "env"}
"""What is made, and the template of each; a package holds no file that begins with a dot."""


def init(arguments: argparse.Namespace) -> int:
    """Write the files, or none where an agent is there already or one cannot be written; say what to do with them."""
    folder: Path = arguments.folder
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _missing(folder):
            text = (files("shared_libs.cli") / "templates" / FILES[name]).read_text("utf-8")
            with open(folder / name, "x", encoding="utf-8", opener=private if name == ".env" else None) as file:
                made.append(folder / name)
                file.write(text)
    except OSError as error:
        for file_of_ours in made:  # half an agent would be in the way of the next try
            file_of_ours.unlink(missing_ok=True)
        place = error.filename or made[-1]
        if isinstance(error, FileExistsError) and not folder.is_dir():
            raise MisuseError(f"{place} is no folder; name one, which is made if need be") from error
        raise MisuseError(f"{place} cannot be written: {error.strerror}") from error
    for path in made:
        print(path)
    here = "./" if str(folder).startswith("-") else ""  # which would be read as an option
    agent, test = (shlex.quote(f"{here}{folder / name}") for name in ("agent.yaml", "agent.scenario.yaml"))
    print(f'\nNext:\n  factory run {agent} "What is 17 * 23?"\n  factory scenario {test}')
    print(f"With a key in {folder / '.env'} a model is asked; without one it is a rehearsal, and says so.")
    return ExitCode.ANSWERED


def _missing(folder: Path) -> list[str]:
    """
    Name what is to be made; an `.env` that is there stays as it is.

    Raises:
        MisuseError: there is an agent already.

    """
    there = [name for name in FILES if os.path.lexists(folder / name)]
    if there not in ([], [".env"]):
        verb = "is" if len(there) == 1 else "are"
        told = ", ".join(str(folder / name) for name in there)
        raise MisuseError(f"{told} {verb} there already, and nothing is overwritten; name another folder")
    return [name for name in FILES if name not in there]
