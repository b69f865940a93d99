"""
Words of any language, for every index that knows words: the one place where a text becomes terms.

Chinese, Japanese and Thai are written without spaces, so their runs become overlapping pairs of characters (what
Lucene's CJK analyser does). A word with marks over its letters stands twice, as it is and without them: Vietnamese and
Portuguese are often typed without, and what was typed with them weighs more. Stemming is the index's business.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_SCRIPTS_WITHOUT_SPACES = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"[{_SCRIPTS_WITHOUT_SPACES}]+|[^\W_{_SCRIPTS_WITHOUT_SPACES}]+")
_WITHOUT_SPACES = re.compile(rf"[{_SCRIPTS_WITHOUT_SPACES}]")
_NO_MARKS = str.maketrans("đøłħıŧ", "dolhit")  # letters of their own, which no normal form takes apart

MAX_TERM = 64
"""Characters of a term; longer ones are no words."""

LEAST_TERMS, MOST_TERMS = 8, 32
"""Of a longer question so many terms are looked for at least, the rarest, and so many at most."""

MOST_POSTINGS = 5_000
"""Beyond the least, terms are looked for while they stand in so few texts together: common ones cost the time."""


def terms(text: str) -> list[str]:
    """Return the terms of a text, in order."""
    found: list[str] = []
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _WITHOUT_SPACES.match(run):
            found += [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
            continue
        word = run[:MAX_TERM]
        if word.isascii():
            found.append(word)
            continue
        bare = without_marks(word)
        found += [word] if bare == word else [bare, word]
    return found


def without_marks(word: str) -> str:
    """Return a lower-case word without the marks over and under its letters."""
    parts = unicodedata.normalize("NFKD", word.translate(_NO_MARKS))
    return "".join(part for part in parts if not unicodedata.combining(part))


def rarest(counted: Mapping[str, int]) -> list[str]:
    """
    Return those of a question's terms that are worth looking for, the rarest first.

    A language written in syllables, or with marks, has twenty terms in a short question, each of which tells something.

    Args:
        counted: in how many texts each term stands.

    """
    chosen: list[str] = []
    postings = 0
    for term in sorted(counted, key=lambda term: counted[term]):
        postings += counted[term]
        if len(chosen) >= MOST_TERMS or (len(chosen) >= LEAST_TERMS and postings > MOST_POSTINGS):
            break
        chosen.append(term)
    return chosen
