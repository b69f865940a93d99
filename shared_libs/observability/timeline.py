"""
A run as a timeline: pure data made from its events, for whoever draws it.

Times are seconds from the start of the run. A run that was killed has no end; its timeline says "unfinished" and shows
what was open as cut off.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from shared_libs.atomic import events
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Usage
from shared_libs.observability.attribution import Attribution, Attributor
from shared_libs.observability.redact import redact_data
from shared_libs.observability.wording import counted, seconds, usage_words

Kind = Literal["step", "model", "wait", "tool", "retrieval", "memory"]
Outcome = Literal["ok", "error", "left running", "cancelled", "cut off"]


class Bar(msgspec.Struct, kw_only=True):
    """
    One thing that took time.

    `split_s` is when the first token came. `details` are headed texts: thought, input, observation, error.
    """

    kind: Kind
    label: str
    start_s: float
    end_s: float
    outcome: Outcome = "ok"
    note: str = ""
    split_s: float | None = None
    details: list[tuple[str, str]] = []

    @property
    def took_s(self) -> float:
        """How long it took, in seconds."""
        return self.end_s - self.start_s

    @property
    def headline(self) -> str:
        """What to say beside it: how it ended, where that was not well, and the note."""
        ended = "" if self.outcome == "ok" or (self.kind, self.outcome) == ("model", "error") else self.outcome
        return " · ".join(filter(None, (ended, self.note)))


class Row(msgspec.Struct):
    """A step with what happened in it, in the order it began; a row without a step number is memory."""

    bar: Bar
    inner: list[Bar] = []


class Note(msgspec.Struct):
    """Something worth a word that took no time."""

    at_s: float
    text: str


class Timeline(msgspec.Struct, kw_only=True):
    """
    One run, ready to draw; `limit_s` is when a limit ended the exploration, `spent` what the time went on.

    `last_s` is when the last of its bars ends: what was left running may end behind the run. `usual_s` is the median of
    so many other runs of the agent, where somebody has looked it up.
    """

    run_id: str
    agent: str = ""
    question: str = ""
    model: str = ""
    protocol: str = ""
    started_at: str = ""
    session_id: str | None = None
    rehearsal: bool = False
    timeout_s: float | None = None
    status: str = "unfinished"
    stop_reason: str = ""
    answer: str | None = None
    error: str | None = None
    elapsed_s: float = 0.0
    usage: Usage = Usage()
    cost_usd: float | None = None
    still_running: tuple[str, ...] = ()
    limit_s: float | None = None
    rows: list[Row] = []
    notes: list[Note] = []
    spent: Attribution = Attribution(0.0, [], "")
    usual_s: float | None = None
    usual_runs: int = 0
    last_s: float = 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds that were left of the run's time at its end."""
        return None if self.timeout_s is None else max(0.0, self.timeout_s - self.elapsed_s)

    @property
    def shows_deadline(self) -> bool:
        """Whether the deadline stands on the axis; far away, it would press the bars together."""
        return self.timeout_s is not None and self.elapsed_s >= 0.4 * self.timeout_s

    @property
    def span_s(self) -> float:
        """The length of the time axis, in seconds; never zero."""
        longest = max(self.elapsed_s, self.last_s, 0.001)
        return max(longest, self.timeout_s or 0.0) * 1.01 if self.shows_deadline else longest * 1.02

    def count(self, kind: Kind) -> int:
        """How many bars of a kind there are."""
        return sum(bar.kind == kind for row in self.rows for bar in (row.bar, *row.inner))


def timelines(record: Iterable[AgentEvent]) -> list[Timeline]:
    """Make the timeline of every run in a record, in the order they began."""
    builders: dict[str, _Builder] = {}
    for event in record:
        if isinstance(event, events.ModelAsked):  # it takes no time, and stands where it was kept
            continue
        builder = builders.get(event.run_id)
        if builder is None:
            builder = builders[event.run_id] = _Builder(event.run_id)
        builder.take(event)
    drawn: list[Timeline] = []
    for builder in reversed(builders.values()):  # a run that a tool call has made, before that call's own
        drawn.append(builder.timeline())
        if (above := builders.get(builder.parent_run_id or "")) is not None:
            above.attributor.know(builder.parent_call_id or "", drawn[-1].spent)
    return drawn[::-1]


