"""How the service stands: slots and queues, models with their breakers and limits, keys with what they have left."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends, Request

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.service.callers import ANYONE, Caller
from shared_libs.service.catalogue import models_of
from shared_libs.service.key_rows import now
from shared_libs.service.key_store import KeyStoreError
from shared_libs.service.keys import require_key
from shared_libs.service.problems import Problem
from shared_libs.service.routers.answers import Json
from shared_libs.service.state import Service

router = APIRouter(prefix="/v1", tags=["status"], default_response_class=Json)

MOST_KEYS = 200
"""Keys that are told at the most; the newest."""


@router.get("/status")
async def status(request: Request, caller: Annotated[Caller, Depends(require_key("service:read"))]) -> Json:
    """Tell slots, queues and refusals by target, and the models behind what the key may ask."""
    service: Service = request.app.state.service
    models: dict[tuple[str, str, str], dict[str, Any]] = {}
    visible = service.catalogue.visible(caller)
    hidden = {entry.name for entry in service.catalogue.visible(ANYONE)} - {entry.name for entry in visible}
    for entry in visible:
        for llm, policy in models_of(entry.llm):
            told = models.setdefault((llm.provider, llm.model, _place(llm)), _model(llm, policy))
            if entry.kind == "agent":
                told["used_by"].append(entry.name)
    return Json(
        {
            "draining": service.draining,
            "loop": {"late_s": service.lag.late_s, "refuses": service.lag.refuses},
            "runs": len(service.runs),
            "targets": {name: told for name, told in service.admission.told().items() if name not in hidden},
            "models": list(models.values()),
            "problems": service.catalogue.problems,
        }
    )


@router.get("/keys")
async def keys(request: Request, caller: Annotated[Caller, Depends(require_key("keys:read"))]) -> Json:
    """List the keys of the caller's team, every team's for a key without one, and what is left of their limits."""
    service: Service = request.app.state.service
    try:
        rows = await service.door.rows()
    except KeyStoreError as error:
        raise Problem("store_unavailable", "the keys cannot be looked at now; try again", retry_after_s=1.0) from error
    seen = [row for row in rows if not caller.team or row.team == caller.team]
    seen.sort(key=lambda row: row.created_at.timestamp() if row.created_at is not None else 0.0, reverse=True)
    told = []
    for row in seen[:MOST_KEYS]:
        facts = msgspec.to_builtins(row)
        del facts["hash"]
        told.append(facts | {"invalid": row.why_not(now()), "limits": await service.limits.standing(row.caller())})
    return Json({"keys": told, "more": len(seen) > MOST_KEYS})


def _model(llm: BaseLLMWrapper, policy: Resilience) -> dict[str, Any]:
    health, limit = llm.health, policy.rate_limit
    return {
        "provider": llm.provider,
        "model": llm.model,
        "place": _place(llm),
        "rehearsal": llm.rehearsal,
        "used_by": [],
        "breaker": health.breaker.state,
        "asked_again_in_s": health.breaker.left_s(policy.breaker, asyncio.get_running_loop().time()),
        "failures": health.breaker.failures,
        "opens_at": policy.breaker.failures,
        "p95_s": health.latency.p95(),
        "left_running": len(health.left_running),
        "limit": None
        if limit is None
        else {name: getattr(limit, name) for name in ("requests_per_minute", "tokens_per_minute", "concurrency")},
    }


def _place(llm: BaseLLMWrapper) -> str:
    """Return the host of a model, without what may be secret in its address."""
    return urlsplit(str(getattr(llm, "base_url", "") or "")).netloc.rpartition("@")[2]
