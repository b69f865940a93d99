from __future__ import annotations

from pathlib import Path

import pytest

from shared_libs.testing import load_scenarios, play

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.scenario.yaml")), ids=lambda path: path.name)
def test_the_scenarios_pass(path):
    for scenario in load_scenarios(path):
        assert play(scenario).differences == [], scenario.name
