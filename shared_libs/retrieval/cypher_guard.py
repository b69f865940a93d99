"""
Which Cypher a model or a caller may send: reading, and nothing else, told by what it is made of.

Servers differ in what "read only" means to them: one lets `LOAD CSV` read files in a read-only snapshot, another does
not enforce its READ mode. So a query passes only if all of it is known: clauses, operators and functions of a list,
no `CALL`, no `LOAD`, no second statement, no name between backticks, no procedure. Values come as parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError

MAX_CHARS = 4_000
"""Characters of a query."""

MAX_ROWS = 200
"""Rows of an answer."""

MAX_HOPS = 4
"""Steps of a path of variable length; without an upper end a path may be the whole graph."""

_WORDS = {
    *("match", "optional", "where", "return", "with", "unwind", "order", "by", "skip", "limit", "as", "distinct"),
    *("asc", "desc", "ascending", "descending", "and", "or", "not", "xor", "in", "is", "null", "true", "false"),
    *("starts", "ends", "contains", "case", "when", "then", "else", "end", "union", "all"),
}
_REFUSED = {
    *("call", "load", "csv", "create", "merge", "set", "delete", "detach", "remove", "foreach", "drop", "alter"),
    *("grant", "deny", "revoke", "show", "use", "explain", "profile", "start", "stop", "terminate", "begin"),
    *("commit", "rollback", "insert", "finish", "cypher", "using", "periodic", "yield", "constraint", "index"),
    *("database", "transactions"),
}
_FUNCTIONS = {
    *("count", "collect", "sum", "avg", "min", "max", "size", "length", "tolower", "toupper", "trim", "substring"),
    *("replace", "split", "coalesce", "labels", "type", "keys", "properties", "nodes", "relationships", "head", "last"),
    *("id", "elementid", "tointeger", "tofloat", "tostring", "abs", "round", "floor", "ceil", "exists", "startnode"),
    *("endnode", "reverse", "range", "any", "none", "single", "left", "right", "shortestpath"),
}
_TOKEN = re.compile(
    r"""
    (?P<space>\s+) | (?P<comment>//[^\n]*|/\*.*?\*/)
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<parameter>\$[A-Za-z_]\w*) | (?P<number>\d+(?:\.\d+)?)
    | (?P<hops>\*\d*(?:\.\.\d*)?) | (?P<word>[A-Za-z_]\w*)
    | (?P<sign><>|<=|>=|->|<-|\.\.|[-+/%^=<>|(){}\[\],.:])
    """,
    re.VERBOSE | re.DOTALL,
)


class ReadQuery(msgspec.Struct, frozen=True):
    """A query that only reads, its parameters, and how many rows and seconds its answer may have."""

    text: str
    parameters: dict[str, Any] = {}
    rows: int = MAX_ROWS
    seconds: float = 5.0


def read_query(text: str, parameters: Mapping[str, Any] | None = None, *, rows: int = 100) -> ReadQuery:
    """
    Check a query.

    Raises:
        MisuseError: it does more than read, or what it does is not known; the text says what.

    """
    if not text.strip():
        raise MisuseError("the query is empty")
    if len(text) > MAX_CHARS:
        raise MisuseError(f"the query has {len(text):,} characters, of at most {MAX_CHARS:,}")
    if not 1 <= rows <= MAX_ROWS:
        raise MisuseError(f"rows is a number from 1 to {MAX_ROWS}, not {rows}")
    given = dict(parameters or {})
    found = _tokens(text)
    tokens = [(kind, said) for kind, said in found if kind not in ("space", "comment")]
    _check_words(tokens)
    _check_paths(tokens)
    for kind, said in tokens:
        if kind == "parameter" and said[1:] not in given:
            raise MisuseError(f"the query names {said}, and there is no such parameter")
        if kind == "text" and "\\u" in said.lower():
            raise MisuseError("a text of the query has no \\u; some servers read it before they read the query")
    for name, value in given.items():
        _check_value(name, value)
    if not tokens or tokens[0][1].lower() not in ("match", "optional", "unwind", "with", "return"):
        raise MisuseError("a query begins with MATCH, OPTIONAL MATCH, UNWIND, WITH or RETURN")
    if "return" not in {said.lower() for kind, said in tokens if kind == "word"}:
        raise MisuseError("a query ends with RETURN")
    return ReadQuery("".join(" " if kind == "comment" else said for kind, said in found), given, rows)


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise MisuseError(f"the query holds {text[at]!r} at character {at}, which is not allowed")
        found.append((token.lastgroup or "", token[0]))
        at = token.end()
    return found


def _check_words(tokens: list[tuple[str, str]]) -> None:
    signs = [("", ""), *tokens, ("", "")]
    for (_, before), (kind, said), (_, after) in zip(signs, signs[1:], signs[2:], strict=False):
        if kind != "word":
            continue
        word = said.lower()
        if before in (".", ":") and after != "(":
            continue  # a property, a label, a type
        if before not in (".", ":") and word in _REFUSED:
            raise MisuseError(f"{said.upper()} is not allowed: a query only reads; allowed are MATCH, WHERE, RETURN, …")
        if after == "(" and (before == "." or (word not in _WORDS and word not in _FUNCTIONS)):
            raise MisuseError(f"the function {said} is not allowed; allowed are {', '.join(sorted(_FUNCTIONS))}")
        if after == "." and word in ("apoc", "dbms", "db", "gds", "sys", "tx", "vector"):
            raise MisuseError(f"procedures and functions of {said} are not allowed")


def _check_paths(tokens: list[tuple[str, str]]) -> None:
    """See that every path has an end: inside a relation's brackets, and behind a part of a pattern."""
    inside, before = False, ""
    for (kind, said), (next_kind, after) in zip(tokens, [*tokens[1:], ("", "")], strict=True):
        if said == "[" and before in ("-", "<-"):
            inside = True
        elif said == "]":
            inside = False
        elif inside and kind == "hops":
            end = said.rpartition("..")[2] if ".." in said else said[1:]
            if not end.isdigit() or int(end) > MAX_HOPS:
                raise MisuseError(
                    f"a path of {said} is not allowed; it has an upper end of at most {MAX_HOPS}, such as *1..2"
                )
        elif said in ("{", "+") or kind == "hops":
            sums = said != "{" and before == ")" and next_kind in ("number", "parameter", "text", "word")
            if before in ("->", "-", "/") or (before == ")" and not (sums and after.lower() not in _WORDS)):
                raise MisuseError("repeated parts of a pattern are not allowed; write *1..2 inside the brackets")
        before = said


def _check_value(name: str, value: Any, depth: int = 0) -> None:
    if isinstance(value, str | int | float | bool) or value is None:
        return
    if isinstance(value, list) and depth < 2 and len(value) <= 1_000:
        for item in value:
            _check_value(name, item, depth + 1)
        return
    raise MisuseError(f"parameter {name}: a text, a number, true, false, null or a list of them")
