"""
Logs made from events, by structlog.

What a run is about (thoughts, inputs) is told at level debug only; from info up there are names, times, counts and the
reasons of failures. Secrets are masked at every level.
"""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from collections.abc import Mapping
from typing import Any, TextIO

import structlog

from shared_libs.atomic import events
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import AgentEvent, EventSink
from shared_libs.atomic.results import AgentResult
from shared_libs.observability.printable import printable
from shared_libs.observability.redact import redact_data, redact_start

LEVELS = ("debug", "info", "warning", "error")

LONGEST_WHY = 500
"""How many characters of a failed tool's words are logged."""

SLOW_S = 2.0
"""Seconds from which an answer of a model has its line at level info: else a slow run is a gap in the log."""

_Told = tuple[int, str, dict[str, Any]]


def configure_logging(level: str = "info", *, stream: TextIO | None = None, as_json: bool | None = None) -> None:
    """
    Send the logs of this library to a stream: structlog's and those of the standard library alike.

    Other loggers of the process are left alone.

    Args:
        level: "debug", "info", "warning" or "error".
        stream: where to; by default the process's stderr.
        as_json: one JSON object a line; by default where the stream is no terminal.

    Raises:
        MisuseError: the level is not one of those.

    """
    if level not in LEVELS:
        raise MisuseError(f"log level {level!r}: allowed are {', '.join(LEVELS)}")
    to = sys.stderr if stream is None else stream
    terminal = to.isatty()
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, _masked, structlog.processors.JSONRenderer(_as_line)]
        if (not terminal if as_json is None else as_json)
        else [
            structlog.processors.format_exc_info,
            _masked,
            _printable,
            structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback),
        ]
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(to)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger("shared_libs")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(level.upper())


def log_events() -> EventSink:
    """
    Return an observer that logs what happens in a run under the name `shared_libs.run`.

    It logs through structlog as the process has configured it; `configure_logging` is one way to do that.
    """
    logger = structlog.stdlib.get_logger("shared_libs.run")
    sessions: dict[str, str] = {}

    def log(event: AgentEvent) -> None:
        told = _tell(event)
        if isinstance(event, events.RunStarted) and event.session_id is not None:
            sessions[event.run_id] = event.session_id
        elif isinstance(event, events.RunFinished) and told is not None:
            told[2]["session_id"] = sessions.pop(event.run_id, None)
        if told is not None:
            level, text, facts = told
            if not _is_wanted(logger, level):
                return
            # masked here too: a process with a configuration of its own need not know of our secrets
            given = {key: redact_data(value) for key, value in facts.items() if value is not None}
            logger.log(level, text, run_id=event.run_id, at_s=round(event.at_s, 3), **given)

    return log


def _is_wanted(logger: Any, level: int) -> bool:
    """Whether a level is logged at all; a logger that cannot tell gets everything."""
    bound = logger.bind()
    for name in ("isEnabledFor", "is_enabled_for"):
        try:
            return bool(getattr(bound, name)(level))
        except AttributeError:
            continue
    return True


