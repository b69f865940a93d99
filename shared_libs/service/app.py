"""The application: routes, the layers around them, and the lifespan that owns every pool."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from shared_libs.atomic.errors import FactoryError
from shared_libs.atomic.loading import importing
from shared_libs.service.edge import Edge, Receive, Scope, Send
from shared_libs.service.endpoint import Endpoint
from shared_libs.service.faces import routes
from shared_libs.service.problems import PROBLEM_JSON, Problem, problem_details, problem_of
from shared_libs.service.routers import agents, graph, meta, page, runs, saved, status, vector
from shared_libs.service.settings import Settings
from shared_libs.service.state import Service

with importing("fastapi", "the service"):
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

_log = logging.getLogger("shared_libs.service")

GC_THRESHOLDS = (20_000, 20, 20)
"""
How many new objects bring a collection: a request leaves next to no cycles, and looking for them at every 700th
object, as Python does by itself, costs a tenth of its time.
"""

_ROUTERS = (agents.router, runs.router, saved.router, status.router, meta.router)


class Application(FastAPI):
    """
    FastAPI, with a short way to what is asked most: its layers are for routes that need them.

    An `Endpoint` finds out who asks and answers what goes wrong by itself. Whoever adds middleware has it everywhere.
    """

    edge: Edge
    hot: Mapping[tuple[str, str], Endpoint]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        direct = scope["type"] == "http" and not scope.get("root_path") and len(self.user_middleware) == 1
        endpoint = self.hot.get((scope["method"], scope["path"])) if direct else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            scope["app"], scope["path_params"] = self, {}
            await self.edge.serve(endpoint, scope, receive, send)

    async def find_without_slash(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Take a slash too many at the end of an address for none.

        A redirect would lead to an address made of `Host`, and not by TLS behind a proxy that speaks it: with the key.
        """
        if scope["type"] == "http" and (path := scope["path"].rstrip("/")) not in ("", scope["path"]):
            scope["path"] = path
            await self.router(scope, receive, send)
        else:
            await self.router.not_found(scope, receive, send)


def create_app(settings: Settings, *, on_note: Callable[[str], None] = _log.warning) -> FastAPI:
    """
    Make the application of a service; its lifespan opens and closes everything.

    Args:
        settings: how it runs.
        on_note: gets what whoever started it should know.

    """
    service = Service(settings, on_note)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.aopen()
        gc.collect()
        gc.freeze()  # what is there now stays, and need not be looked through again
        usual = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        try:
            yield
        finally:
            gc.set_threshold(*usual)
            await service.aclose()

    app = Application(
        title="GenAI Factory",
        summary="Agents, model chains and runs that always come back in time.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False},
    )
    app.state.service = service
    app.router.default = app.find_without_slash
    app.router.routes.extend(_hot_routes())
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(FactoryError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)
    app.add_exception_handler(Exception, _answer)
    bounds: dict[str, Any] = {
        "max_body": settings.max_body,
        "body_timeout_s": settings.body_timeout_s,
        "traced": service.telemetry is not None,
    }
    app.add_middleware(Edge, **bounds)
    app.edge = Edge(app, **bounds)
    app.hot = {
        (method, route.path): route.endpoint
        for route in _hot_routes()
        if isinstance(route.endpoint, Endpoint)
        for method in route.methods or ()
    }
    return app


def _hot_routes() -> list[Route]:
    return [*runs.HOT, *routes.HOT, *vector.HOT, *graph.HOT, *page.HOT]


async def _answer(request: Request, error: Exception) -> JSONResponse:
    problem = _seen_as_problem(request, error)
    exchange = request.scope["factory.exchange"]
    headers = dict(problem.headers())
    if isinstance(error, HTTPException) and error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    content = problem_details(problem, exchange.request_id)
    return JSONResponse(content, problem.kind.status, headers=headers, media_type=PROBLEM_JSON)


def _allowed(request: Request) -> list[str]:
    """Return the methods that the routes of a path have together; each route knows its own alone."""
    ours = [route for router in _ROUTERS for route in router.routes if isinstance(route, Route)]
    path = request.scope["path"]
    matching = [route for route in (*ours, *_hot_routes()) if route.path_regex.match(path)]
    matching = [route for route in matching if route.path == path] or matching  # a parameter is for other names
    return sorted({method for route in matching for method in route.methods or ()})


def _seen_as_problem(request: Request, error: Exception) -> Problem:
    match error:
        case RequestValidationError():
            first: dict[str, Any] = dict(error.errors()[0])
            where = ".".join(map(str, first["loc"][1:]))
            return Problem("invalid_request", f"{where}: {first['msg']}", param=where or None)
        case HTTPException(status_code=404):
            return Problem("not_found", "there is nothing at this address; GET /openapi.json tells what there is")
        case HTTPException(status_code=405):
            return Problem("method_not_allowed", f"allowed here: {', '.join(_allowed(request))}")
        case HTTPException(status_code=status) if status < 500:
            return Problem("invalid_request", str(error.detail))
    return problem_of(error)
