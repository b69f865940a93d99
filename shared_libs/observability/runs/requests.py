"""What models were asked, whole again: each request was told as what it added to one before."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shared_libs.atomic.events import ModelAsked
from shared_libs.atomic.types import Message


def whole_requests(told: Iterable[ModelAsked]) -> list[ModelAsked]:
    """
    Return requests with all of their messages, tools and options, in the order in which they were told.

    One whose base is missing has what it told itself, and keeps its `base`.
    """
    known: dict[int, ModelAsked] = {}
    for asked in told:
        base = None if asked.base is None else known.get(asked.base)
        messages: list[Message] = [*(() if base is None else base.messages[: asked.kept]), *asked.messages]
        known[asked.seq] = msgspec.structs.replace(
            asked,
            base=None if base is not None else asked.base,
            kept=0,
            messages=messages,
            tools=base.tools if asked.tools is None and base is not None else asked.tools,
            options=base.options if asked.options is None and base is not None else asked.options,
        )
    return list(known.values())
