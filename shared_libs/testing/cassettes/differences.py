"""Where two requests differ, said so that a person sees at once what was changed: which message, line, tool, option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import msgspec

from shared_libs.testing.cassettes.data import Asked, Line

MAX_SHOWN = 90
"""Characters of a text that are shown of each side, around the place where they part."""


def differences(recorded: Asked, now: Asked) -> list[str]:
    """Return one line for each difference of a request from the recorded one."""
    found = [*_of_tools(recorded, now)]
    found += [f"option {line}" for line in _of_data("", recorded.options, now.options)]
    found += _of_messages(recorded.messages, now.messages)
    if recorded.texts != now.texts:
        found += [f"texts to embed: {line}" for line in _of_data("", list(recorded.texts), list(now.texts))]
    return found


def opening(asked: Asked) -> str:
    """Say in a few words what a request asks."""
    if asked.texts:
        return f"embeddings of {len(asked.texts)} texts, the first {_short(asked.texts[0])}"
    if not asked.messages:
        return "nothing"
    last = asked.messages[-1]
    return f"{len(asked.messages)} messages, the last ({last.role}) {_short(_text(last))}"


def _of_tools(recorded: Asked, now: Asked) -> Iterator[str]:
    yield from (f"tool {name}: is gone" for name in recorded.tools if name not in now.tools)
    for name, tool in now.tools.items():
        if name not in recorded.tools:
            yield f"tool {name}: is new"
            continue
        before = recorded.tools[name]
        for line in _of_texts(before.description, tool.description):
            yield f"tool {name}: description, {line}"
        for line in _of_data("", before.parameters, tool.parameters):
            yield f"tool {name}: parameter schema, {line}"


def _of_messages(recorded: Sequence[Line], now: Sequence[Line]) -> Iterator[str]:
    before, after = ([msgspec.json.encode(line) for line in lines] for lines in (recorded, now))
    for kind, start, end, now_start, now_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        both = min(end - start, now_end - now_start)
        for offset in range(both):
            yield from _of_lines(now_start + offset, recorded[start + offset], now[now_start + offset])
        for index in range(start + both, end):
            yield f"message {index} ({recorded[index].role}) is missing: {_short(_text(recorded[index]))}"
        for index in range(now_start + both, now_end):
            yield f"message {index} ({now[index].role}) is new: {_short(_text(now[index]))}"


def _of_lines(index: int, recorded: Line, now: Line) -> Iterator[str]:
    if recorded.role != now.role:
        yield f"message {index} was the {recorded.role}'s and is the {now.role}'s: {_short(_text(now))}"
        return
    place = f"message {index} ({now.role})"
    if isinstance(recorded.content, str) and isinstance(now.content, str):
        for line in _of_texts(recorded.content, now.content):
            yield f"{place}: {line}"
    before, after = (msgspec.to_builtins(line) for line in (recorded, now))
    if isinstance(recorded.content, str) and isinstance(now.content, str):
        before.pop("content", None)
        after.pop("content", None)
    for line in _of_data("", before, after):
        yield f"{place}: {line}"


def _of_texts(recorded: str, now: str) -> Iterator[str]:
    before, after = recorded.split("\n"), now.split("\n")
    for kind, start, end, now_start, now_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        both = min(end - start, now_end - now_start)
        for offset in range(both):
            was, is_now = before[start + offset], after[now_start + offset]
            yield f"line {now_start + offset + 1}: {_parted(was, is_now)}"
        if end - start > both:
            yield f"{_lines(start + both, end)} gone: {_short(before[start + both])}"
        if now_end - now_start > both:
            yield f"{_lines(now_start + both, now_end)} new: {_short(after[now_start + both])}"


def _of_data(path: str, recorded: Any, now: Any) -> Iterator[str]:
    """Name the path of every value that differs."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        for key in [*recorded, *(key for key in now if key not in recorded)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in now:
                yield f"{inner} is gone (it was {_value(recorded[key])})"
            elif key not in recorded:
                yield f"{inner} is new: {_value(now[key])}"
            else:
                yield from _of_data(inner, recorded[key], now[key])
    elif isinstance(recorded, list | tuple) and isinstance(now, list | tuple) and len(recorded) == len(now):
        for index, (before, after) in enumerate(zip(recorded, now, strict=True)):
            yield from _of_data(f"{path}[{index}]", before, after)
    elif recorded != now or type(recorded) is not type(now):
        yield f"{path}: {_value(recorded)} → {_value(now)}"


def _parted(recorded: str, now: str) -> str:
    """Both texts, from a little before the place where they part."""
    same = next((at for at, (a, b) in enumerate(zip(recorded, now, strict=False)) if a != b), 0)
    start = max(0, same - MAX_SHOWN // 3) if max(len(recorded), len(now)) > MAX_SHOWN else 0
    return f"{_short(recorded, start)} → {_short(now, start)}"


def _short(text: str, start: int = 0) -> str:
    shown = text[start : start + MAX_SHOWN].replace("\n", "⏎")
    return f"“{'…' if start else ''}{shown}{'…' if len(text) > start + MAX_SHOWN else ''}”"


def _value(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=repr).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _lines(start: int, end: int) -> str:
    return f"line {start + 1} is" if end - start == 1 else f"lines {start + 1} to {end} are"


def _text(line: Line) -> str:
    if isinstance(line.content, str) and line.content:
        return line.content
    if line.calls:
        return ", ".join(f"{call.tool}({_value(call.input)})" for call in line.calls)
    return msgspec.json.encode(line.content).decode() if line.content else ""
