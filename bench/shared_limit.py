"""
One limit of 50 requests a minute, kept by four processes together, as the server sees it; in real time.

`python -m bench.shared_limit` takes 2.5 minutes and prints the most requests in any window of 60 s by their arrival at
the server, and how many each process sent. `--store URL` takes another store than an SQLite file, `--seconds S` another
time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter

import msgspec
from aiohttp import web

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.llms import OpenAILLM
from shared_libs.limits import SQLLimitStore

LIMIT = 50
PROCESSES = 4
CALLERS = 20
WINDOW_S = 60.0


async def work(name: str, url: str, store_url: str, seconds: float) -> None:
    """Ask as fast as the limit allows, from many callers, until the time is over."""
    store = SQLLimitStore(store_url)
    policy = Resilience(retry={"attempts": 1}, rate_limit={"requests_per_minute": LIMIT, "store": store})
    ends_at = time.monotonic() + seconds

    async def caller() -> None:
        while (left := ends_at - time.monotonic()) > 0:
            try:
                await llm.async_chat(name, timeout=left)
            except RateLimited:
                return  # the next place opens after the end

    async with OpenAILLM("shared", base_url=url, api_key="k", resilience=policy) as llm:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def measure(store: str, seconds: float) -> None:
    arrived: list[tuple[float, str]] = []
    message = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    body = msgspec.json.encode({"model": "shared", "choices": [message]})

    async def chat(request: web.Request) -> web.Response:
        at = time.monotonic()
        arrived.append((at, msgspec.json.decode(await request.read())["messages"][0]["content"]))
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    command = [sys.executable, "-m", "bench.shared_limit", "--store", store, "--seconds", str(seconds), "--server", url]
    workers = [await asyncio.create_subprocess_exec(*command, "--name", f"p{n}") for n in range(PROCESSES)]
    codes = [await worker.wait() for worker in workers]
    await runner.cleanup()
    times = sorted(at for at, _ in arrived)
    most = max(sum(1 for other in times if at <= other < at + WINDOW_S) for at in times)
    print(f"{len(times)} requests of {PROCESSES} processes in {times[-1] - times[0]:.1f} s, exit codes {codes}")
    print(f"most in any {WINDOW_S:g} s: {most} (limit {LIMIT})")
    print(
        "by process: " + ", ".join(f"{name} {count}" for name, count in sorted(Counter(n for _, n in arrived).items()))
    )
    by_ten = Counter(int((at - times[0]) // 10) for at in times)
    print("by ten seconds: " + " ".join(str(by_ten[n]) for n in range(int(seconds // 10) + 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store")
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.server:
        asyncio.run(work(arguments.name, arguments.server, arguments.store, arguments.seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or f"sqlite+aiosqlite:///{folder}/limits.db"
        asyncio.run(measure(store, arguments.seconds))


if __name__ == "__main__":
    main()
