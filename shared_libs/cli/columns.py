"""A list of runs as lines of a terminal: columns that fit, the more the wider it is. Nothing large is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from shared_libs.observability.printable import printable
from shared_libs.observability.runs.rows import RunRow
from shared_libs.observability.wording import cost_words, seconds


class Column(NamedTuple):
    """A column: its heading, its width, what stands in it, and in which widths of the terminal it is there."""

    heading: str
    width: int
    says: Callable[[RunRow], str]
    wide: range = range(10_000)
    right: bool = False


def _when(started_at: str) -> str:
    """When it began, by the clock of this place: the time today, else the day too."""
    try:
        at, now = datetime.fromisoformat(started_at).astimezone(), datetime.now().astimezone()
    except ValueError:  # a record may lack the beginning of a run
        return started_at
    return at.strftime("%H:%M:%S") if at.date() == now.date() else at.strftime("%m-%d %H:%M")


def _longest(row: RunRow) -> str:
    return "" if row.longest_s is None else f"{seconds(row.longest_s)} {row.longest}"


ID_SHOWN = 8
"""Characters of an id in a list; `factory runs` takes the beginning of one."""

_STYLES = {
    "answered": "32",
    "partial": "33",
    "failed": "31",
    "cancelled": "33",
    "running": "36",
    "paused": "36",
    "unfinished": "33",
}
_COLUMNS = (
    Column("began", 11, lambda row: _when(row.started_at)),
    Column("run", ID_SHOWN, lambda row: row.run_id[:ID_SHOWN]),
    Column("agent", 14, lambda row: row.agent, range(130, 10_000)),
    Column("session", 13, lambda row: row.session_id or "", range(150, 10_000)),
    Column("status", 10, lambda row: row.status),
    Column("took", 9, lambda row: "" if row.elapsed_s is None else seconds(row.elapsed_s), right=True),
    Column("longest", 16, lambda row: row.longest, range(70, 110)),
    Column("longest", 30, _longest, range(110, 10_000)),
    Column("cost", 8, lambda row: "" if not row.cost_usd else cost_words(row.cost_usd), range(95, 10_000), right=True),
)


def laid_out(rows: Sequence[RunRow], width: int, *, colours: bool) -> list[str]:
    """Lay runs out as lines of `width` columns, the question last; what has no room is cut."""
    columns = [column for column in _COLUMNS if width in column.wide]
    room = max(8, width - sum(column.width + 2 for column in columns))
    heading = _line([_cell(column.heading, column) for column in columns], "question")
    lines = [f"\x1b[1m{heading}\x1b[0m" if colours else heading]
    for row in rows:
        cells = [_cell(column.says(row), column) for column in columns]
        if colours:
            style = _STYLES.get(row.status, "0")
            cells = [
                f"\x1b[{style}m{cell}\x1b[0m" if column.heading == "status" else cell
                for cell, column in zip(cells, columns, strict=True)
            ]
        lines.append(_line(cells, _cut(row.question, room)))
    return lines if rows else ["no runs"]


def _line(cells: list[str], question: str) -> str:
    return "  ".join([*cells, question]).rstrip()


def _cell(text: str, column: Column) -> str:
    shown = _cut(text, column.width)
    return " " * (column.width - cell_len(shown)) + shown if column.right else set_cell_size(shown, column.width)


def _cut(text: str, width: int) -> str:
    line = " ".join(printable(text).split())
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"
