"""The OpenAPI document: what FastAPI knows, and the hot routes, which are documented beside their handlers."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import Route

from shared_libs.service.endpoint import Endpoint
from shared_libs.service.problems import PROBLEM_JSON

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
REFUSED = {
    "default": {
        "description": "Refused or failed: problem details (RFC 9457).",
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    made = get_openapi(title=app.title, version="1", summary=app.summary, routes=app.routes)
    paths = made.setdefault("paths", {})
    for route in app.routes:
        if isinstance(route, Route) and isinstance(route.endpoint, Endpoint) and route.endpoint.doc:
            path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
            for method in sorted((route.methods or set()) - {"HEAD"}):
                paths.setdefault(path, {})[method.lower()] = dict(route.endpoint.doc)
    for operations in paths.values():
        for operation in operations.values():
            # what is not valid is a problem here, as everything else that is refused
            operation["responses"] = {
                code: told for code, told in operation.get("responses", {}).items() if code != "422"
            } | REFUSED
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = PROBLEM
    made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    made["security"] = [{"key": []}]
    app.openapi_schema = made
    return made
