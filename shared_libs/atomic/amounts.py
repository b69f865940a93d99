"""What counts as an amount where somebody states one: seconds, dollars, tokens, pieces."""

from __future__ import annotations

from typing import Any

MOST = 2**63
"""Amounts from here on are no amounts, and no clock counts them."""

AMOUNT = {"type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": MOST}
"""The JSON Schema of one that may be left out."""


def is_amount(value: Any, *, whole: bool = False, zero: bool = False) -> bool:
    """Whether it is a finite positive number (from zero with `zero`, without a fraction with `whole`) below `MOST`."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return number and 0 <= value < MOST and (zero or value != 0)
