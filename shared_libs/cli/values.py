"""What the values of options are read as, each with its refusal."""

from __future__ import annotations

import argparse
import math


def port(text: str) -> int:
    """Read a port."""
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number up to 65535, not {text!r}")
    return int(text)


CENTURY_S = 36_500 * 86_400
"""More than anybody waits or keeps; the clocks of some systems end soon after."""


def seconds(text: str) -> float:
    """Read a positive number of seconds."""
    return _amount(text, "seconds", CENTURY_S)


def hours(text: str) -> float:
    """Read a number of hours; none is 0."""
    return 0.0 if text == "0" else _amount(text, "hours", CENTURY_S / 3600)


def days(text: str) -> float:
    """Read a number of days; none is 0."""
    return 0.0 if text == "0" else _amount(text, "days", CENTURY_S / 86_400)


def _amount(text: str, unit: str, most: float) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount <= most:
        raise argparse.ArgumentTypeError(f"a positive number of {unit}, {most:.0f} at most, not {text!r}")
    return amount


def count(text: str) -> int:
    """Read a whole number from 1."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1, not {text!r}")
    return int(text)
