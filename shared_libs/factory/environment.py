"""`${VAR}` and `${VAR:-default}` in the text of a definition, and the secrets they bring kept out of every error."""

from __future__ import annotations

import os
import re
from typing import Any

from shared_libs.atomic.secrets import names_a_secret
from shared_libs.factory.problems import Path, Problems, printable

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_BARE = re.compile(r"\$[A-Z][A-Z0-9_]+")
_BARE_INSIDE = re.compile(r"(?:^|(?<=[ :/=@]))\$[A-Z][A-Z0-9_]+\b")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{).)*))?", re.DOTALL)


class Environment:
    """
    Expands the environment's variables in values; never in keys, and after parsing, so that no value can add YAML.

    As in a shell, the default of `${VAR:-default}` also stands for an empty variable; unlike there, it holds none.
    `$${` is `${` itself.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._written: dict[str, str] = {}

    def expanded(self, value: Any, path: Path = ()) -> Any:
        """Return the data with its variables replaced, and note what is missing."""
        if isinstance(value, str) and "${" in value:
            text = _REFERENCE.sub(lambda match: self._replaced(match, path), value)
            if text != value:
                self._written[text] = value
            return text
        if isinstance(value, str) and "$" in value:
            self._note_bare(value, path)
            return value
        if isinstance(value, dict):
            return {key: self.expanded(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expanded(item, (*path, index)) for index, item in enumerate(value)]
        return value

    def _note_bare(self, value: str, path: Path) -> None:
        """A shell's `$NAME` is text here; where nobody means that text, it is told."""
        meant = _BARE.fullmatch(value)
        if meant is None and any(isinstance(part, str) and _holds_no_prose(part) for part in path):
            meant = _BARE_INSIDE.search(value)
        if meant is not None:
            name = meant[0]
            self._problems.add(path, f"'{name}' is no variable but text; write ${{{name[1:]}}}")

    def hidden(self, text: str) -> str:
        """Return a foreign text with every expanded value put back as it is written in the definition."""
        shapes = {shape: raw for value, raw in self._written.items() for shape in (value, repr(value)[1:-1]) if shape}
        if not shapes:
            return text
        longest_first = sorted(shapes, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda match: shapes[match[0]], text)

    def _replaced(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$${":
            return "${"
        reference = _INSIDE.fullmatch(match["inside"])
        if reference is None or not match["end"]:
            wrong = printable(match[0], 30)
            self._problems.add(
                path, f"{wrong} names no variable; write ${{NAME}}, ${{NAME:-default}}, or $${{ for the characters"
            )
            return match[0]
        name, default = reference["name"], reference["default"]
        value = os.environ.get(name)
        if not value and default is not None:
            return default
        if value is None:
            self._problems.add(
                path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            )
            return match[0]
        if not _is_text(value):
            self._problems.add(path, f"the environment variable {name} is not UTF-8 text")
            return match[0]
        self._written.setdefault(value, match[0])
        return value


def variables(text: str) -> list[str]:
    """Return the names of the variables in a text, as written."""
    insides = [_INSIDE.fullmatch(match["inside"] or "") for match in _REFERENCE.finditer(text)]
    return [inside["name"] for inside in insides if inside]


def _holds_no_prose(key: str) -> bool:
    """Whether what stands under a key is a secret, an address or a header."""
    return names_a_secret(key) or key in ("headers", "env") or key.endswith("url")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
