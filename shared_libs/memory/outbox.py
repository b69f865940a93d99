"""What a store could not take: kept in order, within a bound, until it can."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from shared_libs.atomic.errors import MemoryConflict, MemoryStoreError, MemoryUnavailable
from shared_libs.atomic.events import Warned
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.types import Message

_log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""The waits between two tries; each is twice the one before."""

WRITE_S = 10.0
"""Seconds the store may take for a batch that has waited."""


class Batch(msgspec.Struct, frozen=True):
    """The messages of one call, under a name of their own. One that has `waited` may have been stored nonetheless."""

    id: str
    session_id: str
    messages: list[Message]
    waited: bool = False


class Outbox:
    """
    A queue in front of a store, in this process only: what waits is lost when the process ends.

    Args:
        write: stores a batch; one that has waited it stores only where it is not stored yet.
        limit: how many messages may wait; more are refused.

    """

    def __init__(self, write: Callable[[Batch], Awaitable[None]], limit: int) -> None:
        self._write = write
        self._limit = limit
        self._waiting: deque[Batch] = deque()
        self._tasks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def messages(self) -> int:
        """How many messages wait."""
        return sum(len(batch.messages) for batch in self._waiting)

    def put(self, batch: Batch, why: str) -> None:
        """
        Let a batch wait.

        Raises:
            MemoryUnavailable: there is no room.

        """
        count = self.messages + len(batch.messages)
        if count > self._limit:
            raise MemoryUnavailable(f"{why}; {self.messages} messages wait for it already, of at most {self._limit}")
        self._waiting.append(msgspec.structs.replace(batch, waited=True))
        current_scope().emit(Warned(message=f"{why}; {count} messages wait until the store answers"))
        loop = asyncio.get_running_loop()
        if loop not in self._tasks or self._tasks[loop].done():
            # a context of its own: it outlives the run whose deadline stands in the current one
            task = self._tasks[loop] = loop.create_task(self._drain(), context=contextvars.Context())
            task.add_done_callback(lambda _: self._tasks.pop(loop, None))

    async def flush(self) -> None:
        """
        Store what waits, in order.

        Raises:
            MemoryUnavailable: the store does not answer; the rest goes on waiting.

        """
        while self._waiting:
            batch = self._waiting[0]
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._write(batch)
            except TimeoutError as error:
                raise MemoryUnavailable(f"the memory store did not answer within {WRITE_S:g} s") from error
            except (MemoryUnavailable, MemoryConflict):
                raise
            except MemoryStoreError:  # it would stand in the way of all others for ever
                count = len(batch.messages)
                _log.exception("%d messages of session %r are lost: the store refuses them", count, batch.session_id)
            if self._waiting and self._waiting[0] is batch:
                self._waiting.popleft()

    async def aclose(self, within_s: float) -> None:
        """Try once more to store what waits, and stop trying; what is left is kept for the next use."""
        task = self._tasks.pop(asyncio.get_running_loop(), None)
        if task is not None:
            task.cancel()
        try:
            async with asyncio.timeout(within_s):
                await self.flush()
        except (MemoryStoreError, TimeoutError):
            _log.warning("%d messages still wait for the memory store; they go with this process", self.messages)

    async def _drain(self) -> None:
        wait_s = FIRST_WAIT_S
        while self._waiting:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            try:
                await self.flush()
            except MemoryStoreError as error:
                _log.warning("%d messages still wait for the memory store: %s", self.messages, error)
