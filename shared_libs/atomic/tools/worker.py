"""The worker's side of `isolation: process`: one tool, made once, whose calls run here one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.scope import Scope, use_scope
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.exchange import Answer, Call, receive, send
from shared_libs.atomic.tools.function_tool import FunctionTool
from shared_libs.atomic.tools.plan import Plan
from shared_libs.atomic.watchdog import WATCHDOG

_M_ARENA_MAX = -8
"""An option of glibc's `mallopt`."""


def serve(channel: socket.socket) -> None:
    """Make the tool of the plan that comes first, then answer calls until the other end is gone."""
    plan_text = receive(channel)
    if plan_text is None:
        return
    try:
        WATCHDOG.watches = False  # the caller ends this process when it blocks; a thread takes memory of the calls'
        plan = msgspec.json.decode(plan_text, type=Plan)
        tool = _made(plan)
        _limit_memory(plan.memory_limit_mb)
    except BaseException as error:  # noqa: BLE001 - whatever the import of foreign code raises is told to the caller
        send(channel, msgspec.json.encode(Answer(f"{type(error).__name__}: {error}", is_error=True)))
        return
    send(channel, msgspec.json.encode(Answer("")))
    while (frame := receive(channel)) is not None:
        call = msgspec.json.decode(frame, type=Call)
        answer = _answer(tool, call)
        if time.monotonic() >= call.until:
            receive(channel)  # the caller tells of its time in its own words, and ends this process
            return
        send(channel, msgspec.json.encode(answer))


def _made(plan: Plan) -> BaseTool:
    found = plan.find()
    if isinstance(found, type):
        found = found(*plan.arguments, **plan.options)
    tool: BaseTool = found if isinstance(found, BaseTool) else FunctionTool(found)
    tool.isolation = tool.memory_limit_mb = tool.cpu_limit_s = None
    tool.timeout_s = math.inf  # the caller's clock decides
    _ = tool.spec
    asyncio.run(tool._placed().warm(tool))  # noqa: SLF001 - its thread takes memory that is not the calls'
    return tool


def _answer(tool: BaseTool, call: Call) -> Answer:
    tool.max_observation_chars = call.max_observation_chars
    tool.memory_limit_mb = call.memory_limit_mb
    if call.cpu_limit_s is not None:
        used = time.process_time()
        _limit(resource.RLIMIT_CPU, math.ceil(used + call.cpu_limit_s))
    result = asyncio.run(_call(tool, call))
    return Answer(result.content, is_error=result.is_error, reusable=not (result.still_running or _has_children()))


async def _call(tool: BaseTool, call: Call) -> Any:
    left_s = call.until - time.monotonic()
    scope = Scope(
        Deadline(asyncio.get_running_loop().time() + left_s), run_id=call.run_id, step=call.step, call_id=call.call_id
    )
    with use_scope(scope):
        return await tool.async_run(call.arguments, call_id=call.call_id)


def _has_children() -> bool:
    """Whether the call has left processes behind; always false where the system does not list them."""
    tasks = Path("/proc/self/task")
    try:
        return any((task / "children").read_bytes() for task in tasks.iterdir())
    except OSError:
        return False


def _limit_memory(megabytes: int | None) -> None:
    """
    Bound the address space by what is used already and `megabytes` more.

    glibc reserves 64 MB of it for every further thread; where memory is bounded, threads share what there is.
    """
    _limit(resource.RLIMIT_CORE, 0)
    if megabytes is None or sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + (megabytes << 20))


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if most == resource.RLIM_INFINITY else min(value, most), most))
