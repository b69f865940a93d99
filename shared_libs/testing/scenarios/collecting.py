"""
Scenarios as tests of pytest: what the plugin hands on to as soon as there is one.

The plugin itself is `genai_factory_pytest`; it is loaded into foreign projects, and imports nothing of this.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import ConfigError, FactoryError
from shared_libs.atomic.loading import importing
from shared_libs.testing.evaluation.suite import is_live, judged, without_judge
from shared_libs.testing.scenarios.play import Played, build, play, player_of, stage_of
from shared_libs.testing.scenarios.report import report
from shared_libs.testing.scenarios.scenario import Scenario, load_scenarios, scenarios_of
from shared_libs.testing.scenarios.stage import Stage

with importing("pytest", "a scenario in pytest"):
    import pytest

_SEED = "--scenario-seed"
_RECORD = "--scenario-record"


class ScenarioFile(pytest.File):
    """A scenario file; each document is a test, and each row of its matrix."""

    def collect(self) -> Iterable[ScenarioItem]:
        """Read the scenarios."""
        try:
            found = load_scenarios(self.path, with_agents=True)
        except ConfigError as error:
            raise self.CollectError("\n".join(error.problems)) from None
        names: dict[str, int] = {}
        for scenario in found:
            name = _test_name(scenario)
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                name = f"{name}#{names[name]}"
            yield ScenarioItem.from_parent(self, name=name, scenario=scenario)


class ScenarioItem(pytest.Item):
    """One scenario."""

    def __init__(self, *, scenario: Scenario, **options: Any) -> None:
        super().__init__(**options)
        self.scenario = scenario
        self.add_marker("scenario")

    def runtest(self) -> None:
        """Play it."""
        played = play(self._played(), seed=_seed(self.config), record=bool(self.config.getoption(_RECORD)))
        if self.scenario.asked is not None:
            played = judged(self.scenario, played)
        self.user_properties.append(("virtual_s", round(played.virtual_s, 6)))
        if played.differences:
            raise Different(played)

    def _played(self) -> Scenario:
        """Give what is played; a question to a real model is not."""
        if self.scenario.asked is None:
            return self.scenario
        if is_live(self.scenario):
            pytest.skip("asks the definition's models; `factory eval` does")
        return without_judge(self.scenario)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what is different."""
        if isinstance(excinfo.value, Different):
            played = excinfo.value.played
            file = os.path.relpath(self.path, self.config.invocation_params.dir)
            this = f"pytest {shlex.quote(f'{file}::{self.name}')}"
            renew = f"\nRecord: {this} {_RECORD}" if self.scenario.spec.cassette else ""
            return report(played, f"{this} {_SEED} {played.seed}") + renew
        if isinstance(excinfo.value, FactoryError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands."""
        return self.path, self.scenario.line - 1, self.name


class Different(AssertionError):
    """A scenario did not come out as expected; `played` is what came."""

    def __init__(self, played: Played) -> None:
        super().__init__("; ".join(played.differences))
        self.played = played


class Agents:
    """Makes the agents of a test, and tells at its end what was not followed."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._stages: list[Stage] = []

    def make(self, agent: str | Path | Mapping[str, Any], **keys: Any) -> ReActAgent:
        """Build one from a definition and the keys of a scenario file."""
        definition = agent if isinstance(agent, Mapping) else str(agent)
        data = {"scenario": self._request.node.name, "question": "the test asks", "agent": definition, **keys}
        scenario = scenarios_of(data, self._request.path)[0]
        seed = _seed(self._request.config)
        self._stages.append(stage_of(scenario, scenario.spec.seed if seed is None else seed, player_of(scenario)))
        return build(scenario, self._stages[-1], [])

    def finish(self) -> list[str]:
        """Return what was left over, and what went astray."""
        return [problem for stage in self._stages for problem in stage.finish()]


def _seed(config: pytest.Config) -> int | None:
    seed = config.getoption(_SEED)
    return seed if isinstance(seed, int) else None


def _test_name(scenario: Scenario) -> str:
    """A scenario's name in a node id, where '::' parts and brackets hold the row of the matrix, and the question."""
    row = ",".join(f"{key}={value}" for key, value in scenario.values.items())
    row = ",".join([row] * bool(row) + ([scenario.asked.question] if scenario.asked else []))
    title, row = (
        re.sub(r"[^\w .,;'+*/=%<>!?#~@&|()-]+", " ", text).strip()[:120] for text in (scenario.spec.scenario, row)
    )
    return f"{title}[{row}]" if row else title
