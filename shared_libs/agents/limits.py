"""What a run may use; the keys of the YAML `limits` block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.errors import MisuseError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    The bounds of one run. None means no bound, where it is allowed.

    Args:
        timeout_s: seconds of wall clock for everything: memory, model, tools, the last word, cleanup.
        reserve_s: seconds of those kept for the last word; at most a quarter of the time is.
        max_steps: turns of the model with tools; then it gets its last word.
        max_tool_calls: tool calls of all steps together.
        max_tokens: input and output tokens of all model calls together.
        max_cost_usd: US dollars of all model calls together; counts only answers whose cost is known.
        max_repeats: how often the same call may end in the same observation, one after the other.

    """

    timeout_s: float = 60.0
    reserve_s: float = 5.0
    max_steps: int = 10
    max_tool_calls: int | None = 20
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_repeats: int = 5

    @classmethod
    def of(cls, given: Limits | Mapping[str, Any] | None) -> Limits:
        """
        Take limits, or a dict of their keys; None: the defaults.

        Raises:
            MisuseError: it is neither, or a value is not valid.

        """
        if isinstance(given, cls):
            return given
        allowed = [known.name for known in fields(cls)]
        if given is None:
            return cls()
        if not isinstance(given, Mapping) or not set(given) <= set(allowed):
            raise MisuseError(f"limits {given!r}: allowed is a Limits or a dict of {', '.join(allowed)}")
        return cls(**given)

    def __post_init__(self) -> None:
        for name in ("timeout_s", "reserve_s", "max_cost_usd"):
            self._check(name, whole=False, none=name == "max_cost_usd", zero=name == "reserve_s")
        for name in ("max_steps", "max_tool_calls", "max_tokens", "max_repeats"):
            self._check(name, whole=True, none=name in ("max_tool_calls", "max_tokens"), zero=name == "max_tool_calls")

    def _check(self, name: str, *, whole: bool, none: bool, zero: bool) -> None:
        value = getattr(self, name)
        if not (value is None and none) and not is_amount(value, whole=whole, zero=zero):
            what = "whole number" if whole else "number"
            lowest = "from 0" if zero else "above 0"
            raise MisuseError(f"limits.{name} is a {what} {lowest}{' or None' if none else ''}, not {value!r}")
