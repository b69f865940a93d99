"""What a docstring says of parameters, in the styles of Google, NumPy and Sphinx, and what it says besides."""

from __future__ import annotations

import re
from collections.abc import Iterator

_GOOGLE = re.compile(r"(?:\*\*)?(?:(?:keyword|other) )?(?:arg|argument|param|parameter)s?:(?:\*\*)?\s*", re.IGNORECASE)
_NUMPY = re.compile(r"(?:other )?parameters\s*", re.IGNORECASE)
_RULER = re.compile(r"-{3,}\s*")
_GOOGLE_ENTRY = re.compile(
    r"(?:[-*+] )?[`*]{0,2}(?P<names>\w+)[`*]{0,2}\s*(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?"
    r"(?:\s*:\s*|\s+[-\u2013\u2014]\s+)(?P<text>.*)"
)
_OF_A_LIST = ("- ", "* ", "+ ")
_NUMPY_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?(?P<text>)")
_FIELD = re.compile(
    r"[:@](?P<kind>param|parameter|arg|argument|key|keyword|type)\s+(?:[^:\n]*\s)?\*{0,2}(?P<names>\w+)\s*:\s*(?P<text>.*)"
    r"|@param\s+(?:\{[^{}]*\}\s+)?(?P<java>\w+)\s+(?:-\s+)?(?P<words>.*)"
)


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """
    Part a docstring into what it says of the function, and of each parameter by its name.

    Args:
        text: the docstring, its indentation taken off (`inspect.getdoc`).

    """
    lines = text.splitlines()
    kept: list[str] = []
    told: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line = lines[at]
        below = lines[at + 1] if at + 1 < len(lines) else ""
        if _GOOGLE.fullmatch(line) and (below[:1].isspace() or below.startswith(_OF_A_LIST)):
            end = _end_of_block(lines, at + 1, listed=not below[:1].isspace())
            told |= _entries(_dedented(lines[at + 1 : end]), _GOOGLE_ENTRY)
        elif _NUMPY.fullmatch(line) and at + 1 < len(lines) and _RULER.fullmatch(lines[at + 1]):
            end = _end_of_section(lines, at + 2)
            told |= _entries(lines[at + 2 : end], _NUMPY_ENTRY)
        elif field := _FIELD.fullmatch(line):
            end = _end_of_block(lines, at + 1)
            if field["kind"] != "type":
                told[field["names"] or field["java"]] = _joined([field["text"] or field["words"], *lines[at + 1 : end]])
        else:
            kept.append(line)
            end = at + 1
        at = end
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), {name: words for name, words in told.items() if words}


def _end_of_block(lines: list[str], at: int, *, listed: bool = False) -> int:
    """Where the indented lines end that begin here, or the items of a list."""
    while at < len(lines) and (
        not lines[at].strip() or lines[at][:1].isspace() or (listed and lines[at].startswith(_OF_A_LIST))
    ):
        at += 1
    return at


def _end_of_section(lines: list[str], at: int) -> int:
    """Where the next underlined heading is."""
    while at < len(lines) and not (at + 1 < len(lines) and lines[at].strip() and _RULER.fullmatch(lines[at + 1])):
        at += 1
    return at


def _dedented(lines: list[str]) -> list[str]:
    least = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return [line[least:] for line in lines]


def _entries(lines: list[str], entry: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """The entries of a section: a line that is not indented names parameters, those below it describe them."""
    names: list[str] = []
    words: list[str] = []
    for line in lines:
        begins = None if line[:1].isspace() else entry.fullmatch(line.rstrip())
        if begins is None:
            words.append(line)
            continue
        yield from ((name, _joined(words)) for name in names)
        names, words = [name.strip(" *") for name in begins["names"].split(",")], [begins["text"]]
    yield from ((name, _joined(words)) for name in names)


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
