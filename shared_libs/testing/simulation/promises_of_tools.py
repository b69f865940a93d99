"""What holds of every call of a tool: what it observes, how long it may take, and which calls are made at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from shared_libs.atomic.events import ToolFinished, ToolStarted
from shared_libs.atomic.supervise import GRACE_S
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.testing.simulation.evidence import LATE_S, Broken, Evidence

_CLOSE_S = 1e-6


def _observations(evidence: Evidence) -> Iterator[Broken]:
    """What a call observed is what its tool returned to it; what was cut says so, and a failure is told as one."""
    for record in evidence.by_run.values():
        result = record.result
        if result is None or record.seen is None or (record.started is not None and record.started.resumed):
            continue  # of a run that paused, a person may have given a result
        for step in result.steps:
            for action, seen in zip(step.actions, step.observations, strict=False):
                call = record.id, action.call_id
                raised = None if call in evidence.chances.returned else evidence.chances.raised.get(call, "no result")
                if raised is not None and not seen.is_error and action.tool not in evidence.chances.real:
                    yield Broken("tool-error", f"{record.id}: {action.call_id} is told as a success: {raised[:80]!r}")
                returned = evidence.chances.returned.get(call)
                if seen.is_error or not isinstance(returned, str) or seen.content == returned:
                    continue
                kept, noted, _ = seen.content.rpartition("\n[cut: ")
                if not returned.startswith(kept or seen.content):
                    said, got = returned[:80], seen.content[:80]
                    yield Broken("no-cross", f"{record.id}: {action.call_id} observed {got!r}, its tool said {said!r}")
                elif not noted:
                    yield Broken("observation-cut", f"{record.id}: {action.tool} was cut without a word of it")


def _times(evidence: Evidence) -> Iterator[Broken]:
    """A call ends at the limit of its tool, and the time that is told of it is the time that it took."""
    limits = {tool.name: tool.timeout_s for tool in evidence.agent.tools if isinstance(tool, BaseTool)}
    for run in evidence.runs:
        began: dict[str, float] = {}
        told: dict[str, float] = {}
        for event in evidence.by_run[run.id].events if run.id in evidence.by_run else ():
            if isinstance(event, ToolStarted):
                began[event.call_id] = event.at_s
            elif isinstance(event, ToolFinished):
                took_s = event.at_s - began.get(event.call_id, event.at_s)
                told[event.call_id] = event.elapsed_s
                if took_s > limits.get(event.tool, took_s) + GRACE_S + LATE_S + run.held_s:
                    how = f"{run.id}: {event.call_id} of {event.tool} had {took_s:g} of {limits[event.tool]:g} s"
                    yield Broken("tool-limit", how)
                if abs(event.elapsed_s - took_s) > _CLOSE_S + run.held_s:
                    how = f"{run.id}: {event.call_id} is told to have taken {event.elapsed_s:g} s, and took {took_s:g}"
                    yield Broken("tool-time", how)
        seen = [row for step in run.result.steps for row in step.observations] if run.result is not None else []
        for row in seen:
            if abs(row.elapsed_s - told.get(row.call_id, row.elapsed_s)) > _CLOSE_S:
                yield Broken("tool-time", f"{run.id}: {row.call_id} has another time in the result than in its event")


def _at_once(evidence: Evidence) -> Iterator[Broken]:
    """The calls of a turn are made at once; those of a tool that says so one after the other."""
    alone = {tool.name for tool in evidence.agent.tools if tool.sequential}
    known = {tool.name for tool in evidence.agent.tools if isinstance(tool, BaseTool)}
    for run in evidence.runs:
        first: dict[int, float] = {}
        open_calls: set[str] = set()
        for event in evidence.by_run[run.id].events if run.id in evidence.by_run else ():
            if isinstance(event, ToolStarted):
                began_s = first.setdefault(event.step, event.at_s)
                if event.tool in known - alone and event.at_s > began_s + LATE_S + run.held_s:
                    how = f"{run.id}: {event.call_id} of {event.tool} began {event.at_s - began_s:g} s after the others"
                    yield Broken("at-once", how)
                if event.tool in alone and open_calls:
                    yield Broken("at-once", f"{run.id}: {event.call_id} of {event.tool} began beside {open_calls}")
                open_calls |= {event.call_id} if event.tool in alone else set()
            elif isinstance(event, ToolFinished):
                open_calls.discard(event.call_id)


def _spent_below(evidence: Evidence) -> Iterator[Broken]:
    """What an agent has spent that was called, and has answered, its caller has spent."""
    answered = {
        (record.id, event.call_id)
        for record in evidence.by_run.values()
        for event in record.events
        if isinstance(event, ToolFinished) and not event.is_error
    }
    below: Counter[str] = Counter()
    for record in evidence.by_run.values():
        began, result = record.started, record.result
        if began is not None and result is not None and (began.parent_run_id, began.parent_call_id) in answered:
            below[began.parent_run_id or ""] += result.usage.total_tokens
    for name, tokens in below.items():
        result = evidence.by_run[name].result
        if result is not None and result.usage.total_tokens < tokens:
            how = f"{name} tells {result.usage.total_tokens} tokens, and the agents that it called {tokens}"
            yield Broken("spent", how)


CHECKS = (_observations, _times, _at_once, _spent_below)
