"""
Shedding by the loop's lag: a process with more to do than it can refuses some, to be in time with the rest.

Slots bound what is asked of models, and say nothing of our own work. How late the event loop comes to what is due does:
it is the time that everything waits here, probes and deadlines too. As in CoDel a moment does not count, only a loop
that is late each time it is looked at.
"""

from __future__ import annotations

import asyncio

from shared_libs.service.fair_queue import RANKS
from shared_libs.service.problems import Problem

TARGET_S = 0.1
"""How late the loop may be."""

LOOKS = 5
"""A loop that is later than that so many times on end is overloaded, and sheddable work is refused."""

LONG_S = 5.0
"""A loop that has been so for so long takes only critical work, and is not ready."""

AGAIN_S = 1.0
"""When to come back; the loop may be in time long before."""


class LoopLag:
    """How late the event loop of this process is, and what is refused for it."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self._late_looks = 0
        self._since = 0.0

    def look(self, late_s: float) -> None:
        """Take how late the loop was just now, in seconds; to be called some times a second."""
        self.late_s = late_s
        if late_s <= TARGET_S:
            self._late_looks = 0
            return
        if not self._late_looks:
            self._since = asyncio.get_running_loop().time() - late_s
        self._late_looks += 1

    @property
    def refuses(self) -> str | None:
        """The most important work that is refused, a priority; None: all is taken."""
        if self._late_looks < LOOKS:
            return None
        return "default" if asyncio.get_running_loop().time() - self._since >= LONG_S else "sheddable"

    @property
    def ready(self) -> bool:
        """Whether work is taken that is not called critical."""
        return self.refuses != "default"

    def check(self, rank: int) -> None:
        """
        Refuse work, where the loop is too late for it.

        Raises:
            Problem: it is; tells when to come back.

        """
        if self._late_looks and (refuses := self.refuses) is not None and rank >= RANKS[refuses]:
            detail = f"this server is behind by {self.late_s:.2f} s with what it has; another may have room"
            raise Problem("server_busy", detail, retry_after_s=AGAIN_S, facts={"late_s": round(self.late_s, 3)})
