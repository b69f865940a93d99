"""
What things are called: one key for all spellings of a name, and the names a question holds.

The key is without case, marks over letters, punctuation, a leading article and what companies carry behind their name;
so `The ACME Corp.`, `Acme Corporation` and `acmé` are one. It is never shown: the first spelling seen is the name.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from shared_libs.retrieval.words import without_marks

MOST_WORDS = 6
"""Words of a name that is looked for in a question."""

LEAST = 4
"""Characters of such a name, where its script has letters; of Chinese two are enough."""

LOOKED_AT = 400
"""Characters of a question in which names are looked for."""

_FORMS = {
    *("inc", "incorporated", "ltd", "limited", "llc", "llp", "lp", "plc", "corp", "corporation", "co", "company"),
    *("gmbh", "ag", "kg", "se", "sa", "sas", "sarl", "srl", "spa", "bv", "nv", "oy", "ab", "as", "aps", "ltda"),
    *("eireli", "jsc", "tnhh", "cp"),
}
_FORMS_BEHIND = ("股份有限公司", "有限责任公司", "有限公司", "公司", "株式会社")
_JOINED = re.compile(r"[.'’`´]")  # noqa: RUF001 - apostrophes as they are typed
_APART = re.compile(r"[\W_]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def canonical(name: str) -> str:
    """Return the key of a name; empty where it has no letter or digit."""
    folded = without_marks(unicodedata.normalize("NFKC", name).casefold())
    words = _APART.sub(" ", _JOINED.sub("", folded)).split()
    while len(words) > 1 and words[-1] in _FORMS:
        words.pop()
    if len(words) > 1 and words[0] in ("the", "a", "an"):
        words.pop(0)
    key = " ".join(words)
    for form in _FORMS_BEHIND:
        if key.endswith(form) and len(key) > len(form):
            return key.removesuffix(form)
    return key


def entity_id(name: str) -> str:
    """Return the id of what a name stands for."""
    return blake2b(canonical(name).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def possible_names(question: str) -> list[str]:
    """Return the keys of all that a question might name, longest first."""
    text = question[:LOOKED_AT]
    found: dict[str, None] = {}
    for run in _CJK.findall(unicodedata.normalize("NFKC", text)):
        for size in range(min(8, len(run)), 1, -1):
            found.update((canonical(run[at : at + size]), None) for at in range(len(run) - size + 1))
    words = text.split()
    for size in range(min(MOST_WORDS, len(words)), 0, -1):
        for at in range(len(words) - size + 1):
            key = canonical(" ".join(words[at : at + size]))
            if len(key) >= LEAST:
                found[key] = None
    return list(found)
