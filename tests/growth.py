"""
How work grows: the same work on n and on 2n, compared within one run, so that no machine is too slow for it.

Foreign text must cost work in proportion to its size. Linear work doubles with its input, quadratic work is four times
as much; `FEW` doublings in a row tell them apart however noisy the machine is.

    assert_linear(redact_text, lambda n: "eyJaaaaa-" * n)
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

FEW = 3
"""Doublings: linear work is 8 times as much behind them, quadratic work 64 times."""

MOST = 24.0
"""Times as much after `FEW` doublings that still count as linear: between 8 and 64, as ratios lie."""

START_S = 0.002
"""CPU seconds that the smallest input has to take, so that the clock can tell it."""

LARGEST = 1 << 22


def assert_linear(
    work: Callable[[T], Any], made: Callable[[int], T], *, start: int = 256, within_s: float = 20.0
) -> None:
    """
    Assert that work grows in proportion to its input, or not at all.

    Args:
        work: what is measured; what it returns is of no interest, and what it raises fails the test.
        made: makes an input of size n; not measured.
        start: the smallest size tried; it is doubled until the work takes long enough to be measured.
        within_s: CPU seconds that no single piece of work may take, which ends a test of exponential work early.

    """
    size = start
    while (first := min(_cpu_s(work, made(size)) for _ in range(3))) < START_S:
        if size >= LARGEST:
            return  # 4 million of them are done in no time
        size *= 2
    assert first < within_s, f"n = {size} took {first:.1f} s of CPU"
    last = first
    for _ in range(FEW):
        size *= 2
        last = _cpu_s(work, made(size))
        assert last < within_s, f"n = {size} took {last:.1f} s of CPU"
    for _ in range(2):
        # what others do on the machine only ever adds, so one measurement within bounds is enough
        if last < MOST * first:
            return
        # a short piece may have had the core to itself where a long one never has: so many in a row take as long
        short = [made(size >> FEW) for _ in range(1 << FEW)]
        first = max(first, _cpu_s(lambda given: [work(each) for each in given], short) / len(short))
        last = min(last, _cpu_s(work, made(size)))
    assert last < MOST * first, f"n = {size} took {last / first:.0f} times as long as n = {size >> FEW}"


def _cpu_s(work: Callable[[T], Any], given: T) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.thread_time()
        work(given)
        return time.thread_time() - began
    finally:
        if collecting:
            gc.enable()
