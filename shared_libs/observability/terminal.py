"""Draw a timeline on a terminal: a waterfall of bars that reads in 80 columns and without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
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
    Row,
    Timeline,
)
from shared_libs.observability.wording import cost_words, counted, seconds, usage_words

LABEL_COLUMNS = 25
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
    if not (console.encoding or "").lower().startswith("utf"):
        text.plain = text.plain.translate(_ASCII)
    return text


class _Pen:
    """Draws one timeline on one console."""

    def __init__(self, timeline: Timeline, console: Console) -> None:
        self._line = timeline
        self._console = console
        self._columns = max(10, min(console.width, 140) - LABEL_COLUMNS - TIME_COLUMNS - 2)

    def head(self) -> None:
        line = self._line
        self._say(line.question or line.run_id, "bold")
        facts = [line.agent, line.model, line.started_at.replace("T", " ").partition(".")[0], f"run {line.run_id}"]
        self._say(" · ".join(fact for fact in facts if fact), "bright_black")
        if line.rehearsal:
            self._say("REHEARSAL: recorded decisions; no model was asked", "yellow")
        self._say("")

    def waterfall(self) -> None:
        line = self._line
        table = Table.grid(padding=(0, 1))
        table.add_column(width=LABEL_COLUMNS, no_wrap=True)
        table.add_column(width=self._columns, no_wrap=True)
        table.add_column(width=TIME_COLUMNS, justify="right", no_wrap=True)
        table.add_row(Text(""), self._axis(), Text(""))
        for row in line.rows:
            self._add(table, row)
        if line.shows_deadline and line.timeout_s is not None:
            pointer = Text(" " * self._at(line.timeout_s) + "│", "red")
            table.add_row(self._text("deadline", "red"), self._shaped(pointer), self._time(line.timeout_s))
        self._console.print(table)

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

    def _add(self, table: Table, row: Row) -> None:
        self._add_bar(table, row.bar, indent=0)
        for bar in row.inner:
            self._add_bar(table, bar, indent=2)

    def _add_bar(self, table: Table, bar: Bar, *, indent: int) -> None:
        style = _BAD.get(bar.outcome, _STYLES[bar.kind])
        label = self._text(" " * indent + bar.label, "bold" if bar.kind == "step" else "")
        label.truncate(LABEL_COLUMNS, overflow="ellipsis")
        first, end = self._at(bar.start_s), max(self._at(bar.end_s), self._at(bar.start_s) + 1)
        drawn = Text(" " * first)
        split = end if bar.split_s is None else min(max(self._at(bar.split_s), first), end - 1)
        waiting = "░" if bar.split_s is not None else _BLOCKS[bar.kind]
        drawn.append(waiting * (split - first), style)
        drawn.append(_BLOCKS[bar.kind] * (end - split), style)
        if bar.headline:
            self._beside(drawn, bar.headline, style if bar.outcome != "ok" else "bright_black", first)
        table.add_row(self._shaped(label), self._shaped(drawn), self._time(bar.took_s, style))

    def _beside(self, drawn: Text, said: str, style: str, first: int) -> None:
        """Write a note behind a bar, or before it where there is more room."""
        text = self._text(said, style)
        behind = self._columns - drawn.cell_len - 1
        if behind >= min(text.cell_len, 12) or behind >= first - 1:
            if behind >= min(text.cell_len, SHORTEST_NOTE):
                text.truncate(behind, overflow="ellipsis")
                drawn.append(" ")
                drawn.append_text(text)
            return
        if first - 1 < SHORTEST_NOTE:
            return
        text.truncate(first - 1, overflow="ellipsis")
        bar = drawn[first:]
        drawn.plain = " " * (first - 1 - text.cell_len)
        drawn.append_text(text)
        drawn.append(" ")
        drawn.append_text(bar)

    def _axis(self) -> Text:
        span = self._line.span_s
        right = seconds(span)
        middle = seconds(span / 2)
        room = self._columns - len("0") - len(right)
        return Text("0" + middle.center(max(room, 0)) + right, "bright_black")

    def _at(self, at_s: float) -> int:
        share = min(max(at_s / self._line.span_s, 0.0), 1.0)
        return min(int(share * self._columns), self._columns - 1)

    def _time(self, value: float, style: str = "") -> Text:
        return Text(seconds(value), style)

    def _note(self, note: Note) -> None:
        self._say(f"{seconds(note.at_s):>8}  {note.text}", "yellow")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(self._shaped(self._text(text, style)), soft_wrap=False)

    def _text(self, text: str, style: str = "") -> Text:
        return Text(presentable(text).rstrip(), style)

    def _shaped(self, text: Text) -> Text:
        return _fitting(text, self._console)
