"""
Patterns that are compiled when they are first used, for modules of which most runs use none: they are many.

What every run uses is compiled as its module is loaded: in a run it would hold the event loop.
"""

from __future__ import annotations

import re
from typing import Any, cast

_USES = ("search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer", "groups", "groupindex", "flags")


class _Late:
    """Stands for a pattern; from its first use on it has what that has, and costs what that costs."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        if name not in _USES:
            raise AttributeError(name)
        compiled = re.compile(self.pattern, self._flags)
        vars(self).update({use: getattr(compiled, use) for use in _USES})
        return getattr(compiled, name)


def late(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Return a pattern for `re`'s syntax and flags; what is wrong with it is told at its first use."""
    return cast("re.Pattern[str]", _Late(pattern, flags))
