"""What a person needs to see of a scenario that failed: the first difference, the timeline, and how to see it again."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable

from shared_libs.observability import draw_timeline, timelines
from shared_libs.testing.scenarios.play import Played

_COLUMNS, _INDENT = 100, 2
"""How wide a timeline is drawn at the most, and what stands before it, on a terminal that is not so wide."""

_MAX_CHARS = 1_000


def report(played: Played, command: str) -> str:
    """
    Describe what came of a scenario.

    Args:
        played: what came of it.
        command: what plays just this one again.

    """
    first, *more = played.differences or ["as expected"]
    parts = [f"Difference: {first}", _timelines(played)]
    if more:
        parts.append("Further differences:\n" + _indented(more))
    if played.faults:
        met = (f"call {met.number} of {met.port} {met.name}: {met.fault.fault}" for met in played.faults)
        parts.append("Faults that were played:\n" + _indented(met))
    parts.append(f"Seed: {played.seed}\nAgain: {command}")
    return "\n\n".join(part for part in parts if part)


def _timelines(played: Played) -> str:
    from rich.console import Console

    drawn = io.StringIO()
    console = Console(file=drawn, width=min(_COLUMNS, shutil.get_terminal_size((999, 0)).columns - _INDENT))
    for line in timelines(played.events):
        line.started_at = ""  # which is no part of a scenario
        if line.answer and len(line.answer) > _MAX_CHARS:
            line.answer = f"{line.answer[:_MAX_CHARS]} … ({len(line.answer):,} characters)"
        draw_timeline(line, console)
        console.print()
    return "\n".join(text.rstrip() for text in drawn.getvalue().rstrip().splitlines())


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}".replace("\n", "\n  ") for line in lines)
