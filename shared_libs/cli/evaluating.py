"""`factory eval`: a suite of questions put to definitions, their figures, and whether one is better than another."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.cli.exits import ExitCode
from shared_libs.cli.loop import CommandLoop, Terminated
from shared_libs.cli.report_view import ReportView
from shared_libs.observability.printable import presentable
from shared_libs.observability.redact import redact_data
from shared_libs.testing.evaluation.comparison import compare
from shared_libs.testing.evaluation.evaluation import Report, Row
from shared_libs.testing.evaluation.junit import write_junit
from shared_libs.testing.evaluation.suite import Candidate, load_suite


def evaluate(arguments: argparse.Namespace) -> int:
    """Put the suite to each definition; the figures on stdout, the progress on stderr."""
    scenarios, left_out = load_suite(arguments.suite)
    if left_out:
        _note(arguments.suite, f"{left_out} scenario{'s' * (left_out > 1)} without `questions` left out")
    if arguments.junit is not None and not arguments.junit.absolute().parent.is_dir():
        raise MisuseError(f"--junit {arguments.junit}: there is no such folder")
    names = _names(arguments.configs)
    candidates = [
        Candidate(name, path, scenarios, partial(_note, name))
        for name, path in zip(names, arguments.configs, strict=True)
    ]
    evaluation = _Evaluation(candidates, arguments)
    code = evaluation.run()
    reports = evaluation.reports()
    if arguments.json:
        print(json.dumps(_data(reports, evaluation.expected), ensure_ascii=False), flush=True)
    else:
        ReportView(sys.stdout).show(reports, evaluation.expected)
    if arguments.junit is not None:
        write_junit(arguments.junit, reports)
    if code is not None:
        return code
    return ExitCode.FAILED if any(report.failing for report in reports) else ExitCode.ANSWERED


class _Evaluation:
    """
    The definitions, one after the other on one loop; what is done is kept, whatever stops it.

    `expected` is how many questions each is asked.
    """

    def __init__(self, candidates: Sequence[Candidate], arguments: argparse.Namespace) -> None:
        self._candidates = candidates
        self._options: dict[str, Any] = {"concurrency": arguments.concurrency, "repeat": arguments.repeat}
        self._rows: list[dict[int, Row]] = [{} for _ in candidates]
        self._quiet = arguments.json or not sys.stderr.isatty()
        self.expected = len(candidates[0].scenarios) * arguments.repeat

    def run(self) -> ExitCode | None:
        """Ask everything; return the exit code where a signal stopped it."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(file=sys.stderr)
        loop = CommandLoop()
        with Progress(*columns, TextColumn("{task.fields[passed]}"), console=console, disable=self._quiet) as progress:
            try:
                for candidate, rows in zip(self._candidates, self._rows, strict=True):
                    bar = progress.add_task(presentable(candidate.name), total=self.expected, passed="")

                    def done(place: int, row: Row, rows: dict[int, Row] = rows, bar: Any = bar) -> None:
                        rows[place] = row
                        passed = sum(one.passed for one in rows.values())
                        progress.update(bar, advance=1, passed=f"{passed} passed")

                    loop.run(candidate.evaluated(on_row=done, **self._options))
            except KeyboardInterrupt as stop:
                return ExitCode.TERMINATED if isinstance(stop, Terminated) else ExitCode.INTERRUPTED
            finally:
                loop.close()
        return None

    def reports(self) -> list[Report]:
        """Return what was done, in the order of the questions."""
        return [
            Report(candidate.name, [rows[place] for place in sorted(rows)])
            for candidate, rows in zip(self._candidates, self._rows, strict=True)
        ]


def _names(paths: Sequence[Path]) -> list[str]:
    """Call definitions by their file's name, by their path where that is not enough, and count the same ones."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else str(path) for path in paths]
    return [
        f"{name} ({names[: at + 1].count(name)})" if names.count(name) > 1 else name for at, name in enumerate(names)
    ]


def _data(reports: Sequence[Report], expected: int) -> Any:
    first, *others = reports
    compared = [{"first": first.name, "second": other.name, **_compared(first, other, len(others))} for other in others]
    told = [report.to_dict() | {"complete": len(report.rows) == expected} for report in reports]
    return redact_data({"reports": told, "comparisons": compared})


def _compared(first: Report, second: Report, pairs: int) -> dict[str, Any]:
    found = compare(first.pass_rates, second.pass_rates, pairs=pairs)
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _note(whose: object, text: str) -> None:
    print(f"note: {presentable(f'{whose}: {text}')}", file=sys.stderr)
