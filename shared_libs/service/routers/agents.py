"""Which agents there are."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from shared_libs.observability.redact import redact_text
from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Entry
from shared_libs.service.keys import require_key
from shared_libs.service.routers.answers import Json

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
