"""
Citations: down to the document and its characters, and checked.

A passage is named in an answer by `[` the first eight digits of its chunk's id `]`: the same in every run, so several
searches of one run, or of several agents, do not disturb each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from shared_libs.retrieval.types import Hit

KEY = 8
"""Digits of a chunk's id that name it."""

_BRACKETS = re.compile(r"[ \t]?[\[\u3010]([^\[\]\u3010\u3011\n]{8,300})[\]\u3011]")
_A_KEY = re.compile(rf"(?<![0-9a-z])[0-9a-f]{{{KEY}}}(?![0-9a-z])", re.IGNORECASE)
_BESIDE = re.compile(
    r"(?:pages?|pp?\.?|lines?|sections?|\u00a7)\s{0,3}\d+(?:\s{0,3}[-\u2013]\s{0,3}\d+)?"
    r"|(?:cit(?:e|ation)|source|ref(?:erence)?|passage|key|id|and)s?|[\s,;|+&:=^@#`\"']",
    re.IGNORECASE,
)
"""What models write beside keys: what they are, a page, signs; what has other words is no citation."""


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a statement is from: `quote` is what stands at `[start, end)` of the document's stored text."""

    key: str
    document: str
    source: str
    title: str
    start: int
    end: int
    quote: str


class Cited(msgspec.Struct, frozen=True, kw_only=True):
    """An answer whose citations hold: those of `unknown` named no passage that was seen, and are out of the text."""

    text: str
    citations: tuple[Citation, ...]
    unknown: tuple[str, ...] = ()


def citation_key(hit: Hit) -> str:
    """Return what names a passage in an answer, without the brackets."""
    return hit.id[:KEY]


def check_citations(answer: str, passages: Iterable[Hit]) -> Cited:
    """
    Take out of an answer what cites nothing that was seen, and tell where the rest is from.

    Args:
        answer: the text, with keys in brackets.
        passages: what whoever wrote it has seen.

    """
    seen = {citation_key(hit): hit for hit in passages}
    used: dict[str, Citation] = {}
    unknown: dict[str, None] = {}

    def keep(found: re.Match[str]) -> str:
        said = found[1].partition("\u2020")[0]  # behind a dagger some models write where they think it is from
        keys = [key.lower() for key in _A_KEY.findall(said)]
        if not keys or _BESIDE.sub("", _A_KEY.sub("", said)):
            return found[0]
        known = []
        for key in keys:
            if key in seen:
                used.setdefault(key, _citation(key, seen[key]))
                known.append(key)
            else:
                unknown[key] = None
        lead = found[0][: len(found[0]) - len(found[0].lstrip())]
        return f"{lead}[{', '.join(known)}]" if known else ""

    text = _BRACKETS.sub(keep, answer)
    return Cited(text=text, citations=tuple(used.values()), unknown=tuple(unknown))


def _citation(key: str, hit: Hit) -> Citation:
    return Citation(
        key=key, document=hit.document, source=hit.source, title=hit.title, start=hit.start, end=hit.end, quote=hit.text
    )
