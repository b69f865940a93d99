"""Scenario files: read, checked, unfolded into one for each row of their matrix and each question."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared_libs.atomic.errors import ConfigError
from shared_libs.factory.draft import Draft
from shared_libs.factory.environment import Environment
from shared_libs.factory.problems import Path as Place
from shared_libs.factory.problems import Problems, choices
from shared_libs.factory.source import not_there, read_data, read_documents
from shared_libs.factory.wording import note_errors
from shared_libs.testing.evaluation.questions import QuestionSpec
from shared_libs.testing.scenarios.spec import ScenarioSpec

SUFFIX = ".scenario.yaml"

_NO_AGENTS = (".scenario.yaml", ".cassette.yaml", "prices.yaml")

_VALUE = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    A checked scenario.

    Args:
        spec: what is written, the matrix's values in place.
        file: where it is from; the path of its agent is relative to it. None: from data.
        line: where it begins in the file.
        values: the row of the matrix.
        data: what is written, as plain data.
        asked: which of its questions this one asks, where it has several.

    """

    spec: ScenarioSpec
    file: Path | None = None
    line: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    asked: QuestionSpec | None = None

    @property
    def name(self) -> str:
        """Its title, the row of the matrix, and the question where it has several."""
        row = ", ".join(f"{key}={value}" for key, value in self.values.items())
        title = f"{self.spec.scenario} [{row}]" if row else self.spec.scenario
        return f"{title}: {self.asked.question}" if self.asked else title


def load_scenarios(path: str | Path, *, with_agents: bool = False) -> list[Scenario]:
    """
    Read a scenario file, which may hold several documents, and unfold each document's matrix and questions.

    Args:
        path: the file.
        with_agents: the definitions that it names have to be there.

    Raises:
        ConfigError: the file does not hold; it tells every problem with its place.

    """
    found: list[Scenario] = []
    lines: list[str] = []
    for written, problems in read_documents(path):
        if isinstance(written, dict) and {"name", "llm"} <= written.keys() and "scenario" not in written:
            problems.add((), "no scenario, but the definition of an agent; a scenario names it as its `agent`")
            problems.raise_if_any()
        unfolded = _unfolded(written, problems, Path(path))
        if with_agents:
            as_written = written.get("agent") if isinstance(written, dict) else None  # of one that does not hold, too
            for named in [as_written, *(scenario.spec.agent for scenario in unfolded)]:
                _note_missing_agent(named, Path(path), problems)
        found += unfolded
        lines += problems.lines()
    if not found and not lines:
        lines.append(f"{path}: holds no scenario")
    if lines:
        raise ConfigError(lines)
    return found


def scenarios_of(data: Mapping[str, Any], file: str | Path | None = None) -> list[Scenario]:
    """
    Take a scenario that is Python data already; `file` is what the path of its agent is relative to.

    Raises:
        ConfigError: it does not hold.

    """
    written, problems = read_data(data)
    found = _unfolded(written, problems, None if file is None else Path(file))
    problems.raise_if_any()
    return found


def _unfolded(written: Any, problems: Problems, file: Path | None) -> list[Scenario]:
    found: list[Scenario] = []
    for values in _rows(written, problems):
        data = _filled(written, values, problems, ()) if isinstance(written, dict) else written
        draft = Draft(data, data, problems, Environment(problems), None)
        try:
            spec = ScenarioSpec.model_validate(data)
        except ValidationError as error:
            note_errors(draft, error, ScenarioSpec, data)
            continue
        found += _asked(Scenario(spec, file, problems.line(), values, data), draft)
    return found


def _note_missing_agent(named: Any, file: Path, problems: Problems) -> None:
    """Tell of a definition that is not there, and the nearest one that is."""
    if not isinstance(named, str) or _VALUE.search(named) or (wanted := file.parent / named).exists():
        return
    problems.add(("agent",), not_there(wanted, named, but=_NO_AGENTS))


def _asked(scenario: Scenario, draft: Draft) -> Iterator[Scenario]:
    """Part a scenario of several questions into one for each, with its own words of the models."""
    if not scenario.spec.questions:
        yield scenario
    elif scenario.spec.cassette is not None:
        draft.problems.add(("cassette",), "a cassette holds one run: give each question its own", at_key=True)
    for index, asked in enumerate(scenario.spec.questions):
        models = {**scenario.data.get("models", {}), **asked.models}
        data = {**scenario.data, "question": asked.question, "models": models}
        if asked.cassette is not None:
            data["cassette"] = asked.cassette
        del data["questions"]
        data.pop("evaluators", None)
        try:
            spec = ScenarioSpec.model_validate(data)
        except ValidationError as error:
            note_errors(draft, error, ScenarioSpec, data, moved={("models",): ("questions", index, "models")})
            continue
        yield replace(scenario, spec=spec, data=data, asked=asked)


def _rows(written: Any, problems: Problems) -> Iterator[dict[str, Any]]:
    """Give every combination of the matrix's values; one empty row without a matrix."""
    matrix = written.get("matrix") if isinstance(written, dict) else None
    lists = matrix if isinstance(matrix, dict) and all(isinstance(row, list) and row for row in matrix.values()) else {}
    for row in itertools.product(*lists.values()):
        yield dict(zip(lists, row, strict=True))


def _filled(value: Any, values: Mapping[str, Any], problems: Problems, path: Place) -> Any:
    """Put a row's values in, in keys too: one that is the whole text keeps its type."""
    if isinstance(value, dict):
        inside = {key: item for key, item in value.items() if path or key != "matrix"}
        kept = {key: item for key, item in value.items() if key not in inside}
        return {
            str(_filled(key, values, problems, (*path, key))): _filled(item, values, problems, (*path, key))
            for key, item in inside.items()
        } | kept
    if isinstance(value, list):
        return [_filled(item, values, problems, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${{" not in value:
        return value
    for name in _VALUE.findall(value):
        if name not in values:
            problems.add(path, f"the matrix has no {name!r}; {choices(name, values)}")
            return value
    whole = _VALUE.fullmatch(value)
    return values[whole[1]] if whole else _VALUE.sub(lambda found: str(values[found[1]]), value)