class _Builder:
    """Takes the events of one run in their order."""

    def __init__(self, run_id: str) -> None:
        self._line = Timeline(run_id=run_id)
        self._step: Row | None = None
        self._open: dict[object, Bar] = {}
        self._now = 0.0
        self.attributor = Attributor()
        self.parent_run_id: str | None = None
        self.parent_call_id: str | None = None

    def take(self, event: AgentEvent) -> None:
        """Take the next event."""
        self.attributor.take(event)
        self._now = max(self._now, event.at_s)
        match event:
            case events.RunStarted():
                for name in ("agent", "question", "model", "protocol", "started_at", "session_id", "rehearsal"):
                    setattr(self._line, name, getattr(event, name))
                self.parent_run_id, self.parent_call_id = event.parent_run_id, event.parent_call_id
                self._line.timeout_s = event.timeout_s + (event.at_s if event.resumed else 0.0)
            case events.StepStarted(step=step, final=final):
                self._end_step()
                label = f"Step {step}" + (" · last word" if final else "")
                self._step = Row(Bar(kind="step", label=label, start_s=event.at_s, end_s=event.at_s))
                self._line.rows.append(self._step)
            case events.ToolStarted() | events.ToolFinished() | events.Abandoned():
                self._take_tool(event)
            case events.RetrievalStarted() | events.RetrievalFinished():
                self._take_retrieval(event)
            case events.MemoryLoaded() | events.MemoryStored():
                self._take_memory(event)
            case events.RunFinished(result=result):
                self._take_result(result)
            case _:
                self._take_note(event)
                self._take_model(event)

    def timeline(self) -> Timeline:
        """Return what was built; what is still open ends with the last event."""
        self._end_step()
        outcome: Outcome = "cut off" if self._line.status == "unfinished" else "cancelled"
        for bar in self._open.values():
            bar.end_s = self._now
            bar.outcome = bar.outcome if bar.outcome != "ok" else outcome
        self._open.clear()
        if self._line.status == "unfinished":
            self._line.elapsed_s = self._now
        self._line.spent = self.attributor.attribution()
        self._line.last_s = max((bar.end_s for row in self._line.rows for bar in (row.bar, *row.inner)), default=0.0)
        return self._line

    def _take_note(self, event: AgentEvent) -> None:
        match event:
            case events.LimitReached(why=why):
                self._line.limit_s = event.at_s
                self._note(f"limit reached: {why}")
            case events.AbandonedEnded(what=what, name=name, late_s=late_s):
                self._note(f"{what} {name} ended {seconds(late_s)} after it was left running")
            case events.LoopBlocked(blocked_s=blocked_s):
                self._note(f"{event.who} blocked the event loop for {seconds(blocked_s)}")
            case events.Warned(message=message):
                self._note(message)
            case events.MemoryCompacted(messages=messages, summarised=summarised):
                self._note(f"{counted(messages, 'message')} {'summed up' if summarised else 'left out'}")
            case events.ApprovalRequested(tool=tool):
                self._note(f"{tool} waits for a decision")

    def _take_model(self, event: AgentEvent) -> None:
        match event:
            case events.AttemptStarted(provider=provider, model=model, number=number):
                self._end_wait()
                label = model if number == 1 else f"{model} · try {number}"
                self._begin((provider, model, number), "model", label, event.at_s, [("Provider", provider)])
            case events.AttemptFinished():
                self._take_attempt(event)
            case events.LimitWaited(model=model, waited_s=waited_s, limit=limit):
                start_s = max(0.0, event.at_s - waited_s)
                bar = self._begin(None, "wait", "rate limit", start_s, [("Then asks", model)])
                bar.end_s, bar.note = event.at_s, f"our own limit{f' of {limit}' if limit else ''}"
            case events.RetryScheduled(model=model, wait_s=wait_s, why=why):
                self._begin(
                    "wait",
                    "wait",
                    "Retry-After" if event.told else "backoff",
                    event.at_s,
                    [("Planned", seconds(wait_s)), ("Then asks", model), ("Because", why)],
                )
            case events.FellBack(model=model, next_model=next_model, why=why):
                self._end_wait()
                self._note(f"{model} → {next_model}: {why}")
            case events.BreakerChanged(provider=provider, model=model, state=state):
                self._note(f"circuit breaker of {provider}/{model}: {state.replace('_', ' ')}")
            case events.StreamRestarted(reason=reason):
                self._note(f"the stream began again: {reason}")
            case events.Thought(text=text) if self._step is not None:
                self._step.bar.note = " ".join(text.split())
                self._step.bar.details.append(("Thought", text))
            case events.ModelFinished(response=response) if self._step is not None:
                details = self._step.bar.details
                details += [("Reasoning", block.text) for block in response.thinking if block.text]
                if not response.tool_calls and response.text:
                    details.append(("Said", response.text))

    def _take_attempt(self, event: events.AttemptFinished) -> None:
        attempt = event.attempt
        bar = self._open.pop((attempt.provider, attempt.model, attempt.number), None)
        if bar is None:
            bar = self._begin(None, "model", attempt.model, attempt.started_s, [("Provider", attempt.provider)])
        bar.start_s, bar.end_s, bar.split_s = attempt.started_s, attempt.ended_s, attempt.first_token_s
        if attempt.outcome == "cancelled":
            bar.outcome = "cancelled"
        elif attempt.outcome != "ok":
            bar.outcome, bar.note = "error", attempt.outcome.replace("_", " ")
        status = "" if attempt.status_code is None else f"HTTP {attempt.status_code} · "
        if attempt.why:
            bar.details.append(("Error", f"{status}{attempt.why}"))
        if attempt.first_token_s is not None:
            bar.details.append(("First token after", seconds(attempt.first_token_s - attempt.started_s)))
        if attempt.usage is not None:
            bar.details.append(("Tokens", usage_words(attempt.usage)))

    def _take_tool(self, event: events.ToolStarted | events.ToolFinished | events.Abandoned) -> None:
        key = ("tool", event.call_id)
        match event:
            case events.ToolStarted(tool=tool, input=input):
                given = redact_data(input)  # here, while its names still stand beside its values
                bar = self._begin(key, "tool", tool, event.at_s, [("Input", pretty(given))])
                bar.note = brief(given)
            case events.ToolFinished(content=content, is_error=is_error):
                found = self._open.pop(key, None)
                bar = found or self._begin(None, "tool", event.tool, event.at_s - event.elapsed_s, [])
                bar.end_s = event.at_s
                if is_error and bar.outcome == "ok":
                    bar.outcome = "error"
                bar.details.append(("Error" if is_error else "Observation", content))
            case events.Abandoned(what=what, name=name):
                open_bar = self._open.get(key)
                if open_bar is not None:
                    open_bar.outcome = "left running"
                self._note(f"{what} {name} ignored its cancellation and was left running")

    def _take_retrieval(self, event: events.RetrievalStarted | events.RetrievalFinished) -> None:
        label = f"{event.operation} {event.collection}"
        if isinstance(event, events.RetrievalStarted):
            self._begin(("retrieval", event.seq), "retrieval", label, event.at_s, [("Asked", event.query)])
            return
        found = self._open.pop(("retrieval", event.started), None)
        bar = found or self._begin(None, "retrieval", label, event.at_s - event.elapsed_s, [])
        bar.end_s, bar.note = event.at_s, f"{event.found} found"
        for stage in event.stages:
            bar.details.append((stage.name.capitalize(), f"{seconds(stage.elapsed_s)} · {stage.told}"))
        if event.error:
            bar.outcome = "cancelled" if event.error == "cancelled" else "error"
            bar.note = ""
            bar.details.append(("Error", event.error))

    def _take_memory(self, event: events.MemoryLoaded | events.MemoryStored) -> None:
        began_s = max(0.0, event.at_s - event.elapsed_s)
        self._end_step(began_s)
        word = "loaded" if isinstance(event, events.MemoryLoaded) else "stored"
        bar = Bar(
            kind="memory",
            label=f"Memory {word}",
            start_s=began_s,
            end_s=event.at_s,
            note=counted(event.messages, "message"),
            details=[("Session", event.session_id), ("Messages", str(event.messages))],
        )
        self._line.rows.append(Row(bar))

    def _take_result(self, result: AgentResult) -> None:
        line = self._line
        for name in ("status", "stop_reason", "answer", "error", "elapsed_s", "usage", "cost_usd"):
            setattr(line, name, getattr(result, name))
        line.still_running = tuple(left.tool for left in result.still_running)
        self._now = max(self._now, result.elapsed_s)

    def _begin(self, key: object, kind: Kind, label: str, at_s: float, details: list[tuple[str, str]]) -> Bar:
        bar = Bar(kind=kind, label=label, start_s=at_s, end_s=at_s, details=details)
        if self._step is None:
            self._step = Row(Bar(kind="step", label="Model", start_s=at_s, end_s=at_s))
            self._line.rows.append(self._step)
        self._step.inner.append(bar)
        if key is not None:
            self._open[key] = bar
        return bar

    def _end_wait(self) -> None:
        bar = self._open.pop("wait", None)
        if bar is not None:
            bar.end_s = self._now

    def _end_step(self, at_s: float | None = None) -> None:
        if self._step is not None:
            inner = [bar.end_s for bar in self._step.inner]
            self._step.bar.end_s = max([self._now if at_s is None else at_s, *inner])
            self._step = None

    def _note(self, text: str) -> None:
        self._line.notes.append(Note(self._now, text))


def brief(input: dict[str, Any] | str) -> str:
    """Say a tool's input in one line: the value alone where there is only one."""
    if not input:
        return ""
    if isinstance(input, dict):
        value = next(iter(input.values())) if len(input) == 1 else input
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    else:
        text = input
    return " ".join(text.split())


def pretty(input: dict[str, Any] | str) -> str:
    """Write a tool's input as lines: `key: value` for each argument."""
    if isinstance(input, str):
        return input
    lines = []
    for key, value in input.items():
        text = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()
        lines.append(f"{key}: {text}" if "\n" not in text else f"{key}:\n{text}")
    return "\n".join(lines) or "no arguments"
