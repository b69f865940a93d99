"""Answers and rows as a terminal shows them: Markdown laid out, tables drawn, lines broken between words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar, TextIO

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement, TableElement
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from shared_libs.observability.printable import presentable, printable

MAX_JSON = 20_000
"""Longer results are not read as a table."""

MAX_DRAWN = 100_000
"""Longer answers are shown as they are: laying Markdown out takes about a second for as much."""

MAX_ROWS, MAX_COLUMNS = 8, 12
"""How much of a table is drawn while a run goes on."""

_MARKDOWN = re.compile(
    r"^(?:#{1,6} |[-*+] |\d{1,3}[.)] |> |```|~~~|\|.*\|[ \t]*$)|\*\*\S|(?<!\w)__\S|`[^`\n]+`"
    r"|\[[^\[\]\n]+\]\([^()\n]+\)",
    re.MULTILINE,
)


_CODE = ANSISyntaxTheme({("Keyword",): Style(bold=True), ("Comment",): Style(italic=True)})
_THEME = Theme({"markdown.code": "bold cyan"})  # on black at first, on a light terminal too


def print_answer(answer: str, stream: TextIO) -> None:
    """Print an answer on a terminal; what could steer it is taken out, and what is no Markdown stays as it is."""
    text = printable(answer)
    # links are written out: a text that hides another address is not to be believed
    drawn: Markdown | Text = Text(text)
    if len(text) <= MAX_DRAWN and _MARKDOWN.search(text):
        drawn = _Lines(text, hyperlinks=False)
    console = Console(file=stream, highlight=False, theme=_THEME)
    console.print(drawn)
    stream.flush()


class _Code(CodeBlock):
    """Code in the terminal's own colours, dark or light as they may be."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=_CODE, word_wrap=True, padding=1)


class _Table(TableElement):
    """A table that leaves nothing of its cells out: an address that is cut leads nowhere."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for drawn in super().__rich_console__(console, options):
            for column in drawn.columns if isinstance(drawn, Table) else ():
                column.overflow = "fold"
            yield drawn


class _Lines(Markdown):
    """Markdown whose lines end where they end, and in which `<b>` is `<b>`."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "table_open": _Table,
    }

    def __init__(self, markup: str, **options: Any) -> None:
        super().__init__(markup, **options)
        parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        self.parsed = list(_broken(parser.parse(markup)))


def _broken(tokens: Iterable[Token]) -> Iterable[Token]:
    for token in tokens:
        if token.children:
            token.children = [inner for each in token.children for inner in _inline(each)]
        yield token


def _inline(token: Token) -> Iterable[Token]:
    if token.type == "softbreak":
        token.type = "hardbreak"
    if token.type != "image":
        return [token]
    # a terminal shows no picture, but where it is
    said = Token("text", "", 0, content=token.content or "image")
    return [Token("link_open", "a", 1, attrs={"href": token.attrs.get("src", "")}), said, Token("link_close", "a", -1)]


def table_of(content: str) -> tuple[Table, int] | None:
    """Draw a result of the form `{"columns": […], "rows": [[…]]}`, and count its rows; None where it is another."""
    if not content.startswith("{") or len(content) > MAX_JSON:
        return None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    columns, rows = data.get("columns"), data.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list) or not 0 < len(columns) <= MAX_COLUMNS or not rows:
        return None
    if any(not isinstance(row, list) or len(row) != len(columns) for row in rows):
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numbers = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(_cell(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows[:MAX_ROWS]:
        table.add_row(*map(_cell, row))
    if (more := len(rows) - MAX_ROWS) > 0:
        table.add_row(f"… {more} more")
    return table, len(rows)


def _cell(value: Any) -> Text:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return Text(presentable(" ".join(text.split())))
