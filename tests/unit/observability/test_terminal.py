"""The timeline on a terminal: readable in 80 columns, without colour, without Unicode, and it cannot be steered."""

from __future__ import annotations

import io
import time

import msgspec
import pytest
from rich.console import Console

from shared_libs.observability import draw_timeline, timelines
from shared_libs.observability.printable import printable


def drawn(events, *, width=80, encoding="utf-8", **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    for timeline in timelines(events):
        draw_timeline(timeline, Console(file=file, width=width, **options))
    return raw.getvalue().decode(encoding)


def test_it_reads_in_80_columns_without_colour(answered):
    text = drawn(answered)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    for words in (
        "Where is it & why?",
        "Step 1",
        "look",
        "Retry-After",
        "rate limited",
        "2.00 s",
        "deadline",
    ):
        assert words in text
    assert "answered · 4.75 s of 10.0 s · 5.25 s left" in text
    assert "tool look 2.00 s · Retry-After m-1 2.00 s · " in " ".join(text.split())
    assert text.rstrip().endswith("It is <b>there</b>.")


def test_parallel_calls_stand_at_the_same_place(answered):
    bars = [line.index("▓") for line in drawn(answered).splitlines() if line.startswith("  look") and "▓" in line]
    assert bars[0] == bars[1] < bars[2]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_any_width_holds(answered, partial, width):
    for events in (answered, partial):
        for length in range(1, len(events) + 1, 5):
            assert all(len(line) <= width for line in drawn(events[:length], width=width).splitlines())


def test_a_terminal_without_unicode_gets_ascii(answered):
    text = drawn([event for event in answered if type(event).__name__ != "ToolFinished"], encoding="ascii")
    assert "====" in text
    assert "2.00 s" in text


def test_colour_is_used_where_there_is_some(answered):
    assert "\x1b[" in drawn(answered, force_terminal=True, color_system="standard")


def test_what_was_left_running_is_told(partial):
    text = drawn(partial)
    assert "left running" in text
    assert "still running at the end: hang" in text
    assert "partial (deadline)" in text


def test_a_rehearsal_says_so(answered):
    events = [*answered]
    events[0] = type(events[0])(**{name: getattr(events[0], name) for name in events[0].__struct_fields__})
    events[0].rehearsal = True
    assert "REHEARSAL" in drawn(events)


def test_foreign_text_cannot_steer_the_terminal(answered):
    events = [*answered]
    first = type(events[0])(**{name: getattr(events[0], name) for name in events[0].__struct_fields__})
    first.question = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\x00 [red]not markup[/red] sk-abcdefghijklmnop"
    text = drawn([first, *events[1:]])
    assert "abc" in text
    assert "[red]not markup[/red] [redacted]" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\x00"}


def test_lines_and_tabs_are_kept():
    assert printable("a\r\n\tb\x1b[1;31mc") == "a\n\tbc"


def test_what_is_not_seen_or_turns_the_direction_stands_as_its_escape():
    assert printable("a\u3164b\u034f\u2028") == r"a\u3164b\u034f\u2028"
    assert printable("pay\u202e\u2066 10\u200b0 \ufeff\U000e0041") == r"pay\u202e\u2066 10\u200b0 \ufeff\U000e0041"
    joined = "\U0001f468\u200d\U0001f469 \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert printable(joined) == joined
    assert printable("ad\u200dmin") == r"ad\u200dmin"


def test_a_narrow_terminal_keeps_what_things_took(answered):
    lines = drawn(answered, width=30).splitlines()
    assert all(len(line) <= 30 for line in lines)
    assert sum(line.endswith((" s", " ms")) for line in lines if set(line) & set("█▓░·")) >= 6


def test_what_a_bar_is_drawn_for_does_not_ask_all_the_others(answered):
    """A run of 3,000 bars took 5.7 s: each asked all for the length of the axis, and was laid out as a table."""
    line, console, asked = timelines(answered)[0], Console(file=io.StringIO(), width=80), 0

    class Counted(list):
        def __iter__(self):
            nonlocal asked
            asked += 1
            return super().__iter__()

    line.rows = Counted(line.rows)
    draw_timeline(line, console)
    assert asked <= 3


def test_a_run_began_by_the_clock_of_this_place_as_the_list_of_runs_says(answered, monkeypatch):
    """It was UTC without a word: an hour beside what `factory runs` says in Berlin."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        for told, said in (("2026-11-28T22:40:01.250+00:00", "2026-11-29 04:10:01 ·"), ("yesterday", "yesterday ·")):
            assert said in drawn([msgspec.structs.replace(answered[0], started_at=told), *answered[1:]])
    finally:
        monkeypatch.undo()
        time.tzset()
