"""Where things are kept: the folders of the user when nobody names a place, and files of SQLite that do not open."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from shared_libs.atomic.errors import MisuseError

NAME = "genai-factory"


def data_folder(instead: str) -> Path:
    """
    Return the folder for what is kept; it is made, where that can be.

    Args:
        instead: what else the user can set, for the error.

    Raises:
        MisuseError: there is none; a user of a container often has no home.

    """
    folder = _folder("XDG_DATA_HOME", ".local/share", instead)
    with suppress(OSError):  # whoever opens something in it says what is wrong
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def cache_folder(instead: str) -> Path:
    """
    Return the folder for what can be made again.

    Args:
        instead: what else the user can set, for the error.

    Raises:
        MisuseError: there is none; a user of a container often has no home.

    """
    return _folder("XDG_CACHE_HOME", ".cache", instead)


def why_unopened(file: str | Path) -> str:
    """Say why SQLite cannot open a file, which it keeps to itself, and what to do; looks at files, so in a thread."""
    place = Path(file).absolute()
    if not place.parent.is_dir():
        return f"the folder {place.parent} does not exist; make it"
    if place.is_dir():
        return f"{place} is a folder; name a file in it"
    return f"{place} cannot be written; allow it"


def what_failed(error: Exception, file: str | Path | None) -> str:
    """Return in a line what a database says of a failure, or why a file does not open. Looks at files: in a thread."""
    said = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
    return why_unopened(file or "") if "unable to open" in said else said


def _folder(variable: str, below_home: str, instead: str) -> Path:
    told = Path(os.environ.get(variable, ""))
    if told.is_absolute():  # the XDG Base Directory Specification: a relative one is to be ignored
        return told / NAME
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path's raises where there is none
    if not home.is_absolute() or os.environ.get("HOME") == "":  # which stands for / in Python, and for nothing to users
        raise MisuseError(f"this user has no home folder; set {instead}, or HOME to a folder that can be written")
    return home / below_home / NAME
