"""Who hears of calls that belong to no run: a model asked by itself, embeddings, an order of texts, a search."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from shared_libs.atomic.events import AgentEvent, EventSink
from shared_libs.atomic.scope import current_scope, use_scope

_log = logging.getLogger(__name__)


@contextmanager
def observed(*observers: EventSink) -> Iterator[None]:
    """
    Let observers hear what is asked of models and collections inside the block; in a run its own are those that do.

    Their events stand under an id that is no run's. To be used where an event loop runs.
    """
    scope = current_scope()
    if scope.run_id or not observers:
        yield
        return
    call = _Call(observers)
    with ExitStack() as stack:
        for observer in observers:
            if (outside := getattr(observer, "outside", None)) is not None:
                stack.enter_context(outside(call.id))
        stack.enter_context(use_scope(msgspec.structs.replace(scope, emit=call.emit, started_at=call.began_at)))
        stack.callback(call.end)
        yield


class _Call:
    """What numbers the events of a call and hands them out until it is over."""

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
