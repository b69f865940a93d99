"""
A run as somebody elsewhere sees it: its events from the store, in order and once, and pieces of text as they come.

Pieces are called out and never stored; only PostgreSQL can call, and only while somebody follows is there anything to
call. A call that is missed costs nothing: the store is looked at each second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import TextDelta, ThinkingDelta
from shared_libs.durable.database import StoreUnavailable, open_database
from shared_libs.durable.store import FOLLOWED_S, RUN_CHANNEL, JobStore

LIVE_CHANNEL = "factory_live"
"""Where pieces of text are called out."""

CALL_S = 0.05
"""Seconds in which pieces are gathered: a call takes a lock of the whole database when it is committed."""

_MOST = 5_000
"""Bytes of text in one call; PostgreSQL takes 8,000 in all."""

_LOOK_S = {"postgresql": 1.0, "sqlite": 0.1}

Piece = TextDelta | ThinkingDelta
_PIECES = ("text_delta", "thinking_delta")


class Outlet:
    """Calls out the pieces of text of the runs of a worker that somebody follows."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Piece] = []
        self._calling: asyncio.Task[None] | None = None

    def put(self, piece: Piece) -> None:
        """Take a piece; those of one run and kind that come soon after each other are one."""
        last = self._pieces[-1] if self._pieces else None
        if last is not None and type(last) is type(piece) and last.run_id == piece.run_id and len(last.text) < _MOST:
            self._pieces[-1] = msgspec.structs.replace(piece, text=last.text + piece.text)
        else:
            self._pieces.append(piece)
        if self._calling is None:
            self._calling = self._loop.create_task(self._call())

    async def _call(self) -> None:
        await asyncio.sleep(CALL_S)
        pieces, self._pieces = self._pieces, []
        self._calling = None
        with suppress(StoreUnavailable):  # what is live only may be missed
            for piece in pieces:
                for begin in range(0, len(piece.text), _MOST // 4):
                    part = msgspec.structs.replace(piece, text=piece.text[begin : begin + _MOST // 4])
                    await self._store.call(LIVE_CHANNEL, msgspec.json.encode(part).decode())


async def follow(url: str, run_id: str, *, after: int = 0, team: str | None = None) -> AsyncIterator[dict[str, Any]]:
    """
    Yield the events of a run, those there are and those to come, each once and in order, until it ends.

    A run that waits for decisions is followed on. After a takeover `stream_restarted` says that the pieces of the
    turn under way are void.

    Args:
        url: the store.
        run_id: the run.
        after: the number of the last event that is known already.
        team: whose run it has to be; None: anybody's.

    Raises:
        MisuseError: there is no such run.
        StoreUnavailable: the store cannot be reached at the beginning; later it is waited for.

    """
    reader = _Reader(url, run_id, after)
    try:
        await reader.store.aopen()
        if await reader.store.get(run_id, team) is None:
            raise MisuseError(f"there is no run {run_id!r}")
        await reader.store.follow(run_id)
        while True:
            ended = await reader.look()
            for event in reader.taken():
                yield event
            if ended:
                return
            await reader.wait()
    finally:
        await reader.store.aclose()


class _Reader:
    def __init__(self, url: str, run_id: str, after: int) -> None:
        self.store = JobStore(url)
        self.store.database = open_database(url, connections=1)
        self.ready: list[dict[str, Any]] = []
        self._run_id, self._after = run_id, after
        self._news = asyncio.Event()
        self._works: Callable[[], bool] | None = None
        self._heard = False  # pieces since the last answer of the model
        self._followed_at = asyncio.get_running_loop().time()

    async def look(self) -> bool:
        """Read what is new; True when there is nothing more to come."""
        self._news.clear()
        with suppress(StoreUnavailable):
            await self._listen()
            job = await self.store.get(self._run_id)  # looked at first: what comes between is read below
            while events := await self.store.events(self._run_id, self._after):
                for event in events:
                    self._take(event)
            self.ready.sort(key=lambda event: int(event["seq"]))
            return job is None or job.ended
        return False

    def taken(self) -> list[dict[str, Any]]:
        """Hand out what is ready."""
        ready, self.ready = self.ready, []
        self._heard = self._heard or any(one["type"] in _PIECES for one in ready)
        return ready

    async def wait(self) -> None:
        """Wait until there may be something new."""
        if self.ready:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S[self.store.database.dialect]):
                await self._news.wait()

    async def _listen(self) -> None:
        if self._works is None or not self._works():
            works = await self.store.listen(RUN_CHANNEL, self._called)
            await self.store.listen(LIVE_CHANNEL, self._told)
            self._works = works
        now = asyncio.get_running_loop().time()
        if now - self._followed_at > FOLLOWED_S / 3:
            self._followed_at = now
            await self.store.follow(self._run_id)

    def _called(self, run_id: str) -> None:
        if run_id == self._run_id:
            self._news.set()

    def _told(self, text: str) -> None:
        if f'"run_id":"{self._run_id}"' not in text:
            return
        piece = msgspec.json.decode(text)
        if piece["run_id"] == self._run_id and piece["seq"] > self._after:
            self.ready.append(piece)
            self._news.set()

    def _take(self, event: dict[str, Any]) -> None:
        self._after = event["seq"]
        if event["type"] == "run_started" and self._heard:
            void = {"type": "stream_restarted", "run_id": self._run_id, "seq": event["seq"], "at_s": event["at_s"]}
            self.ready.append(void | {"reason": "another process goes on with the run"})
        if event["type"] in ("run_started", "model_finished"):
            self._heard = False
        self.ready.append(event)
