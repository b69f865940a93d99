"""What one task hands on to another, piece by piece and without waiting."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """
    A queue without a bound for one reader, who takes all that has come at once.

    `asyncio.Queue` asks for each piece whether there is room, who waits for it, and whether all are done: of a streamed
    run that was a twentieth of the work.
    """

    __slots__ = ("_is_closed", "_loop", "_news", "_pieces")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: list[T] = []
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

    async def some(self) -> list[T]:
        """Wait for what comes, and take all of it; nothing is left to come where it is empty."""
        while not self._pieces and not self._is_closed:
            self._news = self._loop.create_future()
            await self._news
        some, self._pieces = self._pieces, []
        return some

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
