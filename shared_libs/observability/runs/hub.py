"""Telling those who follow a run in this process that there is news of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Iterable


class News:
    """Whether there is news of a run since this was made; belongs to the event loop it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Wait for news, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._there.wait()

    def tell(self) -> None:
        """Say, from any thread, that there is news."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._there.set)


class Hub:
    """Who waits for news of which run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, weakref.WeakSet[News]] = {}

    def of(self, run: int) -> News:
        """Return what is told of the next news of a run; it is forgotten with its last reference."""
        news = News()
        with self._lock:
            self._waiting.setdefault(run, weakref.WeakSet()).add(news)
        return news

    def tell(self, runs: Iterable[int]) -> None:
        """Say that there is news of these runs, and forget those who wait: they look, and ask again."""
        if not self._waiting:
            return
        with self._lock:
            waiting = [news for run in set(runs) for news in self._waiting.pop(run, ())]
        for news in waiting:
            news.tell()
