"""
Words of any language, for every index that knows words: the one place where a text becomes terms.

Chinese, Japanese and Thai are written without spaces, and Korean puts its particles at the end of words: their runs
become overlapping pairs of characters (what Lucene's CJK analyser does), in texts single ones too. A word with marks
over its letters stands twice, as it is and without them: Vietnamese and Portuguese are often typed without, and what
was typed with them weighs more; German umlauts stand as `ae` too, Arabic and Hebrew words without their article too.
What is typed with a sign in between or without (`e-mail`, `ERR-4711`, `U.S.A.`, `RTX4090`) stands both ways.

English words stand by their stem, those of a text that does not tell its language (names, tables, code) by both; the
words of other languages stay as they are, since the rules of English only make others of them.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from shared_libs.atomic.patterns import late
from shared_libs.retrieval.english import is_english

_NO_SPACES = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Scripts that are written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese; and Korean."""

_ALONE = late("[\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]")
"""Characters that are words: of Chinese and Korean."""

_PICTURES = "\u2600-\u27bf\u2b50\U0001f1e6-\U0001f1ff\U0001f300-\U0001f3fa\U0001f400-\U0001faff"

_PARTS_OF_WORDS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u0730-\u074a\u07a6-\u07b0\u0900-\u0963\u0966-\u096f\u0971-\u0dff"
)
"""Marks and vowel signs, which to Python are no letters."""

_RUN = late(rf"[{_NO_SPACES}]+|(?:[^\W_{_NO_SPACES}]|[{_PARTS_OF_WORDS}])+|[{_PICTURES}]")
_WITHOUT_SPACES = late(rf"[{_NO_SPACES}]")
_PICTURE = late(rf"[{_PICTURES}]")
_NO_MARKS = str.maketrans("đøłħıŧىیکةہ", "dolhitييكهه", "\u0640")  # noqa: RUF001 - as they are typed
"""Letters of their own, which no normal form takes apart; Arabic ones as Persians type them; its line to stretch."""

_MARKS = late(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u06df-\u06e8\u06ea-\u06ed\u0730-\u074a\u093c\u09bc\u0a3c\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
)
"""Of Latin, Greek, Cyrillic, Hebrew, Arabic letters; in Thai, Hindi, Japanese a word without its marks is another."""

_TYPED_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "æ": "ae"})
_ARTICLE = late("\\A(?:[وبكف]?ال|لل|ה)(?=...)")
_LETTERS_AND_NUMBER = late(r"([^\W\d_]{1,12})(\d{1,8})|(\d{1,8})([^\W\d_]{1,12})")
_JOINERS = "-.'\u2010\u2011\u2019"

MOST_JOINED = 6
"""Of how many parts a word is written as one, too: a UUID has five."""

VERSION = 2
"""Of what a text becomes: texts that were indexed by another one are indexed anew."""

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
    words = _words(text, alone=True)
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
    """Return a lower-case word without the marks over and under its letters, where a script can do without."""
    parts = unicodedata.normalize("NFKD", word.translate(_NO_MARKS))
    return unicodedata.normalize("NFC", _MARKS.sub("", parts))


def latin(word: str) -> bool:
    """Whether a word is written in Latin letters."""
    return word.isascii() or without_marks(word.casefold()).isascii()


def latin_words(text: str) -> list[str]:
    """Return the words of a text that are written in Latin letters, in lower case."""
    return list(filter(latin, _words(text)))


def _words(text: str, *, alone: bool = False) -> list[str]:
    text = unicodedata.normalize("NFKC", text).casefold()
    words: list[str] = []
    parts: list[str] = []
    signs, end = set[str](), -1
    for found in _RUN.finditer(text):
        run = found[0]
        if found.start() != end + 1 or text[end] not in _JOINERS:
            words += _joined(parts, signs)
            parts, signs = [], set()
        else:
            signs.add(text[end])
        end = found.end()
        if _WITHOUT_SPACES.match(run):
            pairs = [run[at : at + 2] for at in range(len(run) - 1)]
            words += pairs + (_ALONE.findall(run) if alone else []) if pairs else [run]
        elif _PICTURE.match(run):
            words.append(f"u{ord(run):x}")  # to the indexes a picture is no part of a word
        else:
            words.append(run[:MAX_TERM])
            parts.append(run)
            if both := _LETTERS_AND_NUMBER.fullmatch(run):
                words += filter(None, both.groups())
    return words + _joined(parts, signs)


def _joined(parts: list[str], signs: set[str]) -> list[str]:
    """Return what parts that stand side by side are when they are written as one; a number with a point is another."""
    one = "".join(parts)
    if not 1 < len(parts) <= MOST_JOINED or len(one) > MAX_TERM or (one.isdigit() and signs != {"-"}):
        return []
    if "." in signs and len(parts) > 2 and len(one) > len(parts):  # a path of a program, and no U.S.A.
        return []
    return [one]


def _forms(word: str) -> list[str]:
    if word.isascii() or _WITHOUT_SPACES.match(word):
        return [word]
    bare = without_marks(word)
    return list(dict.fromkeys((bare, word, without_marks(word.translate(_TYPED_OUT)), _ARTICLE.sub("", bare, 1))))


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
