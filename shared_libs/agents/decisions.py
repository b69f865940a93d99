"""A turn whose calls are being done, and what people decide about them."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.plain_data import PlainData
from shared_libs.atomic.types import Thinking, ToolCall, ToolResult


class Decision(msgspec.Struct, PlainData, frozen=True, forbid_unknown_fields=True):
    """
    What a person says of a call: whether it may run, why not, and with which `input` instead of the model's.

    `result` is what the call gave where somebody else has made it, such as the client whose tool it is: then it is not
    run here.
    """

    approved: bool
    reason: str = ""
    input: dict[str, Any] | None = None
    result: ToolResult | None = None


class OpenTurn(msgspec.Struct):
    """A turn whose calls are not all done yet: `results` and `decisions` by call id."""

    thought: str
    calls: list[ToolCall]
    thinking: tuple[Thinking, ...] = ()
    results: dict[str, ToolResult] = {}
    decisions: dict[str, Decision] = {}
