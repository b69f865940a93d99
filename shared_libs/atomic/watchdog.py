"""
Who blocks the event loop: a thread that notices that a loop stands still, says where, and sees that it goes on.

While the loop is blocked nothing on it can act, no deadline either. So the thread names the code in the log at once,
and as an event to the run when the loop goes on. When the time of the call that blocks is over, or that of any run on
the loop is about to be, it has the call interrupted where it stands (`rescue`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import math
import sys
import sysconfig
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from shared_libs.atomic.alarm import LATE_S, stood_still
from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.events import AgentEvent, LoopBlocked
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.atomic.rescue import (
    Call,
    Signal,
    Verdict,
    Why,
    call_to_blame,
    in_progress,
    is_on,
    may_be_interrupted,
    noted,
    raise_in_thread,
    what_runs,
)
from shared_libs.atomic.scope import current_scope, scope_in
from shared_libs.atomic.thread_context import ThreadContext, has_threads

_log = logging.getLogger(__name__)

BLOCKED_S = 0.25
"""Seconds one piece of code may hold the loop before it is named."""

BEAT_S = 0.05
"""Seconds between two looks; each costs a turn of the loop, all together half a percent of a core."""

LINGER_S = 10.0
"""Seconds the thread stays when there is nothing to watch: starting one costs more than waiting."""

HELD_S = 0.02
"""Seconds a piece of code must have held the loop before it is interrupted; less harms no deadline."""

EARLY_S = 0.02
"""Seconds before the deadline of a run at which what blocks its loop is interrupted: it has to come back in time."""

AGAIN_S = 0.05
"""Seconds between two interrupts of one blockage: `finally` blocks and clean-up have so long."""

MAX_INTERRUPTS = 10
"""Interrupts of one blockage; what has kept them all is named and left to itself."""

SOON_S = 0.005
"""Seconds until the next look where the code could not be interrupted just now."""

SHOWN_FRAMES = 12

_OURS = str(Path(__file__).parents[1])
_LOOPS = str(Path(asyncio.__file__).parent)
_LIBRARIES = tuple({path for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))})


class Owner(Protocol):
    """A run: while one lives on a loop, the loop is watched."""

    @property
    def deadline(self) -> Deadline:
        """When it has to be back."""

    def emit(self, event: AgentEvent) -> None:
        """Hear of a blockage that no call can be blamed for."""


class Watchdog:
    """One thread that watches every loop of the process that has runs, or calls of foreign code; if it `watches`."""

    def __init__(self) -> None:
        self.watches = True
        self._signal = Signal()
        self.begin_anew()
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """Watch nothing; a forked child has neither the thread nor the loops."""
        self._changed = threading.Condition()
        self._loops: dict[asyncio.AbstractEventLoop, _Watched] = {}
        self._thread: threading.Thread | None = None

    def begin(self, owner: Owner) -> None:
        """Watch the running loop until `owner` is done or gone; a loop with a clock of its own is not watched."""
        watched = self._watched(asyncio.get_running_loop())
        if watched is not None:
            key, owners = id(owner), watched.owners
            owners[key] = weakref.ref(owner, lambda _: owners.pop(key, None))

    def end(self, owner: Owner) -> None:
        """Watch for `owner` no more."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - None where a loop was closed under the run
        watched = None if loop is None else self._loops.get(loop)
        if watched is not None:
            watched.tell()
            watched.owners.pop(id(owner), None)
            if watched.idle:
                self._forget(watched)

    def calls_on(self, loop: asyncio.AbstractEventLoop) -> set[Call]:
        """Where the calls in progress on the running loop are to be noted; they are watched as runs are."""
        watched = self._loops.get(loop) or self._watched(loop)
        return set() if watched is None else watched.calls

    def tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell now what has held the running loop: the call that did it is about to be over, and would not hear it."""
        if (watched := self._loops.get(loop)) is not None:
            watched.tell()

    def _watched(self, loop: asyncio.AbstractEventLoop) -> _Watched | None:
        watched = self._loops.get(loop)
        if watched is None and self.watches and abs(loop.time() - time.monotonic()) < 1 and has_threads():
            with self._changed:
                signal = self._signal if self._signal.arm() else None
                watched = self._loops[loop] = _Watched(loop, signal, self._forget)
                self._changed.notify()
        if watched is not None and self._thread is None:
            self._start()
        return watched

    def _start(self) -> None:
        """Start the thread; where the system gives none, runs go on unwatched, and the next one tries again."""
        thread = threading.Thread(target=self._work, name="factory-watchdog", daemon=True)
        try:
            with self._changed:
                if self._thread is None:
                    thread.start()
                    self._thread = thread
        except RuntimeError as error:
            noted(_log.warning, "what blocks an event loop is not seen now: no thread could be started (%s)", error)

    def _forget(self, watched: _Watched) -> None:
        """Watch the running loop, on which nothing goes on, no more; unless something has begun there since."""
        if self._loops.get(watched.loop) is watched:
            del self._loops[watched.loop]
            self._signal.disarm()

    def _work(self) -> None:
        pause_s = BEAT_S
        while True:
            with self._changed:
                if not self._loops and not self._changed.wait(LINGER_S) and not self._loops:
                    self._thread = None
                    return
            before = time.monotonic()
            time.sleep(pause_s)
            now = time.monotonic()
            # where this thread stood still too, so perhaps did the machine
            pause_s = self._look(now, blind=now - before > pause_s + BLOCKED_S)

    def _look(self, now: float, *, blind: bool) -> float:
        """Look at every loop; return the seconds until the next time."""
        until = now + BEAT_S
        for loop, watched in [*self._loops.items()]:
            try:
                if watched.is_gone:
                    self._loops.pop(loop, None)
                else:
                    until = min(until, watched.look(now, blind=blind))
            except Exception as error:  # noqa: BLE001 - the next look may be better; nobody else would watch
                _aside(_log.error, "the watchdog failed at one look; it goes on", exc_info=error)
        return max(until - now, SOON_S)


class _Watched:
    """A loop, and the question to it that it has not answered yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        signal: Signal | None,
        forget: Callable[[_Watched], None],
    ) -> None:
        self.loop = loop
        self.owners: dict[int, weakref.ref[Any]] = {}
        self.calls: set[Call] = set()
        self._signal = signal
        self._forget = forget
        self._thread_id = threading.get_ident()
        self._context = ThreadContext()
        self._runs = what_runs(sys._getframe())  # noqa: SLF001 - what the loop is run by, in this very stack
        self._asked = 0
        self._asked_at = 0.0
        self._answered = 0
        self._suspect: object = None
        self._since = 0.0
        self._told: list[tuple[Any, LoopBlocked]] = []
        self._found = False
        self._interrupts = 0
        self._interrupted_at = -math.inf
        self._who = "something"
        self._stood_at: tuple[FrameType, int] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing goes on here."""
        return not self.owners and not self.calls

    @property
    def is_gone(self) -> bool:
        """Whether the loop is closed, or stands still by itself with nothing to do."""
        return self.loop.is_closed() or (self.idle and not self.loop.is_running())

    def look(self, now: float, *, blind: bool) -> float:
        """See whether the loop has answered; return when to look again."""
        if self._asked == self._answered or not self.loop.is_running():
            self._ask(now)
            return self._due(None)
        frame = frame_of(self._thread_id)
        task = asyncio.current_task(self.loop)
        suspect = task or self._context.get()
        if task is None and frame is not None and frame.f_globals.get("__name__") == "selectors":
            suspect = None  # the loop waits, and has not heard yet that it is asked: the machine is busy
        # many short pieces in one turn of the loop are a crowd, not a blockage: it must be one and the same
        if blind or self._suspect is not suspect or suspect is None:
            self._suspect, self._since = suspect, now
            return now + HELD_S
        if now - self._since >= BLOCKED_S and not self._found:
            self._tell(frame, now - self._since)
        if not is_on() or self._interrupts > MAX_INTERRUPTS:
            return math.inf
        due = max(self._due(self._call(frame)), self._since + HELD_S, self._interrupted_at + AGAIN_S)
        return self._interrupt(frame, task) if now >= due else due

    def _call(self, frame: FrameType | None) -> Call | None:
        context = self._context.get()
        return call_to_blame(frame, None if context is None else context.get(in_progress))

    def _ask(self, now: float) -> None:
        self._asked += 1
        self._asked_at = now
        self._suspect, self._since = asyncio.current_task(self.loop), now
        self._found, self._interrupts, self._interrupted_at = False, 0, -math.inf
        self._stood_at = None
        self.loop.call_soon_threadsafe(self._answer, self._asked)

    def _answer(self, question: int) -> None:
        """Answer, on the loop, that it goes on."""
        self._answered = question
        if (late_s := time.monotonic() - self._asked_at) > LATE_S:
            stood_still(self.loop, late_s)
        self.tell()
        if self.idle:
            self._forget(self)

    def tell(self) -> None:
        """Tell, on the loop's own thread, to whom it matters that something has held it."""
        if not self._told and not self._interrupts:
            return
        told, self._told = self._told, []
        held_s = time.monotonic() - self._since
        for emit, event in told:
            event.blocked_s, event.interrupted = held_s, self._interrupts > 0
            emit(event)
        if self._interrupts:
            self._interrupts = 0
            text = "%s was interrupted after %.2f s; give it isolation 'thread' or 'process'"
            noted(_log.warning, text, self._who, held_s)

    def _due(self, call: Call | None) -> float:
        """When `call`, or whichever call it is, is to be interrupted: at its own time, or before that of any run."""
        calls = [*self.calls]
        own = min([each.at for each in calls if call is None or each is call], default=math.inf)
        return min(own, self._pressing())

    def _pressing(self) -> float:
        owners = [owner for ref in [*self.owners.values()] if (owner := ref()) is not None]
        return min([owner.deadline.at for owner in owners], default=math.inf) - EARLY_S

    def _interrupt(self, frame: FrameType | None, task: asyncio.Task[Any] | None) -> float:
        """Have what blocks interrupted, if it stands where it may be; return when to look again."""
        if not may_be_interrupted(frame, task, self._runs):
            return 0
        if self._interrupts == MAX_INTERRUPTS:
            text = "%s goes on after %d interrupts; isolation 'process' can end it"
            _aside(_log.error, text, self._who, MAX_INTERRUPTS)
            self._interrupts += 1
            return math.inf
        if not self._found:
            self._tell(frame, time.monotonic() - self._since)
        verdict = self._verdict(self._asked, task)
        if self._signal is not None and self._signal.is_held:
            self._signal.send(verdict, self._runs)
        else:
            time.sleep(0)  # a fresh turn of this thread: the other does not move between the look and the error
            frame = frame_of(self._thread_id)
            if frame is None or self._stood_at == (frame, frame.f_lasti):
                return 0
            if may_be_interrupted(frame, task, self._runs) and (call := self._call(frame)) is not None:
                self._stood_at = (frame, frame.f_lasti)  # what stands there still has yet to hear of it
                raise_in_thread(self._thread_id, frame, call, verdict)
        return 0

    def _verdict(self, question: int, task: asyncio.Task[Any] | None) -> Verdict:
        """Whether, at the moment of the interrupt, the loop still is where it was seen, and the call's time is up."""

        def verdict(call: Call) -> Why | None:
            now = time.monotonic()
            if self._asked != question or self._answered == question or asyncio.current_task(self.loop) is not task:
                return None
            why: Why | None = None
            if call in self.calls and now >= call.at:
                why = "own"
            elif now >= self._pressing():
                why = "others"
            if why is not None:
                self._interrupts, self._interrupted_at = self._interrupts + 1, now
                if tool := current_scope().tool:  # known in the handler, for tasks of the tool too
                    self._who = f"tool {tool}"
            return why

        return verdict

    def _tell(self, frame: FrameType | None, blocked_s: float) -> None:
        self._found = True
        frames = traceback.extract_stack(frame)
        stack = "".join(traceback.format_list(frames[-SHOWN_FRAMES:]))
        scope, place = scope_in(self._context.get()), _place(frames)
        self._who = f"tool {scope.tool}" if scope.tool else place or "something"
        text = "%s has blocked the event loop for %.2f s and still does; it stands at\n%s"
        _aside(_log.warning, text, self._who, blocked_s, stack)
        runs = [owner for ref in [*self.owners.values()] if (owner := ref()) is not None]
        hearers = [scope.emit] if scope.run_id else [owner.emit for owner in runs]
        self._told = [
            (emit, LoopBlocked(tool=scope.tool, call_id=scope.call_id, blocked_s=blocked_s, stack=stack, place=place))
            for emit in hearers
        ]


