"""
A cassette as a file: YAML that a person reads in a diff.

A conversation stands there once. A request that goes on from another names it (`after: 3`: its messages and its answer;
`again: 3`: its messages) and holds only what is new. Requests of one conversation stand together, so that what ran at
the same time has the same order in each recording.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.secrets import private
from shared_libs.atomic.types import Usage
from shared_libs.testing.cassettes import pieces
from shared_libs.testing.cassettes.data import Asked, Came, Cassette, Entry, Line, Tool

VERSION = 1
LONG = 90
"""Characters from which on a text stands in a block of its own."""

WIDTH = 110
HEAD = "# Recorded: what a model was asked, and what came of it. Replayed instead of the model.\n"

_IN_A_BLOCK = re.compile(
    r"(?!\t)[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*"
)
"""Texts that stand in a block as they are; the others are quoted, with escapes."""


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry as it stands in the file; `tools` are names of the file's own list."""

    request: int
    model: str
    after: int | None = None
    again: int | None = None
    tools: list[str] = []
    options: dict[str, Any] = {}
    messages: tuple[Line, ...] = ()
    texts: tuple[str, ...] = ()
    came: Came


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool as it stands in the file; `name` where two of one name differ."""

    name: str | None = None
    description: str = ""
    parameters: dict[str, Any] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cassette: int
    tools: dict[str, _Told] = {}
    requests: list[_Request] = []


def read_cassette(path: str | Path) -> Cassette:
    """
    Read a cassette.

    Raises:
        MisuseError: there is none, or it is not as it was written.

    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise MisuseError(f"there is no cassette {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MisuseError(f"the cassette {path} cannot be read: {error}") from error
    try:
        return cassette_of(text)
    except MisuseError as error:
        raise MisuseError(f"the cassette {path} does not hold: {error}") from error


def cassette_of(text: str) -> Cassette:
    """
    Read a cassette from the text of its file.

    Raises:
        MisuseError: it is not as it was written.

    """
    import yaml

    try:
        data = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
        if isinstance(data, dict) and data.get("cassette") != VERSION:
            raise MisuseError(
                f"`cassette: {data.get('cassette')}` is not the version {VERSION} that this library reads"
            )
        file = msgspec.convert(data, _File)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise MisuseError(" ".join(str(error).split())) from error
    entries: list[Entry] = []
    for number, request in enumerate(file.requests, 1):
        entries.append(_entry(number, request, file.tools, entries))
    return Cassette(tuple(entries))


def write_cassette(path: str | Path, cassette: Cassette) -> None:
    """Write a cassette; a reader sees the whole old file or the whole new one."""
    path = Path(path).resolve()  # what a link leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(partial, "w", encoding="utf-8", opener=private) as file:
            file.write(text_of(cassette))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def text_of(cassette: Cassette) -> str:
    """Write a cassette as the text of its file."""
    tools: dict[str, _Told] = {}
    requests: list[_Request] = []
    entries = _by_conversation(cassette.entries)
    for number, entry in enumerate(entries, 1):
        names = [_named(tools, name, tool) for name, tool in entry.asked.tools.items()]
        after, again = _goes_on_from(entry, entries[: number - 1])
        known = _lines(entries, after, again)
        requests.append(
            _Request(
                request=number,
                model=entry.asked.model,
                after=after,
                again=again,
                tools=names,
                options=entry.asked.options,
                messages=entry.asked.messages[len(known) :],
                texts=entry.asked.texts,
                came=entry.came,
            )
        )
    return HEAD + _yaml(_plain(_File(cassette=VERSION, tools=tools, requests=requests)))


def _entry(number: int, request: _Request, tools: dict[str, _Told], entries: Sequence[Entry]) -> Entry:
    for place in (request.after, request.again):
        if place is not None and not 0 < place < number:
            raise MisuseError(f"request {number} goes on from request {place}, which does not stand before it")
    if missing := [name for name in request.tools if name not in tools]:
        raise MisuseError(f"request {number} has the tool {missing[0]}, which is not among the file's tools")
    if request.request != number:
        raise MisuseError(f"request {request.request} stands in place {number}")
    for _ in pieces.read(request.came, ()):
        pass  # reading them tells what is wrong
    told = {tools[name].name or name: tools[name] for name in request.tools}
    return Entry(
        Asked(
            model=request.model,
            tools={name: Tool(description=tool.description, parameters=tool.parameters) for name, tool in told.items()},
            options=request.options,
            messages=(*_lines(entries, request.after, request.again), *request.messages),
            texts=request.texts,
        ),
        request.came,
    )


def _lines(entries: Sequence[Entry], after: int | None, again: int | None) -> tuple[Line, ...]:
    """The messages that a request has from another one."""
    if after is not None:
        return (*entries[after - 1].asked.messages, entries[after - 1].came.line())
    return () if again is None else entries[again - 1].asked.messages


def _goes_on_from(entry: Entry, before: Sequence[Entry]) -> tuple[int | None, int | None]:
    """The request that this one goes on from: after its answer, or with its messages again."""
    found: tuple[int | None, int | None] = None, None
    longest = 0
    wanted = entry.asked.messages
    for number, other in enumerate(before, 1):
        if len(other.asked.messages) < longest or wanted[: len(other.asked.messages)] != other.asked.messages:
            continue
        length = len(other.asked.messages)
        answer = wanted[length : length + 1] == (other.came.line(),) and other.came.failure is None
        if length + answer > longest:
            longest = length + answer
            found = (number, None) if answer else (None, number)
    return found


def _by_conversation(entries: Sequence[Entry]) -> list[Entry]:
    """Order requests so that each stands behind the one it goes on from; else they keep their order."""
    children: dict[int | None, list[int]] = {}
    for number, entry in enumerate(entries, 1):
        after, again = _goes_on_from(entry, entries[: number - 1])
        children.setdefault(after or again, []).append(number)
    ordered: list[Entry] = []
    waiting = children.get(None, [])[::-1]
    while waiting:
        number = waiting.pop()
        ordered.append(entries[number - 1])
        waiting += children.get(number, [])[::-1]
    return ordered


def _named(tools: dict[str, _Told], name: str, tool: Tool) -> str:
    """The name under which a tool stands in the file."""
    key, count = name, 1
    while True:
        told = _Told(name=None if key == name else name, description=tool.description, parameters=tool.parameters)
        if tools.setdefault(key, told) == told:
            return key
        count += 1
        key = f"{name} ({count})"


def _plain(value: Any) -> Any:
    """Plain data, without what is as usual: all that equals its default, where msgspec leaves out the same object."""
    if isinstance(value, msgspec.Struct):
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        kept = {field.name: _plain(item) for field, item in fields if not _is_usual(field, item)}
        if isinstance(value, Came) and value.pieces:
            kept["pieces"] = _Folded(value.pieces)
        return _OnOneLine(kept) if isinstance(value, Usage) else kept
    if isinstance(value, list | tuple):
        short = all(isinstance(item, str) and len(item) < LONG for item in value)
        return (_ListOnOneLine if short else list)(map(_plain, value))
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _is_usual(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return bool(value == default)


class _OnOneLine(dict[str, Any]):
    """A short mapping."""


class _ListOnOneLine(list[Any]):
    """A list of short texts."""


class _Folded(str):
    """A text of words, whose lines may be broken anywhere."""

    __slots__ = ()


def _yaml(data: dict[str, Any]) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # it has no types
        """Long texts in blocks, short lists and mappings on one line."""

        def analyze_scalar(self, scalar: str) -> Any:
            analysis = super().analyze_scalar(scalar)
            # the library quotes what has a tab or a space before a line's end, as many an answer does
            analysis.allow_block = _IN_A_BLOCK.fullmatch(scalar) is not None
            return analysis

    def text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        block = "|" if "\n" in text or len(text) > LONG else None
        style = block if _IN_A_BLOCK.fullmatch(text) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def folded_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=">" if len(text) > LONG else None)

    def mapping_node(dumper: yaml.SafeDumper, mapping: dict[str, Any]) -> yaml.Node:
        return dumper.represent_mapping("tag:yaml.org,2002:map", mapping, flow_style=True)

    def list_node(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)

    Dumper.add_representer(str, text_node)
    Dumper.add_representer(_Folded, folded_node)
    Dumper.add_representer(_OnOneLine, mapping_node)
    Dumper.add_representer(_ListOnOneLine, list_node)
    return cast("str", yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=WIDTH))
