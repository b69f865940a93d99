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

_BRACKETS = re.compile(
    r"[ \t]?\\?[\[\u3010\u3014\uff3b]([^\[\]\u3010\u3011\u3014\u3015\uff3b\uff3d]{8,300})[\]\u3011\u3015\uff3d]"
)
_A_KEY = re.compile(rf"(?<![0-9a-z])([0-9a-f]{{{KEY}}})(?![0-9a-z])", re.IGNORECASE)
_AN_ID = re.compile(r"(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])", re.IGNORECASE)
_A_DATE = re.compile(r"(?:19|20)\d\d[01]\d[0-3]\d")
_WORDS = (
    *("cite", "citation", "source", "ref", "reference", "passage", "chunk", "doc", "document", "key", "id", "and"),
    *("see", "cf", "to", "of", "quelle", "zitat", "beleg", "siehe", "vgl", "und", "et", "voir", "y", "e", "fonte"),
    *("fuente", "ver", "referência", "citação", "và", "nguồn", "trích", "dẫn", "xem", "источник", "источники"),
    *("и", "см"),
)
_JOINED = ("来源", "來源", "出处", "出處", "引用", "参见", "出典", "資料", "和", "与", "與", "及", "と")
_PLACES = r"pages?|pp?|lines?|sections?|s|seiten?|zeilen?|abschnitt|pág(?:ina)?s?|linhas?|seção|trang|dòng|mục|第"
_BESIDE = re.compile(
    rf"\b(?:{_PLACES})[\W_]{{0,3}}\d+(?:\W{{0,3}}\d+)?[页頁行节節]?|\b(?:{'|'.join(_WORDS)})[sn]?\b|{'|'.join(_JOINED)}"
    r"|\b\d{1,3}\b|[\W_]",
    re.IGNORECASE,
)
"""
What models write beside keys, in the languages of those who ask: what they are, a page, a number, signs.

Where nothing else stands in the brackets, they are a citation, and keys that nobody has seen are made up.
"""


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

    A key of a passage that was seen is a citation wherever it stands: it is a digest, so nothing else reads like it.

    Args:
        answer: the text, with keys in brackets.
        passages: what whoever wrote it has seen.

    """
    seen = {citation_key(hit): hit for hit in passages}
    unknown: dict[str, None] = {}

    def keep(found: re.Match[str]) -> str:
        said = found[1].partition("\u2020")[0]  # behind a dagger some models write where they think it is from
        keys = [key.lower() for key in _A_KEY.findall(said) if key.lower() in seen or not _A_DATE.fullmatch(key)]
        known = [key for key in keys if key in seen]
        alone = not _BESIDE.sub("", _A_KEY.sub("", said))
        if not keys or not (known or alone):
            return found[0]
        unknown.update(dict.fromkeys(key for key in keys if key not in seen))
        lead = found[0][: len(found[0]) - len(found[0].lstrip())]
        if alone:
            return f"{lead}[{', '.join(known)}]" if known else ""
        return _A_KEY.sub(lambda key: "" if key[1].lower() in unknown else key[0], found[0])

    whole = {hit.id: key for key, hit in seen.items()}  # some models write all of an id
    answer = _AN_ID.sub(lambda id_: whole.get(id_[0].lower(), id_[0]), answer)
    text = _BRACKETS.sub(keep, answer)
    used = {key: _citation(key, seen[key]) for key in map(str.lower, _A_KEY.findall(text)) if key in seen}
    return Cited(text=text, citations=tuple(used.values()), unknown=tuple(unknown))


def _citation(key: str, hit: Hit) -> Citation:
    return Citation(
        key=key, document=hit.document, source=hit.source, title=hit.title, start=hit.start, end=hit.end, quote=hit.text
    )
