"""Draw a timeline on a terminal: a waterfall of bars that reads in 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from shared_libs.atomic.events import ModelAsked
from shared_libs.atomic.types import ImagePart, Message, TextPart
from shared_libs.observability.printable import presentable
from shared_libs.observability.timeline import (
    Bar,
    Kind,
    Note,
    Outcome,
    Timeline,
)
from shared_libs.observability.wording import cost_words, counted, seconds, usage_words

LABEL_COLUMNS = 25
WIDEST = 140
TIME_COLUMNS = 8
ROLE_COLUMNS = 16
SHORTEST_NOTE = 6

_STYLES: dict[Kind, str] = {
    "step": "bright_black",
    "model": "blue",
    "wait": "bright_black",
    "tool": "cyan",
    "retrieval": "yellow",
    "memory": "magenta",
}
_BAD: dict[Outcome, str] = {"error": "red", "left running": "yellow", "cancelled": "yellow", "cut off": "yellow"}
_STATUS = {"answered": "green", "partial": "yellow", "cancelled": "yellow", "failed": "red", "unfinished": "yellow"}
_BLOCKS: dict[Kind, str] = {"step": "─", "model": "█", "wait": "·", "tool": "▓", "retrieval": "░", "memory": "▒"}
_ASCII = str.maketrans({"─": "-", "█": "#", "▓": "=", "▒": "+", "│": "|", "·": ".", "→": ">", "…": "~", "░": ":"})


def draw_timeline(timeline: Timeline, console: Console) -> None:
    """Draw the timeline of one run; secrets are masked."""
    pen = _Pen(timeline, console)
    pen.head()
    pen.waterfall()
    pen.foot()


def draw_requests(asked: Sequence[ModelAsked], console: Console) -> None:
    """Write what models were asked, each request as what it adds to the one it goes on from; secrets are masked."""
    for request in asked:
        new, whole = len(request.messages), counted(request.kept + len(request.messages), "message")
        facts = [whole if not request.kept else f"{whole}, {new} new" if new else f"the same {whole}"]
        if request.tools:
            facts.append(f"tools {', '.join(tool.name for tool in request.tools)}")
        facts += [f"{name} {_as_json(value)}" for name, value in sorted((request.options or {}).items())]
        console.print()
        head = f"{seconds(request.at_s):>8}  {request.provider}/{request.model} was asked: {' · '.join(facts)}"
        console.print(_fitting(Text(presentable(head), "bold"), console))
        table = Table.grid(padding=(0, 1))
        table.add_column(width=ROLE_COLUMNS)
        table.add_column(overflow="fold")
        for message in request.messages:
            role = f"{message.role} {message.name}" if message.name else message.role
            said = (Text(presentable(role), "cyan"), Text(presentable(_said(message))))
            table.add_row(*(_fitting(text, console) for text in said))
        console.print(table)


def _said(message: Message) -> str:
    parts = [message.content] if isinstance(message.content, str) else [_part(part) for part in message.content]
    parts = [f"({block.text})" for block in message.thinking if block.text] + parts
    parts += [f"→ {call.name} {_as_json(call.input)}" for call in message.tool_calls]
    return "\n".join(filter(None, parts))


def _part(part: TextPart | ImagePart) -> str:
    return part.text if isinstance(part, TextPart) else f"[image {part.place}]"


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=repr).decode()


def _fitting(text: Text, console: Console) -> Text:
    """Return the text in the characters the terminal has."""
    text.plain = _in_its_characters(text.plain, console)
    return text


def _in_its_characters(text: str, console: Console) -> str:
    return text if (console.encoding or "").lower().startswith("utf") else text.translate(_ASCII)


class _Pen:
    """Draws one timeline on one console."""

    def __init__(self, timeline: Timeline, console: Console) -> None:
        self._line = timeline
        self._console = console
        width = min(console.width, WIDEST)
        self._label = min(LABEL_COLUMNS, width // 3)
        self._drawn: list[Segment] = []
        self._columns = max(1, width - self._label - TIME_COLUMNS - 2)

    def head(self) -> None:
        line = self._line
        self._say(line.question or line.run_id, "bold")
        facts = [line.agent, line.model, _began(line.started_at), f"run {line.run_id}"]
        self._say(" · ".join(fact for fact in facts if fact), "bright_black")
        if line.rehearsal:
            self._say("REHEARSAL: recorded decisions; no model was asked", "yellow")
        self._say("")

    def waterfall(self) -> None:
        line = self._line
        self._row("", [self._axis()], "")
        for row in line.rows:
            self._bar(row.bar, indent=0)
            for bar in row.inner:
                self._bar(bar, indent=2)
        if line.shows_deadline and line.timeout_s is not None:
            pointer = (" " * self._at(line.timeout_s) + "│", "red")
            self._row("deadline", [pointer], seconds(line.timeout_s), label_style="red")
        # a table of rich's, laid out anew, took thirty times as long for a run of a thousand steps
        self._console.print(Segments(self._drawn), end="", crop=False)

    def foot(self) -> None:
        line = self._line
        self._say("")
        for note in line.notes:
            self._note(note)
        status = line.status + (f" ({line.stop_reason.replace('_', ' ')})" if line.status == "partial" else "")
        used = f"{seconds(line.elapsed_s)} of {seconds(line.timeout_s)}" if line.timeout_s else seconds(line.elapsed_s)
        facts = [status, used]
        if line.left_s is not None and line.status != "unfinished":
            facts.append(f"{seconds(line.left_s)} left")
        facts += [
            counted(line.count("model"), "recorded decision" if line.rehearsal else "model request"),
            counted(line.count("tool"), "tool call"),
        ]
        if line.usage.total_tokens:
            facts.append(f"tokens {usage_words(line.usage)}")
        if line.usage.total_tokens and not line.rehearsal:
            facts.append(f"cost {cost_words(line.cost_usd)}")
        self._say(" · ".join(facts), _STATUS.get(line.status, ""))
        if line.spent.why:
            self._say(line.spent.why)
        if len(line.spent.parts) > 1:
            self._say(line.spent.named, "bright_black")
        if line.usual_s is not None:
            others = counted(line.usual_runs, "other run")
            self._say(f"usually {seconds(line.usual_s)} (median of {others})", "bright_black")
        if line.still_running:
            self._say(f"still running at the end: {', '.join(line.still_running)}", "yellow")
        if line.error:
            self._say(line.error, "red" if line.status == "failed" else "yellow")
        if line.answer:
            self._say("")
            self._say(line.answer)

    def _bar(self, bar: Bar, *, indent: int) -> None:
        style = _BAD.get(bar.outcome, _STYLES[bar.kind])
        first, end = self._at(bar.start_s), max(self._at(bar.end_s), self._at(bar.start_s) + 1)
        split = end if bar.split_s is None else min(max(self._at(bar.split_s), first), end - 1)
        waiting = "░" if bar.split_s is not None else _BLOCKS[bar.kind]
        before, behind = self._beside(bar.headline, first, end)
        told = style if bar.outcome != "ok" else "bright_black"
        pieces = [
            (" " * (first - cell_len(before)), ""),
            (before, told),
            (waiting * (split - first) + _BLOCKS[bar.kind] * (end - split), style),
            (behind, told),
        ]
        label = " " * indent + _one_line(bar.label)
        bold = "bold" if bar.kind == "step" else ""
        self._row(label, pieces, seconds(bar.took_s), label_style=bold, time_style=style)

    def _row(
        self, label: str, pieces: Sequence[tuple[str, str]], time: str, *, label_style: str = "", time_style: str = ""
    ) -> None:
        """Draw a line of three columns: what it is, when it was, how long it took."""
        rest = self._columns - sum(cell_len(text) for text, _ in pieces)
        label = set_cell_size(_cut(label, self._label), self._label)
        for text, style in (
            (f"{label} ", label_style),
            *pieces,
            (f"{'':{max(rest, 0)}} ", ""),
            (f"{time:>{TIME_COLUMNS}}\n", time_style),
        ):
            self._drawn.append(Segment(_in_its_characters(text, self._console), self._console.get_style(style)))

    def _beside(self, said: str, first: int, end: int) -> tuple[str, str]:
        """Return what stands before a bar and what behind it: a note, where there is more room for it."""
        text = _one_line(said)
        length, behind = cell_len(text), self._columns - end - 1
        if behind >= min(length, 12) or behind >= first - 1:
            return "", f" {_cut(text, behind)}" if behind >= min(length, SHORTEST_NOTE) else ""
        return f"{_cut(text, first - 1)} " if first - 1 >= SHORTEST_NOTE else "", ""

    def _axis(self) -> tuple[str, str]:
        span = self._line.span_s
        right = seconds(span)
        room = self._columns - len("0") - len(right)
        return _cut("0" + seconds(span / 2).center(max(room, 0)) + right, self._columns), "bright_black"

    def _at(self, at_s: float) -> int:
        share = min(max(at_s / self._line.span_s, 0.0), 1.0)
        return min(int(share * self._columns), self._columns - 1)

    def _note(self, note: Note) -> None:
        self._say(f"{seconds(note.at_s):>8}  {note.text}", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(_fitting(Text(presentable(text).rstrip(), style), self._console), soft_wrap=False)


def _began(started_at: str) -> str:
    """When it began by the clock of this place, as a list of runs says it."""
    try:
        return f"{datetime.fromisoformat(started_at).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return started_at


def _one_line(text: str) -> str:
    return " ".join(presentable(text).split())


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"
