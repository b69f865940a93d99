"""
The one clock: absolute deadlines on the event loop's time, and the budget of a run.

Nothing in this library reads another clock for control flow, so a test that moves the loop's clock moves everything.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.types import Usage


class Deadline(NamedTuple):
    """
    A moment on the running loop's clock (`loop.time()`, seconds); `math.inf` for none.

    A deadline is only ever narrowed on its way down: to a model, a tool, a sub-agent.
    """

    at: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """
        The moment `seconds` from now; None means never.

        Raises:
            MisuseError: `seconds` is not a positive number.
            RuntimeError: no event loop is running.

        """
        if seconds is None:
            return NEVER
        if not seconds > 0:
            raise MisuseError(f"a timeout is a positive number of seconds, not {seconds!r}")
        return cls(asyncio.get_running_loop().time() + seconds)

    def remaining(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - _now())

    @property
    def expired(self) -> bool:
        """Whether the moment has come."""
        return self.at <= _now()

    def narrowed(self, seconds: float | None) -> Deadline:
        """The earlier of this moment and `seconds` from now (None: this one)."""
        if seconds is None:
            return self
        return Deadline(min(self.at, _now() + seconds))

    def earlier_by(self, seconds: float) -> Deadline:
        """The moment `seconds` before this one."""
        return Deadline(self.at - seconds)


NEVER = Deadline(math.inf)


def _now() -> float:
    """The running loop's time; in a thread of a tool, which has none, the clock that loops read."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Spent(msgspec.Struct, frozen=True):
    """What a run has spent; `usd_known` is None before the first call, and False when a part of the cost is unknown."""

    usage: Usage = Usage()
    usd: float = 0.0
    usd_known: bool | None = None
    steps: int = 0
    tool_calls: int = 0
    refused: int = 0


class Budget:
    """
    What a run may still spend besides time: tool calls, tokens, US dollars. None means no limit.

    `max_tokens` counts input and output of every answered model call. A cost that is unknown does not count,
    so a limit in dollars binds only models whose price is known; `spent_usd` is what is known to be spent.

    What a sub-agent's run spends, its steps included, counts on the budget of the run that called it (`parent`) as
    well, and a limit of either ends it, until `cut_off` tells that the call has been given up.
    """

    __slots__ = (
        "_cut_off",
        "_known",
        "depth",
        "max_cost_usd",
        "max_steps",
        "max_tokens",
        "max_tool_calls",
        "parent",
        "refused",
        "spent_usd",
        "steps",
        "tool_calls",
        "usage",
    )

    def __init__(
        self,
        *,
        max_tool_calls: int | None = None,
        max_tokens: int | None = None,
        max_cost_usd: float | None = None,
        max_steps: int | None = None,
        parent: Budget | None = None,
        cut_off: Callable[[], bool] | None = None,
    ) -> None:
        self.max_tool_calls = max_tool_calls
        self.max_tokens = max_tokens
        self.max_cost_usd = max_cost_usd
        self.max_steps = max_steps
        self.parent = parent
        self._cut_off = cut_off
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.steps = 0
        self.tool_calls = 0
        self.refused = 0
        self.usage = Usage()
        self.spent_usd = 0.0
        self._known: bool | None = None

    @property
    def cost_usd(self) -> float | None:
        """What everything has cost, in US dollars; None before the first call, and when a part of it is unknown."""
        return self.spent_usd if self._known else None

    def charge(self, usage: Usage, cost_usd: float | None) -> None:
        """Count one answered model call."""
        for budget in self._line():
            budget.usage += usage
            budget._known = cost_usd is not None and budget._known is not False  # noqa: SLF001 - its own kind
            budget.spent_usd += cost_usd or 0.0

    def take_step(self) -> None:
        """Count one step."""
        for budget in self._line():
            budget.steps += 1

    def so_far(self) -> Spent:
        """What has been spent, as plain data."""
        return Spent(self.usage, self.spent_usd, self._known, self.steps, self.tool_calls, self.refused)

    def go_on_from(self, spent: Spent) -> None:
        """Take up what an earlier part of the same run has spent."""
        self.usage, self.spent_usd, self._known = spent.usage, spent.usd, spent.usd_known
        self.steps, self.tool_calls, self.refused = spent.steps, spent.tool_calls, spent.refused

    def grant_tool_calls(self, wanted: int) -> int:
        """Count up to `wanted` tool calls and return how many of them may run."""
        granted = wanted
        for budget in self._line():
            if budget.max_tool_calls is not None:
                left = max(0, budget.max_tool_calls - budget.tool_calls)
                budget.refused += max(0, wanted - left)
                granted = min(granted, left)
        for budget in self._line():
            budget.tool_calls += granted
        return granted

    def exhausted(self) -> str | None:
        """Which limit is reached, in words, or None; the steps of a run itself are not looked at here."""
        if why := self.spent():
            return why
        for budget in self._line():
            if budget is self:
                continue
            why = budget.spent()
            if why is None and budget.max_steps is not None and budget.steps >= budget.max_steps:
                why = f"all {budget.max_steps} steps are used"
            if why is not None:
                return f"{why} in the run that called this agent"
        return None

    def _line(self) -> Iterator[Budget]:
        """This budget and those above it."""
        budget: Budget | None = self
        while budget is not None:
            yield budget
            cut_off = budget._cut_off  # noqa: SLF001 - its own kind
            budget = None if cut_off is not None and cut_off() else budget.parent

    def spent(self) -> str | None:
        """Which limit of its own is reached, the steps aside."""
        if self.refused:
            return f"all {self.max_tool_calls} tool calls are used"
        if self.max_tokens is not None and self.usage.total_tokens >= self.max_tokens:
            return f"{self.usage.total_tokens} tokens used of {self.max_tokens}"
        if self.max_cost_usd is not None and self.spent_usd >= self.max_cost_usd:
            return f"{self.spent_usd:.4f} US dollars spent of {self.max_cost_usd}"
        return None
