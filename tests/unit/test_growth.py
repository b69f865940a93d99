"""The judge of growth tells linear from quadratic and exponential work."""

from __future__ import annotations

import contextlib

import pytest

from shared_libs.agents.written_calls import written_calls
from shared_libs.atomic.llms.faults import redacted
from shared_libs.atomic.llms.structured import InvalidOutput, OutputSchema
from shared_libs.atomic.llms.waits import duration_s
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.types import ToolSpec
from tests.growth import assert_linear

SEARCH = [ToolSpec("search", "", {"type": "object", "properties": {"query": {"type": "string"}}})]


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


def output_of(text: str) -> None:
    with contextlib.suppress(InvalidOutput):
        OutputSchema({"type": "object"}).parse(text)


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize(
    ("work", "made"),
    [
        (lambda text: written_calls(text, SEARCH), lambda n: "```json" + "\n" * min(n, 1 << 15) + "x"),
        (lambda text: redacted(text, []), lambda n: "eyJaaaaaaaaaa-" * n),
        (output_of, lambda n: "<think>" * min(n, 1 << 15) + "</thought>{}"),
        (duration_s, lambda n: "1" * min(n, 1 << 15)),
        (lambda names: names_like("t" * 60, names), lambda n: ["t" * 64] * min(n, 1 << 12)),
    ],
    ids=["a fence with nothing in it", "a refusal", "reasoning before an output", "a wait", "a name"],
)
def test_what_models_and_servers_write_costs_in_proportion_to_its_length(work, made):
    assert_linear(work, made)
