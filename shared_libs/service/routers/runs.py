"""Runs of agents: begun, looked at, followed and ended over HTTP."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.routing import Route

from shared_libs.agents.question import read_question
from shared_libs.atomic.amounts import AMOUNT, is_amount
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.names import name_schema
from shared_libs.durable import Submission
from shared_libs.observability.runs.reader import brief_result
from shared_libs.observability.runs.rows import RunRow
from shared_libs.service.admission import Demand
from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Entry
from shared_libs.service.durable import durable_run, row_of, submission_of, wants_durable
from shared_libs.service.endpoint import Call, Endpoint
from shared_libs.service.keys import require_key
from shared_libs.service.live import Asked, LiveRun, demand_of_run
from shared_libs.service.problems import Problem
from shared_libs.service.repeats import FRESH_S, joined, other_body
from shared_libs.service.repeats import Asked as AskedBefore
from shared_libs.service.routers.answers import (
    ANSWERS_DOC,
    MAX_SESSION_ID,
    Json,
    answer,
    answer_with_events,
    answer_with_record,
    check_fields,
    in_background,
    no_such_run,
    session_of,
    shown_session,
    streams,
)
from shared_libs.service.routers.decisions import DECIDE_DOC, cancel_paused, decide
from shared_libs.service.streams import STREAM_DOC, encode

if TYPE_CHECKING:
    from shared_libs.service.state import Service

router = APIRouter(prefix="/v1/runs", tags=["runs"], default_response_class=Json)

_CURSOR = r"^([0-9]{1,9}(\.[0-9]{1,18})?(e-[0-9]{2})?~)?[1-8]?[0-9]{1,18}$"

MAX_NUMBER = 2**53
"""The highest number of an event that is asked for."""

FLUSH_S = 0.5
"""Seconds a list waits for what this process has to write."""

TOLD_S = 5.0
LOOK_S = 0.1
"""How long, and how often, it is looked for a run that another server has just begun."""

_FIELDS = ("question", "session_id", "timeout", "output_schema")


def _in_utc(told: Any) -> datetime:
    """Read a moment as RFC 3339 has it, and nothing that else may be taken for one."""
    try:
        if isinstance(told, str) and (at := datetime.fromisoformat(told)).tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("a moment with its offset, as in 2026-11-27T09:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_in_utc), WithJsonSchema({"type": "string", "format": "date-time"})]


class WantedRuns(BaseModel):
    """Which runs are wanted; what is left out is left open."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    status: Literal["running", "answered", "partial", "failed", "cancelled", "paused", "unfinished"] | None = None
    """How they stand."""
    agent: str | None = None
    """Whose runs."""
    session_id: Annotated[str, WithJsonSchema(name_schema(MAX_SESSION_ID))] | None = None
    """Of which conversation."""
    since: Moment | None = None
    """Those that began then or later."""
    until: Moment | None = None
    """Those that began before."""
    parent: str | None = None
    """Those of its sub-agents; they are in no other list."""
    text: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Words of question, answer or error; all of them."""
    order: Literal["newest", "slowest"] = "newest"
    """Which come first."""
    after: Annotated[str, Field(pattern=_CURSOR)] | None = None
    """The `next` of the page before; it goes on in the same order."""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """Runs of a page."""


async def begin(call: Call) -> None:
    """Run an agent: answer with its result, with its events, or at once where it is to go on in the background."""
    service = call.service
    entry = service.catalogue.find(call.caller, call.path["name"], kind="agent")
    raw = await call.body()
    body = _checked(await call.decoded(raw), entry)
    streaming, background = streams(call), in_background(call)
    asked_before = AskedBefore(call, raw)
    stays = background or call.stays_when_gone("continue")
    durable = wants_durable(entry, call)
    live: LiveRun | RunRow | None = service.run_repeats.find(asked_before)
    claimed = None
    if live is None and asked_before.has_key:
        claimed = await service.claims.take(asked_before, FRESH_S if durable else entry.longest_s)
        if not durable:  # one that is has a name that is the same at every server, which they join
            live = await _begun(call, asked_before, under_way=claimed is not None)
    if isinstance(live, RunRow):
        await _answer_from_store(call, live)
        return
    joins = live is not None and not (streaming or background)
    try:
        if live is None:
            asked, demand = _wanted(call, entry, body, unbound=streaming or background)
            run_id = asked_before.run_id if asked_before.has_key else uuid.uuid4().hex
            if durable and background:
                timeout_s = body.get("timeout")
                made = await submission_of(entry, asked, demand, run_id=run_id, timeout_s=timeout_s, followed=False)
                await _answer_submitted(call, demand, made)
                return
            if durable:
                live = durable_run(entry, asked, demand, service.queue, run_id)
            else:
                live = LiveRun(entry, asked, demand, record=service.record(call.caller), run_id=run_id)
            service.runs.begin(live)
            service.run_repeats.keep(asked_before, live)
        call.exchange.tell("x-factory-run-id", live.id)
        async with joined(call) if joins else nullcontext():
            await answer(call, live, background=background, stays=stays)
    finally:
        if live is None or live.failed:
            service.run_repeats.forget(asked_before)  # who asks again begins anew
            if claimed is None:
                service.claims.settle(asked_before, None)


def _wanted(call: Call, entry: Entry, body: dict[str, Any], *, unbound: bool) -> tuple[Asked, Demand]:
    longest_s = min(entry.longest_s, body.get("timeout") or entry.longest_s)
    asked = Asked(
        question=body["question"],
        session_id=session_of(call.caller, body.get("session_id")),
        stream=unbound,
        options={key: body[key] for key in ("output_schema",) if body.get(key) is not None},
    )
    return asked, demand_of_run(entry, call, call.deadline(longest_s, streams=unbound))


async def _begun(call: Call, asked: AskedBefore, *, under_way: bool) -> LiveRun | RunRow | None:
    """
    Return the run that a request under a key has begun before, here or elsewhere; None: it is the first.

    Raises:
        Problem: its key belongs to another request, or another server has begun it and told nothing of it yet.

    """
    store, loop = call.service.store, asyncio.get_running_loop()
    told_by = loop.time() + (TOLD_S if under_way else 0.0)
    while True:
        page = await store.async_list(team=call.caller.team, prefix=asked.of_key, limit=1)
        for row in page.rows:
            if row.run_id != asked.run_id:
                raise other_body()
            return row
        # another of its kind may have come here meanwhile
        if (live := call.service.run_repeats.find(asked)) is not None or not under_way:
            return live
        if loop.time() >= told_by:
            raise Problem("conflict", "another server has begun this run, and nothing is known of it yet; try again")
        await asyncio.sleep(LOOK_S)


async def _answer_submitted(call: Call, demand: Demand, made: tuple[Submission, str]) -> None:
    """Say where the run is found, once it is committed to the queue."""
    async with call.service.admission.enter(demand):
        await call.service.queue.submit(*made)
    run_id = made[0].run_id
    call.exchange.tell("x-factory-run-id", run_id)
    call.exchange.tell("location", f"/v1/runs/{run_id}")
    call.exchange.tell("preference-applied", "respond-async")
    await call.reply({"run_id": run_id, "status": "queued"}, status=202)


async def events(call: Call) -> None:
    """Follow a run, from its beginning or behind an event, also when it has long ended."""
    run_id = call.path["run_id"]
    after = _after(call)
    call.watch()
    live = call.service.runs.get(run_id, call.caller.team)
    if live is not None and live.has_events_after(after):
        await answer_with_events(call, live, after)
        return
    if await call.service.queue.job(run_id, call.caller.team) is not None:
        told = call.service.queue.following.follow(run_id, after=max(after, 0))
        await answer_with_record(call, ([encode(event)] async for event in told))
        return
    try:
        await answer_with_record(call, call.service.store.follow_pages(run_id, after, team=call.caller.team))
    except MisuseError:
        raise no_such_run(run_id) from None


@router.get("")
async def list_runs(
    request: Request,
    caller: Annotated[Caller, Depends(require_key("runs:read"))],
    wanted: Annotated[WantedRuns, Query()],
) -> Json:
    """List runs, a page at a time: `next` is the `after` of the page behind it."""
    store = _service(request).store
    await store.flush(FLUSH_S)  # who has just begun a run looks for it
    which = wanted.model_dump(exclude={"order", "after", "limit"})
    order = wanted.order if wanted.after is None else "slowest" if "~" in wanted.after else "newest"
    which["session_id"] = session_of(caller, wanted.session_id)
    page = await store.async_list(team=caller.team, order=order, after=wanted.after, limit=wanted.limit, **which)
    return Json({"runs": [shown(row, caller) for row in page.rows], "next": page.next})


@router.get("/{run_id}")
async def get_run(
    request: Request, run_id: str, caller: Annotated[Caller, Depends(require_key("runs:read"))], brief: bool = False
) -> Json:
    """
    Return a run: how it stands, its result when it has ended, and the median of its agent's (`usual`) beside it.

    With `brief` the result is without steps and attempts, which the events tell.
    """
    service = _service(request)
    row = await find_run(service, run_id, caller, brief=brief)
    told = shown(row, caller) | {"usual": await service.store.async_usual(row)}
    if brief and told["result"] is not None:  # of a durable run the queue gives the whole
        told["result"] = brief_result(told["result"])
    return Json(told)


@router.get("/{run_id}/requests")
async def list_requests(
    request: Request,
    run_id: str,
    caller: Annotated[Caller, Depends(require_key("runs:read"))],
    after: Annotated[int, Query(ge=-1, le=MAX_NUMBER)] = -1,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Json:
    """
    Return what models were asked in a run, where that is kept; `next` is the `after` of the page behind it.

    Each request tells its first `kept` messages by the request `base`, and the others itself; `tools` and `options` are
    null where they are those of `base`. `seq` is that of the event `attempt_started` it belongs to.
    """
    service = _service(request)
    await find_run(service, run_id, caller)
    await service.store.flush(FLUSH_S)
    found = await service.store.async_requests(run_id, after, limit + 1, team=caller.team)
    return Json({"requests": found[:limit], "next": found[limit - 1]["seq"] if len(found) > limit else None})


@router.delete("/{run_id}")
async def cancel_run(
    request: Request, run_id: str, caller: Annotated[Caller, Depends(require_key("runs:cancel"))]
) -> Json:
    """Cancel a run; of one that has ended nothing changes. Returns how it stands then."""
    service = _service(request)
    noted = partial(service.audit.note_request, request.scope, caller, "run.cancelled", f"run:{run_id}")
    job = await service.queue.job(run_id, caller.team)
    if job is not None:
        job = await service.queue.cancel(job)
        noted()
        return Json(shown(row_of(job, await service.store.async_get(run_id, caller.team)), caller))
    live = service.runs.get(run_id, caller.team)
    if live is not None and not live.task.done():
        noted()
        await live.cancel()
    row = await find_run(service, run_id, caller)
    if row.status == "paused":
        cancel_paused(service, row, caller.team)
        noted()
        await service.store.flush()
        row = await find_run(service, run_id, caller)
    if row.status == "running":
        raise Problem("conflict", "another process has this run; it ends by its deadline at the latest")
    return Json(shown(row, caller))


async def _answer_from_store(call: Call, row: RunRow) -> None:
    """Answer a request that came before, to another process or to one that is no more."""
    call.exchange.tell("x-factory-run-id", row.run_id)
    events = call.service.store.follow_pages(row.run_id, team=call.caller.team)
    if streams(call):
        await answer_with_record(call, events)
        return
    async for _ in events:
        pass
    ended = await call.service.store.async_get(row.run_id, call.caller.team)
    if ended is None or ended.result is None:
        raise Problem("conflict", "the run of this Idempotency-Key was lost with its process; ask with a new key")
    await call.reply(ended.result)


async def find_run(service: Service, run_id: str, caller: Caller, *, brief: bool = False) -> RunRow:
    """
    Return a run of the caller's team, from wherever it is kept.

    Raises:
        Problem: there is none.

    """
    row = await service.store.async_get(run_id, caller.team, brief=brief)
    if row is None or row.source == "worker":
        job = await service.queue.job(run_id, caller.team)
        if job is not None:
            return row_of(job, row)
    if service.runs.get(run_id, caller.team) is not None and (row is None or row.status == "running"):
        await service.store.flush()
        row = await service.store.async_get(run_id, caller.team, brief=brief)
    if row is None:
        raise no_such_run(run_id)
    return row


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def shown(row: RunRow, caller: Caller) -> dict[str, Any]:
    """Tell a run, as its team knows it."""
    told: dict[str, Any] = msgspec.to_builtins(row)
    told["session_id"] = shown_session(caller, row.session_id)
    return told


def _after(call: Call) -> int:
    told = call.headers.get("last-event-id", call.query.get("after", "-1"))
    try:
        return max(-1, int(told))
    except ValueError:
        detail = f"Last-Event-ID is the number of an event, not {told[:40]!r}"
        raise Problem("invalid_request", detail, param="last-event-id") from None


def _checked(body: dict[str, Any], entry: Entry) -> dict[str, Any]:
    check_fields(body, _FIELDS)
    if "question" not in body:
        raise Problem("invalid_request", "`question` is missing: a text, content parts or messages", param="question")
    read_question(body["question"])
    if (timeout := body.get("timeout")) is not None and not is_amount(timeout):
        raise Problem("invalid_request", "timeout is a positive number of seconds", param="timeout")
    if not isinstance(body.get("output_schema", {}), dict | None):
        raise Problem("invalid_request", "output_schema is a JSON Schema, an object", param="output_schema")
    if body.get("session_id") is not None and entry.agent.memory is None:
        raise Problem("invalid_request", f"{entry.name} has no memory to keep a session in", param="session_id")
    return body


_BEGIN_DOC: Mapping[str, Any] = {
    "tags": ["runs"],
    "operationId": "begin_run",
    "summary": "Run an agent",
    "parameters": [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "background", "in": "query", "schema": {"type": "boolean", "default": False}},
        {"name": "durable", "in": "query", "schema": {"type": "boolean"}},
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
                            "description": "A text, content parts, a message, or messages of which the last one asks.",
                            "oneOf": [
                                {"type": "string", "pattern": r"[^\s\x1c-\x1f\x85]"},
                                {"type": "array", "minItems": 1},
                                {"type": "object", "required": ["role", "content"]},
                            ],
                        },
                        "session_id": name_schema(MAX_SESSION_ID) | {"type": ["string", "null"]},
                        "timeout": AMOUNT,
                        "output_schema": {"type": ["object", "null"]},
                    },
                }
            }
        },
    },
    "responses": ANSWERS_DOC,
}

_EVENTS_DOC: Mapping[str, Any] = {
    "tags": ["runs"],
    "operationId": "run_events",
    "summary": "Follow a run",
    "parameters": [
        {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer", "minimum": -1}},
        {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": -1, "default": -1}},
        {"name": "brief", "in": "query", "schema": {"type": "boolean", "default": False}},
    ],
    "responses": {
        "200": {"description": "The events.", "content": STREAM_DOC},
    },
}

HOT = [
    Route("/v1/agents/{name}/runs", Endpoint(begin, needs="agents:run", doc=_BEGIN_DOC), methods=["POST"]),
    Route("/v1/runs/{run_id}/decisions", Endpoint(decide, needs="runs:decide", doc=DECIDE_DOC), methods=["POST"]),
    Route("/v1/runs/{run_id}/events", Endpoint(events, needs="runs:read", doc=_EVENTS_DOC), methods=["GET"]),
]
"""Plain ASGI: what is asked often, or answers with a stream."""
