"""Foreign text on a terminal: what could steer it is taken out."""

from __future__ import annotations

import re
import unicodedata

from shared_libs.observability.escapes import ESCAPE

_ESCAPE = re.compile(ESCAPE + r"|\r(?=\n)")

_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u3164\uffa0]")
"""Letters and separators that take no room, or that of a blank."""

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def printable(text: str) -> str:
    """
    Return a text as a terminal may show it.

    Control characters are taken out (lines and tabs are kept), and so is what is no Unicode. What is not seen, or turns
    the direction of what is, stands as its escape; joiners stay between letters that are joined by them.
    """
    text = _ESCAPE.sub("", text)
    text = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text if text.isprintable() else "".join(_shown(text, index) for index in range(len(text)))


def presentable(text: str) -> str:
    """Return a text as it may be shown to whoever watches a run: printable, its secrets masked."""
    from shared_libs.observability.redact import redact_text  # a list of runs need not wait for its patterns

    return printable(redact_text(text))


def _shown(text: str, index: int) -> str:
    char = text[index]
    if char in "\n\t" or char.isprintable():
        return char
    category = unicodedata.category(char)
    if category in ("Cc", "Cs"):
        return "\N{REPLACEMENT CHARACTER}"
    if category == "Cf" and not (char in _JOINERS and not text[index - 1 : index + 2].replace(char, "x", 1).isascii()):
        return char.encode("unicode_escape").decode()
    return char
