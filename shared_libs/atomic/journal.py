"""
The seam for durable runs: what enters a run through a port is a fact, and a journal keeps it by its name.

A journal is put into the scope by whoever makes runs durable; without one a run keeps nothing and pays nothing.
`docs/journal.md` has the names, and what each side promises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from shared_libs.atomic.events import AgentEvent

T = TypeVar("T")

REPLAY_S = 0.5
"""Seconds a run that was down past its deadline may take to read what it had; no model and no tool is asked."""


class Journal(Protocol):
    """
    Keeps the facts of one run, and of the sub-agents' runs inside it.

    `once` and `begin` may raise `RunInterrupted`, which ends the run for its process: it is another's now, or it is to
    be handed over.
    """

    @property
    def replaying(self) -> bool:
        """Whether the run is still where it has been before: no fact has been new so far."""

    @property
    def events(self) -> int:
        """The number of the last event that was told of this run; 0 for a new one."""

    @property
    def started_at(self) -> float | None:
        """When the run began first, in seconds since 1970; None for a new one. Its deadline counts from then."""

    @property
    def wants_pause(self) -> bool:
        """Whether the run is to stop at its next boundary, with a state to go on from."""

    @property
    def followed(self) -> bool:
        """Whether somebody hears the model's words as they come; looked at before each answer."""

    def knows(self, name: str) -> bool:
        """Whether there is a fact of this name."""

    def was_told(self, event: AgentEvent) -> bool:
        """Whether an event was told before: what a run does again without doing it is silent."""

    async def once(self, name: str, kind: type[T], do: Callable[[], Awaitable[T]]) -> T:
        """Return the fact of this name; where there is none, do what makes it, and keep it before it is returned."""


class Within:
    """The part of a journal that belongs to a sub-agent's run: its names begin with the call it was made for."""

    def __init__(self, journal: Journal, prefix: str) -> None:
        self._journal = journal
        self._prefix = prefix
        self._replaying = any(map(self.knows, ("recall", "model.1", "model.1.last")))

    @property
    def replaying(self) -> bool:
        """Whether the sub-agent is still where it has been before, whatever runs beside it."""
        return self._replaying

    @property
    def events(self) -> int:
        """A sub-agent's events are numbered anew."""
        return 0

    @property
    def started_at(self) -> float | None:
        """A sub-agent keeps to the deadline of the call it is made for."""
        return None

    @property
    def wants_pause(self) -> bool:
        """A sub-agent is not paused; the run that calls it is."""
        return False

    @property
    def followed(self) -> bool:
        """Of a sub-agent only its answer is heard."""
        return False

    def knows(self, name: str) -> bool:
        """Whether there is a fact of this name."""
        return self._journal.knows(f"{self._prefix}/{name}")

    def was_told(self, event: AgentEvent) -> bool:
        """Whether an event was told before, as far as a sub-agent's are: those of a replay."""
        return self._replaying

    async def once(self, name: str, kind: type[T], do: Callable[[], Awaitable[T]]) -> T:
        """Return the fact of this name; where there is none, do what makes it, and keep it."""
        self._replaying = self._replaying and self.knows(name)
        return await self._journal.once(f"{self._prefix}/{name}", kind, do)
