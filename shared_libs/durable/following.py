"""
A run as somebody elsewhere sees it: its events from the store, in order and once, and pieces of text as they come.

Pieces are called out and never stored; only PostgreSQL can call, and only while somebody follows is there anything to
call. A call that is missed costs nothing: the store is looked at each second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import TextDelta, ThinkingDelta
from shared_libs.durable.database import StoreUnavailable
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
_AFTER = "after"
"""With a piece as it is called out: the event it comes behind, which may be stored later than the call is heard."""


class Outlet:
    """Calls out the pieces of text of the runs of a worker that somebody follows."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._pieces: list[tuple[Piece, int]] = []
        self._calling: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        self._taken = self._called = 0
        self._progress = asyncio.Event()

    def put(self, piece: Piece, after: int) -> None:
        """Take a piece that comes behind event `after`; those of one run and kind, with no event between, are one."""
        last, behind = self._pieces[-1] if self._pieces else (None, 0)
        one = last is not None and behind == after and type(last) is type(piece) and last.run_id == piece.run_id
        if last is not None and one and len(last.text) < _MOST:
            self._pieces[-1] = msgspec.structs.replace(piece, text=last.text + piece.text), after
        else:
            self._pieces.append((piece, after))
        self._taken += 1
        if self._calling is None:
            self._calling = self._loop.create_task(self._call())

    async def flush(self) -> None:
        """Call out what was taken until now: behind the event that ends a turn its words would come too late."""
        until = self._taken
        while self._called < until:
            self._now.set()
            await self._progress.wait()

    async def _call(self) -> None:
        while self._pieces:
            with suppress(TimeoutError):
                async with asyncio.timeout(CALL_S):
                    await self._now.wait()
            self._now.clear()
            pieces, self._pieces = self._pieces, []
            taken = self._taken
            try:
                await self._call_out(pieces)
            finally:
                self._called = taken
                progress, self._progress = self._progress, asyncio.Event()
                progress.set()
        self._calling = None

    async def _call_out(self, pieces: list[tuple[Piece, int]]) -> None:
        with suppress(StoreUnavailable):  # what is live only may be missed
            for piece, after in pieces:
                for begin in range(0, len(piece.text), _MOST // 6):  # JSON makes up to six bytes of a character
                    part = msgspec.structs.replace(piece, text=piece.text[begin : begin + _MOST // 6])
                    told = msgspec.to_builtins(part) | {_AFTER: after}
                    await self._store.call(LIVE_CHANNEL, msgspec.json.encode(told).decode())


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
    following = Following(JobStore(url, connections=1))
    try:
        await following.store.aopen()
        async with aclosing(following.follow(run_id, after=after, team=team)) as events:
            async for event in events:
                yield event
    finally:
        await following.store.aclose()


class Following:
    """
    Follows any number of runs of a store, over its connections and one line on which it is called.

    Args:
        store: the store; whoever opened it closes it.

    """

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self._readers: dict[str, set[_Reader]] = {}
        self._works: Callable[[], bool] | None = None
        self._listening = asyncio.Lock()

    async def follow(
        self, run_id: str, *, after: int = 0, team: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a run, as the function `follow` does."""
        if await self.store.get(run_id, team) is None:
            raise MisuseError(f"there is no run {run_id!r}")
        reader = _Reader(self.store, run_id, after)
        readers = self._readers.setdefault(run_id, set())
        readers.add(reader)
        try:
            await self.store.follow(run_id)
            while True:
                ended = await self._look(reader)
                for event in reader.taken():
                    yield event
                if ended:
                    return
                await reader.wait()
        finally:
            readers.discard(reader)
            if not readers and self._readers.get(run_id) is readers:
                del self._readers[run_id]

    async def _look(self, reader: _Reader) -> bool:
        reader.news.clear()
        with suppress(StoreUnavailable):
            await self._listen()
            return await reader.look()
        return False

    async def _listen(self) -> None:
        async with self._listening:
            if self._works is None or not self._works():
                works = await self.store.listen(RUN_CHANNEL, self._called)
                await self.store.listen(LIVE_CHANNEL, self._told)
                self._works = works

    def _called(self, run_id: str) -> None:
        for reader in self._readers.get(run_id, ()):
            reader.news.set()

    def _told(self, text: str) -> None:
        found = _WHOSE.search(text)
        readers = self._readers.get(msgspec.json.decode(found[1])) if found is not None else None
        if readers:
            piece = msgspec.json.decode(text)
            after = piece.pop(_AFTER, 0)
            for reader in readers:
                reader.hear(piece, after)


_WHOSE = re.compile(r'"run_id":("(?:[^"\\]|\\.)*")')


class _Reader:
    def __init__(self, store: JobStore, run_id: str, after: int) -> None:
        self.ready: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self._early: list[tuple[int, dict[str, Any]]] = []  # pieces, each with the event it waits for
        self._store = store
        self._run_id, self._after = run_id, after
        self._taken_to = 0  # the last event that was read here
        self._heard = False  # pieces since the last answer of the model
        self._followed_at = asyncio.get_running_loop().time()

    async def look(self) -> bool:
        """Read what is new; True when there is nothing more to come."""
        await self._stay()
        last, ended = await self._store.last_event(self._run_id)  # looked at first: what comes between is read below
        if last < self._taken_to and not (ended and not last):  # which is a run that has been forgotten
            self._set_back(last)
        while events := await self._store.events(self._run_id, self._after):
            for event in events:
                self._take(event)
        self.ready += [piece for after, piece in self._early if after <= self._after]
        self._early = [(after, piece) for after, piece in self._early if after > self._after]
        self.ready.sort(key=lambda event: int(event["seq"]))
        return ended

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
            async with asyncio.timeout(_LOOK_S[self._store.database.dialect]):
                await self.news.wait()

    async def _stay(self) -> None:
        """Say now and then that somebody follows."""
        now = asyncio.get_running_loop().time()
        if now - self._followed_at > FOLLOWED_S / 3:
            self._followed_at = now
            await self._store.follow(self._run_id)

    def hear(self, piece: dict[str, Any], after: int) -> None:
        """Take a piece of text that was called out; it waits for event `after`, which may not be stored yet."""
        if after > self._after:
            self._early.append((after, piece))
        elif piece["seq"] > self._after:
            self.ready.append(piece)
            self.news.set()

    def _set_back(self, last: int) -> None:
        """Go on behind what is left: a backup was restored, or a standby took over that lacks the last seconds."""
        self._after = self._taken_to = last
        self._early.clear()
        void = {"type": "stream_restarted", "run_id": self._run_id, "seq": last, "at_s": 0.0}
        self.ready.append(void | {"reason": f"the store was set back: what came behind event {last} is void"})

    def _take(self, event: dict[str, Any]) -> None:
        self._after = self._taken_to = event["seq"]
        if event["type"] == "run_started":
            self._early.clear()  # of an execution that has ended
        if event["type"] == "run_started" and self._heard:
            void = {"type": "stream_restarted", "run_id": self._run_id, "seq": event["seq"], "at_s": event["at_s"]}
            self.ready.append(void | {"reason": "another process goes on with the run"})
        if event["type"] in ("run_started", "model_finished"):
            self._heard = False
        self.ready.append(event)
