"""Whether one definition is better than another, or was only luckier."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

_Z = 1.959963984540054
"""The normal distribution's quantile of 95 % on both sides."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """
    Two definitions on the same questions.

    `questions` is how many both were asked, `better` and `worse` on how many of them the second passed more and less
    often than the first. `p_value` is how likely a difference at least as uneven is when both are equally good: the
    exact sign test on the questions that differ, which is McNemar's exact test where each was asked once, and times the
    number of pairs that are compared (Bonferroni).
    """

    questions: int
    better: int
    worse: int
    p_value: float


def compare(first: Mapping[str, float], second: Mapping[str, float], *, pairs: int = 1) -> Comparison:
    """
    Compare the pass rates of each question; questions that only one was asked do not count.

    Args:
        first: the pass rate of each question.
        second: that of the one it is compared with.
        pairs: how many comparisons are made, which is how often chance gets a try.

    """
    both = first.keys() & second.keys()
    better = sum(second[key] > first[key] for key in both)
    worse = sum(second[key] < first[key] for key in both)
    p_value = min(1.0, pairs * sign_test(better, worse))
    return Comparison(questions=len(both), better=better, worse=worse, p_value=p_value)


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided p-value of a fair coin that fell `better` and `worse` times on its sides."""
    thrown = better + worse
    tail = sum(math.comb(thrown, count) for count in range(min(better, worse) + 1))
    return float(min(1.0, 2 * tail / 2**thrown))


def interval(passed: int, asked: int) -> tuple[float, float]:
    """Return the 95 % interval (Wilson's) of a pass rate, of which `passed` of `asked` is a sample."""
    if not asked:
        return 0.0, 1.0
    share, z2 = passed / asked, _Z * _Z
    middle = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked)) / (1 + z2 / asked)
    return max(0.0, middle - half), min(1.0, middle + half)


def percentile(values: list[float], share: float) -> float | None:
    """Return the value that `share` of all values do not exceed (nearest rank); None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
