"""Who asks, and what they may."""

from __future__ import annotations

from typing import Literal

import msgspec

from shared_libs.service.problems import Problem

SCOPES = (
    *("agents:run:", "models:", "runs:read", "runs:cancel", "runs:decide", "runs:forget"),
    *("service:read", "keys:read"),
    *("collections:read:", "collections:write:"),
)
"""What the service asks for; a name follows those that end in a colon. Applications have scopes of their own beside."""


def opens_something(scope: str) -> bool:
    """Whether a scope opens anything of the service."""
    if scope.endswith("*"):
        return any(known.startswith(scope[:-1]) or scope.startswith(known) for known in SCOPES)
    return any(scope == known.removesuffix(":") or (known[-1] == ":" and scope.startswith(known)) for known in SCOPES)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """
    Whoever stands behind a key.

    `scopes` are words such as `agents:run:hello`, `models:*`, `runs:read` or `*`; a `*` at the end stands for any rest.
    Limits that are None do not bind. `weight` is the share in a queue, beside that of others.
    """

    key_id: str = ""
    team: str = ""
    name: str = "anonymous"
    scopes: tuple[str, ...] = ("*",)
    weight: float = 1.0
    max_timeout_s: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    budget_usd: float | None = None
    budget_window: Literal["day", "month", "total"] = "month"
    priority: str = "default"

    def may(self, what: str) -> bool:
        """Whether a scope allows it."""
        return any(scope == what or (scope.endswith("*") and what.startswith(scope[:-1])) for scope in self.scopes)

    def may_some(self, what: str) -> bool:
        """Whether a scope allows it, or some part of it."""
        return self.may(what) or any(scope.startswith(f"{what}:") for scope in self.scopes)

    def need(self, what: str) -> None:
        """
        Require a scope, or one of several: `models|agents:run`.

        Raises:
            Problem: the key does not have it.

        """
        if not any(map(self.may_some, what.split("|"))):
            raise Problem("forbidden", f"the key lacks the scope {what!r}", facts={"scope": what})


ANYONE = Caller()
"""Who asks where no keys are kept: a server on loopback."""
