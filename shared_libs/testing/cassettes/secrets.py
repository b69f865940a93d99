"""Secrets out of a cassette: by shape, by the name they stand under, and by value where the environment has it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shared_libs.atomic.whole import whole_text
from shared_libs.observability.redact import MASK, redact_data, redact_schema, redact_text

MIN_NAMED = 4
"""Characters of the shortest value of a variable that is hidden: a shorter one is in every text by chance."""

MIN_TELLING = 8
"""The same for a variable that the definition does not name, but whose own name says that it holds a secret."""


class Secrets:
    """
    Hides what must not be in a file, the same way each time, so that hidden texts can be compared.

    The value of a variable is hidden as `${NAME}`, and shown again where the variable is set.

    Args:
        variables: the environment variables that the definition uses; those whose names tell a secret are added.

    """

    def __init__(self, variables: Iterable[str] = ()) -> None:
        named = {name: value for name in variables if len(value := os.environ.get(name, "")) >= MIN_NAMED}
        telling = {
            name: value
            for name, value in os.environ.items()
            if len(value) >= MIN_TELLING and redact_data({name: value})[name] == MASK
        }
        self._values = telling | named
        self._hidden = _replacing({value: f"${{{name}}}" for name, value in self._values.items()})
        self._shown = _replacing({f"${{{name}}}": value for name, value in self._values.items()})

    def hidden_text(self, text: str) -> str:
        """Return a text without its secrets."""
        return redact_text(self._hidden(whole_text(text)))

    def hidden_data(self, value: Any) -> Any:
        """Return plain data without its secrets."""
        return redact_data(_mapped(value, lambda text: self._hidden(whole_text(text))))

    def hidden_schema(self, schema: Any) -> Any:
        """Return a JSON Schema without secrets; a property named as a secret is described all the same."""
        return redact_schema(_mapped(schema, lambda text: self._hidden(whole_text(text))))

    def shown(self, value: Any) -> Any:
        """Return plain data with the values of variables back in their places."""
        return _mapped(value, self._shown)


def variables_used(definition: Mapping[str, Any], folder: Path) -> set[str]:
    """
    Name the environment variables that a definition uses, and those of the agents that it names.

    Args:
        definition: as it is written, variables not expanded.
        folder: what the files that it names are relative to.

    """
    return _used(definition, folder, set())


def _used(definition: Mapping[str, Any], folder: Path, seen: set[Path]) -> set[str]:
    from shared_libs.factory import load_definition
    from shared_libs.factory.environment import variables

    found = {name for text in _texts(definition) for name in variables(text)}
    tools = definition.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        file = (folder / str(tool.get("path", ""))).resolve() if isinstance(tool, Mapping) else folder
        if isinstance(tool, Mapping) and tool.get("use") == "agent" and file not in seen:
            seen.add(file)
            found |= _used(load_definition(file), file.parent, seen)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _replacing(table: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces every text of a table by what stands for it, the longest first."""
    if not table:
        return str
    longest_first = sorted(table, key=len, reverse=True)
    # a short value is also a part of longer words
    words = (
        rf"(?<!\w){re.escape(text)}(?!\w)" if len(text) < MIN_TELLING else re.escape(text) for text in longest_first
    )
    pattern = re.compile("|".join(words))
    return lambda text: pattern.sub(lambda match: table[match[0]], text)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list | tuple) else value
