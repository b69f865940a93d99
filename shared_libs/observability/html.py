"""Draw timelines as one HTML file that needs nothing else: no script, no font, no image, no address."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import msgspec

from shared_libs.observability.redact import redact_text
from shared_libs.observability.timeline import Bar, Row, Timeline
from shared_libs.observability.wording import cost_words, seconds, usage_words

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What the page may do: look as it does."""

MAX_TEXT = 60_000
"""How many characters of one text are shown; the record has them all."""

MAX_ENTRY = 200
"""Characters of a question in the index."""

MAX_JSON = 20_000
"""Longer JSON is shown as it came."""

_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


def timeline_page(runs: Sequence[Timeline]) -> str:
    """
    Return the page of one or more runs; secrets are masked.

    Everything opens and closes by mouse and keyboard without a script, and the page's policy forbids any, so that what
    a tool brought in cannot act.
    """
    return whole_page(runs, policy=POLICY, style=static_style(), body=static_body(runs))


def whole_page(runs: Sequence[Timeline], *, policy: str, style: str, body: str) -> str:
    """Return a document about these runs: what it may do, how it looks, and what it holds, all of it HTML."""
    title = (runs[0].question or runs[0].run_id) if runs else "no runs"
    return _part("page").substitute(title=_words(title[:80]), policy=policy, style=style, runs=body)


def static_style() -> str:
    """How runs look that are drawn without a script."""
    return _part("style").substitute()


def static_body(runs: Sequence[Timeline]) -> str:
    """Runs drawn without a script."""
    parts = [_index(runs)] if len(runs) > 1 else []
    return "\n".join([*parts, *(_run(run, number, back=len(runs) > 1) for number, run in enumerate(runs, 1))])


@cache
def _part(name: str) -> Template:
    """Return a part of the template file; parts are set apart by comments."""
    text = files("shared_libs.observability").joinpath("timeline.html").read_text("utf-8")
    start = text.index(f"<!-- part: {name} -->\n")
    body = text[start:].split("\n", 1)[1]
    return Template(body.split("<!-- part: ", 1)[0].strip())


def _index(runs: Sequence[Timeline]) -> str:
    """A table of all runs, each a link to its own part of the page."""
    rows = "\n".join(
        _part("entry").substitute(
            number=number,
            began=_began(run),
            status=_words(run.status),
            status_class=_class(run.status),
            took=_words(seconds(run.elapsed_s)),
            longest=_words(run.spent.parts[0].label if run.spent.parts else ""),
            question=_words((run.question or run.run_id)[:MAX_ENTRY]),
        )
        for number, run in enumerate(runs, 1)
    )
    return _part("index").substitute(count=f"{len(runs):,}", rows=rows)


def _run(run: Timeline, number: int, *, back: bool) -> str:
    waits = run.status == "partial" and run.stop_reason
    return _part("run").substitute(
        question=_words(run.question or f"Run {run.run_id}"),
        status=_words(run.status + (f" · {run.stop_reason.replace('_', ' ')}" if waits else "")),
        status_class=_class(run.status),
        rehearsal=_rehearsal(run),
        number=number,
        back='<a class="back" href="#index">all runs</a>' if back else "",
        why=_why(run),
        facts=_facts(run),
        gauge=_gauge(run),
        answer=_answer(run),
        axis=_axis(run),
        grid=_grid(run),
        rows="\n".join(_row(run, row) for row in run.rows),
        notes=_notes(run),
        run_id=_words(run.run_id),
        started=_began(run),
        agent=_words(" · ".join(filter(None, (run.agent, run.model, run.protocol and f"{run.protocol} protocol")))),
    )


def _began(run: Timeline) -> str:
    return _words(run.started_at.replace("T", " ").partition(".")[0] + (" UTC" if run.started_at else ""))


