"""What happens in a run, as plain lines: for pipes and files, and the words the live view uses too."""

from __future__ import annotations

import json
from typing import Any, TextIO

from shared_libs.atomic import events as e
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.results import AgentResult
from shared_libs.observability.printable import presentable
from shared_libs.observability.redact import redact_data
from shared_libs.observability.wording import cost_words, usage_words

SHOWN = 300
"""Characters of an observation that are shown."""

REHEARSAL = "REHEARSAL: recorded decisions on live data, no model is asked; set OPENAI_API_KEY to ask one"


class Viewer:
    """An event sink that shows a run, and can be closed."""

    def __call__(self, event: AgentEvent) -> None:
        """Show an event."""
        raise NotImplementedError

    def conclude(self, result: AgentResult) -> None:
        """Show what a run took, below its answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainView(Viewer):
    """One line for everything worth telling; no control codes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: AgentEvent) -> None:
        """Print an event's lines."""
        for kind, text in told(event):
            print(f"{event.at_s:7.2f} s  {kind:<12} {text}", file=self._stream, flush=True)

    def conclude(self, result: AgentResult) -> None:
        """Print it."""
        print(figures(result), file=self._stream, flush=True)


def told(event: AgentEvent) -> list[tuple[str, str]]:  # noqa: PLR0912 - one case per event
    """What is told of an event: lines of a kind and a text; none for what only a trace needs."""
    match event:
        case e.RunStarted(rehearsal=True):
            return [("rehearsal", REHEARSAL)]
        case e.Thought(text=text):
            return [("thought", one_line(text))]
        case e.ToolStarted(tool=tool, input=given):
            return [("action", f"{tool} {_compact(given)}")]
        case e.ApprovalRequested(tool=tool, input=given):
            return [("approval", f"{tool} {_compact(given)} waits for a decision")]
        case e.ToolFinished(tool=tool, content=content, is_error=wrong, elapsed_s=seconds):
            return [("error" if wrong else "observation", f"{one_line(content)}  ({tool}, {seconds:.2f} s)")]
        case e.RetryScheduled(provider=provider, model=model, wait_s=wait_s, why=why):
            return [("retry", f"{provider}/{model} again in {wait_s:.1f} s: {one_line(why)}")]
        case e.LimitWaited(provider=provider, model=model, waited_s=waited_s, limit=limit):
            room = f"our own limit{f' of {limit}' if limit else ''}"
            return [("limit", f"{provider}/{model} waited {waited_s:.1f} s for room in {room}")]
        case e.FellBack(next_provider=provider, next_model=model, why=why):
            return [("fallback", f"to {provider}/{model}: {one_line(why)}")]
        case e.BreakerChanged(provider=provider, model=model, state=state):
            return [("breaker", f"{provider}/{model} is {state}")]
        case e.StreamRestarted(reason=reason):
            return [("restarted", f"what came before is void: {one_line(reason)}")]
        case e.LimitReached(why=why):
            return [("limit", f"{why}; the model is asked for its last word")]
        case e.Abandoned(name=name):
            return [("left behind", f"{name} ignored its cancellation and still runs")]
        case e.LoopBlocked(blocked_s=blocked_s):
            return [("warning", f"{event.who} blocked the event loop for {blocked_s:.2f} s")]
        case e.Warned(message=message):
            return [("warning", one_line(message))]
    return []


def figures(result: AgentResult) -> str:
    """Say what a run took in a line: time, requests, tool calls, tokens, cost."""
    requests, calls = len(result.attempts), sum(len(step.actions) for step in result.steps)
    said = [f"{result.elapsed_s:7.2f} s  {result.status}", f"{requests} model request{'s' * (requests != 1)}"]
    said += [f"{calls} tool call{'s' * (calls != 1)}"] if calls else []
    if result.usage.total_tokens:
        said += [f"{result.usage.total_tokens:,} tokens ({usage_words(result.usage)})"]
        said += [f"cost {cost_words(result.cost_usd)}"]
    return " · ".join(said)


def one_line(text: str) -> str:
    """A text on one line, cut."""
    line = " ".join(presentable(text).split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _compact(given: dict[str, Any] | str) -> str:
    given = redact_data(given)  # while the names still stand beside the values
    if isinstance(given, str):
        return one_line(given)
    if len(given) == 1 and isinstance(next(iter(given.values())), str):
        return one_line(next(iter(given.values())))
    return one_line(json.dumps(given, ensure_ascii=False)) if given else ""
