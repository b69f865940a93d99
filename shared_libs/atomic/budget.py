"""What a run may spend besides time, and what it has spent; shared with the runs of its sub-agents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import msgspec

from shared_libs.atomic.types import Usage


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

    A call under way is reserved at what the calls before it took on average, so that many at once pass a limit by no
    more than they take beyond that.
    """

    __slots__ = (
        "_calls",
        "_cut_off",
        "_known",
        "_under_way",
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
        self._calls = 0
        self._under_way = 0

    @property
    def cost_usd(self) -> float | None:
        """What everything has cost, in US dollars; None before the first call, and when a part of it is unknown."""
        return self.spent_usd if self._known else None

    def reserved(self) -> AbstractContextManager[None]:
        """Hold what one model call usually takes, inside a `with` block: while it is under way."""
        return _Reserved(self._line())

    def charge(self, usage: Usage, cost_usd: float | None) -> None:
        """Count one answered model call."""
        for budget in self._line():
            budget._calls += 1  # noqa: SLF001 - its own kind
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
        self._calls = spent.steps  # each asked a model once: that is the average until more is known

    def grant_tool_calls(self, wanted: int) -> int:
        """Count up to `wanted` tool calls and return how many of them may run."""
        granted = wanted
        for budget in self._line():
            if budget.max_tool_calls is not None and budget.max_tool_calls - budget.tool_calls < wanted:
                left = max(0, budget.max_tool_calls - budget.tool_calls)
                budget.refused += wanted - left
                granted = min(granted, left)
        for budget in self._line():
            budget.tool_calls += granted
        return granted

    def exhausted(self) -> str | None:
        """Which limit is reached, in words, or None; the steps of a run itself are not looked at here."""
        return self.spent() or self.exhausted_above()

    @property
    def crowded(self) -> bool:
        """Whether model calls of others are under way on the budgets that this one counts on."""
        return any(budget._under_way for budget in self._line() if budget is not self)  # noqa: SLF001 - its own kind

    def exhausted_above(self) -> str | None:
        """Which limit of the runs that called this agent is reached."""
        for budget in self._line():
            if budget is self:
                continue
            why = budget.spent()
            if why is None and budget.max_steps is not None and budget.steps >= budget.max_steps:
                why = f"all {budget.max_steps} steps are used"
            if why is not None:
                return f"{why} in the run that called this agent"
        return None

    def _line(self) -> Sequence[Budget]:
        """This budget and those above it."""
        if self.parent is None:
            return (self,)
        line, budget = [self], self.parent if self._counts_above else None
        while budget is not None:
            line.append(budget)
            budget = budget.parent if budget._counts_above else None  # noqa: SLF001 - its own kind
        return line

    @property
    def _counts_above(self) -> bool:
        return self._cut_off is None or not self._cut_off()

    def spent(self) -> str | None:
        """Which limit of its own is reached, the steps aside."""
        if self.refused:
            return f"all {self.max_tool_calls} tool calls are used"
        share = self._under_way / self._calls if self._calls else 0.0
        used = self.usage.total_tokens
        if self.max_tokens is not None and used * (1 + share) >= self.max_tokens:
            held = f" and {used * share:.0f} held for calls under way" if used < self.max_tokens else ""
            return f"{used} tokens used{held} of {self.max_tokens}"
        if self.max_cost_usd is not None and self.spent_usd * (1 + share) >= self.max_cost_usd:
            held = f" and {self.spent_usd * share:.4f} held" if self.spent_usd < self.max_cost_usd else ""
            return f"{self.spent_usd:.4f} US dollars spent{held} of {self.max_cost_usd}"
        return None


class _Reserved(AbstractContextManager[None]):
    """What holds a call's share while it is under way; a class, because it is on the path of every call."""

    __slots__ = ("_line",)

    def __init__(self, line: Sequence[Budget]) -> None:
        self._line = line

    def __enter__(self) -> None:
        for budget in self._line:
            budget._under_way += 1  # noqa: SLF001 - its own kind

    def __exit__(self, *_: object) -> None:
        for budget in self._line:
            budget._under_way -= 1  # noqa: SLF001 - its own kind
