"""The console's page, and the session of a browser that has shown a key."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared_libs.service.console import KINDS, POLICY, page_file
from shared_libs.service.endpoint import Call, Endpoint
from shared_libs.service.keys import COOKIE, presented_key

SESSION_S = 8 * 3600
"""How long a browser keeps the key it was given, in seconds."""

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}


class _File(NamedTuple):
    plain: bytes
    packed: bytes
    headers: Mapping[str, str]


def _file(name: str, kind: str) -> _File:
    plain = page_file(name)
    tag = f'"{hashlib.blake2b(plain, digest_size=12).hexdigest()}"'
    return _File(plain, gzip.compress(plain, 9, mtime=0), _HEADERS | {"content-type": kind, "etag": tag})


_FILES = {"/" if name == "index.html" else f"/{name}": _file(name, kind) for name, kind in KINDS.items()}


async def show(request: Request) -> Response:
    """Give a file of the page; it holds nothing but itself, so nobody needs a key for it."""
    file = _FILES[request.scope["path"]]
    if request.headers.get("if-none-match") == file.headers["etag"]:
        return Response(status_code=304, headers=file.headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**file.headers, "content-encoding": "gzip"})
    return Response(file.plain, headers=file.headers)


async def who(call: Call) -> None:
    """Say whose key it is, and what it may."""
    caller = call.caller
    await call.reply(
        {
            "open": call.service.door.is_open,
            "key_id": caller.key_id,
            "name": caller.name,
            "team": caller.team,
            "scopes": caller.scopes,
            "max_timeout_s": caller.max_timeout_s,
            "budget_usd": caller.budget_usd,
            "budget_window": caller.budget_window,
        }
    )


async def enter(call: Call) -> None:
    """Let a browser keep the key of this request, where no script reads it and no other site's page sends it."""
    key = presented_key(call.scope)
    if key is not None:
        call.exchange.tell("set-cookie", _cookie(call, key, SESSION_S))
    await call.reply({"signed_in": True})


async def leave(call: Call) -> None:
    """Let the browser forget the key."""
    call.exchange.tell("set-cookie", _cookie(call, "", 0))
    await call.reply({"signed_in": False})


def _cookie(call: Call, key: str, seconds: int) -> str:
    secure = "; Secure" if call.scope.get("scheme") == "https" else ""
    return f"{COOKIE}={key}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}"


def _doc(summary: str, operation: str) -> Mapping[str, Any]:
    answer = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"tags": ["console"], "operationId": operation, "summary": summary, "responses": {"200": answer}}


_ANY = "runs:read|agents:run|models"

HOT = [
    *(Route(path, show, methods=["GET"]) for path in _FILES),
    Route("/v1/session", Endpoint(who, needs=_ANY, doc=_doc("Whose key it is", "session")), methods=["GET"]),
    Route("/v1/session", Endpoint(enter, needs=_ANY, doc=_doc("Keep the key in a cookie", "enter")), methods=["POST"]),
    Route("/v1/session", Endpoint(leave, needs=_ANY, doc=_doc("Forget the cookie", "leave")), methods=["DELETE"]),
]
"""Plain ASGI, as the other hot routes."""
