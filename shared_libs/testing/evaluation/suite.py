"""A suite: a folder of scenarios with questions, put to one definition after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import ConfigError, FactoryError
from shared_libs.atomic.evaluators import LLMJudge
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.factory.build import agent_from_dict, load_agent
from shared_libs.factory.ports import Ports
from shared_libs.testing.evaluation.evaluation import (
    Report,
    Row,
    Source,
    answered,
    bounded,
    judgements,
    row_of,
    source_of,
)
from shared_libs.testing.evaluation.questions import Check, EvaluatorSpec
from shared_libs.testing.scenarios.expectations import differences
from shared_libs.testing.scenarios.play import Played, build, perform, play, stage_of
from shared_libs.testing.scenarios.scenario import SUFFIX, Scenario, load_scenarios
from shared_libs.testing.scenarios.stage import Stage

JUDGE = "judge@"
"""What the judge is called among a scenario's models: `judge@*` is what it says."""


class Live(Ports):
    """Takes the tools and the memory as a stage does; the models are the definition's own."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def tool(self, tool: BaseTool | Toolset, agent: str) -> BaseTool | Toolset:
        """Play a tool, where the scenario says so."""
        return self._stage.tool(tool, agent)

    def memory(self, memory: BaseMemory, agent: str) -> BaseMemory:
        """Put the memory under the plan."""
        return self._stage.memory(memory, agent)


def load_suite(folder: str | Path) -> tuple[list[Scenario], int]:
    """
    Read the scenarios of a folder, those in its folders too, or of one file.

    Returns:
        one scenario for each question, and how many scenarios were left out because they have no `questions`.

    Raises:
        ConfigError: a file does not hold, or there is nothing to ask.

    """
    path = Path(folder)
    files = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    found: list[Scenario] = []
    problems: list[str] = []
    for file in files:
        try:
            found += load_scenarios(file)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    asked = [scenario for scenario in found if scenario.asked]
    if not asked:
        what = f"none of its {len(found)} scenarios has `questions`" if found else f"no *{SUFFIX} is in it"
        raise ConfigError([f"{folder}: {what}; docs/evaluation.md shows a suite"])
    return asked, len(found) - len(asked)


class Candidate:
    """
    A definition that a suite is put to.

    Args:
        name: what it is called in the report.
        path: its file, which takes the place of the scenarios' `agent`.
        scenarios: the suite.
        on_note: gets what a user should know though it is no error.

    Raises:
        ConfigError: the definition does not hold, as it is or as a scenario overrides it, or a judge's does not.

    """

    def __init__(self, name: str, path: Path, scenarios: Sequence[Scenario], on_note: Callable[[str], None]) -> None:
        self.name = name
        if any(is_live(scenario) for scenario in scenarios):
            load_agent(path, on_note=on_note)
        else:
            load_agent(path, ports=Stage(), on_note=lambda _: None)
        own = str(path.absolute())
        self.scenarios = [
            replace(scenario, spec=scenario.spec.model_copy(update={"agent": own})) for scenario in scenarios
        ]
        self._one_play_at_a_time = asyncio.Lock()  # the chance of a scenario is the process's
        self._shared: dict[bytes, ReActAgent] = {}
        self._checks = Checks(on_note)
        for scenario in self.scenarios:
            self._checks.of(scenario)
            if is_live(scenario):
                self._agent(scenario)

    async def evaluated(self, *, concurrency: int, repeat: int, on_row: Callable[[int, Row], None]) -> Report:
        """
        Put every question, several at a time; `on_row` gets each row as it is done, with its place in the report.

        Questions whose models are scripted are played one after the other on the virtual clock, the others on the real
        one.
        """
        asked = [(index, repetition) for index in range(len(self.scenarios)) for repetition in range(1, repeat + 1)]

        async def row(place: int, index: int, repetition: int) -> Row:
            done = await self._row(self.scenarios[index], repetition)
            on_row(place, done)
            return done

        try:
            jobs = [partial(row, place, *which) for place, which in enumerate(asked)]
            return Report(self.name, await bounded(jobs, concurrency))
        finally:
            await self._checks.aclose()
            for agent in self._shared.values():
                await agent.aclose()

    async def _row(self, scenario: Scenario, repetition: int) -> Row:
        suite, question = scenario.spec.scenario, scenario.spec.question
        about: dict[str, Any] = {"repetition": repetition, "answers": scenario.spec.expect.status is None}
        source: Source = "script"
        try:
            if is_live(scenario):
                result, events, problems = await self._asked(scenario)
                source = source_of(events)
            else:
                async with self._one_play_at_a_time:
                    seed = scenario.spec.seed + repetition - 1
                    played = await asyncio.to_thread(play, without_judge(scenario), seed=seed)
                result, problems = played.result, played.differences
        except Exception as error:  # noqa: BLE001 - whatever one question breaks, the others are not lost
            said = str(error) if isinstance(error, FactoryError) else f"{type(error).__name__}: {error}"
            return row_of(suite, question, None, (), problems=[said], **about)
        found = await judgements(self._checks.of(scenario), result)
        return row_of(suite, question, result, found, problems=problems, source=source, **about)

    async def _asked(self, scenario: Scenario) -> tuple[AgentResult | None, list[AgentEvent], list[str]]:
        """Ask the models; return how the run ended, what happened, and what is not as the scenario expects."""
        spec = scenario.spec
        if _is_shared(scenario):
            result, events = await answered(self._agent(scenario), spec.question, spec.timeout_s, stream=spec.stream)
            return result, events, differences(spec.expect, result, events)
        stage, happened = _live_stage(scenario), list[AgentEvent]()
        evidence, _ = await perform(scenario, build(scenario, Live(stage), happened), stage, happened)
        ended = evidence.runs[0].result
        found = ["the run did not come back"] if ended is None else differences(spec.expect, ended, happened)
        return ended, happened, [*found, *stage.finish()]

    def _agent(self, scenario: Scenario) -> ReActAgent:
        """Return the agent that the questions share whose scenarios only ask, so that its connections stay open."""
        key = msgspec.json.encode(scenario.spec.override)
        if key not in self._shared:
            self._shared[key] = build(scenario, Live(_live_stage(scenario)), [])
        return self._shared[key]


class Checks:
    """
    Makes what judges the answers; judges that ask a model share its connections.

    Args:
        on_note: gets what a user should know though it is no error.

    """

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self._on_note = on_note
        self._judges: dict[bytes, BaseLLMWrapper] = {}

    def of(self, scenario: Scenario) -> list[Check]:
        """
        Make those of a question.

        Raises:
            ConfigError: the model of a judge does not hold.

        """
        asked = scenario.asked
        if asked is None:
            return []
        return [
            self._judge(spec, scenario, asked.expected) if spec.use == "judge" else spec.check(asked.expected)
            for spec in asked.evaluators
        ]

    async def aclose(self) -> None:
        """Close the judges' connections."""
        for llm in self._judges.values():
            await llm.aclose()

    def _judge(self, spec: EvaluatorSpec, scenario: Scenario, expected: Any) -> Check:
        options = spec.options()
        llm = self._llm(options.pop("llm"), scenario)
        return Check(
            name=spec.use,
            evaluator=LLMJudge(llm, **options),
            expected=expected if spec.expected is None else spec.expected,
        )

    def _llm(self, settings: dict[str, Any], scenario: Scenario) -> BaseLLMWrapper:
        said = {name: turns for name, turns in scenario.spec.models.items() if name.startswith(JUDGE)}
        stage = stage_of(_saying(scenario, said), 0) if said else None
        key = msgspec.json.encode((str(scenario.file), settings))
        if stage is None and key in self._judges:
            return self._judges[key]
        definition = {"name": JUDGE.removesuffix("@"), "llm": settings}
        try:
            llm = agent_from_dict(definition, ports=stage, file=scenario.file, on_note=self._on_note).llm
        except ConfigError as error:
            where = f"{scenario.file}:{scenario.line}" if scenario.file else "the scenario"
            raise ConfigError([f"{where}: judge: {problem}" for problem in error.problems]) from None
        if stage is None:
            self._judges[key] = llm
        return llm


