"""Runs that wait for their client: kept for a while, and given back to nobody but the team that began them."""

from __future__ import annotations

import asyncio
from typing import Any

PAUSE_TTL_S = 900.0
"""How long a run waits for its client's results, in seconds."""

MOST = 1000
"""How many runs may wait; the oldest give way."""


class PausedRuns:
    """The runs that wait, in this process."""

    def __init__(self, ttl_s: float = PAUSE_TTL_S, most: int = MOST) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._waiting: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}

    def keep(self, team: str, run_id: str, state: dict[str, Any]) -> None:
        """Keep a paused run's state."""
        now = asyncio.get_running_loop().time()
        self._waiting.pop((team, run_id), None)
        for key, (until, _) in list(self._waiting.items()):
            if until > now and len(self._waiting) < self._most:
                break
            del self._waiting[key]
        self._waiting[team, run_id] = (now + self._ttl_s, state)

    def forget(self, team: str, run_id: str) -> None:
        """Let go of a run that waits no more."""
        self._waiting.pop((team, run_id), None)

    def find(self, team: str, run_id: str) -> dict[str, Any] | None:
        """
        Return the state of a run that waits; None where it has waited too long, is another team's, or never was.

        It stays: a client that repeats its request gets the same again.
        """
        until, state = self._waiting.get((team, run_id), (0.0, None))
        return state if until > asyncio.get_running_loop().time() else None
