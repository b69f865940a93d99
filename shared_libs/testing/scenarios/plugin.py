"""
The pytest plugin: scenario files are tests, and tests get agents whose ports are taken.

Nothing of the library is imported before a scenario is collected or a fixture asked for.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shared_libs.testing.scenarios.fixtures import fault_server

if TYPE_CHECKING:
    from shared_libs.agents import ReActAgent
    from shared_libs.atomic.llms import ScriptedLLM
    from shared_libs.testing.clock import VirtualClock
    from shared_libs.testing.scenarios.play import Played
    from shared_libs.testing.scenarios.scenario import Scenario

__all__ = ["fault_server"]

_SUFFIX = ".scenario.yaml"
_SEED = "--scenario-seed"
_RECORD = "--scenario-record"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("scenarios", "scenarios of agents")
    group.addoption(_RECORD, action="store_true", help="ask the real models, and renew the cassettes of scenarios")
    group.addoption(_SEED, type=int, metavar="N", help="play scenarios with this seed and not with their own")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks."""
    config.addinivalue_line("markers", "scenario: a scenario file's test; -m 'not scenario' leaves them out")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """Collect `*.scenario.yaml`."""
    return ScenarioFile.from_parent(parent, path=file_path) if file_path.name.endswith(_SUFFIX) else None


class ScenarioFile(pytest.File):
    """A scenario file; each document is a test, and each row of its matrix."""

    def collect(self) -> Iterable[ScenarioItem]:
        """Read the scenarios."""
        from shared_libs.atomic.errors import ConfigError
        from shared_libs.testing.scenarios.scenario import load_scenarios

        try:
            found = load_scenarios(self.path)
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
        from shared_libs.testing.scenarios.play import play

        options = self.config.option
        played = play(self._played(), seed=options.scenario_seed, record=options.scenario_record)
        if self.scenario.asked is not None:
            from shared_libs.testing.evaluation.suite import judged

            played = judged(self.scenario, played)
        self.user_properties.append(("virtual_s", round(played.virtual_s, 6)))
        if played.differences:
            raise Different(played)

    def _played(self) -> Scenario:
        """Give what is played; a question to a real model is not."""
        if self.scenario.asked is None:
            return self.scenario
        from shared_libs.testing.evaluation.suite import is_live, without_judge

        if is_live(self.scenario):
            pytest.skip("asks the definition's models; `factory eval` does")
        return without_judge(self.scenario)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what is different."""
        from shared_libs.atomic.errors import FactoryError
        from shared_libs.testing.scenarios.report import report

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


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """Run coroutines on virtual time: `virtual_clock.run(agent.async_run("…"))`."""
    from shared_libs.testing.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def scripted_llm() -> Iterator[Callable[..., ScriptedLLM]]:
    """Make models that follow a script, `scripted_llm(["Hello."])`; a turn that is left over fails the test."""
    from shared_libs.atomic.llms import ScriptedLLM

    made: list[ScriptedLLM] = []

    def make(script: Iterable[Any], **options: Any) -> ScriptedLLM:
        made.append(ScriptedLLM(list(script), **options))
        return made[-1]

    yield make
    for llm in made:
        llm.verify()


@pytest.fixture
def factory_agent(request: pytest.FixtureRequest) -> Iterator[Callable[..., ReActAgent]]:
    """
    Build agents whose ports are taken: `factory_agent("../agent.yaml", models={"*": ["Hello."]}, faults=[…])`.

    It takes the keys of a scenario file; a path is relative to the test's file. A script that was not followed and a
    fault that met no call fail the test.
    """
    from shared_libs.testing.scenarios.play import build, player_of, stage_of
    from shared_libs.testing.scenarios.scenario import scenarios_of

    stages = []

    def make(agent: str | Path | Mapping[str, Any], **keys: Any) -> ReActAgent:
        definition = agent if isinstance(agent, Mapping) else str(agent)
        data = {"scenario": request.node.name, "question": "the test asks", "agent": definition, **keys}
        scenario = scenarios_of(data, request.path)[0]
        seed = request.config.getoption(_SEED)
        stages.append(stage_of(scenario, scenario.spec.seed if seed is None else seed, player_of(scenario)))
        return build(scenario, stages[-1], [])

    yield make
    problems = [problem for stage in stages for problem in stage.finish()]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def _test_name(scenario: Scenario) -> str:
    """A scenario's name in a node id, where '::' parts and brackets hold the row of the matrix, and the question."""
    row = ",".join(f"{key}={value}" for key, value in scenario.values.items())
    row = ",".join([row] * bool(row) + ([scenario.asked.question] if scenario.asked else []))
    title, row = (
        re.sub(r"[^\w .,;'+*/=%<>!?#~@&|()-]+", " ", text).strip()[:120] for text in (scenario.spec.scenario, row)
    )
    return f"{title}[{row}]" if row else title
