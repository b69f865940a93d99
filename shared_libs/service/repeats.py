"""
Requests that are sent twice: by an SDK that gave up too early, or under an `Idempotency-Key`.

The second one joins the first: the work is done once, and both get its outcome. An SDK sends no key; it counts its
retries, so that a retry with the same body and the same key of ours is known as what it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from shared_libs.service.deadlines import patience
from shared_libs.service.endpoint import Call
from shared_libs.service.problems import Problem
from shared_libs.service.streams import encode

T = TypeVar("T")

FRESH_S = 600.0
"""Seconds an outcome is kept for those who ask again."""

MOST = 500
"""How many are kept; the oldest give way."""

MOST_BYTES = 64_000
"""Bytes of an answer that is kept for who sends its request again; a longer one is made anew when it has been told."""

_LONGEST_KEY = 255


class Asked:
    """What names a request that may come again, and tells whether this is the second time."""

    __slots__ = ("again", "body", "name")

    def __init__(self, call: Call, body: bytes) -> None:
        key = call.headers.get("idempotency-key")
        if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isprintable()):
            told = f"Idempotency-Key is a text of 1 to {_LONGEST_KEY} printable characters"
            raise Problem("invalid_request", told, param="idempotency-key")
        retry = call.headers.get("x-stainless-retry-count")
        named = key is not None or retry is not None  # else nobody asks, and a large body takes its time
        self.body = hashlib.blake2b(body, digest_size=16).hexdigest() if named else ""
        self.again = key is not None or (retry is not None and retry != "0")
        self.name = ""
        if named:
            whose = f"{call.caller.team}\n{call.caller.key_id}\n{call.scope['path']}\n"
            self.name = whose + (f"key\n{key}" if key else f"body\n{self.body}")

    @property
    def run_id(self) -> str:
        """
        A run's id that is the same whenever and wherever this request comes, where it has a key of its own.

        It begins with what the key alone says, so that another body under that key is known anywhere.
        """
        return self.of_key + hashlib.blake2b(self.body.encode(), digest_size=8).hexdigest()

    @property
    def of_key(self) -> str:
        """How the ids of all runs begin that this key asks for."""
        return hashlib.blake2b(self.name.encode("utf-8", "replace"), digest_size=8).hexdigest()

    @property
    def claim(self) -> str:
        """What all servers know it by, where it has a key of its own."""
        return hashlib.blake2b(self.name.encode("utf-8", "replace"), digest_size=16).hexdigest()

    @property
    def has_key(self) -> bool:
        """Whether the client named the request itself."""
        return "\nkey\n" in self.name


class Repeats(Generic[T]):
    """Keeps what became of requests that may come again."""

    def __init__(self, fresh_s: float = FRESH_S, most: int = MOST) -> None:
        self._fresh_s = fresh_s
        self._most = most
        self._kept: OrderedDict[str, tuple[float, str, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, asked: Asked) -> T | None:
        """
        Return what became of a request the first time; None where this is the first.

        Raises:
            Problem: its key belongs to a request with another body.

        """
        found = self._kept.get(asked.name) if asked.again else None
        if found is None or found[0] <= asyncio.get_running_loop().time():
            return None
        if found[1] != asked.body:
            raise other_body()
        return found[2]

    def keep(self, asked: Asked, outcome: T) -> None:
        """Keep what becomes of a request."""
        if not asked.name:
            return
        now = asyncio.get_running_loop().time()
        self._kept.pop(asked.name, None)
        self._kept[asked.name] = now + self._fresh_s, asked.body, outcome
        while len(self._kept) > self._most or next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)

    def forget(self, asked: Asked) -> None:
        """Let the next request be the first again: what became of this one is nothing to go by."""
        self._kept.pop(asked.name, None)


def other_body() -> Problem:
    """Refuse a request whose key belongs to another one."""
    told = "this Idempotency-Key came with another body before; a new request needs a new key"
    return Problem("idempotency_mismatch", told, param="idempotency-key")


def given_up() -> Problem:
    """Tell whoever waits for another request that nothing becomes of it."""
    return Problem("conflict", "the request that this one repeats has failed or was given up; send it again")


class Shared(Generic[T]):
    """Work that several requests wait for; it is cancelled when the last of them has gone."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._waiting = 0
        self._task: asyncio.Task[T] = asyncio.ensure_future(_awaited(work))

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for it."""
        return self._waiting > 0

    async def result(self) -> T:
        """Wait for it."""
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._task.cancel()


class Brought(Shared[T]):
    """Work whose outcome its first request brings itself, when it has streamed it; the others wait for that."""

    def __init__(self) -> None:
        self._outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def result(self) -> T:
        """
        Wait for it.

        Raises:
            Problem: the first request failed, or its client has gone.

        """
        return await asyncio.shield(self._outcome)

    def bring(self, outcome: T) -> None:
        """Say what became of it."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    @property
    def brought(self) -> T | None:
        """What became of it; None where nothing has."""
        return self._outcome.result() if self._outcome.done() and not self._outcome.exception() else None

    def give_up(self) -> None:
        """Say that nothing became of it; nothing where an outcome has been brought."""
        if not self._outcome.done():
            self._outcome.set_exception(given_up())
            self._outcome.exception()  # nobody may be waiting


