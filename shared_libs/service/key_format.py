"""
What a key looks like: `fk_<id>_<secret>_<check>`.

The id finds its row. The check, a CRC, lets scanners find keys that leaked, and us refuse a typing error without asking
a store. A secret is 32 random bytes, so a keyed hash of it, and no slow one, is all that has to be kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import NamedTuple

_FORM = re.compile(r"fk_([0-9a-z]{8})_([A-Za-z0-9_-]{43})_([0-9A-Za-z]{6})", re.ASCII)
_ID_CHARS = string.digits + string.ascii_lowercase
_CHECK_CHARS = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Key(NamedTuple):
    """A key in its parts."""

    id: str
    secret: str

    @classmethod
    def new(cls) -> Key:
        """Make one."""
        return cls("".join(secrets.choice(_ID_CHARS) for _ in range(8)), secrets.token_urlsafe(32))

    @classmethod
    def read(cls, text: str) -> Key | None:
        """Read a key; None where it is none, or was mistyped."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        key = cls(match[1], match[2])
        return key if match[3] == key.check else None

    @property
    def check(self) -> str:
        """Its checksum, six characters."""
        rest, told = zlib.crc32(f"fk_{self.id}_{self.secret}".encode()), ""
        for _ in range(6):
            rest, digit = divmod(rest, len(_CHECK_CHARS))
            told = _CHECK_CHARS[digit] + told
        return told

    def hash(self, pepper: str) -> str:
        """Return what is kept of it; `pepper` is a secret of the service that is not kept beside it."""
        return hmac.new(pepper.encode(), f"{self.id}.{self.secret}".encode(), hashlib.sha256).hexdigest()

    def fits(self, kept: str, pepper: str) -> bool:
        """Whether it is the one that was kept; takes the same time either way."""
        return hmac.compare_digest(self.hash(pepper), kept)

    def __str__(self) -> str:
        return f"fk_{self.id}_{self.secret}_{self.check}"

    def __repr__(self) -> str:
        return f"Key({self.id!r})"
