"""
A run as somebody elsewhere sees it: its events from the store, in order and once, and pieces of text as they come.

Pieces are called out and never stored; only PostgreSQL can call, and only while somebody follows is there anything to
call. A call that is missed costs nothing: the store is looked at each second, and whoever lacks a piece, such as who
comes late, asks for those of the turn again.
"""

from __future__ import annotations

import asyncio
import math
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

ASKED_AGAIN_S = 0.25
"""Seconds until a piece that was asked for again may be asked for once more."""

_PIECES = ("text_delta", "thinking_delta")
TURNS = ("run_started", "step_started", "stream_restarted", "model_finished")
"""Events behind which the words of a turn begin anew."""


class Piece(msgspec.Struct, frozen=True):
    """
    A piece of text as it is called out: each is told once and in order by where it stands.

    Args:
        words: the piece.
        epoch: the execution that says it.
        turn: the event its turn began with.
        at: how many characters of the turn come before it.
        after: the event it comes behind, which may be stored later than the call is heard.

    """

    words: TextDelta | ThinkingDelta
    epoch: int
    turn: int
    at: int
    after: int

    @property
    def end(self) -> int:
        """How many characters of the turn have been said with it."""
        return self.at + len(self.words.text)

    def with_text(self, text: str, at: int) -> Piece:
        """Return it with another text, which stands elsewhere."""
        return msgspec.structs.replace(self, words=msgspec.structs.replace(self.words, text=text), at=at)

    def behind(self, last: Piece) -> Piece | None:
        """Return the two as one; None where they are not, or it would be too large."""
        one = (last.epoch, last.turn, last.end, last.after) == (self.epoch, self.turn, self.at, self.after)
        same = type(last.words) is type(self.words) and last.words.run_id == self.words.run_id
        if not (one and same and len(last.words.text) < _MOST):
            return None
        return self.with_text(last.words.text + self.words.text, last.at)


class Outlet:
    """Calls out the pieces of text of the runs of a worker that somebody follows."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Piece] = []
        self._calling: asyncio.Task[None] | None = None
        self._now = asyncio.Event()
        self._taken = self._called = 0
        self._progress = asyncio.Event()

    def put(self, piece: Piece) -> None:
        """Take a piece; those of one turn and kind, with no event between, are one."""
        joined = piece.behind(self._pieces[-1]) if self._pieces else None
        if joined is None:
            self._pieces.append(piece)
        else:
            self._pieces[-1] = joined
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

    async def _call_out(self, pieces: list[Piece]) -> None:
        most = _MOST // 6  # JSON makes up to six bytes of a character
        with suppress(StoreUnavailable):  # what is live only may be missed
            for piece in pieces:
                for begin in range(0, len(piece.words.text), most):
                    part = piece.with_text(piece.words.text[begin : begin + most], piece.at + begin)
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
            with suppress(msgspec.DecodeError):  # another version's
                piece = msgspec.json.decode(text, type=Piece)
                for reader in readers:
                    reader.hear(piece)


_WHOSE = re.compile(r'"run_id":("(?:[^"\\]|\\.)*")')


class _Reader:
    def __init__(self, store: JobStore, run_id: str, after: int) -> None:
        self.ready: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self._early: list[Piece] = []  # each waits for an event
        self._store = store
        self._run_id, self._after = run_id, after
        self._taken_to = 0  # the last event that was read here
        self._heard = False  # pieces since the last answer of the model
        self._epoch = self._turn = self._chars = 0  # of the turn under way: who says it, where it began, what was heard
        self._lacks = True
        self._followed_at = -math.inf

    async def look(self) -> bool:
        """Read what is new; True when there is nothing more to come."""
        await self._stay()
        last, ended = await self._store.last_event(self._run_id)  # looked at first: what comes between is read below
        if last < self._taken_to and not (ended and not last):  # which is a run that has been forgotten
            self._set_back(last)
        while events := await self._store.events(self._run_id, self._after):
            for event in events:
                self._take(event)
        early, self._early = self._early, []
        for piece in early:
            self.hear(piece)
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
        """Say now and then that somebody follows, and at once where pieces are to be told again."""
        now = asyncio.get_running_loop().time()
        if now - self._followed_at > (ASKED_AGAIN_S if self._lacks else FOLLOWED_S / 3):
            self._followed_at = now
            await self._store.follow(self._run_id, anew=self._lacks)
            self._lacks = False

    def hear(self, piece: Piece) -> None:
        """Take a piece of text that was called out; it waits for the event it comes behind, and void ones go."""
        if piece.after > self._after:
            self._early.append(piece)
            return
        if piece.epoch < self._epoch or piece.turn < self._turn:
            return
        if piece.turn > self._turn:  # it began before the first event that was read here
            self._turn, self._chars = piece.turn, piece.at
        self._epoch = piece.epoch
        if piece.at > self._chars:
            self._lacks = True
            self.news.set()
        elif piece.end > self._chars:
            words = piece.with_text(piece.words.text[self._chars - piece.at :], self._chars).words
            self._chars = piece.end
            self.ready.append(msgspec.to_builtins(words))
            self.news.set()

    def _set_back(self, last: int) -> None:
        """Go on behind what is left: a backup was restored, or a standby took over that lacks the last seconds."""
        self._after = self._taken_to = last
        self._turn = 0
        self._early.clear()
        void = {"type": "stream_restarted", "run_id": self._run_id, "seq": last, "at_s": 0.0}
        self.ready.append(void | {"reason": f"the store was set back: what came behind event {last} is void"})

    def _take(self, event: dict[str, Any]) -> None:
        self._after = self._taken_to = event["seq"]
        if event["type"] in TURNS:
            self._turn, self._chars = event["seq"], 0
        if event["type"] == "run_started":
            self._early.clear()  # of an execution that has ended
        if event["type"] == "run_started" and self._heard:
            void = {"type": "stream_restarted", "run_id": self._run_id, "seq": event["seq"], "at_s": event["at_s"]}
            self.ready.append(void | {"reason": "another process goes on with the run"})
        if event["type"] in ("run_started", "model_finished"):
            self._heard = False
        self.ready.append(event)
