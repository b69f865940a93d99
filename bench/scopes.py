"""
Runs that somebody breaks off: `python -m bench.scopes [--runs 500]`.

asyncio.timeout, anyio's move_on_after and fail_after, and a streamed response of Starlette whose client leaves. Each
run stands in a tool that obeys, and needs 5 ms to close what it holds. Counted are the tools that had closed when the
scope was left, the tasks that were alive after the grace, and what was called abandoned. `slow` are tools that a busy
machine let take longer than the grace. Exit code 1 when any other had not closed, or was called abandoned, or a task
was left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.events import Abandoned, AgentEvent
from shared_libs.atomic.llms import ScriptedLLM, Turn
from shared_libs.atomic.supervise import GRACE_S

CLOSE_S, AT_ONCE = 0.005, 1


class Seen:
    """What became of the runs of one way."""

    def __init__(self) -> None:
        self.begun = self.closed = self.slow = self.abandoned = 0

    def agent(self, when_begun: Callable[[], object]) -> ReActAgent:
        """Make an agent whose tool waits until it is cancelled."""

        @tool(timeout_s=60)
        async def wait() -> str:
            """Wait."""
            self.begun += 1
            when_begun()
            try:
                await asyncio.sleep(60)
            finally:
                clock = asyncio.get_running_loop().time
                told_at = clock()
                await asyncio.sleep(CLOSE_S)
                self.closed += 1
                self.slow += clock() - told_at > GRACE_S * 0.9
            return "waited"

        return ReActAgent(llm=ScriptedLLM([Turn(calls=[("wait", {})])]), tools=[wait], observers=[self.hear])

    def hear(self, event: AgentEvent) -> None:
        """Count what was left behind."""
        self.abandoned += isinstance(event, Abandoned)


async def by_timeout(seen: Seen) -> None:
    clock = asyncio.get_running_loop().time
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30) as scope:
            await seen.agent(lambda: scope.reschedule(clock())).async_run("go", timeout=60)


async def by_move_on_after(seen: Seen) -> None:
    with anyio.move_on_after(30) as scope:
        await seen.agent(lambda: setattr(scope, "deadline", anyio.current_time())).async_run("go", timeout=60)


async def by_fail_after(seen: Seen) -> None:
    with contextlib.suppress(TimeoutError), anyio.fail_after(30) as scope:
        await seen.agent(lambda: setattr(scope, "deadline", anyio.current_time())).async_run("go", timeout=60)


async def by_leaving(seen: Seen) -> None:
    begun = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        async for event in seen.agent(begun.set).async_stream("go", timeout=60):
            yield type(event).__name__.encode()

    async def answer(_: Any) -> StreamingResponse:
        return StreamingResponse(pieces())

    app = Starlette(routes=[Route("/", answer)])

    async def receive() -> dict[str, Any]:
        await begun.wait()
        await asyncio.sleep(0.02)  # the reader waits for the next event: what Starlette sends just then it only drops
        return {"type": "http.disconnect"}

    async def send(_: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    # as uvicorn has it: that the client has left is told by `receive`
    asgi = {"version": "3.0", "spec_version": "2.3"}
    scope = {"type": "http", "asgi": asgi, "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope, receive, send)


WAYS = {
    "asyncio.timeout": by_timeout,
    "anyio.move_on_after": by_move_on_after,
    "anyio.fail_after": by_fail_after,
    "Starlette, the client leaves": by_leaving,
}


async def main(runs: int) -> bool:
    await by_timeout(Seen())  # everything is imported now
    kept = True
    print(f"{'way':30}{'runs':>6}{'begun':>7}{'closed':>8}{'slow':>6}{'abandoned':>11}{'alive after':>13}")
    for name, way in WAYS.items():
        seen, alive, closed = Seen(), 0, 0
        for _ in range(runs // AT_ONCE):
            before = seen.begun - seen.closed
            await asyncio.gather(*(way(seen) for _ in range(AT_ONCE)))
            closed += AT_ONCE - (seen.begun - seen.closed - before)
            await asyncio.sleep(2 * GRACE_S)
            alive += len(asyncio.all_tasks()) - 1
        fine = seen.begun == runs and runs - closed <= seen.slow and seen.abandoned <= seen.slow and not alive
        kept &= fine
        row = f"{name:30}{runs:6}{seen.begun:7}{closed:8}{seen.slow:6}{seen.abandoned:11}{alive:13}"
        print(row + ("" if fine else "  BROKEN"))
    print(f"load {' '.join(f'{one:.1f}' for one in os.getloadavg())}")
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    sys.exit(0 if asyncio.run(main(parser.parse_args().runs)) else 1)
