"""What every benchmark needs: a server in a process of its own, and a crowd of callers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import contextmanager
from typing import Any


@contextmanager
def server(port: int, delay_s: float):
    """Run the loopback server in a process of its own."""
    command = [sys.executable, "-m", "bench.server", str(port), str(delay_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.stdin.close()
        process.wait()


async def crowd(run: Callable[[], Awaitable[str]], at_once: int, runs: int) -> tuple[float, float]:
    """Do `runs` runs, `at_once` at a time; return CPU and wall seconds per run."""
    left = iter(range(runs))

    async def worker() -> None:
        for _ in left:
            await run()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (time.process_time() - cpu) / runs, (time.perf_counter() - wall) / runs


def child(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Fork: the parent never runs an event loop or a thread, so every child begins clean, and at once."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        except BaseException:  # noqa: BLE001 - the parent reads the exit code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid
