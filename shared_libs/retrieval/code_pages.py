"""
Old texts of one byte a letter: which code page they were written in.

One byte is `è` in Paris, `č` in Prague and `ė` in Vilnius. What tells them apart is that a text is of one language, and
every language has few letters beyond ASCII: read by a wrong page, it has letters that no one language has together.
Another alphabet is told by which of its letters are many: by a wrong page, the rare ones are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

_WEST = ("cp1252", "cp850", "mac_roman")
_MIDDLE = ("cp1250", "iso8859_2", "cp852")

_LETTERS = {
    **dict.fromkeys(("äöüß", "àâæçèéêëîïôœùûüÿ", "áàâãçéêíóôõúü", "áàçèéíïñòóúü", "àèéìíîòóùú", "åäöéü"), _WEST),
    **dict.fromkeys(("æøåéèêóòâôü", "áðéíóúýþæö", "ëéèïöüóáêûôâ", "ëç"), _WEST),
    "äöõüšž": (*_WEST, "cp1257"),
    **dict.fromkeys(("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž"), _MIDDLE),
    "çğıöşüâîû\u0307": ("cp1254", "cp857"),
    **dict.fromkeys(("ąčęėįšųūž", "āčēģīķļņšūž"), ("cp1257", "iso8859_13", "cp775")),
}
"""
The letters of German, French, Portuguese, Spanish, Italian, Swedish; Danish, Icelandic, Dutch, Albanian; Estonian;
Polish, Czech, Slovak, Hungarian, Romanian, Croatian; Turkish; Lithuanian, Latvian; and what they were written in.
"""

_CYRILLIC = ("cp1251", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic", "cp855")
_ALPHABETS = {
    "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё": _CYRILLIC,
    "оанивіетрслкудмпзяьбгйчхцжюїєшщфґ": _CYRILLIC,
    "аиоетнрсвлкдпмзяъубгчщхцжшйюфь": _CYRILLIC,
    "аоиенрсјтудклпмвзгбчшцжхњћљђфџ": _CYRILLIC,
    "анеіортсклвыдпмузяўьгбчйшжцхюэфё": _CYRILLIC,
    "αοιετσνηρπκμλυςγδωχθφβξζψάέήίόύώϊϋΐΰ": ("cp1253", "iso8859_7", "cp737", "cp869", "mac_greek"),
    "יוהלאתרשמבםנןדפףקעחכךגצץטסז": ("cp1255", "cp862"),
}
"""The letters of Russian, Ukrainian, Bulgarian, Serbian, Belarusian, Greek and Hebrew, the most frequent first."""

_LOOKED_AT = 4_096
_USUAL = 12.0
"""The place in their alphabet that letters of a text have in the mean, or less (of pangrams 11.7; most have 6 to 9)."""

_SIGNS = frozenset("\u00a0\u00ad„“”‚‘’‹›«»–—…•·§€£¥©®™°±×÷½¼¾¿¡ºª")  # noqa: RUF001 - as they stand in texts
_NOT_WITHIN = frozenset("€£¥±÷½¼¾¿¡")
_ENOUGH = 0.97
"""Share of the letters that have to be of the language: there are foreign names."""


def latin_code_page(body: bytes) -> str | None:
    """Return the code page by which the letters of a text are those of one language; cp1252 if it may be; or None."""
    beyond = Counter((byte, 97 <= before <= 122) for before, byte in pairwise(b" " + body) if byte > 0x7F)
    fits = [(share, page) for share, page in _shares(beyond) if share >= _ENOUGH]
    if any(page == "cp1252" for _, page in fits):
        return "cp1252"
    return max(fits, key=lambda one: one[0])[1] if fits else None


def alphabet_code_page(body: bytes) -> str | None:
    """Return the code page by which a text is of an alphabet that is not Latin, its letters as frequent; or None."""
    best = (_USUAL, "")
    for page in dict.fromkeys(page for pages in _ALPHABETS.values() for page in pages):
        text = body[:_LOOKED_AT].decode(page, "replace")
        told = Counter(sign.lower() for sign in text if sign > "\x7f" and sign not in _SIGNS)
        turned = sum(map(_is_odd, text, text[1:]))
        for letters, pages in _ALPHABETS.items():
            good = sum(told[sign] for sign in letters)
            if page in pages and good - turned >= _ENOUGH * told.total() > 0:
                place = sum(at * told[sign] for at, sign in enumerate(letters)) / good
                best = min(best, (place + 100 * (told.total() - good) / good, page))
    return best[1] or None


def _is_odd(before: str, sign: str) -> bool:
    """Whether no word is written so: a capital behind a small letter, Latin ones beside others, a currency within."""
    if not (before.isalpha() and sign.isalpha()):
        return before.isalpha() and sign in _NOT_WITHIN
    return (before < "\x80") != (sign < "\x80") or (before > "\x7f" and before.islower() and sign.isupper())


def _shares(beyond: Counter[tuple[int, bool]]) -> Iterator[tuple[float, str]]:
    """
    Yield for every language and page which share of the signs beyond ASCII that are no punctuation it has.

    Args:
        beyond: how often each byte stands there, and whether behind a small letter, where there is no capital one.

    """
    for letters, pages in _LETTERS.items():
        for page in pages:
            read = {byte: bytes([byte]).decode(page, "replace") for byte, _ in beyond}
            good = every = 0
            for (byte, inside), count in beyond.items():
                if read[byte] not in _SIGNS:
                    every += count
                    there = set(read[byte].lower()) <= {*letters, "i"}
                    good += count * (there and not (inside and read[byte].isupper()))
            if 2 * every > beyond.total():
                yield good / every, page
