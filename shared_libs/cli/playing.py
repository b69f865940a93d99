"""`factory scenario`: scenario files played without pytest, each with what a person needs where it differs."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shared_libs.atomic.errors import ConfigError, FactoryError, MisuseError
from shared_libs.cli.exits import ExitCode, raise_on_interrupt
from shared_libs.observability.printable import printable
from shared_libs.testing.evaluation.suite import is_live, judged, without_judge
from shared_libs.testing.scenarios.play import play
from shared_libs.testing.scenarios.report import report
from shared_libs.testing.scenarios.scenario import SUFFIX, Scenario, load_scenarios


def scenario(arguments: argparse.Namespace) -> int:
    """Play every scenario of the files: a line for each on stdout, and below it what is not as expected."""
    found = _loaded(arguments.paths)
    raise_on_interrupt()
    began = time.perf_counter()
    failed = passed = left_out = 0
    code = ExitCode.ANSWERED
    try:
        for one in found:
            if one.asked is not None and is_live(one):
                left_out += 1
                _say(one, "left out: it asks real models; `factory eval` does")
            elif problem := _problem(one, arguments):
                failed += 1
                _say(one, "FAILED")
                print(f"\n{_indented(problem)}\n", flush=True)
            else:
                passed += 1
                _say(one, "passed")
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    counts = [
        f"{count} {what}" for count, what in ((passed, "passed"), (failed, "failed"), (left_out, "left out")) if count
    ]
    print(f"{', '.join(counts) or 'nothing played'} in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return ExitCode.FAILED if failed and code == ExitCode.ANSWERED else code


def _loaded(paths: list[Path]) -> list[Scenario]:
    """Read all files before anything is played, and tell the problems of all of them."""
    found: list[Scenario] = []
    problems: list[str] = []
    for path in _files(paths):
        try:
            found += load_scenarios(path, with_agents=True)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        inside = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise MisuseError(f"{path} holds no *{SUFFIX}")
        yield from inside


def _problem(one: Scenario, arguments: argparse.Namespace) -> str | None:
    """Play one; return what is to be told where it did not come out as expected."""
    try:
        played = play(one if one.asked is None else without_judge(one), seed=arguments.seed, record=arguments.record)
    except FactoryError as error:
        return str(error)
    played = played if one.asked is None else judged(one, played)
    again = f"factory scenario {shlex.quote(str(one.file))} --seed {played.seed}"
    return printable(report(played, again)) if played.differences else None


def _say(one: Scenario, what: str) -> None:
    print(f"{one.file}:{one.line}: {printable(one.name)}: {what}", flush=True)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
