"""Tools for a process of their own: each at the top of this module, where a worker finds it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import stat
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shared_libs.atomic import BaseTool, ToolError, current_deadline, current_scope
from shared_libs.atomic import tool as as_tool

STUBBORN = "import signal, os, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def isolated(function):
    return as_tool(isolation="process")(function)


@isolated
def double(n: int) -> int:
    return 2 * n


@isolated
async def later(day: datetime) -> dict:
    await asyncio.sleep(0)
    return {"day": day.date(), "type": type(day).__name__}


@isolated
def who() -> dict:
    scope = current_scope()
    return {
        "pid": os.getpid(),
        "call": [scope.run_id, scope.step, scope.call_id],
        "main": sys.modules["__main__"].__name__,
    }


@isolated
def time_left() -> float:
    return current_deadline().remaining()


@isolated
def noisy() -> str:
    print("from Python")  # noqa: T201
    os.write(1, b"from below\n")
    return "told"


@isolated
def refuse() -> None:
    raise ToolError("not like this")


@isolated
def long_text() -> str:
    return "x" * 1000


@isolated
def end(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "quiet":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(4)


@as_tool(isolation="process", memory_limit_mb=200)
def fill(megabytes: int, threads: int = 0) -> int:
    """Take memory; before that, have so many threads that have taken a little."""
    done = threading.Event()
    begun = [threading.Event() for _ in range(threads)]

    def hold(has_some: threading.Event) -> None:
        some = [bytes(2_000) for _ in range(100)]
        has_some.set()
        done.wait(len(some))

    for event in begun:
        threading.Thread(target=hold, args=[event]).start()
        event.wait()
    try:
        return len(bytearray(megabytes << 20))
    finally:
        done.set()


@as_tool(isolation="process", cpu_limit_s=1)
def burn() -> None:
    deque(itertools.count(), maxlen=0)


@isolated
def spin(ready: str) -> None:
    """Never end, in native code that holds the interpreter."""
    _tell(ready)
    deque(itertools.count(), maxlen=0)


@isolated
async def absorb(ready: str) -> None:
    """Block the loop, whatever asks it to stop."""
    _tell(ready)
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            continue


@isolated
def family(ready: str) -> None:
    """Start children that ignore SIGTERM, in sessions of their own, one of them an orphan; then never end."""
    stay = f"{STUBBORN}open({ready!r}, 'a').write(str(os.getpid()) + chr(10)); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", stay])
    subprocess.Popen([sys.executable, "-c", stay], start_new_session=True)
    fork = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {stay!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", fork], check=True)
    threading.Event().wait()


@isolated
def leave_one_behind() -> int:
    return subprocess.Popen([sys.executable, "-c", f"{STUBBORN}time.sleep(600)"]).pid


@isolated
def write_to_our_socket(what: str) -> str:
    """Write what is no answer to every socket this process holds."""
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, bytes.fromhex(what))
    return "done"


def _tell(ready: str) -> None:
    Path(ready).write_text(f"{os.getpid()}\n")


@dataclass
class Dated(BaseTool):
    name = "dated"
    isolation = "process"
    day: int = 1

    def execute(self) -> int:
        return self.day


class Greeter(BaseTool):
    name = "greet"
    isolation = "process"

    def __init__(self, greeting: str, *, marks: int = 1) -> None:
        self.text = f"{greeting} {marks}"

    def execute(self, who: str) -> str:
        return f"{who}: {self.text}"
