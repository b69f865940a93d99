"""
The `python` tool: a snippet in a sandbox that has no files, no network, no environment and no other libraries.

The snippet runs in an interpreter of its own (pydantic-monty) in a worker process, under limits of time, memory and
recursion that the interpreter keeps; a worker that does not is killed, and replaced.
"""

from __future__ import annotations

import asyncio
from typing import Any

from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.loading import importing
from shared_libs.atomic.scope import current_deadline
from shared_libs.atomic.tools.base import BaseTool

with importing("pydantic_monty", "PythonTool"):
    from pydantic_monty import AsyncMonty, CollectString, MontyCrashedError, MontyRuntimeError, MontySyntaxError

TO_STOP_S = 0.2
"""Seconds before the tool's limit when the snippet is stopped, so that the model is told where; at most a quarter."""

MAX_RECURSION = 500


class PythonTool(BaseTool):
    """
    Runs a Python snippet in a sandbox.

    Args:
        max_memory_mb: megabytes the snippet may use.

    Raises:
        MisuseError: `max_memory_mb` is not a whole number from 1.

    """

    name = "python"
    description = (
        "Runs a Python snippet and returns what it prints and the value of its last expression. It is a sandbox: no "
        "files, no network, no environment; only builtins and modules such as math, json, re, datetime, itertools "
        "and collections. Nothing is kept between calls."
    )
    timeout_s = 10.0
    idempotent = True

    def __init__(self, *, max_memory_mb: int = 64) -> None:
        if max_memory_mb < 1:
            raise MisuseError(f"max_memory_mb is a whole number from 1, not {max_memory_mb}")
        self._max_memory = max_memory_mb << 20
        self._pool: AsyncMonty | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def execute(self, code: str) -> str:
        """Run the snippet."""
        pool = await self._workers()
        left_s = current_deadline().narrowed(self.timeout_s).remaining()
        seconds = left_s - min(TO_STOP_S, left_s / 4)
        printed = CollectString()
        try:
            async with pool.checkout(
                script_name="snippet.py",
                limits={
                    "max_feed_duration_secs": seconds,
                    "max_memory": self._max_memory,
                    "max_recursion_depth": MAX_RECURSION,
                },
                os_policy={"sleep": "zero"},
            ) as session:
                value = await session.feed_run(code, print_callback=printed)
        except (MontySyntaxError, MontyRuntimeError) as error:
            raise ToolError(self._failure(error, printed.output)) from error
        except MontyCrashedError as error:
            why = "did not stop in time" if error.timed_out else "broke its sandbox"
            raise ToolError(f"the snippet {why}, and its process was ended") from error
        shown = self._start_of(printed.output)
        if value is None:
            return shown or "the snippet printed nothing, and its last line has no value; print what you want to see"
        return f"{shown}{value!r}"

    async def aclose(self) -> None:
        """End the worker processes; they start again with the next call."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)
        await super().aclose()

    async def _workers(self) -> AsyncMonty:
        """The pool of worker processes, which belongs to one event loop."""
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            pool = await asyncio.to_thread(AsyncMonty, min_processes=0)  # it looks for its worker on the disk
            await pool.__aenter__()  # starts no process yet, so it costs nothing when another call was faster
            if self._pool is None or self._loop is not loop:
                self._pool, self._loop = pool, loop
        return self._pool

    def _failure(self, error: Any, printed: str) -> str:
        """The error as Python shows it, and what was printed until then."""
        said = error.display().removeprefix("Traceback (most recent call last):\n").strip()
        lines = said.splitlines()
        if len(lines) > 20:
            said = "\n".join([*lines[:8], "  ...", *lines[-8:]])
        if "time limit exceeded" in said:
            said = "the snippet took too long and was stopped; make it do less"
        return f"{said}\nPrinted before:\n{self._start_of(printed)}".rstrip() if printed else said

    def _start_of(self, printed: str) -> str:
        """What was printed, cut so that what comes behind it still fits."""
        most = self.max_observation_chars // 2
        if len(printed) > most:
            return f"{printed[:most]}\n[cut: {len(printed) - most} of {len(printed)} printed characters]\n"
        return printed