def _why(run: Timeline) -> str:
    """What the time went on, as a bar of its parts and as a sentence."""
    spent = run.spent
    if not spent.parts or not spent.elapsed_s:
        return ""
    bar = "".join(
        f'<i class="{_class(part.kind)}" style="width:{100 * part.seconds / spent.elapsed_s:.3f}%" '
        f'title="{_words(f"{part.label}: {seconds(part.seconds)}")}"></i>'
        for part in spent.parts
    )
    return _part("why").substitute(bar=bar, names=_words(spent.named), words=_words(spent.why))


def _rehearsal(run: Timeline) -> str:
    if not run.rehearsal:
        return ""
    return (
        '<p class="rehearsal"><strong>Rehearsal.</strong> The decisions were recorded beforehand; no model was asked. '
        "Tools and data are real.</p>"
    )


def _facts(run: Timeline) -> str:
    facts = [
        ("Time", seconds(run.elapsed_s)),
        ("Recorded decisions" if run.rehearsal else "Model requests", str(run.count("model"))),
    ]
    facts.append(("Tool calls", str(run.count("tool"))))
    if run.usage.total_tokens:
        facts.append(("Tokens", usage_words(run.usage)))
    if run.usage.total_tokens and not run.rehearsal:
        facts.append(("Cost", cost_words(run.cost_usd)))
    return "".join(f"<div><dt>{_words(name)}</dt><dd>{_words(value)}</dd></div>" for name, value in facts)


def _gauge(run: Timeline) -> str:
    if run.timeout_s is None or run.left_s is None:
        return ""
    used = min(100.0, 100.0 * run.elapsed_s / run.timeout_s) if run.timeout_s else 100.0
    return _part("gauge").substitute(
        share=f"{used:.2f}",
        used=_words(seconds(run.elapsed_s)),
        left=_words(seconds(run.left_s)),
        timeout=_words(seconds(run.timeout_s)),
    )


def _answer(run: Timeline) -> str:
    parts = []
    if run.answer:
        label = "Answer" if run.status == "answered" else "Best answer"
        parts.append(f'<section class="answer"><h2>{label}</h2><div>{_paragraphs(run.answer)}</div></section>')
    if run.error:
        parts.append(f'<section class="error"><h2>What went wrong</h2><div>{_paragraphs(run.error)}</div></section>')
    if run.still_running:
        names = ", ".join(run.still_running)
        parts.append(
            f'<section class="error"><h2>Still running at the end</h2><div>{_paragraphs(names)}</div></section>'
        )
    if run.status == "unfinished":
        parts.append(
            '<section class="error"><h2>No end on record</h2><div><p>The run was still going on, or was stopped, '
            "when the record ends.</p></div></section>"
        )
    return "\n".join(parts)


def _axis(run: Timeline) -> str:
    marks = [
        f'<span style="left:{_percent(run, at)}%">{_words(seconds(at) if at else "0")}</span>' for at in _ticks(run)
    ]
    if run.shows_deadline and run.timeout_s is not None:
        marks.append(f'<span class="deadline" style="left:{_percent(run, run.timeout_s)}%">deadline</span>')
    return "".join(marks)


def _grid(run: Timeline) -> str:
    lines = [f'<i style="left:{_percent(run, at)}%"></i>' for at in _ticks(run)]
    if run.limit_s is not None:
        lines.append(f'<i class="limit" style="left:{_percent(run, run.limit_s)}%"></i>')
    if run.shows_deadline and run.timeout_s is not None:
        lines.append(f'<i class="deadline" style="left:{_percent(run, run.timeout_s)}%"></i>')
    return "".join(lines)


def _ticks(run: Timeline) -> list[float]:
    """Return round moments for the axis, few enough that their labels stay apart."""
    gap = next((gap for gap in _TICKS if run.span_s / gap <= 6), run.span_s / 6)
    ends = run.span_s if not run.shows_deadline or run.timeout_s is None else run.timeout_s - run.span_s * 0.1
    return [index * gap for index in range(int(ends / gap) + 1) if index * gap <= max(ends, 0.0)]


