"""A run on a terminal, as it happens: lines that stay, and below them what is being said and the time left."""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from shared_libs.atomic import events as e
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.results import AgentResult
from shared_libs.cli.drawn import table_of
from shared_libs.cli.plain import Viewer, figures, told
from shared_libs.observability.printable import presentable

TAIL = 400
"""Characters of what is being said that stand above the time left."""

_INDENT = 22
"""Where the words of a line begin."""

_NARROW = 2 * _INDENT
"""Columns below which no words would be left beside the time and the kind: they follow each other then."""

_STYLES = {
    "thought": "italic",
    "action": "bold cyan",
    "observation": "green",
    "error": "red",
    "rehearsal": "bold yellow",
    "retry": "yellow",
    "fallback": "yellow",
    "breaker": "yellow",
    "restarted": "yellow",
    "limit": "yellow",
    "left behind": "bold red",
    "warning": "bold red",
}


class LiveView(Viewer):
    """Shows a run on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._live: Live | None = None
        self._saying = ""
        self._doing = ""
        self._ends_at = 0.0

    def __call__(self, event: AgentEvent) -> None:
        """Show an event."""
        match event:
            case e.RunStarted(timeout_s=timeout_s, model=model):
                self._ends_at = time.monotonic() + timeout_s
                self._doing = f"asking {model}"
                self._live = Live(
                    get_renderable=self._below, console=self._console, transient=True, refresh_per_second=8
                )
                self._live.start()
            case e.StepStarted(final=final):
                self._saying = ""
                self._doing = "asking for the last word" if final else "thinking"
            case e.TextDelta(text=text) | e.ThinkingDelta(text=text):
                self._saying = (self._saying + text)[-10 * TAIL :]
            case e.StreamRestarted():
                self._saying = ""
            case e.ModelFinished():
                self._saying = ""
            case e.ToolStarted(tool=tool):
                self._doing = f"running {tool}"
            case e.RunFinished():
                self.close()
        drawn = table_of(event.content) if isinstance(event, e.ToolFinished) and not event.is_error else None
        for kind, said in told(event):
            # a table is drawn below, and need not be read as JSON before
            text = f"{_counted(drawn[1])}{said[said.rindex('  (') :]}" if drawn else said
            style = _STYLES.get(kind, "")
            words = Text(text, style=style if kind in ("thought", "error", "rehearsal") else "")
            if self._console.width < _NARROW:
                self._console.print(Text.assemble((f"{event.at_s:.2f} s ", "dim"), (f"{kind} ", style), words))
                continue
            row = Table.grid(padding=(0, 1))
            row.add_column(justify="right", width=9)
            row.add_column(width=11)
            row.add_column(overflow="fold")
            row.add_row(Text(f"{event.at_s:.2f} s", style="dim"), Text(kind, style=style), words)
            self._console.print(row)
        if drawn:
            beside = 0 if self._console.width < _NARROW else _INDENT
            self._console.print(Padding(drawn[0], (0, 0, 0, beside)))

    def conclude(self, result: AgentResult) -> None:
        """Print it, less loud than the answer."""
        self._console.print(Text(figures(result), style="dim"))

    def close(self) -> None:
        """Take the moving part away; the lines stay."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _below(self) -> RenderableType:
        left = max(0.0, self._ends_at - time.monotonic())
        footer = Spinner("dots", Text(f"{self._doing} · {left:.1f} s left", style="dim"))
        if not self._saying:
            return footer
        return Group(Text(presentable(self._saying)[-TAIL:], style="italic dim"), footer)


def _counted(rows: int) -> str:
    return f"{rows} row{'s' * (rows != 1)}"
