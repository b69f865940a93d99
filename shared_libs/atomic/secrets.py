"""
The names under which secrets stand: one list for whatever masks, hides or refuses them.

A name tells by its end: `db_password` holds one, `password_hint` none. Names that are ordinary words as well
(`session`, `signature`) tell in data, a header or a query, and in prose only before something that looks like a secret.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

STRONG = (
    r"passw(?:or)?ds?|passphrases?|passcode|pwd|secrets?|token"
    r"|(?:access|refresh|auth|api|bearer|id|session)[_-]?tokens"
    r"|authorization|amz-signature|shared[_-]?access[_-]?signature|jwts?|credentials?|cookies?|phpsessid|jsessionid|sessionid|connect\.sid"
    r"|(?:api|access|private|secret|account|signing|encryption|master|auth|client|service|subscription|storage|license"
    r"|shared[_-]?access|ssh|deploy)[_-]?keys?"
)
"""Names that are secrets wherever they stand, as a regular expression without regard to case."""

WEAK = r"(?<![a-z0-9])(?:pass|auth|creds|dsn|session|signature|sig)"
"""Names that are ordinary words too."""

LOUD = (
    r"(?-i:(?<![A-Za-z0-9_])(?!(?:[A-Z0-9]+_)*(?:PRIMARY|FOREIGN|UNIQUE|SORT|CACHE|PARTITION|IDEMPOTENCY)_KEY)"
    r"(?:[A-Z0-9]{1,40}_){1,8}(?:KEYS?|PAT))"
)
"""Environment variables such as `OPENAI_KEY`."""

_HEADER_KEY = r"x-(?:[a-z0-9]+-){0,6}key"
_DATA = re.compile(
    rf"(?:.*(?:{STRONG.replace('(?<!', '(?<!')}|{WEAK})|{LOUD}|{_HEADER_KEY})", re.IGNORECASE | re.DOTALL
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MOST = 200


def names_a_secret(name: str) -> bool:
    """Whether a key of data, a header, a variable or an option holds a secret, by its name."""
    return _tells(name[-_MOST:])


@lru_cache(maxsize=4096)
def _tells(name: str) -> bool:
    """The same few names come again and again."""
    end = name.strip().strip("-")
    return _DATA.fullmatch(end) is not None or _DATA.fullmatch(_CAMEL.sub("_", end)) is not None


def private(path: str, flags: int) -> int:
    """Open a file that only its owner reads, where it is new: an `opener` for what holds the words of a run."""
    return os.open(path, flags, 0o600)
