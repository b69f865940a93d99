"""OpenAI's Responses: agents and chains are models, and a response is a run that one can come back to."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any, Literal

import msgspec

from shared_libs.atomic.types import Message
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.converse import held, tell_ignored
from shared_libs.service.faces.messages import tokens_of
from shared_libs.service.faces.openai_chat import for_agent
from shared_libs.service.faces.responses_events import Event, ResponseEvents, response_of_item
from shared_libs.service.faces.responses_kept import KeptResponse
from shared_libs.service.faces.responses_request import ResponseWanted, read_response
from shared_libs.service.faces.tasks import errand_of
from shared_libs.service.faces.wanted import Outcome
from shared_libs.service.faces.work import ChainWork, RunWork, begin_work, run_there, waiting_run
from shared_libs.service.problems import Problem, problem_of
from shared_libs.service.repeats import Asked, joined
from shared_libs.service.streams import encode, sse

LOOK_S = 0.1
"""How often it is looked what another server makes of a request."""

RETOLD_S = 5.0
"""Seconds in which a response is made again of a run that has ended."""

_PAGE = 20
_MOST_OF_PAGE = 100
PAGE_DOC: dict[str, dict[str, Any]] = {
    "after": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": _MOST_OF_PAGE, "default": _PAGE},
    "order": {"enum": ["asc", "desc"], "default": "desc"},
}
"""What a page of items may be asked with."""
EVENTS_DOC: dict[str, dict[str, Any]] = {
    "stream": {"type": "boolean", "default": False},
    "starting_after": {"type": "integer", "default": -1},
}
"""What a response may be asked with that is looked at again."""


async def create(call: Call) -> None:
    """
    Make a response: answer with it, with its events, or at once where it is to go on in the background.

    A request that comes again, by its SDK or under an `Idempotency-Key`, gets the response that it began.
    """
    raw = await call.body()
    repeated, repeats = Asked(call, raw), call.service.response_repeats
    kept = repeats.find(repeated)
    joins = kept is not None
    if kept is None:
        called = f"resp_{uuid.uuid4().hex}"
        asked = await _read(call, raw, called)
        kept = await _elsewhere(call, repeated, stream=asked.wanted.stream)
        joins = kept is not None
        kept = kept or await _first(call, called, asked, repeated)
    default: Literal["cancel", "continue"] = "cancel" if kept.run_id is None else "continue"
    stays = kept.made.response["background"] or call.stays_when_gone(default)
    kept.waiting += 1
    try:
        if kept.streamed:
            await _follow(call, kept, -1)
        elif kept.begun is not None:
            await call.reply(kept.begun)
        else:
            async with joined(call) if joins else nullcontext():
                await asyncio.wait([kept.task])
            if not kept.task.cancelled():
                kept.task.result()
            if kept.problem is not None:
                raise kept.problem
            await call.reply(kept.made.response)
    finally:
        kept.waiting -= 1
        if not kept.made.ended and not stays and not kept.waiting:
            _forget(call, repeated)
            await kept.cancel()


def _forget(call: Call, repeated: Asked) -> None:
    """Let the next request be the first again, here and elsewhere."""
    call.service.response_repeats.forget(repeated)
    call.service.claims.settle(repeated, None)


async def _elsewhere(call: Call, repeated: Asked, *, stream: bool) -> KeptResponse | None:
    """
    Return what another server makes of this request, as soon as it can be told; None: this is the first.

    Raises:
        Problem: its key belongs to another request, or what becomes of it there is not kept.

    """
    claims, longest_s = call.service.claims, call.service.settings.max_timeout_s
    async with joined(call):
        while (claimed := await claims.take(repeated, longest_s)) is not None:
            if claimed.answer is not None:
                if not (name := msgspec.json.decode(claimed.answer, type=str)):
                    raise Problem("conflict", "another server has made this response, which was not to be stored")
                found = await _known(call, name)
                if found is not None and (not found.elsewhere or (found.made.response["background"] and not stream)):
                    found.streamed = stream
                    return found
            await asyncio.sleep(LOOK_S)
    return None


async def _first(call: Call, id: str, asked: ResponseWanted, repeated: Asked) -> KeptResponse:
    try:
        return await _asked(call, id, asked, repeated)
    except BaseException:
        call.service.claims.settle(repeated, None)
        raise


async def _asked(call: Call, id: str, asked: ResponseWanted, repeated: Asked) -> KeptResponse:
    """Begin what is asked for, unless a request like it began it in the meantime."""
    wanted = asked.wanted
    entry = errand_of(call, call.service.catalogue.find(call.caller, wanted.model), wanted)
    if session := call.headers.get("x-session-id"):
        wanted.session_id = session
    system = [message for message in wanted.messages if message.role == "system"]
    conversation = [message for message in wanted.messages if message.role != "system"]
    if asked.previous is not None:
        conversation = [*await _conversation(call, asked.previous), *conversation]
        wanted.messages = [*system, *conversation]
    if entry.kind == "agent":
        for_agent(wanted)
    going_on = await waiting_run(call, entry, wanted)
    repeats = call.service.response_repeats
    if (begun := repeats.find(repeated)) is not None:
        return begun
    work = begin_work(call, entry, wanted, going_on, repeated.run_id if repeated.has_key else "")
    tell_ignored(call, work.ignored)
    made = ResponseEvents(id, wanted.model, asked.echo)
    kept = KeptResponse(made, asked.items, conversation)
    kept.streamed = wanted.stream
    kept.run_id = work.live.id if isinstance(work, RunWork) and work.durable else None
    repeats.keep(repeated, kept)
    call.service.claims.settle(repeated, id if asked.store and call.service.settings.contents else "")
    if asked.store:
        call.service.responses.keep(call.caller.team, kept)
    kept.task = asyncio.get_running_loop().create_task(_make(call, kept, work))
    kept.task.add_done_callback(lambda task: _made(call, kept, repeated, task))
    if wanted.background:
        made.begin()
        kept.begun = made.response
    if wanted.background or kept.run_id is not None:
        await call.service.responses.shelve(call.caller.team, kept, lasts_s=call.service.settings.max_timeout_s)
    return kept


async def _read(call: Call, raw: bytes, id: str) -> ResponseWanted:
    """Read the request for a response that is going to be called so."""
    data = await _with_items(call, await call.decoded(raw))
    return await call.apart(raw, partial(read_response, id=id), data)


async def _with_items(call: Call, data: dict[str, Any]) -> dict[str, Any]:
    """
    Put items in the place of those that an input only names, as clients do with what a response said before.

    A reasoning that is not kept here may be left out; a word or a call may not.
    """
    given = data.get("input")
    if not isinstance(given, list) or not any(map(_names_an_item, given)):
        return data
    known: dict[str, dict[str, Any]] = {}
    items = []
    for index, one in enumerate(given):
        name = one["id"] if _names_an_item(one) else None
        if name is not None and name not in known and (response := response_of_item(name)) is not None:
            found = await call.service.responses.find(call.caller.team, response)
            known |= {} if found is None else {item["id"]: item for item in found.every_item()}
        if name is None or name in known:
            items.append(one if name is None else known[name])
        elif not name.startswith("rs_"):
            told = f"there is no item {name[:80]!r}, or it is kept no longer; send the item itself"
            raise Problem("not_found", told, param=f"input[{index}]")
    return data | {"input": items}


def _names_an_item(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("id"), str):
        return False
    return one.get("type") == "item_reference" or (one.keys() <= {"id", "type"} and one.get("type") is None)


async def _conversation(call: Call, id: str) -> list[Message]:
    """The conversation that a response ends."""
    before = await _find(call, id, param="previous_response_id")
    if not before.made.ended:
        told = f"the response {id!r} has not ended yet; answer to it when it has"
        raise Problem("invalid_request", told, param="previous_response_id")
    return before.messages


async def count_tokens(call: Call) -> None:
    """Tell about how many tokens a request has: an estimate by its length, as no model is asked."""
    wanted = (await _read(call, await call.body(), "resp_0")).wanted
    call.service.catalogue.find(call.caller, wanted.model)
    await call.reply({"object": "response.input_tokens", "input_tokens": tokens_of(wanted)})


async def retrieve(call: Call) -> None:
    """Return a response as it stands, or its events behind `starting_after`."""
    streams = call.query.get("stream", "false").lower() in ("true", "1")
    kept = await _find(call, call.path["id"], here=streams)
    if not streams:
        await call.reply(kept.made.response)
        return
    after = call.query.get("starting_after", "-1")
    if not after.removeprefix("-").isdecimal():
        raise Problem("invalid_request", "starting_after is the number of an event", param="starting_after")
    call.watch()
    await _follow(call, kept, int(after))


async def cancel(call: Call) -> None:
    """End a response that is made in the background."""
    kept = await _find(call, call.path["id"], here=True)
    if not kept.made.response["background"]:
        raise Problem("invalid_request", "only a response of the background can be cancelled; close the connection")
    await kept.cancel()
    await call.reply(kept.made.response)


async def delete(call: Call) -> None:
    """Keep a response no longer; one under way is ended."""
    kept = await _find(call, call.path["id"], here=True)
    await kept.cancel()
    await call.service.responses.forget(call.caller.team, kept)
    await call.reply({"id": kept.made.id, "object": "response.deleted", "deleted": True})


async def input_items(call: Call) -> None:
    """List what a response was asked with, the newest first unless `order=asc`."""
    items = list((await _find(call, call.path["id"])).items)
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


async def _make(call: Call, kept: KeptResponse, work: ChainWork | RunWork) -> None:
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
        kept.problem = problem_of(error)
        made.fail(kept.problem)
    finally:
        if kept.left and isinstance(work, RunWork):
            work.live.leave()
        else:
            await work.close(stays=False)
        if made.events:
            if not kept.left:
                made.cancel()  # where it has not ended
            await call.service.responses.shelve(call.caller.team, kept)
        kept.wake()


def _made(call: Call, kept: KeptResponse, repeated: Asked, task: asyncio.Task[None]) -> None:
    """Keep nothing of what failed before it had begun."""
    if not task.cancelled() and task.exception() is not None:
        _forget(call, repeated)
        call.service.responses.drop(call.caller.team, kept)
    elif not kept.made.ended and not kept.left:
        kept.made.cancel()
    kept.wake()


async def _find(call: Call, id: str, param: str | None = None, *, here: bool = False) -> KeptResponse:
    """
    Find a response of the team.

    Args:
        call: the request.
        id: the response's id.
        param: the field that names it, for the refusal.
        here: whether it is to be of this process, or to have ended.

    Raises:
        Problem: there is none, or the store does not answer, or another process makes it.

    """
    found = await _known(call, id)
    if found is None:
        raise Problem("not_found", f"there is no response {id[:80]!r}, or it is kept no longer", param=param)
    if here and found.elsewhere:
        raise Problem("conflict", "another server of this service makes this response; retrieve it until it has ended")
    return found


async def _known(call: Call, id: str) -> KeptResponse | None:
    found = await call.service.responses.find(call.caller.team, id)
    if found is not None and found.elsewhere and found.run_id is not None:
        found = await _gone_on_with(call, found, found.run_id)
    return found


async def _gone_on_with(call: Call, found: KeptResponse, run_id: str) -> KeptResponse:
    """
    Make a response of a durable run here that another process began; it may be no more.

    Its words come whole where nobody heard them in pieces, so its events are other ones than there.
    """
    job = await call.service.queue.job(run_id, call.caller.team)
    if job is None:
        found.made.fail(Problem("internal", "the run that made this response is kept no longer; ask again"))
        return found
    entry = call.service.catalogue.find(call.caller, job.agent, kind="agent")
    before = found.made.response
    there = await call.service.responses.find(call.caller.team, before["id"])
    if there is not None and not there.elsewhere:
        return there  # somebody else has asked for it meanwhile
    kept = KeptResponse(ResponseEvents.restored(before | {"output": []}, []), found.items, found.messages)
    kept.run_id = run_id
    kept.made.begin()
    work = run_there(call, entry, job)
    kept.task = asyncio.get_running_loop().create_task(_make(call, kept, work))
    kept.task.add_done_callback(lambda _: kept.wake())
    call.service.responses.keep(call.caller.team, kept)
    await asyncio.sleep(0)  # it has begun when somebody cancels it
    if job.ended:
        await asyncio.wait([kept.task], timeout=RETOLD_S)
    return kept


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


def _failure(task: asyncio.Future[None]) -> Problem:
    error: Any = None if task.cancelled() else task.exception()
    return problem_of(error or Problem("internal", "the response ended without an end"))


def _sse(event: Event) -> bytes:
    return sse(encode(event), event=event["type"])
