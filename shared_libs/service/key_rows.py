"""What is kept of a key: everything but the key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from shared_libs.service.callers import Caller

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Team = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    A key as it is kept.

    Args:
        id: names it; no secret.
        hash: HMAC-SHA-256 of the key, as hexadecimal digits; never accepted in place of it.
        team: whose it is: runs, sessions and answers of one team are never another's.
        name: who has it, in words.
        scopes: what it may: `agents:run:NAME`, `models:NAME`, `runs:read`, `runs:cancel`, `runs:decide`, `runs:forget`,
            `collections:read:NAME`, `collections:write:NAME`, … or `*`.
        created_at, expires_at, revoked_at: moments; None: never.
        weight: its share in a queue beside others.
        priority: the highest priority it may ask for.
        max_timeout_s: seconds a run of it may take at the most.
        requests_per_minute, tokens_per_minute, concurrency: its limits; None does not bind.
        budget_usd: what it may spend in a `budget_window`, in US dollars.

    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-z]{8}$")]
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    team: _Team = ""
    name: _Name = "key"
    scopes: tuple[str, ...] = ("*",)
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    weight: _Positive = 1.0
    priority: Literal["critical", "default", "sheddable"] = "default"
    max_timeout_s: _Positive | None = None
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    concurrency: _Count | None = None
    budget_usd: _Positive | None = None
    budget_window: Literal["day", "month", "total"] = "month"

    def why_not(self, now: datetime) -> str | None:
        """Say why it is no longer valid; None where it is."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return None

    def caller(self) -> Caller:
        """Say who has it."""
        return Caller(
            key_id=self.id,
            team=self.team,
            name=self.name,
            scopes=self.scopes,
            weight=self.weight,
            priority=self.priority,
            max_timeout_s=self.max_timeout_s,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            concurrency=self.concurrency,
            budget_usd=self.budget_usd,
            budget_window=self.budget_window,
        )


def now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)
