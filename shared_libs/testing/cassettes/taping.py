"""The cassette of a scenario: where it is, what is hidden in it, and when it is renewed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared_libs.atomic.errors import ConfigError, MisuseError
from shared_libs.testing.cassettes import (
    Player,
    Recorder,
    Secrets,
    cassette_of,
    read_cassette,
    text_of,
    variables_used,
    write_cassette,
)
from shared_libs.testing.scenarios.scenario import Scenario


class Taping:
    """
    Records and replays what the models of a scenario say.

    Args:
        scenario: names the cassette.
        definition: the agent's, for the variables that it uses.

    """

    def __init__(self, scenario: Scenario, definition: Mapping[str, Any]) -> None:
        folder = scenario.file.parent if scenario.file else Path()
        agent = scenario.spec.agent
        self.file = folder / str(scenario.spec.cassette)
        self._place = f"{scenario.file}:{scenario.line}: cassette" if scenario.file else "cassette"
        self._secrets = Secrets(
            variables_used(definition, (folder / agent).parent if isinstance(agent, str) else folder)
        )

    def player(self) -> Player:
        """
        Return what replays the cassette.

        Raises:
            ConfigError: there is none, or it does not hold.

        """
        try:
            return Player(read_cassette(self.file), self._secrets)
        except MisuseError as error:
            raise ConfigError([f"{self._place}: {error}; pytest --scenario-record records it"]) from None

    def recorder(self) -> Recorder:
        """Return what records one."""
        return Recorder(self._secrets)

    def keep(self, recorder: Recorder, found: Sequence[str], replay: Callable[[Player], Sequence[str]]) -> list[str]:
        """
        Write what was recorded, if it is worth it; else say why not, and leave the file as it is.

        Args:
            recorder: has it.
            found: what was not as expected while it was recorded.
            replay: plays the scenario from it, and returns what is not as expected then.

        """
        problems = list(found)
        if not problems:
            try:
                cassette = cassette_of(text_of(recorder.cassette()))
            except MisuseError as error:
                problems = [str(error)]
            else:
                problems = [
                    f"what was recorded does not replay: {line}" for line in replay(Player(cassette, self._secrets))
                ]
        if problems:
            return [*problems, f"the cassette {self.file.name} was not renewed"]
        write_cassette(self.file, cassette)
        return []
