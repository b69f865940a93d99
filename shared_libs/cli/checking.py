"""`factory check`: every kind of file of ours against its own rules."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared_libs.atomic.errors import ConfigError, MisuseError
from shared_libs.cli.exits import ExitCode
from shared_libs.factory import check_file
from shared_libs.factory.prices import FILE_NAME as PRICES
from shared_libs.factory.problems import nearest
from shared_libs.factory.source import read_source

SCENARIO = (".scenario.yaml", ".scenario.yml")
CASSETTE = (".cassette.yaml", ".cassette.yml")
SETTINGS = "service.yaml"

Told = Callable[[str], None]
Check = Callable[[Path, Told, Told], list[str]]
"""Returns a file's problems; what should be known, and what has to be installed, goes to the two."""

_TELLING = ("llm", "instructions", "tools", "memory", "limits", "protocol")
"""Keys by which a definition is known among other people's YAML, misspelt or not."""
_TOP_KEY = re.compile(r"^[\"']?([A-Za-z_][\w-]*)[\"']?[ \t]*:", re.MULTILINE)
_READ = 64 * 1024


def check(arguments: argparse.Namespace) -> int:
    """Check files: a line per problem or note on stderr, per good file on stdout."""
    bad = False
    for path in _files(arguments.paths):
        needs: list[str] = []
        problems = _check_of(path)(path, _noting(path), needs.append)
        bad = bad or bool(problems)
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{path}: ok" + (f", needs {', '.join(dict.fromkeys(needs))}" if needs else ""))
    return ExitCode.MISUSE if bad else ExitCode.ANSWERED


def _noting(path: Path) -> Told:
    def tell(text: str) -> None:
        placed = text.startswith(f"{path}:")
        print(f"note: {text}" if placed else f"{path}: note: {text}", file=sys.stderr)

    return tell


def _files(paths: list[Path]) -> Iterator[Path]:
    """Give files as they are named, and of folders those that are ours; the YAML of others is left out."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml") and file.is_file())
        ours = [file for file in inside if _is_ours(file)]
        if not ours:
            raise MisuseError(f"{path} holds no *.yaml or *.yml file of ours; name a file to have it checked")
        yield from ours
        if others := [file for file in inside if file not in ours]:
            shown = ", ".join(str(file) for file in others[:3]) + (", …" if len(others) > 3 else "")
            print(f"{path}: note: {len(others)} other YAML left out: {shown}", file=sys.stderr)


def _is_ours(file: Path) -> bool:
    if file.name.endswith(SCENARIO):
        return True
    if _by_name(file) is not None:
        return True
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            beginning = text.read(_READ)
    except OSError:
        return True  # which is told
    keys = set(_TOP_KEY.findall(beginning))
    return any(nearest(key, _TELLING) for key in keys) or ("fault" in beginning and _is_fault_script(file))


def _check_of(path: Path) -> Check:
    if found := _by_name(path):
        return found
    return _faults if _is_fault_script(path) else _definition


def _by_name(path: Path) -> Check | None:
    kinds: dict[tuple[str, ...], Check] = {SCENARIO: _scenarios, CASSETTE: _cassette}
    by_whole_name: dict[str, Check] = {PRICES: _definition, SETTINGS: _settings}
    found = (check for suffixes, check in kinds.items() if path.name.endswith(suffixes))
    return next(found, by_whole_name.get(path.name))


def _definition(path: Path, on_note: Told, on_missing: Told) -> list[str]:
    return check_file(path, on_note=on_note, on_missing=on_missing)


def _scenarios(path: Path, on_note: Told, on_missing: Told) -> list[str]:
    from shared_libs.testing.scenarios.play import build, stage_of
    from shared_libs.testing.scenarios.scenario import load_scenarios

    try:
        found = load_scenarios(path, with_agents=True)
    except ConfigError as error:
        return list(error.problems)
    problems: dict[str, None] = {}
    for scenario in found:
        try:
            build(scenario, stage_of(scenario, 0), [])
        except ConfigError as error:
            for name in error.needs:
                on_missing(name)
            for problem in error.problems:
                if error.needs:
                    on_note(problem)
                else:
                    problems[problem] = None
    return list(problems)


def _cassette(path: Path, _: Told, __: Told) -> list[str]:
    from shared_libs.testing import read_cassette

    try:
        read_cassette(path)
    except MisuseError as error:
        return [f"{path}: {error}"]
    return []


def _settings(path: Path, _: Told, __: Told) -> list[str]:
    from shared_libs.service.settings import load_settings

    try:
        read_source(path)  # which a folder may lack, and who names it does not
        load_settings(path.parent)
    except ConfigError as error:
        return list(error.problems)
    return []


def _faults(path: Path, _: Told, __: Told) -> list[str]:
    from shared_libs.testing import load_fault_script

    try:
        load_fault_script(path)
    except ConfigError as error:
        return list(error.problems)
    return []


def _is_fault_script(path: Path) -> bool:
    """Whether a file maps models to faults: to names of the catalogue, or to mappings that have a `fault`."""
    from shared_libs.testing.faults.catalogue import CATALOGUE

    try:
        written = read_source(path)[0]
    except ConfigError:
        return False

    def is_fault(told: Any) -> bool:
        if isinstance(told, list):
            return any(map(is_fault, told))
        return "fault" in told if isinstance(told, dict) else isinstance(told, str) and told in CATALOGUE

    return isinstance(written, dict) and not {"llm", "name"} & written.keys() and any(map(is_fault, written.values()))
