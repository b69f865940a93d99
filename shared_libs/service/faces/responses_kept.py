"""Responses that can be had again: followed, resumed, answered to, cancelled, deleted, by the team that began them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

from shared_libs.atomic.types import Message
from shared_libs.service.faces.responses_events import Event, ResponseEvents

KEPT_S = 3600.0
"""How long a response is kept in this process after it has begun, in seconds."""

MOST = 1000
"""How many are kept; the oldest give way."""


class KeptResponse:
    """
    A response: its events so far, its input, and the conversation that it ends.

    `task` makes it; whoever follows it misses nothing, and is waited for by nobody.
    """

    def __init__(self, made: ResponseEvents, items: list[dict[str, Any]], messages: list[Message]) -> None:
        self.made = made
        self.items = items
        self.messages = messages
        self.task: asyncio.Task[None]
        self._changed = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Tell the followers that there is more."""
        if not self._changed.done():
            self._changed.set_result(None)
            self._changed = asyncio.get_running_loop().create_future()

    async def follow(self, after: int = -1) -> AsyncIterator[list[Event]]:
        """Yield the events with a number above `after`, as many at once as there are, until the last."""
        place = max(0, after + 1)
        while True:
            if ready := self.made.events[place:]:
                place += len(ready)
                yield ready
            elif self.made.ended or self.task.done():
                return
            else:
                await asyncio.shield(self._changed)

    async def cancel(self) -> None:
        """End it, if it is under way."""
        self.made.cancel()
        self.wake()
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task], timeout=1.0)


class KeptResponses:
    """The responses of this process."""

    def __init__(self, kept_s: float = KEPT_S, most: int = MOST) -> None:
        self._kept_s = kept_s
        self._most = most
        self._kept: OrderedDict[tuple[str, str], tuple[float, KeptResponse]] = OrderedDict()

    def keep(self, team: str, kept: KeptResponse) -> None:
        """Keep a response."""
        now = asyncio.get_running_loop().time()
        self._kept[team, kept.made.id] = now + self._kept_s, kept
        while len(self._kept) > self._most or next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)

    def find(self, team: str, id: str) -> KeptResponse | None:
        """Return a response; None where it has been kept too long, is another team's, or never was."""
        until, kept = self._kept.get((team, id), (0.0, None))
        return kept if until > asyncio.get_running_loop().time() else None

    def forget(self, team: str, id: str) -> None:
        """Keep it no longer."""
        self._kept.pop((team, id), None)

    async def drain(self) -> None:
        """End what is under way."""
        for _, kept in list(self._kept.values()):
            if not kept.task.done():
                await kept.cancel()
