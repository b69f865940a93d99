"""The `.env` files of a command: variables for those that the environment lacks."""

from __future__ import annotations

import io
import os
import re
import sys
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

from shared_libs.atomic.errors import MisuseError

NAME = ".env"

_ODD = {
    re.compile("\0"): "NUL, as text in UTF-16 does; save it as UTF-8",
    re.compile(r"[^\S\r\n]{200}"): "200 spaces in a row",  # python-dotenv takes the square of their number
}
"""What no `.env` of a person has, and what it is called."""
_MOST_REFERENCES = 100
"""In one value: without their '}' each of them costs python-dotenv the rest of it."""


def read_env_files(config: str | None) -> None:
    """
    Set the variables of `.env` here, then of the one beside the definition; what is set already stays as it is.

    Raises:
        MisuseError: one cannot be read; its text is never told, for it holds secrets.

    """
    places = [Path(), *([Path(config).parent] if config else [])]
    for file in dict.fromkeys(place / NAME for place in places):
        # a folder of the name is somebody's virtual environment; in a folder that nobody may look into there is none;
        # a named pipe is how some keepers of secrets bring it
        if not os.path.isfile(file) and not _is_pipe(file):  # noqa: PTH113
            continue
        from dotenv.parser import parse_stream

        try:
            text = file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise MisuseError(
                f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
            ) from None
        if odd := next((told for shape, told in _ODD.items() if shape.search(text)), None):
            raise MisuseError(f"{file} cannot be read: it holds {odd}")
        values: dict[str, str] = {}
        for binding in parse_stream(io.StringIO(text)):
            if binding.error:
                print(f"note: {file}:{binding.original.line}: is left out; a line is NAME=value", file=sys.stderr)
            elif (binding.value or "").count("${") > _MOST_REFERENCES:
                line = f"line {binding.original.line}"
                raise MisuseError(f"{file} cannot be read: {line} has over {_MOST_REFERENCES} ${{…}}")
            elif binding.key is not None and binding.value is not None:
                values[binding.key] = _expanded(binding.value, ChainMap(values, os.environ))
        for name, value in values.items():
            os.environ.setdefault(name, value)


def _is_pipe(file: Path) -> bool:
    try:
        return file.is_fifo()
    except OSError:
        return False


def _expanded(value: str, known: Mapping[str, str]) -> str:
    """As python-dotenv expands a value; it copies the whole environment for each, 20 s for 20,000 of them."""
    from dotenv.variables import parse_variables

    return "".join(atom.resolve(known) for atom in parse_variables(value))
