"""`factory trace ID --scenario OUT --cassette OUT`: a run that was kept, saved to be played again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent, RunStarted
from shared_libs.cli.exits import ExitCode
from shared_libs.factory import load_definition
from shared_libs.testing.cassettes import Secrets, variables_used, write_cassette
from shared_libs.testing.saved import saved_cassette, saved_scenario


def save(events: Sequence[AgentEvent], scenario: Path | None, cassette: Path | None, agent: Path | None) -> int:
    """
    Write a run's scenario, its cassette, or both: then the scenario's models answer from the cassette.

    Raises:
        MisuseError: it cannot be played again, or written; says why. Nothing is written then.

    """
    first = events[0].run_id
    outer = [event for event in events if event.run_id == first]  # not those of agents that it asked
    name = next((event.agent for event in outer if isinstance(event, RunStarted)), "agent")
    definition = agent or Path(f"{name}.yaml")
    known = definition.exists()
    if agent is not None and not known:
        raise MisuseError(f"there is no definition {agent}")
    secrets = Secrets(variables_used(load_definition(definition), definition.parent) if known else ())
    taped = None if cassette is None else saved_cassette(outer, secrets)
    if scenario is not None:
        beside = os.path.relpath(definition, scenario.parent) if known else definition.name
        tape = None if cassette is None else os.path.relpath(cassette, scenario.parent)
        text = saved_scenario(outer, definition=beside, cassette=tape)
        _write(scenario, text)
        print(scenario)
    if cassette is not None and taped is not None:
        try:
            write_cassette(cassette, taped)
        except OSError as error:
            raise MisuseError(f"{cassette} cannot be written: {error.strerror or error}") from error
        print(cassette)
    if scenario is not None and not known:
        print(f"note: there is no {definition} here; write at `agent:` where the definition is, or give --agent CONFIG")
    return ExitCode.ANSWERED


def _write(path: Path, text: str) -> None:
    from shared_libs.atomic.secrets import private

    try:
        with open(path, "w", encoding="utf-8", opener=private) as file:
            file.write(text)
    except OSError as error:
        raise MisuseError(f"{path} cannot be written: {error.strerror or error}") from error
