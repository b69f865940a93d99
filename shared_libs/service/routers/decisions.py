"""Approvals over HTTP: a paused run goes on with what a person has decided about its calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.agents.pause import PausedRun
from shared_libs.atomic.amounts import AMOUNT, is_amount
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import RunFinished
from shared_libs.atomic.results import AgentResult, Decision
from shared_libs.durable import Job
from shared_libs.observability.redact import MASK
from shared_libs.observability.runs.rows import RunRow
from shared_libs.service.audit import digest
from shared_libs.service.durable import DurableRun
from shared_libs.service.endpoint import Call
from shared_libs.service.live import Asked, LiveRun, Resumed, demand_of_run
from shared_libs.service.problems import Problem
from shared_libs.service.repeats import Asked as Repeated
from shared_libs.service.repeats import answered_once
from shared_libs.service.routers.answers import ANSWERS_DOC, answer, check_fields, in_background, no_such_run, streams
from shared_libs.service.streams import encode

if TYPE_CHECKING:
    from shared_libs.service.state import Service


async def decide(call: Call) -> None:
    """
    Go on with a paused run; calls without a decision stay pending, and the run pauses again behind the others.

    The same decision, sent again by an SDK or under an `Idempotency-Key`, gets what became of the first.
    """
    raw = await call.body()
    body = await call.decoded(raw)
    check_fields(body, ("decisions", "timeout"))
    if (timeout := body.get("timeout")) is not None and not is_amount(timeout):
        raise Problem("invalid_request", "timeout is a positive number of seconds", param="timeout")
    decisions = _read(body.get("decisions"))
    service, background = call.service, in_background(call)
    job = await service.queue.job(call.path["run_id"], call.caller.team)
    stays = (background and job is None) or call.stays_when_gone("continue")
    if job is not None and background:
        work = partial(_queued, call, job, decisions)
        told = await answered_once(service.outcomes, call, Repeated(call, raw), work, dict[str, str])
        call.exchange.tell("x-factory-run-id", job.run_id)
        call.exchange.tell("location", f"/v1/runs/{job.run_id}")
        await call.reply(told, status=202)
        return
    repeated = Repeated(call, raw)
    live = service.run_repeats.find(repeated)
    if live is None:
        try:
            live = await go_on(call, call.path["run_id"], job, decisions, timeout)
            service.run_repeats.keep(repeated, live)
        except Problem:
            live = service.run_repeats.find(repeated)  # the same may have come in the same moment
            if live is None:
                raise
    call.exchange.tell("x-factory-run-id", live.id)
    await answer(call, live, background=background, stays=stays)


async def go_on(
    call: Call, run_id: str, job: Job | None, decisions: dict[str, Decision], timeout: float | None = None
) -> LiveRun:
    """
    Go on with a run that waits; calls without a decision stay pending.

    Args:
        call: the request of whoever decides.
        run_id: the run.
        job: the same in the queue, where it is durable.
        decisions: what is decided, by the id of the call.
        timeout: seconds it may go on for; None: as long as its agent may.

    Raises:
        Problem: it does not wait, or not for these decisions, or is not there for this caller.

    """
    return await (_gone_on(call, run_id, decisions, timeout) if job is None else _durable(call, job, decisions))


async def _gone_on(call: Call, run_id: str, decisions: dict[str, Decision], timeout: float | None) -> LiveRun:
    """Go on with a run that waits here, or that the store has."""
    service, team = call.service, call.caller.team
    agent, state = await _waiting(service, team, run_id)
    entry = service.catalogue.find(call.caller, agent, kind="agent")
    PausedRun.read(state).decide(decisions)  # raises what is wrong before anything is begun
    unbound = streams(call) or in_background(call)
    demand = demand_of_run(
        entry, call, call.deadline(min(entry.longest_s, timeout or entry.longest_s), streams=unbound)
    )
    asked = Asked(question="", resumes=Resumed(state, decisions))
    live = LiveRun(entry, asked, demand, record=service.record(call.caller), run_id=run_id)
    before = service.runs.get(run_id, team)
    live.goes_on_from(PausedRun.read(state).events, before)
    if not service.runs.begin_if_idle(live):
        raise Problem("conflict", "the run goes on already: somebody has decided")
    service.paused.forget(team, run_id)
    _note(call, run_id, decisions)
    return live


async def _queued(call: Call, job: Job, decisions: dict[str, Decision]) -> dict[str, str]:
    """Enter the decisions; whichever worker takes the run goes on with them."""
    call.service.catalogue.find(call.caller, job.agent, kind="agent")
    await _enter(call.service, job, decisions)
    _note(call, job.run_id, decisions)
    return {"run_id": job.run_id, "status": "queued"}


async def _durable(call: Call, job: Job, decisions: dict[str, Decision]) -> LiveRun:
    """Enter the decisions, and wait here for what a worker makes of them."""
    service = call.service
    entry = service.catalogue.find(call.caller, job.agent, kind="agent")
    deadline = call.deadline(entry.longest_s, streams=streams(call))
    after, _ = await service.queue.store.last_event(job.run_id)
    await _queued(call, job, decisions)
    live = DurableRun(entry, demand_of_run(entry, call, deadline), service.queue, job.run_id, after=after)
    live.goes_on_from(after, service.runs.get(job.run_id, call.caller.team))
    if not service.runs.begin_if_idle(live):
        raise Problem("conflict", "the run goes on, and somebody waits for it here; GET its events")
    return live


def _note(call: Call, run_id: str, decisions: Mapping[str, Decision]) -> None:
    told = {call_id: "approved" if decision.approved else "refused" for call_id, decision in decisions.items()}
    call.note("run.decided", f"run:{run_id}", after=digest(encode(decisions)), facts=told)


async def _enter(service: Service, job: Job, decisions: dict[str, Decision]) -> None:
    if job.cancelling:
        raise Problem("conflict", "the run waits for no decision: it is cancelled")
    try:
        counts = await service.queue.decide(job.run_id, decisions)
    except MisuseError as error:
        if job.status == "waiting":
            raise
        raise Problem("conflict", str(error), facts={"status": job.status}) from None
    if not counts:
        before = await service.queue.store.decided(job.run_id, decisions)
        facts = {"decided": {call_id: decision.approved for call_id, decision in before.items()}}
        raise Problem("conflict", "the run goes on already: somebody has decided", facts=facts)


async def _waiting(service: Service, team: str, run_id: str) -> tuple[str, dict[str, Any]]:
    """Return the agent and the state of a run that waits, from here or, after a restart, from the store."""
    live = service.runs.get(run_id, team)
    if live is not None and not live.task.done():
        raise Problem("conflict", "the run is under way and waits for nothing")
    state = service.paused.find(team, run_id)
    if live is not None:  # the store may not have heard yet of what has just happened here
        if state is None:
            raise Problem("conflict", "the run waits for no decision: it has ended")
        return live.entry.name, state
    await service.store.flush()
    row = await service.store.async_get(run_id, team)
    if row is None:
        raise no_such_run(run_id)
    if row.status != "paused":
        raise Problem("conflict", f"the run waits for no decision: it is {row.status}", facts={"status": row.status})
    return row.agent, state or _state_of(row)


def _state_of(row: RunRow) -> dict[str, Any]:
    state = (row.result or {}).get("state")
    if not state or MASK in json.dumps(state, ensure_ascii=False):
        raise Problem(
            "conflict",
            "the run waited in a process that is no more, and what was kept of it lacks what is secret or is no "
            "contents to be kept; cancel it and ask again",
        )
    return dict(state)


def _read(given: Any) -> dict[str, Decision]:
    if not isinstance(given, dict) or not given:
        told = "`decisions` maps the ids of calls to true, false or {approved, reason, input}"
        raise Problem("invalid_request", told, param="decisions")
    decisions: dict[str, Decision] = {}
    for call_id, told in given.items():
        if isinstance(told, bool):
            decisions[call_id] = Decision(told)
            continue
        try:
            decision = msgspec.convert(told, Decision)
        except msgspec.ValidationError as error:
            raise Problem("invalid_request", f"the decision on {call_id[:60]!r}: {error}", param="decisions") from None
        if decision.result is not None or decision.said:
            raise Problem("invalid_request", "a person decides on a call and does not make it", param="decisions")
        decisions[call_id] = decision
    return decisions


def cancel_paused(service: Service, row: RunRow, team: str) -> None:
    """Put an end to a run that waits: nobody decides on it any more."""
    state = service.paused.find(team, row.run_id) or (row.result or {}).get("state")
    service.paused.forget(team, row.run_id)
    try:
        number = PausedRun.read(state or {}).events + 1
        paused = msgspec.convert(row.result, AgentResult)
    except (MisuseError, msgspec.ValidationError):
        raise Problem("conflict", "of this run not enough is kept to end it; it waits for nothing any more") from None
    why = "cancelled while it waited for a decision"
    ended = msgspec.structs.replace(
        paused, status="cancelled", stop_reason="cancelled", pending=(), state=None, error=why
    )
    service.store.record(
        RunFinished(run_id=row.run_id, seq=number, at_s=paused.elapsed_s, result=ended), team, "service"
    )


DECIDE_DOC: Mapping[str, Any] = {
    "tags": ["runs"],
    "operationId": "decide",
    "summary": "Decide on the calls that a paused run waits with",
    "parameters": [
        {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "background", "in": "query", "schema": {"type": "boolean", "default": False}},
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["decisions"],
                    "additionalProperties": False,
                    "properties": {
                        "decisions": {
                            "type": "object",
                            "minProperties": 1,
                            "additionalProperties": {
                                "oneOf": [
                                    {"type": "boolean"},
                                    {
                                        "type": "object",
                                        "required": ["approved"],
                                        "additionalProperties": False,
                                        "properties": {
                                            "approved": {"type": "boolean"},
                                            "reason": {"type": "string"},
                                            "input": {"type": ["object", "null"]},
                                        },
                                    },
                                ]
                            },
                        },
                        "timeout": AMOUNT,
                    },
                }
            }
        },
    },
    "responses": ANSWERS_DOC,
}
