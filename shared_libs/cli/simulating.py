"""`factory simulate`: an agent against random scenarios, and what it did not keep."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterable, Iterator

from shared_libs.cli.exits import ExitCode, raise_on_interrupt


def simulate(arguments: argparse.Namespace) -> int:
    """Play the scenarios of a seed; one line per promise that was broken, and a file that breaks it again."""
    from shared_libs.testing.simulation.simulation import Simulation, Violation

    simulation = Simulation(arguments.config, arguments.seed)
    found: dict[str, Violation] = {}
    broke = played = 0
    began = time.perf_counter()
    code = ExitCode.ANSWERED
    raise_on_interrupt()
    try:
        for violation in simulation.violations(_shown(range(arguments.runs))):
            played += 1
            if violation is not None:
                broke += 1
                found.setdefault(violation.broken.promise, violation)
        wall = time.perf_counter() - began
    except KeyboardInterrupt:
        wall = time.perf_counter() - began
        code = ExitCode.INTERRUPTED
    rate = played / wall if wall else 0.0
    print(
        f"{arguments.config}, seed {arguments.seed}: {played} scenarios in {wall:.1f} s ({rate:.0f} a second), "
        f"{broke} of them broke a promise"
    )
    for violation in found.values():
        print(f"\nnumber {violation.number} broke {violation.broken}")
        if code == ExitCode.INTERRUPTED:
            continue
        file = simulation.write(violation, arguments.out)
        print(f"  as small as it gets: {file}\n  play it again:       pytest {shlex.quote(str(file))}")
    return ExitCode.FAILED if found and code == ExitCode.ANSWERED else code


def _shown(numbers: range) -> Iterable[int]:
    """Show how far it is, where a terminal watches."""
    if not sys.stderr.isatty():
        return numbers
    return _counted(numbers)


def _counted(numbers: range) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    yield from track(numbers, description="simulating", console=Console(stderr=True), transient=True)
