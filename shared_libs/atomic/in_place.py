"""
Awaiting our own code until its time is over: in the caller's task, which costs no task and no turn of the loop.

For what is known to end when it is cancelled. Foreign code is awaited by `supervise`.
"""

from __future__ import annotations

import asyncio
from typing import Self

from shared_libs.atomic.alarm import Alarm, Expiry
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.supervise import BodyCancelled


class within(Alarm):  # noqa: N801 - used like a function, a class because it is on the path of every call
    """
    Bound what is awaited inside a `with` block by `expiry`, which may be moved meanwhile.

    It is `asyncio.timeout_at` on the one timer of a loop, and tells the three endings apart.

    Raises:
        DeadlineExceeded: time was over, and what was awaited was cancelled.
        BodyCancelled: what was awaited cancelled itself.
        asyncio.CancelledError: somebody outside cancelled the caller.

    """

    __slots__ = ("_cancels", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, expiry: Expiry) -> None:
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._cancels = task.cancelling()
        Alarm.__init__(self, loop, expiry, task.cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.stop()
        if error is not None and not isinstance(error, asyncio.CancelledError | Exception):
            return
        task, cancels = self._task, self._cancels
        if self.rang and task.uncancel() <= cancels:  # nobody has cancelled since: the alarm's own is taken back
            if error is not None:
                raise DeadlineExceeded(self.expiry.why) from None
        elif task.cancelling() > cancels:  # from outside, which always wins: also over what the body made of it
            if not isinstance(error, asyncio.CancelledError):
                raise asyncio.CancelledError from error
        elif isinstance(error, asyncio.CancelledError):
            raise BodyCancelled from None
