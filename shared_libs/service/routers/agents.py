"""Which agents there are, and what they remember."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from shared_libs.observability.redact import redact_text
from shared_libs.service.audit import digest
from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Entry
from shared_libs.service.keys import require_key
from shared_libs.service.problems import Problem
from shared_libs.service.routers.answers import Json, session_of
from shared_libs.service.state import Service

router = APIRouter(prefix="/v1/agents", tags=["agents"])


@router.get("")
async def agents(request: Request, caller: Annotated[Caller, Depends(require_key("agents:run"))]) -> dict[str, Any]:
    """List the agents that the key may run."""
    visible = request.app.state.service.catalogue.visible(caller)
    return {"agents": [_told(entry) for entry in visible if entry.kind == "agent"]}


@router.get("/{name}")
async def agent(request: Request, name: str, caller: Annotated[Caller, Depends(require_key("agents:run"))]) -> Json:
    """Tell an agent's definition, its secrets masked, and what checking it has said."""
    catalogue = request.app.state.service.catalogue
    entry = catalogue.find(caller, name, kind="agent")
    file, text = await asyncio.to_thread(catalogue.definition, entry)
    told = {
        "file": file,
        "definition": redact_text(text),
        "problems": catalogue.problems.get(file, ()),
        "notes": catalogue.notes.get(file, ()),
    }
    return Json(_told(entry) | told)


@router.delete("/{name}/sessions/{session_id:path}")
async def forget_session(
    request: Request, name: str, session_id: str, caller: Annotated[Caller, Depends(require_key("runs:forget"))]
) -> Json:
    """
    Forget a session of an agent: what it remembers of it, and the runs that are kept, durable ones among them.

    Nothing is forgotten while a run of it is under way or waits for a decision: it would be remembered again.
    """
    service: Service = request.app.state.service
    entry = service.catalogue.find(caller, name, kind="agent")
    try:
        kept_as = session_of(caller, session_id)
    except Problem:
        kept_as = None
    if kept_as is None or entry.agent.memory is None:
        raise Problem("not_found", f"no session of {name} is called so, or it has no memory to keep one in")
    which = caller.team, name, kept_as
    under_way = await service.queue.open_in_session(*which)
    await service.store.flush()
    for status in ("running", "paused"):
        page = await service.store.async_list(team=caller.team, agent=name, session_id=kept_as, status=status, limit=10)
        under_way += [row.run_id for row in page.rows]
    if under_way:
        told = "a run of this session is under way, or waits for a decision: DELETE /v1/runs/ID ends it"
        raise Problem("conflict", told, facts={"runs": sorted(set(under_way))})
    async with entry.used():
        await entry.agent.memory.async_forget(kept_as)
    queued = await service.queue.forget_session(*which)
    runs = max(queued, await service.store.async_forget(kept_as, agent=name, team=caller.team))
    facts = {"agent": name, "runs": runs}
    service.audit.note_request(request.scope, caller, "session.forgotten", f"session:{digest(kept_as)}", facts=facts)
    return Json({"session_id": session_id, "runs": runs})


def _told(entry: Entry) -> dict[str, Any]:
    agent = entry.agent
    return {
        "name": entry.name,
        "description": entry.description,
        "model": agent.llm.model,
        "rehearsal": agent.llm.rehearsal,
        "tools": [tool.name for tool in agent.tools],
        "memory": agent.memory is not None,
        "timeout_s": agent.limits.timeout_s,
        "reserve_s": agent.limits.reserve_s,
    }
