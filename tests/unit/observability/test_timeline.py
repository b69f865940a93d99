"""The timeline of a run: what took how long, and how it ended."""

from __future__ import annotations

import pytest

from shared_libs.atomic.events import AbandonedEnded, LoopBlocked, RunStarted, Warned
from shared_libs.observability.timeline import brief, pretty, timelines
from shared_libs.observability.wording import seconds


def one(events):
    [timeline] = timelines(events)
    return timeline


def inner(timeline, index):
    row = [row for row in timeline.rows if row.bar.kind == "step"][index]
    return [(bar.kind, bar.label, round(bar.start_s, 3), round(bar.end_s, 3), bar.outcome) for bar in row.inner]


def test_a_step_holds_its_attempts_waits_and_parallel_tools(answered):
    timeline = one(answered)
    assert [row.bar.label for row in timeline.rows] == ["Memory loaded", "Step 1", "Step 2", "Step 3", "Memory stored"]
    assert inner(timeline, 0) == [
        ("model", "m-1", 0.0, 0.5, "ok"),
        ("tool", "look", 0.5, 1.5, "ok"),
        ("tool", "look", 0.5, 1.5, "ok"),
    ]
    assert inner(timeline, 1) == [
        ("model", "m-1", 1.5, 1.5, "error"),
        ("wait", "Retry-After", 1.5, 3.5, "ok"),
        ("model", "m-1 · try 2", 3.5, 3.5, "ok"),
        ("tool", "look", 3.5, 4.5, "error"),
    ]
    assert inner(timeline, 2) == [("model", "m-1", 4.5, 4.75, "ok")]


def test_the_head_says_what_the_run_was_and_how_it_ended(answered):
    timeline = one(answered)
    assert (timeline.run_id, timeline.agent, timeline.model) == ("run-1", "scout", "m-1")
    assert (timeline.question, timeline.answer) == ("Where is it & why?", "It is <b>there</b>.")
    assert (timeline.status, timeline.usage.total_tokens, timeline.cost_usd) == ("answered", 40, pytest.approx(50e-6))
    assert timeline.left_s == pytest.approx(5.25)
    assert timeline.shows_deadline


def test_details_hold_thought_input_observation_and_error(answered):
    timeline = one(answered)
    rows = {row.bar.label: row for row in timeline.rows}
    assert ("Thought", "I look twice.") in rows["Step 1"].bar.details
    call = rows["Step 1"].inner[1]
    assert ("Input", "place: a") in call.details
    assert call.details[-1][0] == "Observation"
    assert ("Error", "HTTP 429 · slow down") in rows["Step 2"].inner[0].details
    assert ("Error", "ValueError: no such place") in rows["Step 2"].inner[-1].details
    assert ("Said", "It is <b>there</b>.") in rows["Step 3"].bar.details


def test_a_late_end_and_a_blocked_loop_are_notes(answered):
    late = AbandonedEnded(what="tool", name="hang", call_id="c", late_s=1.5, run_id="run-1")
    blocked = LoopBlocked(tool="", call_id="", blocked_s=0.5, stack="", run_id="run-1")
    notes = [note.text for note in one([*answered[:-1], late, blocked, answered[-1]]).notes]
    assert notes[-2:] == [
        "tool hang ended 1.50 s after it was left running",
        "something blocked the event loop for 500 ms",
    ]


def test_what_was_left_running_is_shown_as_such(partial):
    timeline = one(partial)
    assert timeline.status == "partial"
    assert timeline.still_running == ("hang",)
    assert inner(timeline, 0)[1][-1] == "left running"
    assert [row.bar.label for row in timeline.rows][2] == "Step 2 · last word"
    assert timeline.limit_s is not None
    assert any("limit reached" in note.text for note in timeline.notes)


def test_a_record_without_an_end_is_unfinished_and_its_open_bars_are_cut_off(answered):
    wait = next(index for index, event in enumerate(answered) if type(event).__name__ == "RetryScheduled")
    timeline = one(answered[: wait + 1])
    assert timeline.status == "unfinished"
    assert timeline.elapsed_s == pytest.approx(1.5)
    assert inner(timeline, 1)[-1] == ("wait", "Retry-After", 1.5, 1.5, "cut off")


def test_every_prefix_of_a_run_has_a_timeline(answered, partial):
    for events in (answered, partial):
        for length in range(1, len(events) + 1):
            timeline = one(events[:length])
            assert timeline.span_s > 0
            assert all(bar.took_s >= 0 for row in timeline.rows for bar in (row.bar, *row.inner))


def test_runs_in_one_record_are_told_apart():
    def began(run_id, question):
        return RunStarted(
            agent="a", question=question, started_at="", timeout_s=1, model="m", protocol="native", run_id=run_id
        )

    events = [began("1", "one"), began("2", "two"), Warned(message="of one", run_id="1")]
    assert [(line.question, len(line.notes)) for line in timelines(events)] == [("one", 1), ("two", 0)]


def test_a_far_deadline_does_not_press_the_bars_together(answered):
    timeline = one(answered)
    timeline.timeout_s = 60.0
    assert not timeline.shows_deadline
    assert timeline.span_s < 5


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.045, "45 ms"),
        (0.9996, "1.00 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (125, "2 m 05 s"),
        (119.6, "2 m 00 s"),
        (3599.4, "59 m 59 s"),
        (3599.6, "1 h 00 m"),
        (100_000, "27 h 46 m"),
    ],
)
def test_times_are_short(value, said):
    assert seconds(value) == said


def test_inputs_are_told_in_one_line_or_in_several():
    assert brief({"query": "SELECT\n  1"}) == "SELECT 1"
    assert brief({"a": 1, "b": "x"}) == '{"a":1,"b":"x"}'
    assert brief({}) == ""
    assert brief("not json") == "not json"
    assert pretty({"a": "x\ny", "b": [1]}) == "a:\nx\ny\nb:\n[\n  1\n]"
    assert pretty({}) == "no arguments"
