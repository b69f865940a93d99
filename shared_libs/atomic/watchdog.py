"""
Who blocks the event loop: a thread that notices that a loop with runs stands still, and says where.

While the loop is blocked nothing on it can act, no deadline either; all that can be done is to name the code. So the
warning goes to the log at once, from the thread, and as an event to the run when the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
import weakref
from types import FrameType
from typing import Any, Protocol

from shared_libs.atomic.events import AgentEvent, LoopBlocked
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.atomic.scope import Scope, scope_of

_log = logging.getLogger(__name__)

BLOCKED_S = 0.25
"""Seconds one piece of code may hold the loop before it is named."""

BEAT_S = 0.05
"""Seconds between two looks; each costs a turn of the loop, all together half a percent of a core."""

LINGER_S = 10.0
"""Seconds the thread stays when there is nothing to watch: starting one costs more than waiting."""

SHOWN_FRAMES = 12


class Owner(Protocol):
    """A run: while one lives on a loop, the loop is watched."""

    def emit(self, event: AgentEvent) -> None:
        """Hear of a blockage that no call can be blamed for."""


class Watchdog:
    """One thread that watches every loop of the process that has runs."""

    def __init__(self) -> None:
        self.begin_anew()
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """Watch nothing; a forked child has neither the thread nor the loops."""
        self._changed = threading.Condition()
        self._loops: dict[asyncio.AbstractEventLoop, _Watched] = {}
        self._thread: threading.Thread | None = None

    def begin(self, owner: Owner) -> None:
        """Watch the running loop until `owner` is done or gone; a loop with a clock of its own is not watched."""
        loop = asyncio.get_running_loop()
        if abs(loop.time() - time.monotonic()) > 1:
            return
        with self._changed:
            watched = self._loops.get(loop)
            if watched is None:
                watched = self._loops[loop] = _Watched(loop)
                self._changed.notify()
            watched.owners.add(owner)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="factory-watchdog", daemon=True)
                self._thread.start()

    def end(self, owner: Owner) -> None:
        """Watch for `owner` no more."""
        watched = self._loops.get(asyncio.get_running_loop())
        if watched is not None:
            watched.owners.discard(owner)

    def _work(self) -> None:
        while True:
            with self._changed:
                for loop in [loop for loop, watched in self._loops.items() if not watched.owners]:
                    del self._loops[loop]
                if not self._loops and not self._changed.wait(LINGER_S) and not self._loops:
                    self._thread = None
                    return
                loops = list(self._loops.values())
            before = time.monotonic()
            time.sleep(BEAT_S)
            now = time.monotonic()
            for watched in loops:
                watched.look(now, blind=now - before > BLOCKED_S)
            del loops


class _Watched:
    """A loop, and the question to it that it has not answered yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.owners: weakref.WeakSet[Any] = weakref.WeakSet()
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._asked = False
        self._suspect: object = None
        self._since = 0.0
        self._told: list[tuple[Any, LoopBlocked]] = []
        self._found = False

    def look(self, now: float, *, blind: bool) -> None:
        """See whether the loop has answered; `blind` when this thread, and so perhaps the machine, stood still too."""
        if not self._asked:
            self._asked, self._suspect, self._found = True, None, False
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # closed
                self.owners.clear()
            return
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - the one way to see another thread's stack
        task = asyncio.current_task(self._loop)
        suspect = task if task is not None else frame and frame.f_code
        # many short pieces in one turn of the loop are a crowd, not a blockage: it must be one and the same
        if blind or self._suspect is not suspect or suspect is None:
            self._suspect, self._since = suspect, now
        elif now - self._since >= BLOCKED_S and not self._found:
            self._found = True
            self._tell(frame, task, now - self._since)
        del frame

    def _answer(self) -> None:
        """Tell, on the loop, that it goes on, and to whom it matters that it did not."""
        told, self._told, self._asked = self._told, [], False
        for emit, event in told:
            event.blocked_s = time.monotonic() - self._since
            emit(event)

    def _tell(self, frame: FrameType | None, task: asyncio.Task[Any] | None, blocked_s: float) -> None:
        stack = "".join(traceback.format_list(traceback.extract_stack(frame)[-SHOWN_FRAMES:]))
        scope = _scope_in(frame) or scope_of(task)
        tool, call_id = (scope.tool, scope.call_id) if scope is not None else ("", "")
        who = f"tool {tool}" if tool else "something"
        _log.warning("%s has blocked the event loop for %.2f s and still does; it stands at\n%s", who, blocked_s, stack)
        hearers = [scope.emit] if scope is not None and scope.run_id else [owner.emit for owner in self.owners]
        self._told = [
            (emit, LoopBlocked(tool=tool, call_id=call_id, blocked_s=blocked_s, stack=stack)) for emit in hearers
        ]


def _scope_in(frame: FrameType | None) -> Scope | None:
    """The scope of the tool call that stands in a stack."""
    while frame is not None:
        if frame.f_code.co_name == "_run_on_loop" and isinstance(scope := frame.f_locals.get("scope"), Scope):
            return scope
        frame = frame.f_back
    return None


WATCHDOG = Watchdog()
"""One per process, because one thread is enough."""
