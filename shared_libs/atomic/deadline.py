"""
The one clock: absolute deadlines on the event loop's time.

Nothing in this library reads another clock for control flow, so a test that moves the loop's clock moves everything.
"""

from __future__ import annotations

import asyncio
import math
import time

import msgspec

from shared_libs.atomic.errors import MisuseError


class Deadline(msgspec.Struct, frozen=True, order=True, gc=False):
    """
    A moment on the running loop's clock (`loop.time()`, seconds); `math.inf` for none.

    A deadline is only ever narrowed on its way down: to a model, a tool, a sub-agent.
    """

    at: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """
        The moment `seconds` from now; None means never.

        Raises:
            MisuseError: `seconds` is not a positive number, or no event loop is running.

        """
        if seconds is None:
            return NEVER
        if not seconds > 0:
            raise MisuseError(f"a timeout is a positive number of seconds, not {seconds!r}")
        return cls(event_loop().time() + seconds)

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - _now())

    @property
    def expired(self) -> bool:
        """Whether the moment has come."""
        return self.at <= _now()

    def narrowed(self, seconds: float | None) -> Deadline:
        """The earlier of this moment and `seconds` from now (None: this one)."""
        if seconds is None:
            return self
        return Deadline(min(self.at, _now() + seconds))

    def earlier_by(self, seconds: float) -> Deadline:
        """The moment `seconds` before this one."""
        return Deadline(self.at - seconds)


NEVER = Deadline(math.inf)


def event_loop() -> asyncio.AbstractEventLoop:
    """
    The running loop.

    Raises:
        MisuseError: none of asyncio runs here.

    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise MisuseError(
            "no event loop of asyncio is running here: await this below `asyncio.run(…)`; under Trio, in a thread that "
            "has a loop of its own (`trio.to_thread.run_sync(asyncio.run, …)`)"
        ) from None


def _now() -> float:
    """The running loop's time; in a thread of a tool, which has none, the clock that loops read."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
