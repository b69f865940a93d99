"""What models are asked in a run, told as what is new in each request: n turns make n pieces, and not n squared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shared_libs.atomic.events import AttemptStarted, ModelAsked
from shared_libs.atomic.types import Message, ToolSpec

CONVERSATIONS = 8
"""How many conversations of a run are known at once: its own, those of tools that ask a model, a summary."""


class _Told(NamedTuple):
    """A request that was told."""

    seq: int
    messages: Sequence[Message]
    tools: Sequence[ToolSpec]
    options: Mapping[str, Any]


class Asking:
    """
    Tells what each request holds.

    Args:
        tell: gets it.
        whole: with its messages and tools; else what it asks for besides them.

    """

    __slots__ = ("_known", "_tell", "_whole")

    def __init__(self, tell: Callable[[ModelAsked], None], *, whole: bool) -> None:
        self._tell, self._whole = tell, whole
        self._known: deque[_Told] = deque(maxlen=CONVERSATIONS)

    def ask(
        self, began: AttemptStarted, messages: Sequence[Message], tools: Sequence[ToolSpec], options: Mapping[str, Any]
    ) -> None:
        """Take a request as it goes to an adapter; `messages` are not changed any more."""
        if not self._whole:
            asks = ModelAsked(seq=began.seq, provider=began.provider, model=began.model, options=dict(options))
            self._tell(asks)
            return
        base, kept = self._base_of(messages)
        self._tell(
            ModelAsked(
                seq=began.seq,
                provider=began.provider,
                model=began.model,
                base=None if base is None else base.seq,
                kept=kept,
                messages=messages[kept:],
                tools=None if base is not None and base.tools == tools else tools,
                options=None if base is not None and base.options == options else dict(options),
            )
        )
        if base is not None and kept == len(base.messages):  # it goes on: nobody goes on from what was before
            self._known.remove(base)
        self._known.append(_Told(began.seq, messages, tools, options))

    def _base_of(self, messages: Sequence[Message]) -> tuple[_Told | None, int]:
        """Return the request with the longest beginning in common, the latest of those, and how many messages it is."""
        found, longest = None, 0
        for told in reversed(self._known):
            kept = _in_common(told.messages, messages)
            if kept > longest:
                found, longest = told, kept
        return found, longest


def _in_common(one: Sequence[Message], other: Sequence[Message]) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine is not theirs and mine != theirs:
            break
        count += 1
    return count
