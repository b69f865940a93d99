"""The judge of growth tells linear from quadratic and exponential work."""

from __future__ import annotations

import pytest

from tests.growth import assert_linear


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
