"""
Moments that are waited for while something else goes on: one timer for all of an event loop.

Nearly every call ends long before its time is over. A timer of the loop's for each would be put into a heap, and be
sorted out of it again, for nothing: of a thousand calls at once that was a tenth of the work.

A loop that stood still (a tool that blocked it, a busy machine) finds the times of many calls over at once, and what
they waited for in its sockets, unread: who rang at once would throw answers away that are there, and hold it against
those who gave them in time. So what came meanwhile is read first, and the time in which nobody could be heard is given
back where it is a limit of somebody else's silence (`Expiry.stood_still`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

LATE_S = 0.05
"""Seconds by which a look comes late where the loop has stood still, and has not merely been busy."""

_TURNS = 3
"""Turns of a loop in which it reads what came while it stood still, and those who waited for it take it."""


class Expiry:
    """A moment that may be moved while it is waited for (`at`, loop seconds), and what it means (`why`)."""

    __slots__ = ("_why", "at", "waiter")

    def __init__(self, at: float, why: str) -> None:
        self.at = at
        self._why = why
        self.waiter: Alarm | None = None

    @property
    def why(self) -> str:
        """What it means that this moment has come."""
        return self._why

    def move(self, at: float) -> None:
        """Move it: later costs nothing, earlier sets whoever waits for it anew."""
        sooner, self.at = at < self.at, at
        if sooner and self.waiter is not None:
            self.waiter.look_by(at)

    def stood_still(self, seconds: float) -> None:
        """Hear that the loop stood still for so long; a limit by the clock on the wall stays where it is."""


class Alarm:
    """Calls `ring` when an expiry has come, unless it is stopped before."""

    __slots__ = ("_clock", "expiry", "rang", "ring")

    def __init__(self, loop: asyncio.AbstractEventLoop, expiry: Expiry, ring: Callable[[], object]) -> None:
        self.expiry = expiry
        self.ring = ring
        self.rang = False
        expiry.waiter = self
        clock = _clocks.get(loop)
        if clock is None:
            for other in [*_clocks]:
                if other.is_closed():  # under what still waited there: nobody will ever stop those alarms
                    _clocks.pop(other, None)
            clock = _clocks[loop] = _Clock(loop)
        self._clock = clock
        clock.alarms[self] = None
        if expiry.at < clock.looks_at:
            clock.look_by(expiry.at)

    def look_by(self, moment: float) -> None:
        """See that it is looked at by a moment."""
        if moment < self._clock.looks_at:
            self._clock.look_by(moment)

    def stop(self) -> None:
        """Look at the time no more."""
        self.expiry.waiter = None
        self._clock.forget(self)


def stood_still(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Tell whatever is waited for on a loop that the loop stood still for so long."""
    if (clock := _clocks.get(loop)) is not None:
        for alarm in clock.alarms:
            alarm.expiry.stood_still(seconds)


class _Clock:
    """The alarms of one loop, in the order they were set; it is there as long as there is one."""

    __slots__ = ("_handle", "_loop", "alarms", "looks_at")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.alarms: dict[Alarm, None] = {}
        self.looks_at = math.inf
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def look_by(self, moment: float) -> None:
        """Look at all of them at a moment, which is before the one planned so far."""
        if self._handle is not None:
            self._handle.cancel()
        self.looks_at = moment
        self._handle = self._loop.call_at(moment, self._look)

    def forget(self, alarm: Alarm) -> None:
        """Have nothing to do with an alarm any more, nor with the loop where it was the last."""
        self.alarms.pop(alarm, None)
        if not self.alarms:
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
            self.looks_at = math.inf
            if _clocks.get(self._loop) is self:
                del _clocks[self._loop]

    def _look(self) -> None:
        late_s = self._loop.time() - self.looks_at
        self._handle, self.looks_at = None, math.inf
        if late_s > LATE_S:
            self._loop.call_soon(self._look_after, _TURNS, late_s)
        else:
            self._ring()

    def _look_after(self, turns: int, late_s: float) -> None:
        """Look at the time when a loop that stood still has had its turns."""
        if turns:
            self._loop.call_soon(self._look_after, turns - 1, late_s)
            return
        now = self._loop.time()
        for alarm in self.alarms:
            if (over_s := now - alarm.expiry.at) >= 0:
                alarm.expiry.stood_still(over_s + late_s)
        self._ring()

    def _ring(self) -> None:
        now = self._loop.time()
        due = [alarm for alarm in self.alarms if alarm.expiry.at <= now]
        for alarm in due:
            del self.alarms[alarm]
        moment = min((alarm.expiry.at for alarm in self.alarms), default=math.inf)
        if moment < math.inf:
            self.look_by(moment)
        for alarm in sorted(due, key=_moment):
            alarm.rang = True
            alarm.ring()


def _moment(alarm: Alarm) -> float:
    return alarm.expiry.at


_clocks: dict[asyncio.AbstractEventLoop, _Clock] = {}