def _aside(log: Callable[..., None], *words: Any, **more: Any) -> None:
    """
    Log from the watchdog's thread, and go on after a moment, whatever becomes of it.

    What blocks the loop may be a handler of the log, whose lock this thread would wait for.
    """
    thread = threading.Thread(target=log, args=words, kwargs=more, name="factory-watchdog-log", daemon=True)
    with contextlib.suppress(RuntimeError):  # the system gives no further thread: to interrupt is worth more
        thread.start()
        thread.join(HELD_S)


def frame_of(thread_id: int) -> FrameType | None:
    """
    Where another thread stands.

    CPython holds a lock of the interpreter while it makes these frames. Where a collection begins just then and frees a
    `threading.local`, which wants that lock too, every thread of the process stands for ever (python/cpython#106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread_id)  # noqa: SLF001 - the one way to see another thread's stack
    finally:
        if collects:
            gc.enable()


def _place(frames: Sequence[traceback.FrameSummary]) -> str:
    """Name the innermost line that the loop has called and that is neither ours nor, if there is one, a library's."""
    inside = [*itertools.takewhile(lambda frame: not frame.filename.startswith(_LOOPS), reversed(frames))]
    foreign = [frame for frame in inside if not frame.filename.startswith(_OURS)]
    own = [frame for frame in foreign if not frame.filename.startswith(_LIBRARIES)]
    return next((f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})" for frame in own or foreign), "")


WATCHDOG = Watchdog()
"""One per process, because one thread is enough."""
