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

import msgspec

from shared_libs.service.catalogue import Entry
from shared_libs.service.claims import Claimed
from shared_libs.service.durable import wants_durable
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.hold import Hold
from shared_libs.service.faces.wanted import Outcome, Piece, Said, Wanted, pieces_of
from shared_libs.service.faces.work import ChainWork, RunWork, begin_work, waiting_run
from shared_libs.service.problems import Problem, problem_of
from shared_libs.service.repeats import FRESH_S, Asked, Brought, Repeats, Shared, answered_once, given_up

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

    An answer in one piece is made once, however often its client, or its client's SDK, sends the request; so is a
    stream under an `Idempotency-Key`, which whoever sends it again gets at once when it has ended.

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
    asked = Asked(call, body)
    durable = wants_durable(entry, call)
    if durable:  # its run is called alike at every server, and they join it
        await call.service.claims.take(asked, FRESH_S)
    stays = call.stays_when_gone("continue" if durable else "cancel")
    if wanted.stream:
        await _stream(call, entry, wanted, answer, asked, stays=stays, claims=not durable)
        return

    async def fresh() -> Outcome:
        work = await _begin(call, entry, wanted, asked)
        tell_ignored(call, work.ignored)
        try:
            return await work.whole()
        finally:
            await work.close(stays=stays)

    kind = None if durable else Outcome
    told = await answered_once(call.service.outcomes, call, asked, fresh, kind, lasts_s=entry.longest_s)
    await call.reply(answer.whole(told))


async def _stream(
    call: Call, entry: Entry, wanted: Wanted, answer: Answer, asked: Asked, *, stays: bool, claims: bool
) -> None:
    """Stream an answer, or what became of the request that this one repeats; raises as `converse` does."""
    repeats: Repeats[Shared[Outcome]] = call.service.outcomes
    earlier = repeats.find(asked) if asked.has_key else None
    if earlier is not None:
        await _write(call, _again(earlier), answer)
        return
    if claims and (claimed := await call.service.claims.take(asked, entry.longest_s)) is not None:
        await _write(call, _elsewhere(call, asked, claimed), answer)
        return
    brought: Brought[Outcome] | None = Brought() if asked.has_key else None
    try:
        work = await _begin(call, entry, wanted, asked)
        tell_ignored(call, work.ignored)
        if brought is not None:
            repeats.keep(asked, brought)
        await _told(call, work, answer, brought, stays=stays)
    except BaseException:
        repeats.forget(asked)
        raise
    finally:
        if brought is not None:
            if claims:
                call.service.claims.settle(asked, brought.brought)
            brought.give_up()


async def _told(
    call: Call, work: ChainWork | RunWork, answer: Answer, brought: Brought[Outcome] | None, *, stays: bool
) -> None:
    try:
        await _write(call, work.pieces() if brought is None else _bringing(work.pieces(), brought), answer)
    finally:
        await work.close(stays=stays)


async def _begin(call: Call, entry: Entry, wanted: Wanted, asked: Asked) -> ChainWork | RunWork:
    going_on = await waiting_run(call, entry, wanted)
    return begin_work(call, entry, wanted, going_on, asked.run_id if asked.has_key else "")


async def _again(earlier: Shared[Outcome]) -> AsyncGenerator[list[Piece], None]:
    yield pieces_of(await earlier.result())


async def _elsewhere(call: Call, asked: Asked, claimed: Claimed) -> AsyncGenerator[list[Piece], None]:
    answer = await call.service.claims.outcome(asked) if claimed.answer is None else claimed.answer
    if answer is None:
        raise given_up()
    yield pieces_of(msgspec.json.decode(answer, type=Outcome))


async def _bringing(
    source: AsyncGenerator[list[Piece], None], brought: Brought[Outcome]
) -> AsyncGenerator[list[Piece], None]:
    async with aclosing(source) as batches:
        async for batch in batches:
            for piece in batch:
                if isinstance(piece, Outcome):
                    brought.bring(piece)
            yield batch


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
