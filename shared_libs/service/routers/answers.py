"""How a run is answered: with its result, with its events, or at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from starlette.responses import JSONResponse

from shared_libs.atomic.events import AgentEvent, RunFinished
from shared_libs.atomic.names import is_name
from shared_libs.observability.runs.reader import brief_result
from shared_libs.service.callers import Caller
from shared_libs.service.endpoint import Call
from shared_libs.service.live import LiveRun, outside_s
from shared_libs.service.problems import Problem, problem_details, problem_of
from shared_libs.service.streams import STREAM_DOC, encode, sse

MAX_SESSION_ID = 200
"""Characters of a session's name."""

ANSWERS_DOC = {
    "200": {
        "description": "How the run ended, or its events.",
        "content": {"application/json": {"schema": {"type": "object"}}, **STREAM_DOC},
    },
    "202": {
        "description": "The run goes on in the background.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
}
"""What a run is answered with, for the OpenAPI document."""


class Json(JSONResponse):
    """An answer in JSON, for FastAPI's routes: what the store gives is encoded as it is."""

    def render(self, content: Any) -> bytes:
        """Encode it."""
        return encode(content)


async def answer(call: Call, live: LiveRun, *, background: bool, stays: bool) -> None:
    """
    Answer as the client wants it.

    Args:
        call: the request.
        live: the run, begun.
        background: whether it goes on while the client does something else.
        stays: whether it goes on when the client leaves.

    """
    if background:
        await answer_at_once(call, live)
        return
    try:
        await (answer_with_events(call, live) if streams(call) else answer_with_result(call, live))
    finally:
        if not live.task.done():
            if stays:
                call.service.runs.leave(live)
            elif not live.followers:
                live.give_up()


async def answer_at_once(call: Call, live: LiveRun) -> None:
    """Say where the run is found, as soon as it is certain that it is not refused."""
    await live.accepted()
    call.exchange.tell("location", f"/v1/runs/{live.id}")
    call.exchange.tell("preference-applied", "respond-async")
    await call.reply({"run_id": live.id, "status": "running"}, status=202)


async def answer_with_result(call: Call, live: LiveRun) -> None:
    """Wait for the run's end."""
    result = await live.result()
    call.exchange.waited_s += live.queued_s + outside_s(result)
    await call.reply(result)


async def answer_with_events(call: Call, live: LiveRun, after: int = -1) -> None:
    """Tell what happens as it happens."""
    stream = call.events()
    write = _as_brief_sse if call.is_said("brief") else as_sse
    async for events in live.follow(after):
        call.exchange.waited_s = asyncio.get_running_loop().time() - call.exchange.began_at
        await stream.write(*map(write, events))
    if not live.told_its_end:
        try:
            await live.result()
        except Exception as error:
            if not stream.started:
                raise
            await stream.write(sse(problem_details(problem_of(error), call.exchange.request_id), event="error"))
    await stream.close()


async def answer_with_record(call: Call, pages: AsyncIterator[Sequence[str | bytes]]) -> None:
    """Tell what the store knows, and what it learns until the run's end; as much at once as there is, as it is kept."""
    stream = call.events()
    brief = call.is_said("brief")
    async for events in pages:
        call.exchange.waited_s = asyncio.get_running_loop().time() - call.exchange.began_at
        await stream.write(*(_kept_sse(event, brief=brief) for event in events))
    await stream.close()


def streams(call: Call) -> bool:
    """Whether the client wants events."""
    return "text/event-stream" in call.headers.get("accept", "")


def in_background(call: Call) -> bool:
    """Whether the run is to go on while the client does something else; raises as `Call.is_said` does."""
    return call.is_said("background") or "respond-async" in call.headers.get("prefer", "").lower()


def no_such_run(run_id: str) -> Problem:
    """Say that a run is not there, or not for this team."""
    return Problem("not_found", f"there is no run {run_id[:80]!r}")


def as_sse(event: AgentEvent) -> bytes:
    """Write an event of a run for a stream; its number is the id that a client comes back with."""
    return sse(event, event=str(type(event).__struct_config__.tag), id=event.seq)


def _as_brief_sse(event: AgentEvent) -> bytes:
    if not isinstance(event, RunFinished):
        return as_sse(event)
    told = msgspec.to_builtins(event)
    told["result"] = brief_result(told["result"])
    return sse(told, event=told["type"], id=event.seq)


class _Head(msgspec.Struct):
    """What of an event its line in a stream needs; what else it holds is not read."""

    type: str
    seq: int


_head = msgspec.json.Decoder(_Head)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _kept_sse(event: str | bytes, *, brief: bool) -> bytes:
    """Write an event that is JSON already."""
    head = _head.decode(event)
    told = event.encode() if isinstance(event, str) else event
    if brief and head.type == "run_finished":
        fields = _fields.decode(told)
        result = encode(brief_result(_fields.decode(fields["result"])))
        told = encode(fields | {"result": msgspec.Raw(result)})
    return sse(told, event=head.type, id=head.seq)


def session_of(caller: Caller, session_id: Any) -> str | None:
    """
    Name a session as it is kept; that of one team is never another's.

    Raises:
        Problem: it is no name.

    """
    if session_id is None:
        return None
    if not isinstance(session_id, str) or not is_name(session_id, MAX_SESSION_ID):
        told = f"session_id is a text of 1 to {MAX_SESSION_ID} printable characters"
        raise Problem("invalid_request", told, param="session_id")
    return f"{caller.team}/{session_id}" if caller.team or "/" in session_id else session_id


def shown_session(caller: Caller, session_id: str | None) -> str | None:
    """Name a session as its team knows it."""
    return session_id and session_id.removeprefix(f"{caller.team}/")


def check_fields(body: dict[str, Any], fields: Iterable[str]) -> None:
    """
    Refuse a field that nobody knows.

    Raises:
        Problem: there is one; tells the nearest name.

    """
    from shared_libs.factory.problems import choices

    allowed = list(fields)
    for key in body:
        if key not in allowed:
            raise Problem("invalid_request", f"unknown field {key[:60]!r}; {choices(key, allowed)}", param=key[:60])
