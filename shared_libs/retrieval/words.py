"""
Words of any language, for every index that knows words: the one place where a text becomes terms.

Chinese, Japanese and Thai are written without spaces, so their runs become overlapping pairs of characters (what
Lucene's CJK analyser does). A word with marks over its letters stands twice, as it is and without them: Vietnamese and
Portuguese are often typed without, and what was typed with them weighs more. Stemming is the index's business.
"""

from __future__ import annotations

import re
import unicodedata

_SCRIPTS_WITHOUT_SPACES = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"[{_SCRIPTS_WITHOUT_SPACES}]+|[^\W_{_SCRIPTS_WITHOUT_SPACES}]+")
_WITHOUT_SPACES = re.compile(rf"[{_SCRIPTS_WITHOUT_SPACES}]")
_NO_MARKS = str.maketrans("đøłħıŧ", "dolhit")  # letters of their own, which no normal form takes apart

MAX_TERM = 64
"""Characters of a term; longer ones are no words."""


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
