"""The `.env` files of a command: variables for those that the environment lacks."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

from shared_libs.atomic.errors import MisuseError

NAME = ".env"


def read_env_files(config: str | None) -> None:
    """
    Set the variables of `.env` here, then of the one beside the definition; what is set already stays as it is.

    Raises:
        MisuseError: one cannot be read; its text is never told, for it holds secrets.

    """
    places = [Path(), *([Path(config).parent] if config else [])]
    for file in dict.fromkeys(place / NAME for place in places):
        # a folder of the name is somebody's virtual environment; in a folder that nobody may look into there is none
        if not os.path.isfile(file):  # noqa: PTH113
            continue
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream

        try:
            text = file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise MisuseError(
                f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
            ) from None
        for line in (binding.original.line for binding in parse_stream(io.StringIO(text)) if binding.error):
            print(f"note: {file}:{line}: is left out; a line is NAME=value", file=sys.stderr)
        logging.getLogger("dotenv").setLevel(logging.ERROR)  # which would say it without the file
        for name, value in dotenv_values(stream=io.StringIO(text)).items():
            if value is None:
                continue
            if "\0" in name + value:
                raise MisuseError(f"{file} cannot be read: it holds NUL, as text in UTF-16 does; save it as UTF-8")
            os.environ.setdefault(name, value)
