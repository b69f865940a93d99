"""
The names under which secrets stand: one list for whatever masks, hides or refuses them.

A name tells by its end: `db_password` holds one, `password_hint` none. Names that are ordinary words as well
(`session`, `signature`) tell in data, a header or a query, and in prose only before something that looks like a secret.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

_SUFFIX = (
    r"(?:[_-]?\d{1,3}"
    r"|[_-](?:base|salt|value|old|new|prod|dev|test|staging|live|main|primary|secondary|backup|hash|plain|string|header)"
    r"|(?-i:(?<=[a-z])(?:Value|String|Header)))?"
)
"""What may stand behind such a name, and changes nothing."""

STRONG = (
    r"(?:pass[_-]?w(?:or)?[dt]s?|kennwort|contrase(?:\u00f1|n)a|mot[ _-]de[ _-]passe|senha"
    r"|\u043f\u0430\u0440\u043e\u043b\u044c|\u5bc6\u7801|\u5bc6\u78bc|\u30d1\u30b9\u30ef\u30fc\u30c9|\ube44\ubc00\ubc88\ud638"
    r"|pass[ _-]?phrases?|passcode|pwd|psk|(?:seed|recovery)[_-]?phrase|secrets?|token"
    r"|(?:access|refresh|auth|api|bearer|id|session)[_-]?tokens"
    r"|authorization|amz-signature|shared[_-]?access[_-]?signature|jwts?|credentials?|cookies?|phpsessid|jsessionid|sessionid|connect\.sid"
    r"|(?:api|access|private|secret|account|signing|encryption|master|auth|client|service|subscription|storage|license"
    r"|instrumentation|pre[ _-]?shared|shared[_-]?access|ssh|deploy)[ _-]?keys?|(?<=[a-z0-9][_-])pw)" + _SUFFIX
)
"""Names that are secrets wherever they stand, as a regular expression without regard to case."""

WEAK = r"(?<![a-z0-9])(?:pass|pw|bearer|auth(?:[_-]?header)?|creds|dsn|session|signature|sig|mnemonic)"
"""Names that are ordinary words too."""

LOUD = (
    r"(?-i:(?<![A-Za-z0-9_])(?!(?:[A-Z0-9]+_)*(?:PRIMARY|FOREIGN|UNIQUE|SORT|CACHE|PARTITION|IDEMPOTENCY)_KEY)"
    r"(?:[A-Z0-9]{1,40}_){1,8}(?:KEYS?|PAT))"
)
"""Environment variables such as `OPENAI_KEY`."""

_HEADER_KEY = r"x-(?:[a-z0-9]+-){0,6}key"
_DATA = re.compile(rf"(?:.*(?:{STRONG}|{WEAK})|{LOUD}|{_HEADER_KEY})", re.IGNORECASE | re.DOTALL)
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
