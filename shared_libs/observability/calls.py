"""Who hears of calls that belong to no run: a model asked by itself, embeddings, an order of texts, a search."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import msgspec

from shared_libs.atomic.deadline import NEVER, Deadline
from shared_libs.atomic.events import AgentEvent, EventSink
from shared_libs.atomic.scope import current_scope, use_scope

_log = logging.getLogger(__name__)


class observed:  # noqa: N801 - used like a function, a class because it is on the path of every request
    """
    Let observers hear what is asked of models and collections inside the block; in a run its own are those that do.

    Their events stand under an id that is no run's. To be used where an event loop runs.

    Args:
        observers: who hears of it.
        deadline: when all of it has to be over; an earlier one that holds already stays.

    """

    __slots__ = ("_call", "_deadline", "_held", "_observers", "_outside")

    def __init__(self, *observers: EventSink, deadline: Deadline = NEVER) -> None:
        self._observers = observers
        self._deadline = deadline
        self._call: _Call | None = None
        self._outside: ExitStack | None = None

    def __enter__(self) -> None:
        scope = current_scope()
        changes: dict[str, Any] = {"deadline": self._deadline} if self._deadline < scope.deadline else {}
        if not scope.run_id and self._observers:
            self._call = call = _Call(self._observers)
            changes |= {"emit": call.emit, "started_at": call.began_at}
            if around := [each.outside for each in self._observers if hasattr(each, "outside")]:
                with ExitStack() as stack:
                    for outside in around:
                        stack.enter_context(outside(call.id))
                    self._outside = stack.pop_all()
        self._held = use_scope(msgspec.structs.replace(scope, **changes))
        self._held.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__()
        if self._call is not None:
            self._call.end()
        if self._outside is not None:
            self._outside.__exit__(kind, error, trace)


class _Call:
    """What numbers the events of a call and hands them out until it is over."""

    __slots__ = ("_clock", "_observers", "_seq", "began_at", "id")

    def __init__(self, observers: tuple[EventSink, ...]) -> None:
        self.id = os.urandom(16).hex()
        self._clock = asyncio.get_running_loop().time
        self.began_at = self._clock()
        self._observers = observers
        self._seq = 0

    def emit(self, event: AgentEvent) -> None:
        """Hand an event out; an observer that fails is left out, and the call goes on."""
        self._seq = event.seq = self._seq + 1
        event.run_id, event.at_s = self.id, self._clock() - self.began_at
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - a listener is foreign code: it must not end the call
                self._observers = tuple(other for other in self._observers if other is not observer)
                _log.exception("an observer failed and is left out for the rest of a call")

    def end(self) -> None:
        """Hear nothing any more: what was left behind cannot speak."""
        self._observers = ()
