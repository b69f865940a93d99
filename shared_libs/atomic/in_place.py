"""
Awaiting our own code until its time is over: in the caller's task, which costs no task and no turn of the loop.

For what is known to end when it is cancelled. Foreign code is awaited by `supervise`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.supervise import BodyCancelled, Expiry

T = TypeVar("T")


async def in_place(body: Coroutine[Any, Any, T], expiry: Expiry) -> T:
    """
    Await `body` until `expiry`, which the body may move while it runs.

    Raises:
        DeadlineExceeded: time was over, and the body was cancelled.
        BodyCancelled: the body cancelled itself.
        asyncio.CancelledError: somebody outside cancelled the caller.

    """
    task = asyncio.current_task()
    assert task is not None
    alarm = _Alarm(task, expiry)
    cancels = task.cancelling()
    try:
        result = await body
    except (asyncio.CancelledError, Exception) as error:
        if alarm.was_last(cancels):
            raise DeadlineExceeded(expiry.why) from None
        if task.cancelling() > cancels:  # from outside, which always wins: also over what the body made of it
            raise asyncio.CancelledError from error
        if isinstance(error, asyncio.CancelledError):
            raise BodyCancelled from None
        raise
    finally:
        alarm.stop()
    if not alarm.was_last(cancels) and task.cancelling() > cancels:
        raise asyncio.CancelledError
    return result


class _Alarm:
    """Cancels a task when an expiry has come; for the expiry it is what a bell is to a supervised body."""

    __slots__ = ("_expiry", "_handle", "_loop", "_task", "looks_at", "rang")

    def __init__(self, task: asyncio.Task[Any], expiry: Expiry) -> None:
        self.rang = False
        self.looks_at = math.inf
        self._task = task
        self._expiry = expiry
        self._loop = task.get_loop()
        self._handle: asyncio.TimerHandle | None = None
        expiry.waiter = self
        if expiry.at != math.inf:
            self.look_at(expiry.at)

    def look_at(self, moment: float) -> None:
        """Look whether it is time at a moment, and no more at the one planned before."""
        if self._handle is not None:
            self._handle.cancel()
        self.looks_at = moment
        self._handle = self._loop.call_at(moment, self._look)

    def stop(self) -> None:
        """Look at the time no more."""
        self._expiry.waiter = None
        if self._handle is not None:
            self._handle.cancel()

    def was_last(self, cancels: int) -> bool:
        """Take its own cancellation back; whether it rang, and nobody else has cancelled since there were `cancels`."""
        return self.rang and self._task.uncancel() <= cancels

    def _look(self) -> None:
        if self._loop.time() < self._expiry.at:
            self.look_at(self._expiry.at)
        else:
            self.rang = True
            self._task.cancel()
