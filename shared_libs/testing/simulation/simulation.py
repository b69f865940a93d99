"""
Simulation: an agent is played against thousands of random scenarios, and must keep its promises in each.

What breaks one is made as small as it gets and written as a scenario file, which fails the same way when it is played.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from shared_libs.atomic.errors import ConfigError
from shared_libs.testing.scenarios.play import Played, play
from shared_libs.testing.scenarios.scenario import SUFFIX, scenarios_of
from shared_libs.testing.simulation.drawing import Drawing
from shared_libs.testing.simulation.evidence import Broken
from shared_libs.testing.simulation.shrinking import shrunk


class Violation(msgspec.Struct, frozen=True):
    """A promise that a simulated run broke; `number` and the seed draw the scenario again."""

    number: int
    broken: Broken


class Simulation:
    """
    Plays an agent against scenarios drawn at random.

    Args:
        definition: the agent's definition.
        seed: decides the scenarios.

    Raises:
        ConfigError: the definition does not hold.

    """

    def __init__(self, definition: str | Path, seed: int = 0) -> None:
        self.definition = Path(definition)
        self.seed = seed
        self._drawing = Drawing(definition, seed)

    def play(self, number: int) -> Played:
        """Play the scenario of a number."""
        return play(scenarios_of(self._drawing.scenario(number))[0])

    def violations(self, numbers: Iterable[int]) -> Iterator[Violation | None]:
        """Play scenario after scenario; give the first promise that each one broke, or None."""
        for number in numbers:
            broken = self.play(number).broken
            yield Violation(number, broken[0]) if broken else None

    def shrink(self, violation: Violation) -> dict[str, Any]:
        """Return the smallest scenario found that breaks the same promise."""

        def fails(data: dict[str, Any]) -> bool:
            try:
                played = play(scenarios_of(data)[0])
            except ConfigError:
                return False
            return any(broken.promise == violation.broken.promise for broken in played.broken)

        return shrunk(self._pinned(violation.number), fails)

    def write(self, violation: Violation, folder: str | Path) -> Path:
        """Write the smallest scenario that breaks this promise into a folder, and return the file."""
        import yaml

        small = self.shrink(violation)
        found = [broken for broken in play(scenarios_of(small)[0]).broken if broken.promise == violation.broken.promise]
        broken = found[0] if found else violation.broken
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{broken.promise}-{self.seed}-{violation.number}{SUFFIX}"
        small["agent"] = os.path.relpath(self.definition, folder)
        small["scenario"] = f"promise {broken.promise}, number {violation.number} of seed {self.seed}"
        head = f"# Broke the promise {broken.promise}:\n#   {broken.how}\n# Play it again: pytest {file}\n"
        written = yaml.safe_dump(small, sort_keys=False, allow_unicode=True, width=120)
        file.write_text(head + written, encoding="utf-8")
        return file

    def _pinned(self, number: int) -> dict[str, Any]:
        """Return a scenario with its faults at the very calls that they met, where it fails like that too."""
        data = self._drawing.scenario(number)
        first = play(scenarios_of(data)[0])
        met: dict[tuple[str, str, str], set[int]] = {}
        for played in first.faults:
            met.setdefault((played.port, played.name, played.fault.fault), set()).add(played.number)
        pinned = [
            {key: value for key, value in fault.items() if key != "probability"}
            | {"on": f"{port} {name}", "attempts": sorted(calls)}
            for (port, name, kind), calls in met.items()
            for fault in data["faults"]
            if fault["fault"] == kind and fault["on"] in (port, f"{port} {name}")
        ]
        certain = data | {"faults": pinned}
        again = play(scenarios_of(certain)[0])
        same = {broken.promise for broken in first.broken} <= {broken.promise for broken in again.broken}
        return certain if same else data