@asynccontextmanager
async def joined(call: Call) -> AsyncIterator[None]:
    """
    Wait for the whole of what another request has begun, as long as this one's own client waits.

    Raises:
        Problem: its time is over; what it waited for goes on.

    """
    seconds = patience(call.headers, streams=False).seconds
    try:
        async with asyncio.timeout_at(None if seconds is None else call.exchange.began_at + seconds):
            yield
    except TimeoutError:
        told = "the request that this one repeats is still under way; send it again to get what becomes of it"
        raise Problem("deadline_exceeded", told) from None


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


async def answered_once(
    repeats: Repeats[Shared[Any]],
    call: Call,
    asked: Asked,
    work: Callable[[], Awaitable[T]],
    kind: type[T] | None,
    *,
    is_kept: Callable[[T], bool] = lambda _: True,
    lasts_s: float = math.inf,
) -> T:
    """
    Return the outcome of work that is done once, however often the request comes.

    A failure is told to all who wait, and forgotten: who asks after it begins anew.

    Args:
        repeats: of the face.
        call: the request.
        asked: what names it.
        work: what is to be done; gives what is to be answered.
        kind: what that is; None where another server may do it as well, and joins.
        is_kept: whether what came of it is kept for who asks later, and not only for those who wait.
        lasts_s: how long it takes at the most, in seconds, if that is less than what the service gives anything.

    """
    if not asked.name:
        return await work()
    shared: Shared[T] | None = repeats.find(asked)
    joins = shared is not None
    if shared is None:
        shared = Shared(work if kind is None else partial(_over_servers, call, asked, work, kind, is_kept, lasts_s))
        repeats.keep(asked, shared)
    try:
        async with joined(call) if joins else nullcontext():
            told = await shared.result()
    except BaseException:
        if not shared.waited_for:
            repeats.forget(asked)
        raise
    if not is_kept(told):
        repeats.forget(asked)
    return told


async def _over_servers(
    call: Call,
    asked: Asked,
    work: Callable[[], Awaitable[T]],
    kind: type[T],
    is_kept: Callable[[T], bool],
    lasts_s: float,
) -> T:
    """Do work that no server of the service does or has done, or return what became of it there."""
    claims, longest_s = call.service.claims, min(lasts_s, call.service.settings.max_timeout_s)
    while (claimed := await claims.take(asked, longest_s)) is not None:
        async with joined(call):
            answer = await claims.outcome(asked) if claimed.answer is None else claimed.answer
        if answer is not None:
            return msgspec.json.decode(answer, type=kind)
    told = None
    try:
        told = await work()
    finally:
        claims.settle(asked, told if told is not None and is_kept(told) else None)
    return told


async def reply_once(call: Call, body: bytes, work: Callable[[], Awaitable[Any]]) -> None:
    """
    Answer with what is made once, however often the request comes; what is long is kept by those alone who wait.

    Args:
        call: the request.
        body: its body as it came.
        work: gives what is to be answered, to be encoded as JSON.

    """

    async def fresh() -> bytes:
        return encode(await work())

    outcomes = call.service.outcomes
    await call.reply_bytes(await answered_once(outcomes, call, Asked(call, body), fresh, bytes, is_kept=_is_short))


def _is_short(answer: bytes) -> bool:
    return len(answer) <= MOST_BYTES
