"""A turn whose calls are being done, and what people decide about them."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.plain_data import PlainData
from shared_libs.atomic.types import Thinking, ToolCall, ToolResult


class Decision(msgspec.Struct, PlainData, frozen=True, forbid_unknown_fields=True):
    """What a person says of a call: whether it may run, why not, and with which `input` instead of the model's."""

    approved: bool
    reason: str = ""
    input: dict[str, Any] | None = None


class OpenTurn(msgspec.Struct):
    """A turn whose calls are not all done yet: `results` and `decisions` by call id."""

    thought: str
    calls: list[ToolCall]
    thinking: tuple[Thinking, ...] = ()
    results: dict[str, ToolResult] = {}
    decisions: dict[str, Decision] = {}
