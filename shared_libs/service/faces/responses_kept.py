"""Responses that can be had again: followed, resumed, answered to, cancelled, deleted, by the team that began them."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.types import Message
from shared_libs.service.faces.responses_events import Event, Item, ResponseEvents
from shared_libs.service.faces.responses_shelf import MOST_BYTES, ResponseShelf, ShelfWriter, Shelved
from shared_libs.service.problems import Problem

KEPT_S = 3600.0
"""How long a response is kept in this process after it has begun, in seconds."""

MOST = 1000
"""How many are kept here; the oldest give way. On the shelf there is no such bound."""

WRITE_S = 0.25
"""How long a response waits at its end until it is on the shelf: what a shelf that hangs costs, and only once."""

BEGUN_S = 2.0
"""How long one waits for that that goes on behind its answer: its id is to be known to the other servers at once."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class KeptResponse:
    """
    A response: its events so far, its input, and the conversation that it ends.

    `task` makes it; whoever follows it misses nothing, and is waited for by nobody. `waiting` is how many requests
    want its end, `streamed` whether they want its events, `begun` what they are told of
    one of the background. `elsewhere` is whether another process makes it. `run_id` is the durable run that makes it,
    and `left` whether this process has left that to others. `problem` is why it failed, if it did so here: who
    waits for the whole, of which nothing is sent yet, is refused with it.
    """

    def __init__(self, made: ResponseEvents, items: list[Item], messages: list[Message]) -> None:
        self.made = made
        self.items = items
        self.messages = messages
        self.waiting = 0
        self.streamed = False
        self.begun: dict[str, Any] | None = None
        self.elsewhere = self.left = False
        self.run_id: str | None = None
        self.problem: Problem | None = None
        self.task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.get_running_loop().create_future()

    @classmethod
    def of(cls, shelved: Shelved) -> KeptResponse:
        """Return a response that was kept by this or another process."""
        made = ResponseEvents.restored(shelved.response, shelved.events)
        kept = cls(made, shelved.items, shelved.messages)
        kept.task.set_result(None)
        kept.run_id = shelved.run_id
        if not made.ended and shelved.lost and kept.run_id is None:
            made.fail(Problem("internal", "the process that made this response has gone; ask again"))
        kept.elsewhere = not made.ended
        return kept

    def every_item(self) -> list[Item]:
        """Its input and its output."""
        return [*self.items, *self.made.response["output"]]

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

    async def leave(self) -> None:
        """Make it here no more; whoever is asked for it next goes on with it."""
        self.left = True
        self.task.cancel()
        await asyncio.wait([self.task], timeout=1.0)

    async def cancel(self) -> None:
        """End it, if it is under way."""
        self.made.cancel()
        self.wake()
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task], timeout=1.0)


class KeptResponses:
    """
    The responses of this process, and those on the shelf that it shares with others.

    Args:
        shelf: where they outlive this process; None: nowhere.
        kept_s: how long they are kept here.
        most: how many are kept here.

    """

    def __init__(self, shelf: ResponseShelf | None, kept_s: float = KEPT_S, most: int = MOST) -> None:
        self._shelf = shelf
        self._writer = None if shelf is None else ShelfWriter(shelf)
        self._kept_s = kept_s
        self._most = most
        self._kept: OrderedDict[tuple[str, str], tuple[float, KeptResponse]] = OrderedDict()

    def keep(self, team: str, kept: KeptResponse) -> None:
        """Keep a response."""
        now = asyncio.get_running_loop().time()
        self._kept[team, kept.made.id] = now + self._kept_s, kept
        while len(self._kept) > self._most or next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)

    async def shelve(self, team: str, kept: KeptResponse, *, lasts_s: float = 0.0) -> None:
        """
        Put a response on the shelf as it stands; a shelf that does not answer is not waited for.

        Args:
            team: whose it is.
            kept: the response.
            lasts_s: how long it is made at the most, where it has not ended.

        """
        if self._writer is None or (team, kept.made.id) not in self._kept:
            return
        body = msgspec.json.encode(
            Shelved(
                response=kept.made.response,
                events=kept.made.events,
                items=kept.items,
                messages=kept.messages,
                run_id=kept.run_id,
                ends_by=None if kept.made.ended else time.time() + lasts_s,
            )
        )
        if len(body) <= MOST_BYTES:
            await self._writer.put(team, kept.made.id, body, WRITE_S if kept.made.ended else BEGUN_S)

    async def find(self, team: str, id: str) -> KeptResponse | None:
        """
        Return a response; None where it has been kept too long, is another team's, or never was.

        Raises:
            Problem: it is not here, and the shelf does not answer.

        """
        until, kept = self._kept.get((team, id), (0.0, None))
        if kept is not None and until > asyncio.get_running_loop().time():
            return kept
        if self._shelf is None or not _ID.fullmatch(id):
            return None
        shelved = await self._shelf.get(team, id)
        return None if shelved is None else KeptResponse.of(shelved)

    def drop(self, team: str, kept: KeptResponse) -> None:
        """Keep a response no longer that never began."""
        self._kept.pop((team, kept.made.id), None)

    async def forget(self, team: str, kept: KeptResponse) -> None:
        """
        Keep a response no longer.

        Raises:
            Problem: the shelf does not answer.

        """
        self.drop(team, kept)
        if self._writer is not None:
            await self._writer.remove(team, kept.made.id)

    async def leave(self) -> None:
        """Leave to others what durable runs make."""
        durable = [kept for _, kept in self._kept.values() if kept.run_id is not None and not kept.task.done()]
        await asyncio.gather(*(kept.leave() for kept in durable))

    async def drain(self, deadline: Deadline) -> None:
        """Let what is under way end until the deadline, end the rest, and put it on the shelf."""
        tasks = [kept.task for _, kept in self._kept.values() if not kept.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=deadline.remaining())
        for _, kept in list(self._kept.values()):
            if not kept.task.done():
                await kept.cancel()
        if self._writer is not None:
            await self._writer.aclose()
