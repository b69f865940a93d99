"""Probes and the document: the routes that need no key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from shared_libs.service.openapi import document

router = APIRouter(tags=["meta"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that the event loop is alive; no store and no model is looked at."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not now."}})
async def readyz(request: Request) -> JSONResponse:
    """Tell whether requests can be served now, and what is wrong though they can."""
    service = request.app.state.service
    ready = service.catalogue.size > 0 and not service.draining
    told: dict[str, Any] = {
        "status": "ready" if ready else "draining" if service.draining else "nothing to serve",
        "entries": service.catalogue.size,
        "runs": len(service.runs),
        "problems": service.catalogue.problems,
    }
    return JSONResponse(told, 200 if ready else 503)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(document(request.app))