def _masked(_: Any, __: str, event_dict: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Mask secrets, as a structlog processor."""
    masked: dict[str, Any] = redact_data(event_dict)
    return masked


def _printable(_: Any, __: str, event_dict: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Take out what could steer a terminal; lines that follow the first are set in, so that none looks like another."""
    shown = {key: printable(value) if isinstance(value, str) else value for key, value in event_dict.items()}
    # what may have several lines; a console begins the last two on their own
    for key in ("event", "exception", "stack"):
        if isinstance(lines := shown.get(key), str):
            shown[key] = textwrap.indent(lines, "    ", lambda _: True)[4 * (key == "event") :]
    return shown


def _as_line(event_dict: Mapping[str, Any], **options: Any) -> str:
    """An event as JSON: letters as they are, and as its escape all that is not seen, ends a line, or is no Unicode."""
    text = json.dumps(event_dict, ensure_ascii=False, **options)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _tell(event: AgentEvent) -> _Told | None:
    """Say what of an event is logged: the level, the words and the facts."""
    match event:
        case events.RunStarted():
            facts = {"agent": event.agent, "model": event.model, "timeout_s": event.timeout_s}
            return logging.INFO, "run started", facts | {"session_id": event.session_id, "rehearsal": event.rehearsal}
        case events.RunFinished(result=result):
            return _tell_result(result)
        case events.AttemptStarted(provider=provider, model=model, number=number):
            return logging.DEBUG, "model asked", {"provider": provider, "model": model, "number": number}
        case (
            events.AttemptFinished()
            | events.RetryScheduled()
            | events.LimitWaited()
            | events.FellBack()
            | events.BreakerChanged()
        ):
            return _tell_model(event)
        case events.ToolStarted() | events.ApprovalRequested() | events.ToolFinished():
            return _tell_tool(event)
        case events.Abandoned() | events.AbandonedEnded() | events.LoopBlocked():
            return _tell_stuck(event)
        case events.RetrievalStarted() | events.RetrievalFinished():
            return _tell_retrieval(event)
        case events.LimitReached(stop_reason=stop_reason, why=why):
            return logging.WARNING, "limit reached", {"stop_reason": stop_reason, "why": why}
        case events.Warned(message=message):
            return logging.WARNING, "warned", {"message": message}
        case (
            events.MemoryLoaded(session_id=session_id, messages=messages)
            | events.MemoryStored(session_id=session_id, messages=messages)
        ):
            text = "memory loaded" if isinstance(event, events.MemoryLoaded) else "memory stored"
            return logging.DEBUG, text, {"session_id": session_id, "messages": messages}
        case events.MemoryCompacted(messages=messages, summarised=summarised):
            facts = {"messages": messages, "summarised": summarised, "tokens": event.tokens_after}
            return logging.INFO, "memory compacted", facts
        case events.Thought(step=step, text=text):
            return logging.DEBUG, "thought", {"step": step, "text": text}
    return None


def _tell_stuck(event: events.Abandoned | events.AbandonedEnded | events.LoopBlocked) -> _Told:
    if isinstance(event, events.LoopBlocked):
        facts = {"tool": event.tool or None, "call_id": event.call_id, "stack": event.stack}
        return logging.WARNING, "event loop blocked", facts | {"blocked_s": round(event.blocked_s, 3)}
    facts = {"what": event.what, "name": event.name, "call_id": event.call_id}
    if isinstance(event, events.AbandonedEnded):
        return logging.INFO, "ended late", facts | {"late_s": round(event.late_s, 3)}
    return logging.WARNING, "left running", facts


def _tell_retrieval(event: events.RetrievalStarted | events.RetrievalFinished) -> _Told:
    facts: dict[str, Any] = {"operation": event.operation, "collection": event.collection}
    if isinstance(event, events.RetrievalStarted):
        return logging.DEBUG, "collection asked", facts | {"query": event.query}
    facts |= {"found": event.found, "elapsed_s": round(event.elapsed_s, 3)}
    amiss = event.error or "; ".join(stage.told for stage in event.stages if stage.state in ("late", "failed"))
    if amiss:
        return logging.WARNING, "collection did not answer well", facts | {"why": redact_start(amiss, LONGEST_WHY)}
    return logging.INFO, "collection answered", facts


def _tell_tool(event: events.ToolStarted | events.ApprovalRequested | events.ToolFinished) -> _Told:
    facts = {"step": event.step, "tool": event.tool}
    match event:
        case events.ToolStarted(input=input):
            return logging.DEBUG, "tool started", facts | {"input": input}
        case events.ApprovalRequested(call_id=call_id):
            return logging.INFO, "approval requested", facts | {"call_id": call_id}
    facts |= {"call_id": event.call_id, "elapsed_s": round(event.elapsed_s, 3)}
    if event.is_error:
        return logging.WARNING, "tool failed", facts | {"why": redact_start(event.content, LONGEST_WHY)}
    return logging.INFO, "tool finished", facts


def _tell_model(
    event: events.AttemptFinished
    | events.RetryScheduled
    | events.LimitWaited
    | events.FellBack
    | events.BreakerChanged,
) -> _Told:
    match event:
        case events.AttemptFinished(attempt=attempt):
            facts = {"provider": attempt.provider, "model": attempt.model, "number": attempt.number}
            facts |= {"elapsed_s": round(attempt.ended_s - attempt.started_s, 3)}
            if attempt.outcome == "ok":
                slow = attempt.ended_s - attempt.started_s >= SLOW_S
                if slow and attempt.first_token_s is not None:
                    facts |= {"first_token_s": round(attempt.first_token_s - attempt.started_s, 3)}
                return (logging.INFO if slow else logging.DEBUG), "model answered", facts
            if attempt.outcome == "cancelled":
                return logging.DEBUG, "attempt cancelled", facts
            facts |= {"outcome": attempt.outcome, "status_code": attempt.status_code, "why": attempt.why}
            return logging.WARNING, "attempt failed", facts
        case events.LimitWaited():
            facts = {"model": event.model, "waited_s": round(event.waited_s, 3), "limit": event.limit}
            return logging.INFO, "rate limit", facts
        case events.RetryScheduled():
            return logging.WARNING, "retry", {"model": event.model, "wait_s": round(event.wait_s, 3), "why": event.why}
        case events.FellBack():
            return logging.WARNING, "fallback", {"model": event.model, "next": event.next_model, "why": event.why}
    level = logging.INFO if event.state == "closed" else logging.WARNING
    return level, "breaker changed", {"provider": event.provider, "model": event.model, "state": event.state}


def _tell_result(result: AgentResult) -> _Told:
    level = {"answered": logging.INFO, "paused": logging.INFO, "failed": logging.ERROR}.get(
        result.status, logging.WARNING
    )
    facts = {
        "status": result.status,
        "stop_reason": result.stop_reason,
        "elapsed_s": round(result.elapsed_s, 3),
        "steps": len(result.steps),
        "attempts": len(result.attempts),
        "tokens": result.usage.total_tokens,
        "cost_usd": result.cost_usd,
        "still_running": [left.tool for left in result.still_running] or None,
        "error": result.error,
    }
    return level, "run finished", facts
