"""What the tests share: running a coroutine on the real or on a virtual clock, and a judge of histories."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import pydantic
import pytest
from blockbuster import BlockBuster

from shared_libs.atomic.types import Message
from shared_libs.testing.clock import VirtualLoop

T = TypeVar("T")
START = threading.Thread.start

pydantic.create_model("Warm", field=(int, ...))  # the first model looks for plugins on the disk, once in a process


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on the real clock; a blocking call of ours on the event loop fails the test."""
    with blocking_is_an_error():
        return asyncio.run(main)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run on a clock that jumps to the next timer when nothing else is to do: minutes cost no time."""
    with blocking_is_an_error(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def is_valid_history(history: Iterable[Message]) -> bool:
    """Every call is followed at once by its results, every result belongs to a call: told without our code."""
    due: list[str] = []
    for message in history:
        if message.role == "tool":
            if message.tool_call_id not in due:
                return False
            due.remove(message.tool_call_id)
            continue
        if due:
            return False
        due = [call.id for call in message.tool_calls]
    return not due


@contextmanager
def no_thread(name: str) -> Iterator[None]:
    """Have the system refuse every thread of ours whose name begins so, as it does at its limit."""

    def refused(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        START(thread)

    with pytest.MonkeyPatch.context() as system:
        system.setattr(threading.Thread, "start", refused)
        yield


@cache
def _watch() -> BlockBuster:
    watch = BlockBuster(["shared_libs"])
    for function in watch.functions.values():
        # a library loaded on first use reads files once
        function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
        # the driver of PostgreSQL looks for certificates and passwords on the disk when it connects
        function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_arguments", "_dot_postgresql_path"})
    del watch.functions["os.path.abspath"]  # asks for the working directory, and nothing of a disk
    return watch


@contextmanager
def blocking_is_an_error() -> Iterator[None]:
    """Have a blocking call of ours on an event loop raise."""
    watch = _watch()
    if watch.functions["time.sleep"].activated:  # by a loop of another thread, or by one around this
        yield
        return
    for function in watch.functions.values():
        function.original_func = getattr(function.module, function.func_name, None)  # a test may have another in place
    watch.activate()
    try:
        yield
    finally:
        watch.deactivate()
