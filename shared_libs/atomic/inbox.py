"""What one task hands on to another, piece by piece and without waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """
    A queue without a bound for one reader, who iterates it; it ends when it is closed and empty.

    `asyncio.Queue` asks for each piece whether there is room, who waits for it, and whether all are done: of a streamed
    run that was a twentieth of the work.
    """

    __slots__ = ("_is_closed", "_loop", "_news", "_pieces")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[T] = deque()
        self._news: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, piece: T) -> None:
        """Hand a piece on."""
        self._pieces.append(piece)
        if self._news is not None:
            self._tell()

    def close(self, *_: object) -> None:
        """Say that nothing more comes; takes what a task's done callback is given."""
        self._is_closed = True
        if self._news is not None:
            self._tell()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._pieces:
            if self._is_closed:
                raise StopAsyncIteration
            self._news = self._loop.create_future()
            await self._news
        return self._pieces.popleft()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
