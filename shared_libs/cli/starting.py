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
    """Write the files, or none where an agent is there already, and say what to do with them."""
    folder: Path = arguments.folder
    templates = files("shared_libs.cli") / "templates"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own_env = _nothing_but_env(folder)
        for name, template in FILES.items():
            if name == ".env" and own_env:
                continue
            text = (templates / template).read_text("utf-8")
            with open(folder / name, "x", encoding="utf-8", opener=private if name == ".env" else None) as file:
                file.write(text)
            print(folder / name)
    except FileExistsError as error:
        raise MisuseError(f"{error.filename} is no folder; name one, which is made if need be") from error
    except OSError as error:
        raise MisuseError(f"{error.filename} cannot be written: {error.strerror}") from error
    here = "./" if str(folder).startswith("-") else ""  # which would be read as an option
    agent, test = (shlex.quote(f"{here}{folder / name}") for name in ("agent.yaml", "agent.scenario.yaml"))
    print(f'\nNext:\n  factory run {agent} "What is 17 * 23?"\n  factory scenario {test}')
    print(f"With a key in {folder / '.env'} a model is asked; without one it is a rehearsal, and says so.")
    return ExitCode.ANSWERED


def _nothing_but_env(folder: Path) -> bool:
    """
    Refuse a folder where something of ours is; return whether it has an `.env`, which stays as it is.

    Raises:
        MisuseError: there is an agent already.

    """
    there = [name for name in FILES if os.path.lexists(folder / name)]
    if there not in ([], [".env"]):
        verb = "is" if len(there) == 1 else "are"
        told = ", ".join(str(folder / name) for name in there)
        raise MisuseError(f"{told} {verb} there already, and nothing is overwritten; name another folder")
    return bool(there)
