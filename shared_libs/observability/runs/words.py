"""Full text without a language: what counts as a word, alike for every database and every alphabet."""

from __future__ import annotations

import unicodedata

from shared_libs.atomic.patterns import late

_WORD = late(r"[^\W_]+")
_UNSPACED = late(
    # alphabets that set no spaces between words: each character counts as one, and a word is a phrase of them
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])"
)


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case and without accents."""
    plain = text
    if not text.isascii():
        plain = unicodedata.normalize("NFKD", text)
        plain = "".join(char for char in plain if not unicodedata.combining(char))
        plain = _UNSPACED.sub(r" \1 ", plain)
    return _WORD.findall(plain.casefold())


def phrases_of(query: str) -> list[list[str]]:
    """Return the phrases of a query, which all have to be there: one for each part between spaces."""
    return [phrase for part in query.split() if (phrase := words_of(part))]
