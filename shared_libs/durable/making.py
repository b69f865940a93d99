"""The agents of a worker: each is made once for all runs of its definition, and kept as long as it is likely used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol

from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.threads import Threads
from shared_libs.durable.jobs import Claim

READY_S = 60.0
"""Seconds a run waits for its agent, whose making goes on: its slot is for others then, and its time has not begun."""

MOST_KEPT = 100
"""Agents that are kept beyond those at work: a worker lives for months, and definitions are many."""


class Agent(Protocol):
    """What does a run: a `ReActAgent`, or whoever has its methods."""

    async def async_run(
        self, question: Any, /, *, timeout: float | None, session_id: str | None, run_id: str
    ) -> AgentResult:
        """Answer a question."""

    async def async_resume(
        self, state: Mapping[str, Any], decisions: Mapping[str, Any], /, *, timeout: float | None
    ) -> AgentResult:
        """Go on from a state."""

    async def aopen(self) -> None:
        """Get ready."""

    async def aclose(self) -> None:
        """Close."""


Build = Callable[[Claim, Sequence[EventSink]], Agent]
"""Makes the agent of a run, whose events go to the sinks; a `ConfigError` leaves the run to other workers."""


class Agents:
    """
    Makes agents in threads, so that runs and probes go on: it reads files and loads libraries, and may not return.

    Args:
        build: makes one.
        sinks: get the events of all of them.

    """

    def __init__(self, build: Build, sinks: Sequence[EventSink]) -> None:
        self._build, self._sinks = build, sinks
        self._threads = Threads("durable-agents")
        self._made: dict[tuple[str, str | None], _Made] = {}  # the one used last stands last
        self._ends = asyncio.Event()

    @asynccontextmanager
    async def of(self, claim: Claim) -> AsyncIterator[Agent]:
        """
        Lend the agent of a run.

        Raises:
            ConfigError: it is not ready yet, or nobody is to begin here any more.
            Exception: whatever keeps it from being made.

        """
        key = claim.definition_hash, claim.file
        made = self._made.pop(key) if key in self._made else _Made(asyncio.ensure_future(self._make(claim)))
        self._made[key] = made
        made.users += 1
        try:
            await self._waited_for(made)
            yield made.making.result()
        finally:
            made.users -= 1
            if made.failed and self._made.get(key) is made:
                del self._made[key]
            await self._close_some(MOST_KEPT)

    def stop(self) -> None:
        """Let nobody wait for an agent any more."""
        self._ends.set()

    async def aclose(self) -> None:
        """Close them all."""
        for made in self._made.values():
            made.making.cancel()
        await self._close_some(0)

    async def _make(self, claim: Claim) -> Agent:
        agent: Agent = await self._threads.submit(partial(self._build, claim, self._sinks), {}).result()
        await agent.aopen()
        return agent

    async def _waited_for(self, made: _Made) -> None:
        ends = asyncio.ensure_future(self._ends.wait())
        left_s = made.begun_at + READY_S - made.making.get_loop().time()
        await asyncio.wait({made.making, ends}, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
        ends.cancel()
        if not made.making.done():
            why = "this worker ends" if self._ends.is_set() else f"its agent was not ready within {READY_S:g} s"
            raise ConfigError([why])
        if made.making.cancelled():
            raise ConfigError(["its agent was cancelled from within as it got ready"])

    async def _close_some(self, most: int) -> None:
        for key, made in [*self._made.items()]:
            if len(self._made) > most and not made.users and made.making.done():
                del self._made[key]
                with suppress(Exception, asyncio.CancelledError):
                    await made.making.result().aclose()


class _Made:
    """An agent, or the making of one, and how many runs are about to use it."""

    def __init__(self, making: asyncio.Future[Any]) -> None:
        self.making = making
        self.begun_at = making.get_loop().time()
        self.users = 0

    @property
    def failed(self) -> bool:
        return self.making.done() and (self.making.cancelled() or self.making.exception() is not None)
