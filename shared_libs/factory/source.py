"""Where a definition comes from: a file, a text, or plain data; each gives data and the collector of its problems."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

import yaml

from shared_libs.atomic.errors import ConfigError
from shared_libs.factory.problems import Mark, Path, Problems, nearest, printable
from shared_libs.factory.reader import MAX_DEPTH, NO_TEXT, Reader, mark_of

MAX_BYTES = 1 << 20

T = TypeVar("T")

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ODD_INDENT = re.compile(r"[ -]*([\u00a0\u2000-\u200b\u202f\u3000])")
"""What pages put before a line that is copied from them."""
_SYNTAX = {
    "found character '\\t'": "a tab cannot indent; use spaces",
    "found character '%'": "text cannot begin with '%'; quote it",
    "found character '@'": "text cannot begin with '@'; quote it",
    "found character '`'": "text cannot begin with '`'; quote it",
    "mapping values are not allowed here": "a ':' is not allowed here; quote text that holds ': '",
    "expected <block end>": "the indentation does not fit the lines above",
    "could not find expected ':'": "the ':' after a key is missing",
    "found unexpected end of stream": "quoted text is not closed",
    "expected ',' or ']'": "a ',' or ']' is missing",
    "expected ',' or '}'": "a ',' or '}' is missing",
    "expected the node content": "a key or a value is missing here",
    "sequence entries are not allowed here": "a list item '- ' is not allowed here",
}


def read_source(path: str | FilePath) -> tuple[Any, Problems]:
    """
    Read a file: its plain data, and the collector that places problems in it.

    Raises:
        ConfigError: there is no such file, or what it holds is not YAML at all.

    """
    return read_text(*_text_of(path))


def read_documents(path: str | FilePath) -> list[tuple[Any, Problems]]:
    """
    Read a file that may hold several documents: of each its plain data, and the collector that places problems in it.

    Raises:
        ConfigError: there is no such file, or what it holds is not YAML at all.

    """
    text, name = _text_of(path)
    found: list[tuple[Any, Problems]] = []

    def read(events: Iterator[Any], reader: Reader) -> None:
        next(events)  # the start of the stream
        while not isinstance(next(events), yaml.StreamEndEvent):
            found.append((reader.rest_of_document(), reader.problems))
            reader = Reader(events, name)

    _parsed(text, name, read)
    return found


def read_text(text: str, name: str) -> tuple[Any, Problems]:
    """
    Read YAML from a text; `name` stands in the errors.

    Raises:
        ConfigError: it is not YAML at all.

    """
    return _parsed(text, name, lambda _, reader: (reader.document(), reader.problems))


def not_there(path: FilePath, as_written: str, *, but: tuple[str, ...] = ()) -> str:
    """Say that a file is not there, and the nearest YAML beside it that is, but for names that end in one of `but`."""
    if path.is_symlink():
        return f"{printable(str(path), limit=4096)}: is a link to {printable(str(path.readlink()))}, which is not there"
    beside = [file.name for file in path.parent.glob("*.y*ml") if not file.name.endswith(but)]
    near = nearest(path.name, beside)
    meant = printable(f"{as_written.removesuffix(path.name)}{near}", limit=4096)
    hint = f"; did you mean '{meant}'?" if near else ""
    return f"{printable(str(path), limit=4096)}: there is no such file{hint}"


def _text_of(path: str | FilePath) -> tuple[str, str]:
    name = printable(str(path), limit=4096)
    try:
        if FilePath(path).is_fifo():  # as `<(…)` and `| … /dev/stdin` are
            raise OSError(errno.ESPIPE, "it is a pipe, which can be read but once; save it as a file")
        with FilePath(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([not_there(FilePath(path), str(path))]) from None
    except IsADirectoryError:
        raise ConfigError([f"{name}: is a folder; name the YAML file in it"]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError([f"{name}: is larger than {MAX_BYTES >> 20} MiB, which no definition needs"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        raise _syntax_error(name, _mark_after(before), "is not UTF-8; save the file as UTF-8") from None
    return text, name


def _parsed(text: str, name: str, read: Callable[[Iterator[Any], Reader], T]) -> T:
    if odd := _UNPRINTABLE.search(text):
        code = f"U+{ord(odd[0]):04X}"
        raise _syntax_error(name, _mark_after(text[: odd.start()]), f"holds the control character {code}; remove it")
    loader = yaml.SafeLoader(text)
    events = iter(loader.get_event, None)
    reader = Reader(events, name)
    try:
        return read(events, reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if blank := _ODD_INDENT.match(text, text.rfind("\n", 0, mark.index) + 1):
            told = f"U+{ord(blank[1]):04X} looks like a space and cannot indent; use spaces"
        else:
            told = _syntax_text(error)
    except ConfigError:
        raise
    except (ValueError, OverflowError):  # what the parser lets through from a "\U" beyond Unicode
        mark, told = loader.get_mark(), "no such character"
    last = _syntax_error(name, mark_of(mark), f"is not valid YAML: {told}")
    raise ConfigError([*reader.problems.lines(), *last.problems])


def read_data(data: Any) -> tuple[Any, Problems]:
    """Take a definition that is Python data already: a plain copy of it, and the collector for its problems."""
    problems = Problems("", {}, {})
    return _plain_copy(data, (), problems), problems


def _plain_copy(value: Any, path: Path, problems: Problems) -> Any:
    if len(path) > MAX_DEPTH:
        problems.add(path[:8], f"is nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                problems.add(path, f"the key {printable(repr(key))} is not text", blame=False)
        return {key: _plain_copy(item, (*path, key), problems) for key, item in value.items() if isinstance(key, str)}
    elif isinstance(value, list | tuple):
        return [_plain_copy(item, (*path, index), problems) for index, item in enumerate(value)]
    elif isinstance(value, str) and (odd := NO_TEXT.search(value)):
        problems.add(path, f"holds U+{ord(odd[0]):04X}, which is no character; remove it")
    elif isinstance(value, float) and not math.isfinite(value):
        problems.add(path, f"{value} is not a finite number")
    elif value is None or isinstance(value, str | int | float):
        return value
    else:
        problems.add(path, f"holds a Python {type(value).__name__}; only plain data is allowed")
    return None


def _mark_after(text: str) -> Mark:
    return Mark(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _syntax_text(error: Any) -> str:
    text = error.problem or error.context or "cannot be read"
    if text.endswith("but got '?'"):
        return "text in braces or brackets that holds a '?' has to be quoted"
    return next((words for start, words in _SYNTAX.items() if text.startswith(start)), printable(text, 200))


def _syntax_error(name: str, mark: Mark, text: str) -> ConfigError:
    return ConfigError([f"{name}:{mark.line}:{mark.column}: {text}"])
