"""
What holds of every run, whatever goes wrong in it: checked against what the players of the ports saw.

Nothing here knows what a scenario expects. A promise is looked at from outside: by the loop's clock, by the requests
that reached a model's port, by what the tools returned, by what the memory holds, by the events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from shared_libs.agents.prompts import REPEATED
from shared_libs.agents.run import RESERVE_SHARE, STORE_S
from shared_libs.agents.step import WARN_AT
from shared_libs.atomic.events import (
    MemoryStored,
    RunFinished,
    StepStarted,
    ToolStarted,
    Warned,
)
from shared_libs.atomic.memory.history import valid_history
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.testing.simulation.evidence import LATE_S, Broken, Evidence

CANCEL_S = 0.1
"""How long a run may take to end when its caller cancels it, in seconds."""

_SAME_S = 0.001

_NOTE = REPEATED.partition("{")[0]
"""How the note begins that tells a model that it repeats itself."""

REASONS = {
    "answered": ("final_answer",),
    "partial": ("deadline", "max_steps", "budget", "loop"),
    "failed": ("error",),
    "cancelled": ("cancelled",),
    "paused": ("approval",),
}


def _in_time(evidence: Evidence) -> Iterator[Broken]:
    for run in evidence.runs:
        if run.ended_s is None:
            yield Broken("time-total", f"{run.id} did not come back")
            continue
        took_s = run.ended_s - run.began_s
        late_s = took_s - run.timeout_s - run.held_s
        if late_s > LATE_S:
            yield Broken("time-total", f"{run.id} came back {late_s:.3f} s after its {run.timeout_s:g} s")
        reserve_s = min(evidence.agent.limits.reserve_s, run.timeout_s / 4) + min(0.5, run.timeout_s / 10) + LATE_S
        if run.result and run.result.stop_reason == "deadline" and took_s < run.timeout_s - reserve_s:
            yield Broken("time-total", f"{run.id} gave up after {took_s:g} of {run.timeout_s:g} s")
        if run.cancel_after_s is not None and took_s - run.held_s > run.cancel_after_s + CANCEL_S:
            late_s = took_s - run.cancel_after_s - run.held_s
            yield Broken("cancel", f"{run.id} came back {late_s:.3f} s after its caller had cancelled it")
    for record in evidence.by_run.values():
        if record.seen is None and record.result is not None and record.started is not None:
            late_s = record.result.elapsed_s - record.started.timeout_s
            if late_s > LATE_S + max((run.held_s for run in evidence.runs), default=0.0):
                yield Broken("time-total", f"{record.started.agent} answered its caller {late_s:.3f} s late")
            caller = evidence.by_run.get(record.started.parent_run_id or "")
            began = None if caller is None else caller.started
            if caller is None or began is None or began.resumed:
                continue
            for event in caller.events:
                if isinstance(event, ToolStarted) and event.call_id == record.started.parent_call_id:
                    more_s = event.at_s + record.started.timeout_s - began.timeout_s
                    if more_s > _SAME_S:
                        yield Broken("time-total", f"{record.id} was given {more_s:.3f} s more than its caller has")


def _last_words(evidence: Evidence) -> Iterator[Broken]:
    """When the time to explore is over the model is asked for its last word, at once and without tools."""
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        finals = [event for event in record.events if isinstance(event, StepStarted) and event.final] if record else []
        final = finals[0] if finals else None
        if record is None or final is None or record.result is None or record.result.stop_reason != "deadline":
            continue
        kept_s = GRACE_S + (min(STORE_S, run.timeout_s / 10) if run.session_id is not None else 0.0)
        kept_s += min(evidence.agent.limits.reserve_s, run.timeout_s * RESERVE_SHARE)
        late_s = final.at_s - (run.timeout_s - kept_s)
        if late_s > 2 * GRACE_S + LATE_S + run.held_s:
            yield Broken("time-reserve", f"{run.id} explored {late_s:.3f} s into the time of its last word")
        asked = [request for request in record.asked if request.at_s - run.began_s > final.at_s + _SAME_S]
        if any(request.tools for request in asked):
            yield Broken("time-reserve", f"{run.id} was offered tools for its last word")


def _results(evidence: Evidence) -> Iterator[Broken]:
    for run in evidence.runs:
        if run.error:
            yield Broken("result", f"{run.id} raised {run.error}")
        record = evidence.by_run.get(run.id)
        told = record.result if record is not None else None
        if run.result is None and run.ended_s is not None and not run.error:
            if run.cancel_after_s is None:
                yield Broken("result", f"{run.id} ended in a cancellation that nobody asked for")
            elif told is not None and told.status != "cancelled" and told.elapsed_s > run.cancel_after_s + _SAME_S:
                yield Broken("cancel", f"{run.id} was cancelled, and its events tell that it is {told.status}")
        if run.result is not None and run.result.status == "cancelled":
            yield Broken("cancel", f"{run.id} returned a result to a caller that had cancelled it")
        if run.result is not None and run.result != told:
            yield Broken("events", f"{run.id}: the result in its last event is not the one that it returned")


def _endings(evidence: Evidence) -> Iterator[Broken]:
    for record in evidence.by_run.values():
        result = record.result
        if result is None:
            continue
        if result.stop_reason not in REASONS[result.status]:
            yield Broken("result", f"{record.id} is {result.status}, and the reason is {result.stop_reason}")
        if result.status == "answered" and not result.answer:
            yield Broken("result", f"{record.id} is answered without an answer")
        if result.status == "failed" and not result.error:
            yield Broken("result", f"{record.id} failed, and does not say why")
        for index, step in enumerate(result.steps, 1):
            calls, seen = [act.call_id for act in step.actions], [got.call_id for got in step.observations]
            if calls != seen:
                yield Broken("history-valid", f"{record.id}, step {index}: called {calls}, observed {seen}")


def _events(evidence: Evidence) -> Iterator[Broken]:
    for record in evidence.by_run.values():
        numbers = [event.seq for event in record.events]
        if numbers != list(range(1, len(numbers) + 1)):
            yield Broken("events", f"{record.id}: the numbers of its events have holes: {numbers}")
        times = [event.at_s for event in record.events]
        if times != sorted(times):
            yield Broken("events", f"{record.id}: its events do not stand in the order of their times")
        ends = [index for index, event in enumerate(record.events) if isinstance(event, RunFinished)]
        over = record.seen is None or record.seen.ended_s is not None
        if ends != [len(record.events) - 1] and over:
            yield Broken("events", f"{record.id} of {len(record.events)} events tells its end at {ends}")


def _budget(evidence: Evidence) -> Iterator[Broken]:
    limits = evidence.agent.limits
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        result = record.result if record is not None else None
        if record is None or result is None:
            continue
        turns = sum(isinstance(event, StepStarted) for event in record.events)
        if turns > limits.max_steps + 1 or len(result.steps) > limits.max_steps:
            yield Broken("budget", f"{run.id} took {turns} turns with {limits.max_steps} steps and a last word allowed")
        full = turns >= limits.max_steps if run.id not in evidence.callers else True
        last_word = any(isinstance(event, StepStarted) and event.final for event in record.events)
        if result.stop_reason in ("max_steps", "loop") and not last_word:
            yield Broken("time-reserve", f"{run.id} ended for {result.stop_reason}, and its model had no last word")
        if result.stop_reason == "max_steps" and not full:
            yield Broken("budget", f"{run.id} ended after {turns} turns for its {limits.max_steps} steps")
        # a call with arguments that do not fit is granted, and never reaches its tool
        called = sum(name == run.id for name, _ in evidence.chances.returned)
        if limits.max_tool_calls is not None and called > limits.max_tool_calls:
            yield Broken("budget", f"{run.id} called {called} tools with {limits.max_tool_calls} allowed")


def _loops(evidence: Evidence) -> Iterator[Broken]:
    allowed = evidence.agent.limits.max_repeats
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        result = record.result if record is not None else None
        if record is None or result is None:
            continue
        marks: list[Any] = [
            ([(act.tool, act.input) for act in step.actions], [got.content for got in step.observations])
            if step.actions
            else None
            for step in result.steps
        ]
        for count in range(1, len(marks)):
            if _repeats(marks[:count], allowed):
                yield Broken("loop", f"{run.id} went on after step {count}, which was the {allowed}th of its kind")
                break
        if result.stop_reason == "loop" and not _repeats(marks, allowed):
            yield Broken("loop", f"{run.id} ended for a loop, and there is none of {allowed}")
        warned = any(_NOTE in message.text for request in record.asked for message in request.messages)
        again = any(_repeats(marks[:count], WARN_AT) for count in range(1, len(marks)))  # and a turn came after it
        resumed = record.started is not None and record.started.resumed
        if again and record.heard and not warned and not resumed:
            yield Broken("repeats-told", f"{run.id} repeated itself {WARN_AT} times, and its model was not told")


def _repeats(marks: Sequence[Any], times: int) -> bool:
    """Whether the end of it is one, two or three steps, so many times over."""
    for length in (1, 2, 3):
        end = marks[-length * times :]
        whole = len(end) == length * times and None not in end
        if whole and all(end[index] == end[index % length] for index in range(len(end))):
            return True
    return False


def _left_behind(evidence: Evidence) -> Iterator[Broken]:
    if evidence.left:
        yield Broken("left-behind", f"still there when all was closed: {', '.join(evidence.left)}")
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        result = record.result if record is not None else None
        if result is None or run.ended_s is None:
            continue
        ended_s = run.began_s + result.elapsed_s
        names = Counter(left.tool for left in result.still_running)
        for name, count in Counter(
            stubborn.name
            for stubborn in evidence.chances.stubborns
            if stubborn.run_id == run.id and stubborn.began_s < ended_s < stubborn.ended_s - _SAME_S
        ).items():
            if names[name] < count:
                yield Broken("time-orphans", f"{count} of {name} ran on after {run.id}; it names {names[name]}")


def _memory(evidence: Evidence) -> Iterator[Broken]:
    for session, messages in evidence.kept.items():
        if valid_history(messages) != list(messages):
            yield Broken("history-valid", f"session {session} holds calls without results, or results without calls")
    for run in evidence.runs:
        record = evidence.by_run.get(run.id)
        if record is None or run.session_id is None or run.session_id not in evidence.kept or run.result is None:
            continue
        stored = any(isinstance(event, MemoryStored) for event in record.events)
        warned = any(isinstance(event, Warned) for event in record.events)
        answer, status = run.result.answer, run.result.status
        wanted = [("user", run.question)] + [("assistant", answer)] * (status != "failed" and bool(answer))
        there = [(message.role, message.text) for message in evidence.kept[run.session_id]]
        if stored and not set(wanted) <= set(there):
            yield Broken("kept", f"{run.id} told that it was stored in session {run.session_id}, and is not there")
        # what the edge of the run cut off had no time for it
        ended = run.result.elapsed_s < run.timeout_s - GRACE_S and bool(run.result.attempts)
        if (status == "answered" or ended) and not stored and not warned:
            yield Broken("kept", f"{run.id} was not stored in session {run.session_id}, and nobody was told")


CHECKS = (_in_time, _last_words, _results, _endings, _events, _budget, _loops, _left_behind, _memory)
