"""Probes, figures and the document: what the service says of itself."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from shared_libs.service.callers import Caller
from shared_libs.service.keys import require_key
from shared_libs.service.openapi import document

router = APIRouter(tags=["meta"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that the event loop is alive; no store and no model is looked at."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "Not now."}})
async def readyz(request: Request) -> JSONResponse:
    """
    Tell whether requests can be served now, and how many files are wrong though they can.

    What is wrong with them names files, models and places: who asks without a key hears it where anyone may ask all.
    """
    service = request.app.state.service
    why_not = "draining" if service.draining else "" if service.catalogue.size else "nothing to serve"
    why_not = why_not or ("" if service.lag.ready else "busy")
    told: dict[str, Any] = {
        "status": why_not or "ready",
        "entries": service.catalogue.size,
        "runs": len(service.runs),
        "refused": len(service.catalogue.problems),
    }
    if service.door.is_open:
        told["problems"] = service.catalogue.problems
    return JSONResponse(told, 503 if why_not else 200)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, _: Annotated[Caller, Depends(require_key("metrics:read"))]) -> Response:
    """Return the figures of this process for Prometheus; with exemplars for who asks for OpenMetrics."""
    body, kind = request.app.state.service.metrics.exposition(request.headers.get("accept", ""))
    return Response(body, media_type=kind)


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document; the first time takes a while, and so it is made in a thread."""
    return JSONResponse(document(request.app))