def is_live(scenario: Scenario) -> bool:
    """Whether models are asked: the scenario has no words for those that answer, and no cassette."""
    spec = scenario.spec
    return spec.cassette is None and all(name.startswith(JUDGE) for name in spec.models)


def without_judge(scenario: Scenario) -> Scenario:
    """Return a scenario without the words of its judge, who is not of the run."""
    return _saying(scenario, {key: said for key, said in scenario.spec.models.items() if not key.startswith(JUDGE)})


def judged(scenario: Scenario, played: Played) -> Played:
    """Judge what was played of a question; what its evaluators find wrong is a difference."""
    assert scenario.asked is not None
    result = played.result
    found = asyncio.run(judgements(Checks(lambda _: None).of(scenario), result))
    row = row_of("", "", result, found, answers=scenario.spec.expect.status is None)
    wrong = [f"{one.name}: {one.reason}" for one in found if not one.passed]
    return msgspec.structs.replace(played, differences=[*played.differences, *row.problems, *wrong])


def _saying(scenario: Scenario, models: dict[str, Any]) -> Scenario:
    data = {**scenario.data, "models": {name: scenario.data["models"][name] for name in models}}
    return replace(scenario, spec=scenario.spec.model_copy(update={"models": models}), data=data)


def _live_stage(scenario: Scenario) -> Stage:
    return stage_of(_saying(scenario, {}), scenario.spec.seed)


def _is_shared(scenario: Scenario) -> bool:
    spec = scenario.spec
    return not (spec.tools or spec.faults or spec.session)
