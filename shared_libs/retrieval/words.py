"""
Words of any language, for every index that knows words: the one place where a text becomes terms.

Chinese, Japanese and Thai are written without spaces, so their runs become overlapping pairs of characters (what
Lucene's CJK analyser does). A word with marks over its letters stands twice, as it is and without them: Vietnamese and
Portuguese are often typed without, and what was typed with them weighs more. English words stand by their stem, those
of a text that does not tell its language (names, tables, code) by both; the words of other languages stay as they are,
since the rules of English only make others of them.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from shared_libs.retrieval.english import is_english

_NO_SPACES = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts that are written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese."""

_PARTS_OF_WORDS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u0900-\u0963\u0966-\u096f\u0971-\u0dff"
)
"""Marks and vowel signs, which to Python are no letters."""

_RUN = re.compile(rf"[{_NO_SPACES}]+|(?:[^\W_{_NO_SPACES}]|[{_PARTS_OF_WORDS}])+")
_WITHOUT_SPACES = re.compile(rf"[{_NO_SPACES}]")
_NO_MARKS = str.maketrans("đøłħıŧ", "dolhit")  # letters of their own, which no normal form takes apart

MAX_TERM = 64
"""Characters of a term; longer ones are no words."""

MOST_ASKED = 500
"""Of how many words of a question it is looked up how rare they are."""

LEAST_TERMS, MOST_TERMS = 8, 32
"""Of a longer question so many terms are looked for at least, the rarest, and so many at most."""

MOST_POSTINGS = 5_000
"""Beyond the least, terms are looked for while they stand in so few texts together: common ones cost the time."""

MOST_COUNTED = 5_000
"""Up to how many texts of a term are counted: beyond, it is common."""

STEMMER = "snowballstemmer"
"""The library of stems, loaded on first use: it holds those of thirty languages."""

ENOUGH = 1_000
"""So many texts that share a rare term are enough to find the best among: who shares none of those is not of them."""

_one_at_a_time = threading.Lock()  # a stemmer keeps the word that it is at


def terms(text: str) -> list[str]:
    """Return the terms a text is to be found by, in order."""
    words = _words(text)
    english = is_english(filter(latin, words))
    found: list[str] = []
    for word in words:
        stem = word if english is False else _stem(word)
        found += _forms(word) if english is None or stem == word else []
        found += [stem] if stem != word else []
    return found


class Asked:
    """
    The terms of a question.

    Words of another language than English are looked for by their stem where nobody has written them as they are: they
    may be a name in an English text.
    """

    def __init__(self, question: str) -> None:
        words = list(dict.fromkeys(_words(question)))[:MOST_ASKED]
        foreign = is_english(filter(latin, words)) is False
        self._instead = {stem: word for word in words if (stem := _stem(word)) != word} if foreign else {}
        self.terms = list(dict.fromkeys(form for word in words for form in (*_forms(word), _stem(word))))
        """Those whose number of texts decides what is looked for."""

    def rarest(self, counted: Mapping[str, int]) -> list[str]:
        """
        Return the terms that are worth looking for, the rarest first.

        A language written in syllables, or with marks, has twenty terms in a short question, each of which tells
        something.

        Args:
            counted: in how many texts each term stands, up to `MOST_COUNTED`.

        """
        there = {term: counted[term] for term in self.terms if counted.get(term)}
        chosen: list[str] = []
        postings = 0
        for term in sorted(there, key=lambda term: there[term]):
            if self._instead.get(term) in there:
                continue
            postings += there[term]
            if len(chosen) >= MOST_TERMS or (len(chosen) >= LEAST_TERMS and postings > MOST_POSTINGS):
                break
            chosen.append(term)
        return chosen


def leading(rarest: Sequence[str], counted: Mapping[str, int]) -> list[str]:
    """Return the rarest terms that stand in `ENOUGH` texts together, for an index that can look among those only."""
    found = 0
    for at, term in enumerate(rarest):
        found += counted[term]
        if found >= ENOUGH:
            return list(rarest[: at + 1])
    return list(rarest)


def without_marks(word: str) -> str:
    """Return a lower-case word without the marks over and under its letters."""
    parts = unicodedata.normalize("NFKD", word.translate(_NO_MARKS))
    return unicodedata.normalize("NFC", "".join(part for part in parts if not unicodedata.combining(part)))


def latin(word: str) -> bool:
    """Whether a word is written in Latin letters."""
    return word.isascii() or without_marks(word.casefold()).isascii()


def latin_words(text: str) -> list[str]:
    """Return the words of a text that are written in Latin letters, in lower case."""
    return list(filter(latin, _words(text)))


def _words(text: str) -> list[str]:
    words: list[str] = []
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if not _WITHOUT_SPACES.match(run):
            words.append(run[:MAX_TERM])
        else:
            words += [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
    return words


def _forms(word: str) -> list[str]:
    bare = word if word.isascii() or _WITHOUT_SPACES.match(word) else without_marks(word)
    return [word] if bare == word else [bare, word]


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    """Return what English has of a word; one with marks is none of its words."""
    if not word.isascii():
        return word
    with _one_at_a_time:
        stem: str = _stemmer().stemWord(word)
    return stem


@cache
def _stemmer() -> Any:
    return import_module(STEMMER).stemmer("english")
