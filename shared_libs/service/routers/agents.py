"""Which agents there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Entry
from shared_libs.service.keys import require_key

router = APIRouter(prefix="/v1/agents", tags=["agents"])


@router.get("")
async def agents(request: Request, caller: Annotated[Caller, Depends(require_key("agents:run"))]) -> dict[str, Any]:
    """List the agents that the key may run."""
    visible = request.app.state.service.catalogue.visible(caller)
    return {"agents": [_told(entry) for entry in visible if entry.kind == "agent"]}


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
    }
