"""
Awaiting our own code until its time is over: in the caller's task, which costs no task and no turn of the loop.

For what is known to end when it is cancelled. Foreign code is awaited by `supervise`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shared_libs.atomic.alarm import Alarm, Expiry
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.supervise import BodyCancelled

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
    alarm = Alarm(task.get_loop(), expiry, task.cancel)
    cancels = task.cancelling()
    try:
        result = await body
    except (asyncio.CancelledError, Exception) as error:
        if _was_last(alarm, task, cancels):
            raise DeadlineExceeded(expiry.why) from None
        if task.cancelling() > cancels:  # from outside, which always wins: also over what the body made of it
            raise asyncio.CancelledError from error
        if isinstance(error, asyncio.CancelledError):
            raise BodyCancelled from None
        raise
    finally:
        alarm.stop()
    if not _was_last(alarm, task, cancels) and task.cancelling() > cancels:
        raise asyncio.CancelledError
    return result


def _was_last(alarm: Alarm, task: asyncio.Task[Any], cancels: int) -> bool:
    """Take the alarm's cancellation back; whether it rang, and nobody has cancelled since there were `cancels`."""
    return alarm.rang and task.uncancel() <= cancels
