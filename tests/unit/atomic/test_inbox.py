"""What one task hands on to another."""

from __future__ import annotations

import asyncio

from shared_libs.atomic.inbox import Inbox
from tests.support import run_virtual


def test_pieces_come_in_order_whenever_they_were_put_and_end_with_the_close():
    async def main():
        inbox: Inbox[int] = Inbox()
        inbox.put(1)

        async def read() -> list[tuple[int, float]]:
            clock = asyncio.get_running_loop().time
            read = []
            while some := await inbox.some():
                read += [(piece, clock()) for piece in some]
            return read

        reader = asyncio.ensure_future(read())
        await asyncio.sleep(1)
        inbox.put(2)
        inbox.put(3)
        await asyncio.sleep(1)
        inbox.put(4)
        inbox.close()
        return await reader

    assert run_virtual(main()) == [(1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0)]


def test_a_reader_that_was_cancelled_loses_nothing():
    async def main():
        inbox: Inbox[str] = Inbox()
        reader = asyncio.ensure_future(inbox.some())
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        inbox.put("kept")
        inbox.close()
        return [await inbox.some(), await inbox.some()]

    assert run_virtual(main()) == [["kept"], []]
