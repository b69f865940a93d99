"""GenAI Factory: ReAct agents from YAML that always come back in time."""

import os
import sys
from pathlib import Path


def _of_others(own: Path) -> list[Path]:
    """
    Find a project's folders of our name that stand before us on the path and hold Python, but no `__init__.py`.

    They would lose the name to us only because we have one; with an `__init__.py` they are the package by themselves.
    """
    folders = [Path(os.path.realpath(place)) / own.name for place in map(_absolute, sys.path) if place]
    before = folders[: folders.index(own)] if own in folders else folders
    return [
        folder
        for folder in before
        if os.path.isdir(folder)  # noqa: PTH112 - which may be where nobody may look
        and not (folder / "__init__.py").exists()
        and any(folder.rglob("*.py"))
    ]


def _absolute(place: str) -> str:
    """Return a place of the path in full; "" where the working directory is gone, and nothing is found in it."""
    try:
        return os.path.abspath(place)  # noqa: PTH100 - this is imported by everything
    except FileNotFoundError:
        return ""


def _path_beside(others: list[Path], own: Path) -> list[str]:
    """Let a project's folders come first, and ours not at all where both have a module of one name."""
    theirs = {entry.stem for folder in others for entry in folder.iterdir() if not entry.name.startswith("__")}
    clash = theirs & {entry.stem for entry in own.iterdir()}
    return [*map(str, others), *([] if clash else [str(own)])]


_own = Path(__file__).resolve().parent
_others = _of_others(_own)
ALONE = not _others
"""Whether all that is called `shared_libs` here is ours."""
if _others:
    __path__ = _path_beside(_others, _own)
