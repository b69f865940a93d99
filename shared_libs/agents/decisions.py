"""A turn whose calls are being done, and what people have decided about them."""

from __future__ import annotations

import msgspec

from shared_libs.atomic.results import Decision
from shared_libs.atomic.types import Thinking, ToolCall, ToolResult


class OpenTurn(msgspec.Struct, gc=False):
    """
    A turn whose calls are not all done yet: `results` and `decisions` by call id.

    `elsewhere` are the ids of the calls that wait for who asked, because their tools are its own.
    """

    thought: str
    calls: list[ToolCall]
    thinking: tuple[Thinking, ...] = ()
    results: dict[str, ToolResult] = {}
    decisions: dict[str, Decision] = {}
    elsewhere: list[str] = []
