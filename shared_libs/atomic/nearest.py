"""The names that a wrong one is most like, for the hint of an error; foreign on both sides, so the work is bounded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

WORK = 200_000
"""Pairs of characters that are compared at most: about 20 ms."""


def names_like(wrong: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the names that are like a wrong one, the nearest first; of very many names the first are looked at."""
    left = WORK
    looked_at: list[str] = []
    for name in known:
        left -= (len(wrong) + 1) * (len(name) + 1)
        if left < 0:
            break
        looked_at.append(name)
    return difflib.get_close_matches(wrong, looked_at, most)
