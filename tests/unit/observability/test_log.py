"""Logs from events: levels, no content below debug, no secrets, JSON unless a terminal reads."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import (
    AbandonedEnded,
    AttemptFinished,
    LimitWaited,
    LoopBlocked,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Warned,
)
from shared_libs.atomic.types import Attempt
from shared_libs.observability import configure_logging, log_events


@pytest.fixture
def logged():
    """Configure logging to a text, and give the lines; the process's logging is put back."""
    logger = logging.getLogger("shared_libs")
    before = logger.handlers, logger.propagate, logger.level
    stream = io.StringIO()

    def start(level="info", **options):
        configure_logging(level, stream=stream, **options)

        def lines():
            return [json.loads(line) for line in stream.getvalue().splitlines()]

        return lines if options.get("as_json", True) else stream.getvalue

    yield start
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])
    structlog.reset_defaults()


def test_a_run_is_told_by_level(logged, answered):
    lines = logged("info")
    log = log_events()
    for event in answered:
        log(event)
    told = [(line["level"], line["event"]) for line in lines()]
    assert told == [
        ("info", "run started"),
        ("info", "tool finished"),
        ("info", "tool finished"),
        ("warning", "attempt failed"),
        ("warning", "retry"),
        ("warning", "tool failed"),
        ("info", "run finished"),
    ]
    assert all(line["run_id"] == "run-1" and line["logger"] == "shared_libs.run" for line in lines())
    failed = lines()[3]
    assert (failed["outcome"], failed["status_code"], failed["why"]) == ("rate_limited", 429, "slow down")


@pytest.mark.promise("why-slow")
def test_a_slow_answer_has_its_line_and_the_end_of_a_run_its_session_and_cost(logged, answered):
    lines = logged("info")
    log = log_events()
    for event in answered:
        log(event)
    quick = Attempt(provider="p", model="m", number=1, outcome="ok", started_s=1, ended_s=2)
    log(AttemptFinished(run_id="run-1", attempt=quick))
    slow = Attempt(provider="p", model="m", number=2, outcome="ok", started_s=2, first_token_s=8, ended_s=9)
    log(AttemptFinished(run_id="run-1", attempt=slow))
    log(LimitWaited(run_id="run-1", provider="p", model="m", waited_s=3.21, limit="9 requests at once"))
    first, *_, end, answer, limit = lines()
    assert (first["session_id"], end["session_id"]) == ("s", "s")
    assert end["cost_usd"] > 0
    assert (answer["event"], answer["model"], answer["elapsed_s"], answer["first_token_s"]) == (
        "model answered",
        "m",
        7,
        6,
    )
    assert (limit["event"], limit["waited_s"], limit["limit"]) == ("rate limit", 3.21, "9 requests at once")


def test_a_partial_run_is_a_warning_and_names_what_was_left(logged, partial):
    lines = logged("warning")
    log = log_events()
    for event in partial:
        log(event)
    assert [line["event"] for line in lines()] == ["left running", "tool failed", "limit reached", "run finished"]
    assert lines()[-1]["still_running"] == ["hang"]


@pytest.mark.promise("work-bounded")
def test_what_is_not_logged_costs_no_work_and_of_a_failure_only_its_start_is_read(logged):
    logged("warning")
    asked = []

    class Input(dict):
        def items(self):
            asked.append(self)
            return super().items()

    log = log_events()
    log(ToolStarted(step=1, tool="t", input=Input(a="b"), call_id="c"))
    assert asked == []
    lines = logged("warning")
    log(
        ToolFinished(
            step=1, tool="t", call_id="c", content=f"{'x' * 490} sk-abcDEF1234567890", is_error=True, elapsed_s=0
        )
    )
    assert lines()[-1]["why"] == f"{'x' * 490} [redacted"


@pytest.mark.parametrize(("level", "told"), [("debug", ["here"]), ("error", [])])
def test_a_logger_of_another_configuration_decides_by_its_own_level(level, told):
    seen = []
    structlog.configure(
        processors=[lambda _, __, given: seen.append(given) or "x"],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    try:
        log_events()(Warned(message="here"))
    finally:
        structlog.reset_defaults()
    assert [line["message"] for line in seen] == told


def test_a_late_end_and_a_blocked_loop_are_told(logged):
    lines = logged("info")
    log = log_events()
    log(AbandonedEnded(what="tool", name="hang", call_id="c", late_s=1.23456))
    log(LoopBlocked(tool="spin", call_id="c", blocked_s=0.5, stack="it stands here"))
    ended, blocked = lines()
    assert (ended["level"], ended["event"], ended["name"], ended["late_s"]) == ("info", "ended late", "hang", 1.235)
    assert (blocked["level"], blocked["event"]) == ("warning", "event loop blocked")
    assert (blocked["tool"], blocked["stack"]) == ("spin", "it stands here")


def test_content_is_told_at_debug_only_and_pieces_of_text_never(logged, answered):
    lines = logged("info")
    log = log_events()
    for event in answered:
        log(event)
    text = json.dumps(lines())
    assert "I look twice" not in text
    assert "Where is it" not in text
    lines = logged("debug")
    for event in answered:
        log(event)
    log(TextDelta(text="piece by piece"))
    text = json.dumps(lines())
    assert "I look twice" in text
    assert "piece by piece" not in text


def test_secrets_are_masked_for_events_other_loggers_and_tracebacks(logged):
    lines = logged("debug")
    log = log_events()
    log(Warned(message="key sk-abcdefghijklmnop"))
    log(ToolStarted(step=1, tool="t", input={"api_key": "hunter2"}, call_id="c"))
    log(ToolFinished(step=1, tool="t", call_id="c", content="password=hunter2", is_error=True, elapsed_s=0.1))
    logging.getLogger("shared_libs.somewhere").warning("at %s", "postgres://u:hunter2@h")
    structlog.get_logger("shared_libs.app").warning("mine", token="hunter2")
    try:
        raise ValueError("Bearer hunter2hunter2")
    except ValueError:
        logging.getLogger("shared_libs.somewhere").exception("it failed")
    text = json.dumps(lines())
    assert "hunter2" not in text
    assert "sk-abc" not in text
    assert [line["event"] for line in lines()][3:] == ["at postgres://u:[redacted]@h", "mine", "it failed"]
    assert "ValueError" in lines()[-1]["exception"]


def test_masked_even_where_the_process_has_configured_structlog_itself(logged):
    seen = []

    def keep(_, __, event_dict):
        seen.append(dict(event_dict))
        raise structlog.DropEvent

    structlog.configure(processors=[keep], wrapper_class=structlog.stdlib.BoundLogger)
    log_events()(Warned(message="key sk-abcdefghijklmnop"))
    assert seen[0]["message"] == "key [redacted]"


def test_a_terminal_gets_words_for_people(logged):
    text = logged("info", as_json=False)
    log_events()(Warned(message="mind the gap"))
    assert "mind the gap" in text()
    assert "warning" in text()
    assert "\x1b" not in text()


def test_configuring_again_replaces_and_other_loggers_stay_alone(logged):
    lines = logged("info")
    logged("info")
    log_events()(Warned(message="once"))
    assert len(lines()) == 1
    assert not logging.getLogger().handlers or logging.getLogger("shared_libs").propagate is False


def test_a_wrong_level_is_refused():
    with pytest.raises(MisuseError, match="allowed are debug, info, warning, error"):
        configure_logging("loud")
