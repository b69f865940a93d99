"""
What things are called: one key for all spellings of a name, and the names a question holds.

The key is without case, marks over letters, punctuation, a leading article and what companies carry beside their name;
so `The ACME Corp.`, `Acme Corporation` and `acmé` are one. `C`, `C++` and `C#` are three. It is never shown: the first
spelling seen is the name.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

from shared_libs.atomic.patterns import late
from shared_libs.retrieval.words import without_marks

MOST_WORDS = 6
"""Words of a name that is looked for in a question."""

LEAST = 4
"""Characters of such a name, where its script has letters; in capitals, with a digit and of Chinese two are enough."""

LOOKED_AT = 400
"""Characters of a question in which names are looked for."""

_FORMS = (
    "inc|incorporated|ltd|limited|llc|llp|lp|plc|corp|corporation|co|company|gmbh|ag|kg|se|sa|s a|sas|sarl|srl|spa|bv"
    "|nv|oy|ab|as|aps|ltda|limitada|sociedade anonima|eireli|jsc|tnhh|cp|pty|pvt|private|sdn|bhd|oyj|kk|doo|sro"
    "|joint stock|aktiengesellschaft|gesellschaft mit beschrankter haftung|주식회사"
)
_BEHIND = late(rf"(?: (?:{_FORMS}))+$")
_BEFORE = late(
    "^(?:ооо|оао|зао|пао|주식회사|주|株"  # noqa: RUF001 - in the letters they are in
    "|(?:tong )?cong ty(?: (?:tnhh|trach nhiem huu han|cp|co phan|mtv|mot thanh vien))*) (?=.)"
)
_ARTICLE = late("^(?:the|a|an) (?=.)")
_JOINED_BEFORE = ("株式会社", "有限会社", "주식회사")
_FORMS_BEHIND = ("股份有限公司", "有限责任公司", "有限公司", "公司", "株式会社", "주식회사")
_JOINED = late(r"[.'’`´]")  # noqa: RUF001 - apostrophes as they are typed
_BESIDE_NUMBERS = late(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_CJK = late(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]+")
_LONG_RUN = late(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]+")
"""Thai, Lao, Tibetan, Burmese, Khmer: without spaces, in letters."""


def canonical(name: str) -> str:
    """Return the key of a name; empty where it has no letter or digit."""
    folded = without_marks(unicodedata.normalize("NFKC", name).casefold())
    parts = _parts(_BESIDE_NUMBERS.sub(" ", _JOINED.sub("", folded).replace("&", " and ")))
    key = " ".join(word for part in parts if (word := part.lstrip("+#")))
    for beside in (_BEHIND, _BEFORE, _ARTICLE):
        key = beside.sub("", key)
    for form in _JOINED_BEFORE:
        key = key.removeprefix(form) or key
    for form in _FORMS_BEHIND:
        if key.endswith(form) and len(key) > len(form):
            return key.removesuffix(form)
    return key


def _parts(folded: str) -> list[str]:
    """Part a name at what is no letter, mark or number; a sign behind a letter tells languages apart."""
    return "".join(sign if sign in "+#" or unicodedata.category(sign)[0] in "LMN" else " " for sign in folded).split()


def entity_id(name: str) -> str:
    """Return the id of what a name stands for."""
    return blake2b(canonical(name).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def possible_names(question: str) -> list[str]:
    """Return the keys of all that a question might name, longest first."""
    text = question[:LOOKED_AT]
    found: dict[str, None] = {}
    composed = unicodedata.normalize("NFKC", text)
    for runs, least, most in ((_CJK.findall(composed), 2, 8), (_LONG_RUN.findall(composed[: LOOKED_AT // 2]), 4, 20)):
        for run in runs:
            for size in range(min(most, len(run)), least - 1, -1):
                found.update((run[at : at + size], None) for at in range(len(run) - size + 1))
    words = text.split()
    for size in range(min(MOST_WORDS, len(words)), 0, -1):
        for at in range(len(words) - size + 1):
            name = " ".join(words[at : at + size])
            key = canonical(name)
            if len(key) >= LEAST or (len(key) > 1 and name.upper() == name):
                found[key] = None
    return list(found)
