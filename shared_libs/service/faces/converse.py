"""
One request of any wire, from what it wants to the last byte of its answer.

The wires differ in how they read and write; who is asked, for how long, what becomes of it when the client goes, and
that no stream merely ends, is the same for all of them, and stands here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, Protocol

from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.hold import Hold
from shared_libs.service.faces.wanted import Outcome, Piece, Said, Wanted
from shared_libs.service.faces.work import begin_work
from shared_libs.service.problems import Problem, problem_of
from shared_libs.service.repeats import answered_once

_MAX_IGNORED = 20
_NAME = re.compile(r"[^\w.:\[\]-]", re.ASCII)


class Answer(Protocol):
    """How a wire writes an answer."""

    def whole(self, outcome: Outcome) -> Any:
        """The answer in one piece, JSON-ready."""

    def begin(self) -> bytes:
        """What a stream begins with."""

    def piece(self, piece: Piece) -> bytes:
        """What a piece is on this wire; an `Outcome` is the end of the stream."""

    def failed(self, problem: Problem) -> bytes:
        """The end of a stream that failed."""


async def converse(call: Call, entry: Entry, wanted: Wanted, answer: Answer, body: bytes) -> None:
    """
    Ask what the request asks, and answer it.

    An answer in one piece is made once, however often its client, or its client's SDK, sends the request.

    Args:
        call: the request.
        entry: who is asked.
        wanted: what is asked.
        answer: how it is written.
        body: the request's body as it came.

    Raises:
        Problem: it was refused, or failed before anything was sent.
        LLMError: nobody answered, before anything was sent.

    """
    stays = call.stays_when_gone("cancel")
    if wanted.stream:
        work = begin_work(call, entry, wanted)
        tell_ignored(call, work.ignored)
        try:
            await _write(call, work.pieces(), answer)
        finally:
            await work.close(stays=stays)
        return

    async def fresh() -> Outcome:
        work = begin_work(call, entry, wanted)
        tell_ignored(call, work.ignored)
        try:
            return await work.whole()
        finally:
            await work.close(stays=stays)

    await call.reply(answer.whole(await answered_once(call.service.outcomes, call, body, fresh)))


def tell_ignored(call: Call, names: Iterable[str]) -> None:
    """Name to the client what of its request means nothing here."""
    told = [_NAME.sub("?", name)[:60] for name in names][:_MAX_IGNORED]
    if told:
        call.exchange.tell("x-factory-ignored", ", ".join(told))


async def held(source: AsyncGenerator[list[Piece], None]) -> AsyncGenerator[list[Piece], None]:
    """
    Pass pieces on with the first words held back; words that are ready at once are one piece.

    Raises:
        Problem: the answer that comes is another one than has been told.

    """
    hold, loop = Hold(), asyncio.get_running_loop()
    async with aclosing(source) as batches:
        async for batch in batches:
            now = loop.time()
            yield _joined([told for piece in batch for told in hold.take(piece, now)])


async def _write(call: Call, source: AsyncGenerator[list[Piece], None], answer: Answer) -> None:
    """
    Write a stream: what fails before its first byte is an answer of its own, what fails behind it is told in it.

    Raises:
        Problem: it failed before anything was sent.
        LLMError: likewise.

    """
    stream, begun, loop = call.events(), False, asyncio.get_running_loop()
    try:
        async with aclosing(held(source)) as batches:
            async for batch in batches:
                call.exchange.waited_s = loop.time() - call.exchange.began_at
                if written := b"".join(map(answer.piece, batch)):
                    await stream.write(*(() if begun else (answer.begin(),)), written)
                    begun = True
    except Exception as error:
        if not stream.started:
            raise
        await stream.write(answer.failed(problem_of(error)))
    await stream.close()


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Make one of the words that are ready at once."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, Said) and isinstance(last, Said):
            joined[-1] = Said(last.text + piece.text)
        else:
            joined.append(piece)
    return joined
