"""What the tests of awaiting share: a scope that remembers, and bodies that end as a test wants."""

from __future__ import annotations

import asyncio
import math

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.deadline import NEVER
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.supervise import supervise


class Ledger:
    """A scope that remembers what is booked, and a loop whose complaints are heard."""

    def __init__(self):
        self.rows, self.events, self.complaints = [], [], []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.complaints.append(context["message"]))
        self.scope = Scope(NEVER, self.events.append, abandon=lambda *row: self.rows.append(row))

    async def supervise(self, body, seconds=1.0, **options):
        expiry = seconds if isinstance(seconds, Expiry) else Expiry(now() + seconds, "too late")
        with use_scope(self.scope):
            return await supervise(body, expiry, what="tool", name="t", call_id="c", **options)


def now():
    return asyncio.get_running_loop().time()


async def sleep(seconds=math.inf, result="done"):
    await asyncio.sleep(seconds)
    return result


async def absorb(seconds, ended=None):
    """Swallow every cancellation until the time is over."""
    until = now() + seconds
    while now() < until:
        try:
            await asyncio.sleep(until - now())
        except asyncio.CancelledError:
            continue
    if ended is not None:
        ended.append(now())
    return "late"
