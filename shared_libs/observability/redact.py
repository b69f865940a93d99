"""
Secrets out of whatever leaves the process: one redactor for logs, run records and what is shown of a run.

It knows secrets by their shape (keys of the known vendors, bearer tokens, JSON web tokens, passwords in URLs, private
keys) and by the name they stand under (`atomic/secrets.py`). A secret without a known shape and without a telling name
cannot be known.

Its work grows with the text and no faster (`redact_shapes`), and a long text is masked piece by piece, so that the
other threads of the process come to their turn.
"""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.command_lines import masked_arguments, without_secrets
from shared_libs.atomic.secrets import names_a_secret
from shared_libs.observability.redact_shapes import (
    AN_OPTION,
    INVISIBLE,
    LONGEST_LOUD,
    NAME_HINTS,
    NAME_PLACE,
    NAMED,
    NEEDLESS,
    OPTION,
    ORDINARY_RUN,
    PASSWORD_IN_URL,
    RUN,
    SAID,
    SCHEME,
    SHAPES,
    SPREAD,
)

MASK = "[redacted]"
MAX_DEPTH = 100

PIECE = 1 << 15
"""Characters that are masked at once; a longer text is cut between two words."""

_NO_SECRETS = frozenset(
    {
        *("", "none", "null", "true", "false", "undefined", MASK),
        *("str", "string", "int", "text", "bytes", "required", "optional", "include", "omit", "same-origin"),
    }
)
"""What stands behind a name and is none: nothing, and what a declaration says of it."""
_LOOKS_SECRET = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z!#$%&*+/=^~]).{6,}|[^=]{6,}={1,2}|.{24,}", re.DOTALL)
_PLACEHOLDER = re.compile(r"\$\{?[A-Z_][A-Z0-9_]{0,60}\}?|\*{3,60}|\u2022{3,60}")
_CALLED = re.compile(r"\([^()\n]{0,99}\)|\[[\"'][^\[\]\n]{1,99}\]|(?<=\$)\{\w{1,60}\}")
_OF_CODE = re.compile(r"\$|[A-Za-z_][A-Za-z_.]{0,60}")
_FEW = 200
_VALUES_IN_A_SCHEMA = frozenset({"default", "const", "enum", "example", "examples"})
_VALUES, _NESTED = (bool, int, float), (dict, list, tuple)
_IN_WORDS = string.ascii_letters + string.digits + "_"
_LONGEST_KNOWN, _REMEMBERED = 8_000, 1 << 20
"""Characters of texts, of one event and of all, of which it is remembered that nothing in them is masked."""

_NAMES_KNOWN = 4_096
"""Of how many keys; the same few come again and again."""

_TABLE = '{"columns":['
_NAMERS = ("name", "key", "header", "param", "field", "id", "label", "type")
"""Keys of data, in any case, under which a name stands, beside the `value` that it names."""


def redact_data(value: Any) -> Any:
    """
    Return JSON-like data with its secrets masked, and what is nested too deep; the data itself is left as it is.

    Data of dicts, lists, tuples and plain values that hold nothing to mask are returned themselves: most do not.
    """
    return value if is_harmless(value) else _redacted(value, MAX_DEPTH)


def is_harmless(value: Any) -> bool:
    """Whether it is sure that nothing in JSON-like data, the structs of msgspec among them, is masked."""
    names: list[Any] = []
    texts: list[str] = []
    plain = _is_plain((value,), names, texts, MAX_DEPTH + 1)
    return plain and _known.plain(names) and _known.harmless(texts)


def redact_schema(schema: Any, *, secret: bool = False) -> Any:
    """Return a JSON Schema with its secrets masked; a property that is named as a secret is described all the same."""
    if isinstance(schema, str):
        return redact_text(schema)
    if isinstance(schema, list | tuple):
        return [redact_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: MASK
        if secret and key in _VALUES_IN_A_SCHEMA
        else redact_schema(item, secret=isinstance(item, Mapping) and _is_secret(key, item))
        for key, item in schema.items()
    }


def redact_text(text: str) -> str:
    """
    Return a text with its secrets masked, those in the columns of a table as the `sql` tool writes it among them.

    Characters nobody sees hide no secret, nor do letters written as numbers: where one is found behind them, the whole
    text is written plainly.
    """
    if text.startswith(_TABLE):
        text = _without_secret_columns(text)
    plain = (text.isascii() and text.replace("\n", "").isprintable()) or INVISIBLE.search(text) is None
    if plain and not (("%" in text or "\\" in text) and NEEDLESS.search(text)):
        return _without_secrets(text)
    seen = NEEDLESS.sub(lambda match: chr(int(match[0][-2:], 16)), INVISIBLE.sub("", text))
    masked = _without_secrets(seen)
    return masked if masked != seen else _without_secrets(text)


