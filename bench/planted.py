"""
Plants bugs in a copy of this package, one at a time, and says what catches each: scenarios, simulation, or both.

`python -m bench.planted [--only WORDS] [--runs 300]` prints a line per bug. Exit code 1 when one was caught by nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
DEFINITIONS = ("hello", "flights", "planner")
LIMIT_S = 240


class Bug(NamedTuple):
    """A bug: in this file of the package, `find` (which stands there once) gives way to `replace`."""

    name: str
    file: str
    find: str
    replace: str

    def plant(self, package: Path) -> None:
        """Put it into a copy of the package."""
        path = package / self.file
        text = path.read_text()
        if text.count(self.find) != 1:
            raise ValueError(f"{self.name}: {self.file} holds {self.find!r} {text.count(self.find)} times, not once")
        path.write_text(text.replace(self.find, self.replace))


def bugs() -> list[Bug]:
    """Return the bugs."""
    return [Bug(**row) for row in yaml.safe_load((HERE / "planted.yaml").read_text())]


def copied(folder: Path) -> Path:
    """Copy what a run needs, and return the package."""
    for name in ("shared_libs", "configs", "tests/scenarios"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "shared_libs"


def run(folder: Path, *command: str) -> str:
    """Run a command over the copy, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"FAILED it did not end within {LIMIT_S} s"
    return done.stdout + done.stderr


def by_scenarios(folder: Path) -> str:
    """Return the first scenario that fails, or nothing."""
    plugin = () if "genai-factory" in _entry_points() else ("-p", "genai_factory_pytest")
    told = run(
        folder, "-m", "pytest", "-q", "-x", "-c", os.devnull, "--rootdir", str(folder), *plugin, "tests/scenarios"
    )
    failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", told, re.MULTILINE)
    return failed[1].replace("tests/scenarios/", "") if failed else ""


def _entry_points() -> str:
    from importlib.metadata import entry_points

    return " ".join(str(point.dist.name) for point in entry_points(group="pytest11") if point.dist is not None)


def by_simulation(folder: Path, runs: int) -> str:
    """Return the first promise that is broken, its scenario, and how small that got, or nothing."""
    for name in DEFINITIONS:
        arguments = (f"configs/{name}.yaml", "--runs", str(runs), "--out", "found")
        told = run(folder, "-m", "shared_libs.cli", "simulate", *arguments)
        found = re.search(r"number (\d+) broke promise ([\w-]+)", told)
        if found is None:
            if "scenarios in" not in told:
                return f"{name}: {told.strip().splitlines()[-1][:80]}"
            continue
        files = sorted((folder / "found").glob(f"{found[2]}-0-{found[1]}.*"))
        small = yaml.safe_load(files[0].read_text()) if files else {}
        faults = "; ".join(f"{fault['fault']} on {fault['on']}" for fault in small.get("faults", ()))
        runs_beside = len(small.get("beside", ()))
        return f"{name} {found[1]}: {found[2]} ({faults or 'no fault'}{f', {runs_beside} beside' * bool(runs_beside)})"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="bugs with these words in their name")
    parser.add_argument("--runs", type=int, default=300, help="simulated scenarios of each definition")
    arguments = parser.parse_args()
    missed = 0
    print("| bug | scenario | simulation (scenario: promise, what it took) | s |\n|---|---|---|---|")
    for bug in bugs():
        if arguments.only not in bug.name:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            bug.plant(copied(folder))
            began = time.perf_counter()
            scenario, simulated = by_scenarios(folder), by_simulation(folder, arguments.runs)
        missed += not (scenario or simulated)
        took = time.perf_counter() - began
        print(f"| {bug.name} | {scenario or '-'} | {simulated or '-'} | {took:.0f} |", flush=True)
    print(f"{missed} caught by nothing")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
