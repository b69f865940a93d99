"""The answer to a streamed request, whoever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

from shared_libs.atomic.errors import LLMError, MalformedResponse
from shared_libs.atomic.llms.payload import Framing, page_title
from shared_libs.atomic.types import LLMChunk, LLMResponse, Usage

NO_STREAM = frozenset({"application/json", "text/html"})
"""The content types of answers that are no stream."""


class EventStream:
    """
    The answer to a streamed request: iterate for lists of payloads, each of one complete event.

    `whole` is the body where the server answered with one JSON document instead of a stream.
    """

    __slots__ = ("_ends_within_s", "_framing", "_read", "whole")

    def __init__(self, read: Callable[[], Awaitable[bytes]], framing: Framing, whole: bytes | None = None) -> None:
        self._read = read
        self._framing = framing
        self._ends_within_s: float | None = None
        self.whole = whole

    def end_within(self, seconds: float) -> None:
        """
        Say that the answer is complete: what still comes may take `seconds`, and its loss is no failure.

        Reading on to the end, instead of stopping here, is what lets the connection be used again.
        """
        self._ends_within_s = seconds

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        while True:
            data = await self._next_bytes()
            if not data:
                raise StopAsyncIteration
            payloads = self._framing.feed(data)
            if payloads:
                return payloads

    async def _next_bytes(self) -> bytes:
        if self._ends_within_s is None:
            return await self._read()
        try:
            async with asyncio.timeout(self._ends_within_s):
                return await self._read()
        except (TimeoutError, LLMError):
            return b""


class Answer(Protocol):
    """
    An answer as a format puts it together from payloads.

    `started` says that the model has begun, `complete` that it has said its last word, `ended` that the format's end
    marker has come.
    """

    started: bool
    complete: bool
    ended: bool

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""

    def take(self, payload: bytes) -> list[LLMChunk]:
        """Add an event and return what is new; an empty text is only a sign of life."""

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""

    def response(self) -> LLMResponse:
        """The whole answer; raises the `LLMError` of one that the provider broke off."""


def whole_of(content_type: str, body: bytes) -> bytes:
    """
    The body of an answer that is no stream.

    Raises:
        MalformedResponse: it is a web page.

    """
    if content_type == "application/json":
        return body
    raise MalformedResponse(f"the answer is an HTML page ({page_title(body) or 'without a title'}) and no stream")