def redact_start(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, masked before it is cut; the rest costs no work."""
    return redact_text(text[: limit + PIECE])[:limit]


def _is_plain(value: Any, names: list[Any], texts: list[str], depth: int) -> bool:
    """Whether the shape of data tells of no secret; its keys are put to the names, the rest to the texts."""
    items = value
    if type(value) is dict:
        if "columns" in value and _secret_columns(value):
            return False
        names += value
        items = value.values()
    elif isinstance(value, msgspec.Struct):
        names += value.__struct_fields__
        items = msgspec.structs.astuple(value)
    elif len(value) == 2 and type(value[0]) is str and names_a_secret(value[0]):
        return False
    for item in items:  # no generator, and no call for a text: this is done for every event of every run
        kind = type(item)
        if kind is str:
            if item[:1] == "-" and items is value:  # an option of a program, in a list
                return False
            texts.append(item)
        elif item is not None and kind not in _VALUES:
            nested = kind in _NESTED or isinstance(item, msgspec.Struct)
            if not (nested and depth and _is_plain(item, names, texts, depth - 1)):
                return False
    return True


class _Known:
    """Remembers what nothing is masked in; names, questions and answers stand in many events of many runs."""

    def __init__(self) -> None:
        self._names: set[Any] = set()
        self._texts: set[str] = set()
        self._room = _REMEMBERED

    def plain(self, names: Sequence[Any]) -> bool:
        """Whether nothing has to be masked for the sake of these keys, nor in them."""
        if self._names.issuperset(names):
            return True
        if not all(map(_is_plain_name, names)):
            return False
        if len(self._names) < _NAMES_KNOWN:
            self._names.update(names)
        return True

    def harmless(self, texts: Sequence[str]) -> bool:
        """Whether nothing of these texts is masked; looking at all new ones as one costs a tenth of looking at each."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if not new:
            return True
        tables = [text for text in new if text.startswith(_TABLE)]
        joined = "\n".join(new)
        if redact_text(joined) != joined or any(redact_text(text) != text for text in tables):
            return False
        if len(joined) <= _LONGEST_KNOWN:
            if self._room < len(joined):
                self._texts, self._room = set(), _REMEMBERED
            self._texts.update(new)
            self._room -= len(joined)
        return True


_known = _Known()


def _is_plain_name(name: Any) -> bool:
    if type(name) is not str or len(name) >= _FEW:
        return False
    return name.lower() != "value" and not names_a_secret(name) and redact_text(name) == name


def _without_secret_columns(text: str) -> str:
    """Mask what the head of a table tells; a table that was cut stays as it is."""
    with contextlib.suppress(ValueError, RecursionError):
        table = msgspec.json.decode(text)
        if hidden := _secret_columns(table):
            rows = [_masked_row(row, hidden) for row in table["rows"]]
            return msgspec.json.encode({**table, "rows": rows}).decode()
    return text


def _secret_columns(value: Mapping[Any, Any]) -> frozenset[int]:
    """Return which columns of a table hold secrets, by their names; none, where it is no table."""
    columns = value.get("columns")
    if not isinstance(columns, list | tuple) or not isinstance(value.get("rows"), list | tuple):
        return frozenset()
    return frozenset(place for place, name in enumerate(columns) if _is_secret(name, name))


def _masked_row(row: Any, hidden: frozenset[int]) -> Any:
    if not isinstance(row, list | tuple):
        return row
    return [MASK if place in hidden and cell is not None else cell for place, cell in enumerate(row)]


def _without_secrets(text: str) -> str:
    text = _replaced(RUN, _masked_run, text)
    for hint, pattern in SPREAD.items():
        if hint in text:
            text = _replaced(pattern, _behind, text)
    if "://" in text and "@" in text:
        text = _replaced(PASSWORD_IN_URL, _behind, text)
    lower = text.lower()
    if any(hint in lower for hint in NAME_HINTS):
        text = _without_named(text, lower)
        if "-" in text:
            text = _replaced(OPTION, _masked_option, text)
    if "bearer" in lower or "basic" in lower:
        text = _replaced(SCHEME, lambda match: f"{match['scheme']} {MASK}", text)
    return without_secrets(text, MASK)


def _masked_run(match: re.Match[str]) -> str:
    run = match[0]
    return run if ORDINARY_RUN.fullmatch(run) else _replaced(SHAPES, _all_of_it, run)


def _all_of_it(_: re.Match[str]) -> str:
    return MASK


def _behind(match: re.Match[str]) -> str:
    """Mask what is behind the first group that there is."""
    return f"{next(filter(None, match.groups()), '')}{MASK}"


def _without_named(text: str, lower: str) -> str:
    """
    As `SAID.sub` and `NAMED.sub`, which are tried only where a name announces something.

    Neither has a beginning that is quick to find.
    """
    if len(lower) != len(text):  # a few letters are two in lower case
        return _replaced(NAMED, _masked, _replaced(SAID, _behind, text))
    parts: list[str] = []
    done = 0
    for place in _name_places(lower):
        for at in _beginnings(text, place):
            if at < done:
                continue
            if (found := SAID.match(text, at)) is not None:
                parts += (text[done:at], _behind(found))
            elif (found := NAMED.match(text, at)) is not None:
                parts += (text[done:at], _masked(found))
            done = done if found is None else found.end()
    return "".join([*parts, text[done:]]) if parts else text


def _name_places(lower: str) -> Iterator[re.Match[str]]:
    """Yield where names have their hints, piece by piece."""
    for start in range(0, len(lower), PIECE):
        until = start + PIECE
        for place in NAME_PLACE.finditer(lower, start, until + _FEW):
            if place.start() >= until:
                break
            yield place


def _beginnings(text: str, place: re.Match[str]) -> Iterable[int]:
    """Return where a name may begin that has its hint there."""
    hint = place.start()
    word = text[max(0, hint - LONGEST_LOUD) : hint]
    loud = hint - len(word) + len(word.rstrip(_IN_WORDS))
    nearest = max(0, hint - NAME_HINTS[place[0]])
    return (*((loud,) if loud < nearest else ()), *range(nearest, hint + 1))


def _replaced(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    """As `pattern.sub`, in pieces: the interpreter is let go between them, and the result is the same."""
    if len(text) <= PIECE:
        return pattern.sub(replace, text)
    parts: list[str] = []
    done = at = 0
    while at < len(text):
        most = at + PIECE
        found = pattern.search(text, at, most + PIECE)
        if found is not None and found.end() == most + PIECE:
            found = pattern.search(text, found.start())
        if found is None or found.start() >= most:
            at = most
            continue
        parts += (text[done : found.start()], replace(found))
        done = at = max(found.end(), at + 1)
    return "".join([*parts, text[done:]])


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if not depth:
        return MASK
    if isinstance(value, Mapping):
        return _redacted_mapping(value, depth)
    return [*_redacted_items(value, depth)]


def _redacted_mapping(value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    small = {key.lower(): item for key, item in value.items() if isinstance(key, str)} if len(value) < _FEW else {}
    named = [small[key] for key in _NAMERS if key in small] if "value" in small else []
    masked: dict[Any, Any] = {}
    hidden = _secret_columns(value)
    for key, item in value.items():
        if hidden and key == "rows":
            item = [_masked_row(row, hidden) for row in item]  # noqa: PLW2901 - masked once more below
        shown = redact_text(key) if isinstance(key, str) else key
        while shown in masked:  # two secrets as keys
            shown = f"{shown}'"
        secret = _is_secret(key, item) or (
            str(key).lower() == "value" and any(_is_secret(name, item) for name in named)
        )
        masked[shown] = MASK if secret else _redacted(item, depth - 1)
    return masked


def _redacted_items(items: Sequence[Any], depth: int) -> Iterator[Any]:
    """Mask what stands behind an option in a list of a program's arguments, and in pairs of names and values."""
    if len(items) == 2 and all(isinstance(item, str) for item in items) and _is_a_pair(*items):
        yield from (items[0], MASK)
        return
    if items and all(isinstance(item, str) for item in items):
        items = masked_arguments(items, MASK)
    before: Any = None
    for item in items:
        if isinstance(item, str) and isinstance(before, str) and item[:1] != "-" and AN_OPTION.fullmatch(before):
            yield MASK
        elif isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], str) and _is_secret(*item):
            yield [item[0], MASK]
        else:
            yield _redacted(item, depth - 1)
        before = item


def _is_a_pair(name: str, value: str) -> bool:
    """Whether two texts are a name and its secret, and not two names."""
    return len(value) < _FEW and _is_secret(name, value) and _LOOKS_SECRET.fullmatch(value) is not None


def _is_secret(name: Any, value: Any) -> bool:
    """Whether the name tells that the value is a secret; nothing, and what is only a switch, is none."""
    if value is None or value == "" or isinstance(value, bool) or not isinstance(name, str):
        return False
    return names_a_secret(name)


def _masked(match: re.Match[str]) -> str:
    quote = match["open"] or ""
    value = match["quoted"] if quote else match["bare"]
    if value.lower() in _NO_SECRETS or _is_named_only(value, match):
        return match[0]
    in_prose = match["weak"] and not match["quote"] and match.string[max(match.start() - 1, 0)] not in "?&"
    if in_prose and not _LOOKS_SECRET.fullmatch(value[:200]):
        return match[0]
    return f"{match['start']}{quote}{MASK}{quote}"


def _is_named_only(value: str, match: re.Match[str]) -> bool:
    """Whether what stands for a secret only says where it is: a variable, a call, an attribute, stars in its place."""
    if _OF_CODE.fullmatch(value) is None:
        return _PLACEHOLDER.fullmatch(value) is not None
    named = "." in value and names_a_secret(value.rpartition(".")[2])
    return named or _CALLED.match(match.string, match.end()) is not None


def _masked_option(match: re.Match[str]) -> str:
    quote = match["open"] or ""
    if not quote and not re.search(r"[^a-z]", match["bare"][:200]):
        return match[0]  # an ordinary word: prose about the option
    return f"{match['start']}{quote}{MASK}{quote}"
