"""Work grows with its input and no faster, wherever foreign text is read; and the judge of growth tells."""

from __future__ import annotations

import pytest

from bench.growth import PLACES, cpu_ms
from tests.growth import MOST, assert_linear

NOTHING_MS = 0.05
"""What the smaller input counts as at least: less cannot be measured."""


def test_linear_and_constant_work_pass():
    assert_linear(sum, lambda n: [1] * n)
    assert_linear(len, lambda n: "a" * n)


def test_quadratic_work_fails():
    with pytest.raises(AssertionError, match="times as long"):
        assert_linear(lambda items: [0 for _ in items for _ in items], range, start=64)


def test_exponential_work_fails_early():
    def twice(n: int) -> int:
        return 1 if n == 0 else twice(n - 1) + twice(n - 1)

    with pytest.raises(AssertionError):
        assert_linear(twice, lambda n: min(n, 19), start=4, within_s=0.02)


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize("place", PLACES)
def test_what_others_write_costs_in_proportion_to_its_length(place):
    work, made, start = PLACES[place]
    small, large = made(start // 2), made(start * 4)
    times = 0.0
    for _ in range(3):  # what others do on the machine only ever adds, so one measurement within bounds is enough
        times = cpu_ms(work, large, 1) / max(cpu_ms(work, small), NOTHING_MS)
        if times < MOST:
            return
    pytest.fail(f"{times:.0f} times the work for eight times the text")
