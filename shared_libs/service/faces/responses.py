"""OpenAI's Responses: agents and chains are models, and a response is a run that one can come back to."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing
from typing import Any

from shared_libs.atomic.types import Message
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.converse import held, tell_ignored
from shared_libs.service.faces.messages import tokens_of
from shared_libs.service.faces.openai_chat import for_agent
from shared_libs.service.faces.responses_events import Event, ResponseEvents
from shared_libs.service.faces.responses_kept import KeptResponse
from shared_libs.service.faces.responses_request import ResponseWanted, read_response
from shared_libs.service.faces.wanted import Outcome
from shared_libs.service.faces.work import ChainWork, RunWork, begin_work
from shared_libs.service.problems import Problem, problem_of
from shared_libs.service.streams import encode, sse

_PAGE = 20
_MOST_OF_PAGE = 100


async def create(call: Call) -> None:
    """Make a response: answer with it, with its events, or at once where it is to go on in the background."""
    asked = read_response(await call.json())
    wanted = asked.wanted
    entry = call.service.catalogue.find(call.caller, wanted.model)
    if session := call.headers.get("x-session-id"):
        wanted.session_id = session
    own = [message for message in wanted.messages if message.role != "system"]
    if asked.previous is not None:
        before = _find(call, asked.previous, param="previous_response_id").messages
        system = [message for message in wanted.messages if message.role == "system"]
        wanted.messages = [*system, *before, *own]
    if entry.kind == "agent":
        for_agent(wanted)
    stays = wanted.background or call.stays_when_gone("cancel")
    work = begin_work(call, entry, wanted)
    tell_ignored(call, work.ignored)
    kept = _begun(call, asked, work, [one for one in wanted.messages if one.role != "system"])
    try:
        if wanted.stream:
            await _follow(call, kept, -1)
        elif wanted.background:
            await call.reply(kept.made.response)
        else:
            await asyncio.wait([kept.task])
            await kept.task
            await call.reply(kept.made.response)
    finally:
        if not kept.task.done() and not stays:
            await kept.cancel()


async def count_tokens(call: Call) -> None:
    """Tell about how many tokens a request has: an estimate by its length, as no model is asked."""
    wanted = read_response(await call.json()).wanted
    call.service.catalogue.find(call.caller, wanted.model)
    await call.reply({"object": "response.input_tokens", "input_tokens": tokens_of(wanted)})


async def retrieve(call: Call) -> None:
    """Return a response as it stands, or its events behind `starting_after`."""
    kept = _find(call, call.path["id"])
    if call.query.get("stream", "false").lower() not in ("true", "1"):
        await call.reply(kept.made.response)
        return
    after = call.query.get("starting_after", "-1")
    if not after.removeprefix("-").isdecimal():
        raise Problem("invalid_request", "starting_after is the number of an event", param="starting_after")
    call.watch()
    await _follow(call, kept, int(after))


async def cancel(call: Call) -> None:
    """End a response that is made in the background."""
    kept = _find(call, call.path["id"])
    if not kept.made.response["background"]:
        raise Problem("invalid_request", "only a response of the background can be cancelled; close the connection")
    await kept.cancel()
    await call.reply(kept.made.response)


async def delete(call: Call) -> None:
    """Keep a response no longer; one under way is ended."""
    kept = _find(call, call.path["id"])
    await kept.cancel()
    call.service.responses.forget(call.caller.team, kept.made.id)
    await call.reply({"id": kept.made.id, "object": "response.deleted", "deleted": True})


async def input_items(call: Call) -> None:
    """List what a response was asked with, the newest first unless `order=asc`."""
    items = list(_find(call, call.path["id"]).items)
    if call.query.get("order", "desc") != "asc":
        items.reverse()
    limit = call.query.get("limit", str(_PAGE))
    if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_OF_PAGE:
        raise Problem("invalid_request", f"limit is a number from 1 to {_MOST_OF_PAGE}", param="limit")
    if after := call.query.get("after"):
        places = [index for index, item in enumerate(items) if item["id"] == after]
        items = items[places[0] + 1 :] if places else []
    page = items[: int(limit)]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    await call.reply({"object": "list", "data": page, "has_more": len(items) > len(page), **ends})


def _begun(call: Call, asked: ResponseWanted, work: ChainWork | RunWork, messages: list[Message]) -> KeptResponse:
    """Begin to make a response, in a task of its own."""
    made = ResponseEvents(f"resp_{uuid.uuid4().hex}", asked.wanted.model, asked.echo)
    kept = KeptResponse(made, asked.items, messages)
    if asked.wanted.background:
        made.begin()
    if asked.store:
        call.service.responses.keep(call.caller.team, kept)
    kept.task = asyncio.get_running_loop().create_task(_make(kept, work))
    kept.task.add_done_callback(lambda task: _made(call, kept, task))
    return kept


async def _make(kept: KeptResponse, work: ChainWork | RunWork) -> None:
    """
    Make a response.

    Raises:
        Exception: it failed before it had begun, so that the failure can be an answer of its own.

    """
    made = kept.made
    try:
        async with aclosing(held(work.pieces())) as batches:
            async for batch in batches:
                made.begin()
                for piece in batch:
                    made.take(piece)
                    if isinstance(piece, Outcome):
                        kept.messages.append(Message("assistant", piece.text, tool_calls=piece.calls))
                kept.wake()
    except Exception as error:
        if not made.events:
            raise
        made.fail(problem_of(error))
    finally:
        await work.close(stays=False)
        kept.wake()


def _made(call: Call, kept: KeptResponse, task: asyncio.Task[None]) -> None:
    """Keep nothing of what failed before it had begun."""
    if not task.cancelled() and task.exception() is not None:
        call.service.responses.forget(call.caller.team, kept.made.id)
    elif not kept.made.ended:
        kept.made.cancel()
    kept.wake()


def _find(call: Call, id: str, param: str | None = None) -> KeptResponse:
    found = call.service.responses.find(call.caller.team, id)
    if found is None:
        raise Problem("not_found", f"there is no response {id[:80]!r}, or it is kept no longer", param=param)
    return found


async def _follow(call: Call, kept: KeptResponse, after: int) -> None:
    stream = call.events()
    async for events in kept.follow(after):
        call.exchange.waited_s = asyncio.get_running_loop().time() - call.exchange.began_at
        await stream.write(b"".join(map(_sse, events)))
    if not stream.started:
        await kept.task  # it failed before it had begun: an answer of its own
    elif not kept.made.ended:
        kept.made.fail(_failure(kept.task))
        await stream.write(_sse(kept.made.events[-1]))
    await stream.close()


def _failure(task: asyncio.Task[None]) -> Problem:
    error: Any = None if task.cancelled() else task.exception()
    return problem_of(error or Problem("internal", "the response ended without an end"))


def _sse(event: Event) -> bytes:
    return sse(encode(event), event=event["type"])
