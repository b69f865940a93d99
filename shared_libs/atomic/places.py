"""The folders of the user: where data and caches are kept when nobody names a place."""

from __future__ import annotations

import os
from pathlib import Path

from shared_libs.atomic.errors import MisuseError

NAME = "genai-factory"


def data_folder(instead: str) -> Path:
    """
    Return the folder for what is kept.

    Args:
        instead: what else the user can set, for the error.

    Raises:
        MisuseError: there is none; a user of a container often has no home.

    """
    return _folder("XDG_DATA_HOME", ".local/share", instead)


def cache_folder(instead: str) -> Path:
    """
    Return the folder for what can be made again.

    Args:
        instead: what else the user can set, for the error.

    Raises:
        MisuseError: there is none; a user of a container often has no home.

    """
    return _folder("XDG_CACHE_HOME", ".cache", instead)


def _folder(variable: str, below_home: str, instead: str) -> Path:
    told = Path(os.environ.get(variable, ""))
    if told.is_absolute():  # the XDG Base Directory Specification: a relative one is to be ignored
        return told / NAME
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path's raises where there is none
    if not home.is_absolute() or os.environ.get("HOME") == "":  # which stands for / in Python, and for nothing to users
        raise MisuseError(f"this user has no home folder; set {instead}, or HOME to a folder that can be written")
    return home / below_home / NAME
