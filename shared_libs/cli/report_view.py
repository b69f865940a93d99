"""Reports of an evaluation for a person: the figures side by side, what differs, and what failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared_libs.observability.printable import presentable
from shared_libs.testing.evaluation.comparison import compare
from shared_libs.testing.evaluation.evaluation import Report, Row

SHOWN = 300
"""Characters of an answer that are shown."""

FAILING = 20
"""Failing questions of a definition that are shown; a JUnit file and --json have all."""

CERTAIN = 0.05
"""A difference that chance makes more often is called none."""


class ReportView:
    """Shows reports on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)

    def show(self, reports: Sequence[Report], expected: int) -> None:
        """Show reports; `expected` is how many questions each was to be asked."""
        for report in reports:
            self._failing(report)
        if len(reports) > 1:
            self._side_by_side(reports)
        self._figures(reports)
        for other in reports[1:]:
            self._compared(reports[0], other, len(reports) - 1)
        self._warn(reports, expected)

    def _failing(self, report: Report) -> None:
        failing = report.failing
        for row in failing[:FAILING]:
            self._say(f"FAILED {report.name}: {row.suite}: {row.question}", "bold red")
            for name, text in _told(row):
                self._say(f"  {name:<9}{text}")
            self._say("")
        if len(failing) > FAILING:
            self._say(f"{report.name}: {len(failing) - FAILING} more failed; --junit and --json have all\n", "red")

    def _side_by_side(self, reports: Sequence[Report]) -> None:
        rates = [report.pass_rates for report in reports]
        table = Table("question", box=None, padding=(0, 1), header_style="bold")
        for report in reports:
            table.add_column(presentable(report.name), justify="center")
        table.add_column("")
        for key in dict.fromkeys(key for one in rates for key in one):
            cells = [_verdict(one.get(key)) for one in rates]
            differs = len(set(cells)) > 1
            table.add_row(
                Text(presentable(key)), *cells, "differs" if differs else "", style="yellow" if differs else ""
            )
        self._console.print(table)
        self._say("")

    def _figures(self, reports: Sequence[Report]) -> None:
        table = Table("", box=None, padding=(0, 1), header_style="bold")
        for report in reports:
            table.add_column(presentable(report.name), justify="right")
        lines: list[tuple[str, Callable[[Report], str]]] = [
            ("passed", lambda one: f"{one.passed} of {len(one.rows)}"),
            ("pass rate", lambda one: _percent(one.pass_rate)),
        ]
        if all(row.repetition == 1 for report in reports for row in report.rows):
            lines.append(("95 % interval", _interval))
        names = dict.fromkeys(name for report in reports for name in report.scores)
        lines += [(f"score {name}", partial(_score, name)) for name in names]
        if any(row.unjudged for report in reports for row in report.rows):
            lines.append(("not judged", lambda one: str(sum(row.unjudged for row in one.rows))))
        lines += [
            ("partial", lambda one: str(one.count("partial"))),
            ("failed", lambda one: str(one.count("failed") + sum(row.result is None for row in one.rows))),
            ("latency p50", lambda one: _number(one.latency_s(0.5), "{:.2f} s")),
            ("latency p95", lambda one: _number(one.latency_s(0.95), "{:.2f} s")),
            ("tokens in", lambda one: f"{one.tokens[0]:,}"),
            ("tokens out", lambda one: f"{one.tokens[1]:,}"),
            ("cost", lambda one: _number(one.cost_usd, "${:.4f}", "unknown")),
        ]
        for name, figure in lines:
            table.add_row(name, *map(figure, reports))
        self._console.print(table)

    def _compared(self, first: Report, second: Report, pairs: int) -> None:
        found = compare(first.pass_rates, second.pass_rates, pairs=pairs)
        if not found.questions:  # it was stopped before
            return
        self._say(
            f"\n{second.name} against {first.name}: better on {found.better}, worse on {found.worse} of "
            f"{found.questions} questions; sign test p = {found.p_value:.2g}"
        )
        if found.p_value < CERTAIN:
            self._say(f"{second.name} is {'better' if found.better > found.worse else 'worse'}.", "bold")
        elif found.better == found.worse == 0:
            self._say("Both pass the same questions, which is no evidence of a difference.", "bold")
        else:
            self._say("That is no evidence of a difference: chance alone makes one as large.", "bold")

    def _warn(self, reports: Sequence[Report], expected: int) -> None:
        for report in reports:
            if len(report.rows) < expected:
                self._say(
                    f"\nSTOPPED: {report.name} was asked {len(report.rows)} of {expected} questions.", "bold yellow"
                )
            if count := report.sources("rehearsal"):
                self._say(
                    f"\nREHEARSAL: in {count} of {len(report.rows)} questions to {report.name} no model was asked; "
                    "these figures are no evaluation. Set the model's key to ask it.",
                    "bold yellow",
                )
            if count := report.sources("script"):
                self._say(
                    f"\nSCRIPTED: in {count} of {len(report.rows)} questions to {report.name} the scenario said the "
                    "model's words; these figures tell of the agent around it, and latency is virtual.",
                    "yellow",
                )

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(presentable(text), style=style))


def _told(row: Row) -> list[tuple[str, str]]:
    wanted = [one.expected for one in row.judgements if one.expected is not None and not one.passed]
    told = [("expected", _cut(_written(expected))) for expected in wanted]
    told.append(("got", _cut(row.result.answer or "nothing") if row.result else "nothing"))
    return told + [("why", _cut(why)) for why in row.whys()]


def _written(expected: Any) -> str:
    return expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _verdict(rate: float | None) -> str:
    if rate is None:
        return "-"
    return {1.0: "pass", 0.0: "FAIL"}.get(rate, f"{rate:.0%}")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.0f} %"


def _interval(report: Report) -> str:
    if report.interval is None:
        return "-"
    low, high = report.interval
    return f"{100 * low:.0f} - {100 * high:.0f} %"


def _score(name: str, report: Report) -> str:
    return _number(report.scores.get(name), "{:.2f}")


def _number(value: float | None, form: str, absent: str = "-") -> str:
    return absent if value is None else form.format(value)
