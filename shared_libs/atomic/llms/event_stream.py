"""The answer to a streamed request, whoever carries it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, Self

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import DeadlineExceeded, LLMError
from shared_libs.atomic.in_place import within
from shared_libs.atomic.llms.framing import Framing
from shared_libs.atomic.types import LLMChunk, LLMResponse, Usage

END_WAIT_S = 0.05
"""How long the connection's end may take after the end marker; reading it lets the connection be used again."""

TOTAL_WAIT_S = 5.0
"""How long, all in all, a server may go on after the model's last word, whatever it sends."""


AT_ONCE = 250
BYTES_AT_ONCE = 32_768
"""Events, and their bytes, that are taken before the loop has its turn: what a server has sent already is read without
a wait, and of many such servers each holds the loop for as long."""


class EventStream:
    """
    The answer to a streamed request: iterate for lists of payloads, each of one complete event.

    A list is empty where bytes came that complete no event: a sign of life. `whole` is the body where the server
    answered with one JSON document instead of a stream; known at its end.
    """

    __slots__ = ("_framing", "_left", "_loop", "_over", "_read", "_until", "_wait_s", "broken")

    def __init__(self, read: Callable[[], Coroutine[Any, Any, bytes]], framing: Framing) -> None:
        self._read = read
        self._framing = framing
        self._left: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._wait_s: float | None = None
        self._until = math.inf
        self._over = False
        self.broken = False
        """Whether the connection broke after the answer was said to be complete."""

    @property
    def whole(self) -> bytes | None:
        """The body, where it was one JSON document."""
        return self._framing.whole

    def end_within(self, seconds: float | None, *, total_s: float = TOTAL_WAIT_S) -> None:
        """
        Say that the answer seems complete: that nothing comes for `seconds` is its end, and its break no failure.

        None takes it back. Whatever comes, the wait is over `total_s` after the first time that this was said. Reading
        on to the end, instead of stopping here, is what lets the connection be used again.
        """
        self._until = math.inf if seconds is None else min(self._until, self._loop.time() + total_s)
        self._wait_s = seconds

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        if self._left:
            await asyncio.sleep(0)
            return self._some()
        if self._over:
            raise StopAsyncIteration
        if data := await self._next_bytes():
            self._left = self._framing.feed(data)
            return self._some()
        self._over = True
        return self._framing.end()

    def _some(self) -> list[bytes]:
        """The first of what came at once, as many as the loop can wait for."""
        count = size = 0
        for payload in self._left[:AT_ONCE]:
            size += len(payload)
            if count and size > BYTES_AT_ONCE:
                break
            count += 1
        some, self._left = self._left[:count], self._left[count:]
        return some

    async def _next_bytes(self) -> bytes:
        if self._wait_s is None:
            return await self._read()
        end = Expiry(min(self._loop.time() + self._wait_s, self._until), "the answer is over")
        try:
            with within(self._loop, end):
                return await self._read()
        except DeadlineExceeded:
            return b""
        except LLMError:
            self.broken = True
            return b""


class Answer(Protocol):
    """
    An answer as a format puts it together from payloads.

    `started` says that the model has begun, `complete` that it has said that it is done, `ended` that the format's end
    marker has come. `silence_s` is for how long nothing may come until `complete` is believed without that marker; None
    where it cannot be believed.
    """

    started: bool
    complete: bool
    ended: bool

    @property
    def silence_s(self) -> float | None:
        """For how long nothing may come until the answer counts as whole."""

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""

    @property
    def text(self) -> str:
        """What the model has said so far."""

    def take(self, payload: bytes) -> list[LLMChunk]:
        """Add an event and return what is new; an empty text is only a sign of life."""

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""

    def response(self) -> LLMResponse:
        """The whole answer; raises the `LLMError` of one that the provider broke off."""


class Completeness:
    """
    When a reason to stop is believed: at once by the end of the body or the format's end marker, else by silence.

    It is one of the chunks, and some servers put it on the first of them, or on every one: so one that came with words,
    or before others, says less than one that came alone and last, and one before the first word says nothing.
    """

    __slots__ = ("_early", "_said", "_silence_s")

    AFTER_THE_WORDS_S: Final = 1.0
    WITH_WORDS_S: Final = 1.5

    def __init__(self) -> None:
        self._said = False
        self._early = False
        self._silence_s: float | None = None

    @property
    def silence_s(self) -> float | None:
        """For how long nothing may come until the reason is believed; None where it is not."""
        return self._silence_s

    def see(self, *, words: bool, reason: bool) -> None:
        """Take a chunk: whether it had something to say, and whether it told a reason to stop."""
        if words:
            self._early = self._early or self._silence_s is not None
            self._said = True
            self._silence_s = None if self._early or not reason else self.WITH_WORDS_S
        elif reason and self._said:
            self._silence_s = self.WITH_WORDS_S if self._early else self.AFTER_THE_WORDS_S
        elif reason:
            self._early = True