def _row(run: Timeline, row: Row) -> str:
    bars = [_bar(run, row.bar), *(_bar(run, bar, inner=True) for bar in row.inner)]
    return f'<li><div class="group">{"".join(bars)}</div></li>'


def _bar(run: Timeline, bar: Bar, *, inner: bool = False) -> str:
    left = float(_percent(run, bar.start_s))
    width = min(max(100.0 * bar.took_s / run.span_s, 0.4), 100.0 - left)
    waited = 0.0
    if bar.split_s is not None and bar.took_s > 0:
        waited = min(max(100.0 * (bar.split_s - bar.start_s) / bar.took_s, 0.0), 100.0)
    outcome = "" if bar.outcome == "ok" else bar.outcome
    details = [("Outcome", outcome)] if outcome and outcome != "error" else []
    times = f"{seconds(bar.start_s)} → {seconds(bar.end_s)}"
    return _part("bar").substitute(
        classes=f"{_class(bar.kind)} {_class(bar.outcome)}" + (" inner" if inner else ""),
        label=_words(bar.label),
        note=_words(bar.headline[:300]),
        left=f"{left:.3f}",
        width=f"{width:.3f}",
        waited=f"{waited:.2f}",
        took=_words(seconds(bar.took_s)),
        tip=_words(f"{bar.label}: {seconds(bar.took_s)} ({times})"),
        details="".join(
            f"<dt>{_words(name)}</dt><dd>{_content(text)}</dd>"
            for name, text in [*details, *bar.details, ("Time", times)]
        ),
    )


def _notes(run: Timeline) -> str:
    if not run.notes:
        return ""
    items = "".join(f"<li><time>{_words(seconds(note.at_s))}</time> {_words(note.text)}</li>" for note in run.notes)
    return f'<section class="notes"><h2>Also happened</h2><ul>{items}</ul></section>'


def _percent(run: Timeline, at_s: float) -> str:
    return f"{min(max(100.0 * at_s / run.span_s, 0.0), 100.0):.3f}"


def _content(text: str) -> str:
    """Return a text as HTML: rows under columns as a table, other JSON in lines, the rest as it is."""
    text = redact_text(text)
    if text[:1] in ("{", "[") and len(text) <= MAX_JSON:
        try:
            data = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            data = None
        table = _table(data)
        if table:
            return table
        if data is not None:
            text = msgspec.json.format(msgspec.json.encode(data), indent=2).decode()
    cut = f"\n… {len(text) - MAX_TEXT:,} more characters are in the record" if len(text) > MAX_TEXT else ""
    text = text[:MAX_TEXT] + cut
    return f"<pre>{_words(text)}</pre>" if "\n" in text or len(text) > 90 else f"<span>{_words(text)}</span>"


def _table(data: Any) -> str:
    """Return `{"columns": [...], "rows": [[...]]}` as a table; what else it says stands below."""
    columns, rows = (data.get("columns"), data.get("rows")) if isinstance(data, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list) or not columns:
        return ""
    if any(not isinstance(row, list) or len(row) != len(columns) for row in rows):
        return ""
    head = "".join(f"<th>{_words(_cell(name))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_td(value) for value in row)}</tr>" for row in rows)
    rest = {key: value for key, value in data.items() if key not in ("columns", "rows")}
    below = f"<pre>{_words(msgspec.json.encode(rest).decode())}</pre>" if rest else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{below}'


def _td(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"<td{' class=number' if number else ''}>{_words(_cell(value))}</td>"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_words(part)}</p>" for part in text.strip().split("\n\n"))


def _words(text: str) -> str:
    """Escape a text, its secrets masked and what is no text replaced."""
    clean = "".join(
        char if char in "\n\t" or char >= " " else "\N{REPLACEMENT CHARACTER}" for char in redact_text(text)
    )
    return escape(clean.encode("utf-8", "replace").decode())


def _class(name: str) -> str:
    return name.replace(" ", "-")
