"""
The JSON object that a model meant where it wrote nearly one: comments, Python's literals, text in text.

Nothing is guessed: what is returned is the one thing the text can mean. Arguments that are cut off are only closed
where the caller says that they are read as a person would.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from shared_libs.atomic.whole import whole_text

MAX_CHARS = 256 * 1024
"""The longest text that is read in other ways than as JSON: those cost more."""

MAX_DEPTH = 200
"""How deep an object may be nested; what Python itself takes differs from version to version."""

_MAX_WRAPPED = 3
"""How many times over a text may be encoded as JSON."""

_NOTHING = ("{}", "[]", "[{}]", "()", "None", "undefined")
"""Ways to say that there are no arguments: JSON's, PHP's and those of the languages models are trained on."""

_FENCE = re.compile(r"^\s*```[\w-]*[ \t]*\n?(?P<body>.*?)(?:\n?```\s*)?$", re.DOTALL)
_MARKS_BEHIND = re.compile(r"(?<=[}\]\s])(?:</[\w:]{1,30}>|<\|[\w|]{1,30}\|?>|\s){1,9}$")
"""The end marks of a model's own form, which a server left standing behind the arguments."""

_NOT_SAID = re.compile(
    # a string is kept as it is; what does not end goes to the end, so that no text is read ever again
    r"""(?P<kept>"(?:\\.|[^"\\])*(?:"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z))|//[^\n]*|/\*.*?(?:\*/|\Z)|(?<![\w"'])\#[^\n]*"""
    r"""|,(?=\s*[}\]])""",
    re.DOTALL,
)
_BEHIND = " \t\r\n\x00}])`;"
"""What may stand behind an object and means nothing: a bracket too many, the end of a line of code."""

_BARE_NAME = re.compile(
    r"""(?P<kept>"(?:\\.|[^"\\])*(?:"|\Z)|'(?:\\.|[^'\\])*(?:'|\Z))|(?<=[{,\s])(?P<key>[A-Za-z_$][\w$]{0,99})(?=\s{0,9}:)"""
)
_QUOTES = str.maketrans("\u201c\u201d\u201e\u2018\u2019", '"""\'\'')
_PAIR = re.compile(r"\s*(?P<key>[A-Za-z_]\w*)\s*=\s*(?P<value>\"[^\"]*\"|'[^']*'|[^,=\n]+?)\s*(?:,|\n|\Z)")


def object_in(text: str, *, to_the_end: bool = False) -> dict[str, Any] | None:
    """
    The JSON object that a text is, or None.

    `null` and nothing are an empty one. An object encoded as a string, or several times over, is read; of several in a
    row that differ in nothing but being empty, the one.

    Args:
        text: what was written.
        to_the_end: close what is cut off, and pass over what follows the object.

    """
    text = text.strip().lstrip("\ufeff")
    if not text:
        return {}
    if to_the_end:
        return _to_the_end(text)
    return _strictly(text) or _loosely(text)


def keywords_in(text: str) -> dict[str, Any] | None:
    """Read `query="cats", k=3`, the arguments of a call written as in Python; quotes may be missing."""
    if len(text) > MAX_CHARS:
        return None
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if isinstance(call, ast.Call) and not call.args and call.keywords:
            return plain({keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    pairs: dict[str, Any] = {}
    end = 0
    while end < len(text) and (found := _PAIR.match(text, end)):
        pairs[found["key"]] = _literal(found["value"])
        end = found.end()
    return pairs if pairs and not text[end:].strip() else None


def plain(value: Any) -> dict[str, Any] | None:
    """The value if it is a JSON object; Python's literals know more than JSON, such as `...`."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return None
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=dict[str, Any])
    except UnicodeEncodeError:
        return plain(_mended(value))
    except (TypeError, ValueError, RecursionError):
        return None


def _strictly(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _loosely(text: str) -> dict[str, Any] | None:
    if text in _NOTHING:
        return {}
    if text.endswith(">") and (ending := _MARKS_BEHIND.search(text)):
        return object_in(text[: ending.start()])
    try:
        value: Any = text
        for _ in range(_MAX_WRAPPED):
            value = _from_json(value)
            if not isinstance(value, str) or not value.strip():
                break
        if value is None or (isinstance(value, str) and not value.strip()):
            return {}
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        return plain(value)
    except (ValueError, RecursionError):
        pass
    fenced = _FENCE.match(text)
    if text.startswith("```") and fenced:
        return object_in(fenced["body"])
    if not text.startswith("{") or len(text) > MAX_CHARS:
        return None
    try:
        found = [one for one in _in_a_row(text) if one]
    except (ValueError, RecursionError):
        return _as_literal(text)
    return (found[0] if found else {}) if all(one == found[0] for one in found) else None


def _in_a_row(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a text that is nothing but objects, one right after the other."""
    decoder, end = json.JSONDecoder(strict=False, parse_constant=_no_constant), 0
    while end < len(text):
        value, end = decoder.raw_decode(text, end)
        if (one := plain(value)) is None:
            raise ValueError("not an object")
        yield one
        while text[end : end + 1] and text[end] in _BEHIND:
            end += 1


def _to_the_end(text: str) -> dict[str, Any] | None:
    """Read an object that may be cut off, or followed by chatter."""
    if not text.startswith("{"):
        return None
    body, closing = balanced(without_comments(text)) if len(text) <= MAX_CHARS else (text, "")
    for candidate in (body + closing, f'{body}"{closing}' if closing else ""):
        value = _strictly(candidate) if candidate else None
        value = _as_literal(candidate) if value is None and candidate else value
        if value is not None:
            return value
    return None


def _as_literal(text: str) -> dict[str, Any] | None:
    """Read an object with comments, or written as a Python dict, or as JavaScript has it."""
    text = without_comments(text)
    for read in (_from_json, ast.literal_eval, _as_javascript):
        try:
            value = plain(read(text))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if value is not None:
            return value
    return None


def _as_javascript(text: str) -> Any:
    """Read an object whose names have no quotes, or whose quotes are those of a word processor."""
    text = text.translate(_QUOTES)
    quoted = _BARE_NAME.sub(lambda found: found["kept"] or f'"{found["key"]}"', text)
    try:
        return _from_json(quoted)
    except ValueError:
        return ast.literal_eval(quoted)


def without_comments(text: str) -> str:
    """The text without the comments that JSON does not know, and without commas before a closing bracket."""
    for _ in range(2):  # a comma is the last where nothing but a comment stands behind it
        text = _NOT_SAID.sub(lambda found: found["kept"] or "", text)
    return text


def balanced(text: str) -> tuple[str, str]:
    """Return the first whole object of the text, or all of the text and what would close it; nothing if too deep."""
    open_brackets: list[str] = []
    quote = ""
    escaped = False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = char == "\\"
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "{[":
            open_brackets.append("}" if char == "{" else "]")
            if len(open_brackets) > MAX_DEPTH:
                return "", ""
        elif char in "}]" and open_brackets:
            open_brackets.pop()
            if not open_brackets:
                return text[: index + 1], ""
    return text.rstrip().rstrip(","), "".join(reversed(open_brackets))


def _from_json(text: str) -> Any:
    # not strict: a query of several lines has real line breaks in it
    return json.loads(text, strict=False, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _literal(text: str) -> Any:
    try:
        return _from_json(text)
    except ValueError:
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, dict):
        return {_mended(key): _mended(inner) for key, inner in value.items()}
    return [_mended(inner) for inner in value] if isinstance(value, list) else value
