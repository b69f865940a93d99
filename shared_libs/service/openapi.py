"""The OpenAPI document: what FastAPI knows, and the hot routes, which are documented beside their handlers."""

from __future__ import annotations

import re
from typing import Any

from shared_libs.atomic.loading import importing
from shared_libs.service.endpoint import Endpoint
from shared_libs.service.problems import PROBLEM_JSON

with importing("fastapi", "the service"):
    from fastapi import FastAPI
    from fastapi.openapi.utils import get_openapi
    from starlette.routing import Route

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
OPEN_PATHS = ("/healthz", "/readyz", "/openapi.json", "/", "/console.js", "/console.css")
"""What needs no key: the probes, the document, and the console's page, which holds nothing but itself."""


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    made = get_openapi(title=app.title, version="1", summary=app.summary, routes=app.routes)
    paths = made.setdefault("paths", {})
    for operations in paths.values():
        for operation in operations.values():
            # what is not valid is a problem here, as everything else that is refused
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _refused(PROBLEM_JSON)
    for route in app.routes:
        if isinstance(route, Route) and isinstance(route.endpoint, Endpoint) and route.endpoint.doc:
            path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
            for method in sorted((route.methods or set()) - {"HEAD"}):
                paths.setdefault(path, {})[method.lower()] = _operation(path, route.endpoint)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = PROBLEM
    if not app.state.service.door.is_open:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
        for path in paths.keys() & set(OPEN_PATHS):
            for operation in paths[path].values():
                operation["security"] = []
    app.openapi_schema = made
    return made


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    """Document a hot route: what stands beside its handler, and what the route itself says."""
    told = dict(endpoint.doc or {})
    given = told.get("parameters", [])
    known = {parameter["name"] for parameter in given}
    missing = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
        if name not in known
    ]
    refused = {"default": _refused(endpoint.dialect.media_type)}
    return told | {"parameters": [*missing, *given], "responses": told["responses"] | refused}


def _refused(media_type: str) -> dict[str, Any]:
    """Say how a route refuses: with problem details (RFC 9457), or as the face's own clients read it."""
    own = media_type == PROBLEM_JSON
    schema = {"$ref": "#/components/schemas/Problem"} if own else {"type": "object"}
    return {"description": "Refused, or failed.", "content": {media_type: {"schema": schema}}}
