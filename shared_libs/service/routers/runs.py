"""Runs of agents: begun, followed and ended over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.routing import Route

from shared_libs.agents.limits import is_seconds
from shared_libs.agents.question import read_question
from shared_libs.atomic.events import AgentEvent
from shared_libs.factory.problems import choices
from shared_libs.service.admission import Demand
from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call, Endpoint
from shared_libs.service.live import Asked, LiveRun, outside_s
from shared_libs.service.problems import Problem, problem_details, problem_of
from shared_libs.service.streams import sse

router = APIRouter(prefix="/v1/runs", tags=["runs"])

_FIELDS = ("question", "session_id", "timeout", "output_schema")
_MAX_SESSION_ID = 200


async def begin(call: Call) -> None:
    """Run an agent: answer with its result, with its events, or at once where it is to go on in the background."""
    entry = call.service.catalogue.find(call.caller, call.path["name"], kind="agent")
    body = _checked(await call.json(), entry)
    streams = "text/event-stream" in call.headers.get("accept", "")
    background = _in_background(call)
    longest_s = min(entry.longest_s, body.get("timeout") or entry.longest_s)
    deadline = call.deadline(longest_s, streams=streams or background)
    asked = Asked(
        question=body["question"],
        session_id=_session(call, body.get("session_id")),
        stream=streams or background,
        options={key: body[key] for key in ("output_schema",) if body.get(key) is not None},
    )
    # an agent can always answer with what it has
    demand = Demand(caller=call.caller, target=entry.name, deadline=deadline, need_s=0.0)
    stays = background or call.stays_when_gone("continue")
    live = LiveRun(entry, asked, demand, record=call.service.record(call.caller))
    call.exchange.tell("x-factory-run-id", live.id)
    call.service.runs.begin(live)
    if background:
        await _answer_at_once(call, live)
        return
    try:
        await (_answer_with_events(call, live) if streams else _answer_with_result(call, live))
    finally:
        if not live.task.done():
            call.service.runs.leave(live) if stays else live.task.cancel()


async def _answer_at_once(call: Call, live: LiveRun) -> None:
    await live.accepted()
    call.exchange.tell("location", f"/v1/runs/{live.id}")
    call.exchange.tell("preference-applied", "respond-async")
    await call.reply({"run_id": live.id, "status": "running"}, status=202)


async def _answer_with_result(call: Call, live: LiveRun) -> None:
    result = await live.result()
    call.exchange.waited_s += live.queued_s + outside_s(result)
    await call.reply(result)


async def _answer_with_events(call: Call, live: LiveRun, after: int = -1) -> None:
    stream = call.events()
    async for events in live.follow(after):
        call.exchange.waited_s = asyncio.get_running_loop().time() - call.exchange.began_at
        await stream.write(*map(as_sse, events))
    if not live.told_its_end:
        try:
            await live.result()
        except Exception as error:
            if not stream.started:
                raise
            await stream.write(sse(problem_details(problem_of(error), call.exchange.request_id), event="error"))
    await stream.close()


def as_sse(event: AgentEvent) -> bytes:
    """Write an event of a run for a stream; its number is the id that a client comes back with."""
    return sse(event, event=str(type(event).__struct_config__.tag), id=event.seq)


def _checked(body: dict[str, Any], entry: Entry) -> dict[str, Any]:
    for key in body:
        if key not in _FIELDS:
            raise Problem("invalid_request", f"unknown field {key[:60]!r}; {choices(key, _FIELDS)}", param=key[:60])
    if "question" not in body:
        raise Problem("invalid_request", "`question` is missing: a text, content parts or messages", param="question")
    read_question(body["question"])
    if (timeout := body.get("timeout")) is not None and not is_seconds(timeout):
        raise Problem("invalid_request", "timeout is a positive number of seconds", param="timeout")
    if not isinstance(body.get("output_schema", {}), dict | None):
        raise Problem("invalid_request", "output_schema is a JSON Schema, an object", param="output_schema")
    if body.get("session_id") is not None and entry.agent.memory is None:
        raise Problem("invalid_request", f"{entry.name} has no memory to keep a session in", param="session_id")
    return body


def _session(call: Call, session_id: Any) -> str | None:
    """Name a session; that of one team is never another's."""
    if session_id is None:
        return None
    if not isinstance(session_id, str) or not 0 < len(session_id) <= _MAX_SESSION_ID or not session_id.isprintable():
        told = f"session_id is a text of 1 to {_MAX_SESSION_ID} printable characters"
        raise Problem("invalid_request", told, param="session_id")
    return f"{call.caller.team}/{session_id}" if call.caller.team else session_id


def _in_background(call: Call) -> bool:
    told = call.query.get("background", "false").lower()
    if told not in ("", "true", "1", "false", "0"):
        raise Problem("invalid_request", "background is true or false", param="background")
    return told in ("", "true", "1") or "respond-async" in call.headers.get("prefer", "").lower()


_BEGIN_DOC: Mapping[str, Any] = {
    "tags": ["runs"],
    "operationId": "begin_run",
    "summary": "Run an agent",
    "parameters": [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "background", "in": "query", "schema": {"type": "boolean", "default": False}},
        {"name": "X-Request-Timeout", "in": "header", "schema": {"type": "number", "exclusiveMinimum": 0}},
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["question"],
                    "additionalProperties": False,
                    "properties": {
                        "question": {
                            "description": "A text, content parts, a message or messages.",
                            "oneOf": [{"type": "string"}, {"type": "array"}, {"type": "object"}],
                        },
                        "session_id": {"type": ["string", "null"], "maxLength": _MAX_SESSION_ID},
                        "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0},
                        "output_schema": {"type": ["object", "null"]},
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "How the run ended, or its events.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        "202": {
            "description": "The run goes on in the background.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
    },
}

HOT = [Route("/v1/agents/{name}/runs", Endpoint(begin, needs="agents:run", doc=_BEGIN_DOC), methods=["POST"])]
