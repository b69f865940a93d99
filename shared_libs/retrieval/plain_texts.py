r"""
Bytes as text: how a file is written that is not UTF-8, and what its form writes otherwise than it is read.

JSON writes `\u5e74` and `\n`, XML `&#24180;`: nobody asks for those, so what is indexed has the signs that they mean.
"""

from __future__ import annotations

import json
import re
from html import unescape

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import optional
from shared_libs.atomic.page_text import BYTE_ORDER_MARKS, declares_charset, decoded, is_utf8, readable
from shared_libs.retrieval.code_pages import alphabet_code_page, latin_code_page

_JSON = (".json", ".jsonl", ".ndjson")
_PAGES = (".html", ".htm", ".xhtml")
_MARKUP = (*_PAGES, ".xml")
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[\"\\/bfnrt]")

_ASCII = bytes(range(128))
_GUESSED = 65_536
"""Bytes that tell how a text is written."""

_NOT_LATIN, _TELLING = 4, 16
"""Of letters that are not Latin one byte in four is beyond ASCII (accents: one in ten); less than 16 tell nothing."""

_HIRAGANA = re.compile(r"[\u3041-\u3096]")
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\r\f\x1b"))
_MOST_CONTROLS = 0.01
"""Share of characters that no text has; a log that was cut off has some."""


def text_of(body: bytes, kind: str = "", charset: str | None = None) -> str:
    """
    Return what a file of text tells; a page without its markup.

    Args:
        body: what it holds.
        kind: the ending of its name, or of the name of what it is like.
        charset: how it says that it is written, as far as that is known from elsewhere.

    Raises:
        MisuseError: it is no text.

    """
    markup = kind in _MARKUP
    text = decoded(body, charset or charset_of(body, markup=markup), is_html=markup)
    if kind in _PAGES:
        return readable(text, "")
    if kind in _JSON:
        return _ESCAPED.sub(_meant, text)
    return unescape(text) if markup else text


def _meant(escaped: re.Match[str]) -> str:
    """Return the signs of an escape; half a sign stays as it is written."""
    signs: str = json.loads(f'"{escaped[0]}"')
    return signs.encode("utf-8", "backslashreplace").decode()


def charset_of(body: bytes, *, markup: bool = False) -> str | None:
    """
    Name how a text is written that is not UTF-8: old Polish, Turkish, Chinese, Japanese, Russian files.

    None: it says so itself, is UTF-8, or has too little beyond ASCII to tell.

    Raises:
        MisuseError: it is no text.
        NotInstalled: it is none in Latin letters, and what could tell is missing.

    """
    if body.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS)):
        return None
    lines = body[:_GUESSED].rpartition(b"\n")[0] if len(body) > _GUESSED else b""
    told = lines or body[: 16 * _GUESSED]
    if b"\0" in told and (wide := _wide(body[:_GUESSED])):
        return wide
    if len(told) - len(told.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(told):
        raise MisuseError("it is no text, and of no other kind that is read: PDF, office, mail, notebook, book")
    if markup and declares_charset(body):
        return None
    beyond = len(told.translate(None, _ASCII))
    if not beyond and b"\x1b$" in told:
        return "iso2022_jp_2"
    if beyond < _TELLING // 2 or is_utf8(told):
        return None
    if page := latin_code_page(told):
        return page
    if beyond < max(_TELLING, len(told) // _NOT_LATIN):
        return None
    if page := alphabet_code_page(told):
        return page
    if _is_japanese(told):
        return "euc_jp"
    guesser = optional("charset_normalizer", "a text that is not UTF-8")
    best = guesser.from_bytes(told).best()
    return None if best is None else str(best.encoding)


def _is_japanese(body: bytes) -> bool:
    """Whether it is EUC-JP, which is Korean or Chinese as well by its form: one sign in ten is hiragana."""
    try:
        text = body.decode("euc_jp")
    except UnicodeDecodeError:
        return False
    return 10 * len(_HIRAGANA.findall(text)) > len(text)


def _wide(body: bytes) -> str | None:
    """Tell UTF-16 without its mark: the wrong way round, ASCII is signs that end in a zero byte."""
    likely, least = None, len(body) // 4
    for name in ("utf-16-le", "utf-16-be"):
        text = body.decode(name, "ignore")
        odd = sum(not ord(sign) & 0xFF for sign in text)
        if odd < least and 2 * len(text) >= len(body) - 2 and all(map(_readable, text)):
            likely, least = name, odd
    return likely


def _readable(sign: str) -> bool:
    return sign.isprintable() or sign.isspace()
