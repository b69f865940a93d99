"""
Spans and metrics for OpenTelemetry, made from a run's events by the GenAI semantic conventions.

A run is `invoke_agent NAME`; below it stand its steps, and in them each request to a model (`chat MODEL`, kind CLIENT)
and each tool call (`execute_tool NAME`). While one of them goes on its span is the current one, so what a tool or an
HTTP client starts is its child, and what our adapters, the http tool and MCP send carries its `traceparent`. Names are
those of the conventions (opentelemetry-semantic-conventions 0.66b2, `gen_ai.*`, `error.type`); what they have no name
for is `factory.*`.

The current span is changed by setting the context that was there before, never by a token: a stream that its reader
leaves, or a call that ends in another task, leaves no open span and no "failed to detach context".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from shared_libs.atomic import events
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.loading import importing
from shared_libs.atomic.propagation import carry_traces_by
from shared_libs.atomic.types import Attempt
from shared_libs.observability.otel_context import continued_from
from shared_libs.observability.otel_facts import (
    Fact,
    a_retrieval,
    a_tool,
    an_answer,
    an_attempt,
    an_end,
    put_together,
)
from shared_libs.observability.otel_requests import Requests
from shared_libs.observability.otel_words import (
    LONGEST_NAME,
    NOTED,
    SCOPE,
    as_json,
    as_messages,
    named,
    shown,
    turn,
    usage_told,
    without_none,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

CONTENTS = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable by which instrumentations of the field are told to record what was said."""

_RUN = "factory-run"
"""The key by which a context tells which run it belongs to."""

MAX_RUNS = 10_000
"""How many runs under way are known at once; the oldest is closed as it is."""


@dataclass(slots=True)
class _Open:
    """A span under way, the context that was current before it, and the one in which it is the current span."""

    span: Span
    before: Context
    inside: Context
    facts: list[Fact]
    """What is told of it: by a span of ours when somebody reads it, of any other at its end, all at once."""
    operation: str = ""
    seq: int = 0
    attempt: Attempt | None = None
    """What became of a request whose answer has not been told yet."""


@dataclass(slots=True)
class _Run:
    began_ns: int
    agent: str | None
    """None: it is no run, but calls outside any."""
    run: _Open
    within: Context
    provider: str = ""
    step: _Open | None = None
    attempts: dict[tuple[str, str, int], list[_Open]] = field(default_factory=dict)
    answered: _Open | None = None
    tools: dict[str, _Open] = field(default_factory=dict)
    retrievals: dict[int, _Open] = field(default_factory=dict)
    requests: Requests = field(default_factory=Requests)

    def at(self, seconds: float) -> int:
        return self.began_ns + int(seconds * 1e9)


class OpenTelemetry:
    """
    An observer of agents that makes spans and metrics of their runs.

    Without a provider that records it costs a look-up for each event. Give one to all agents of a process.

    Args:
        tracer_provider: by default the one of the process.
        meter_provider: by default the one of the process.
        contents: record questions, answers, arguments and observations too, with secrets masked; by default as the
            variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says.

    Raises:
        MisuseError: the extra otel is not installed.

    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        contents: bool | None = None,
    ) -> None:
        with importing("opentelemetry", "OpenTelemetry"):
            from opentelemetry import context, metrics, trace

            from shared_libs.observability.otel_points import Points
            from shared_libs.observability.otel_spans import Spans, carry
        carry_traces_by(carry, continued_from)
        self._trace, self._context = trace, context
        self._inside, self._outside = trace.SpanKind.INTERNAL, trace.SpanKind.CLIENT
        self._meters = metrics.get_meter_provider if meter_provider is None else lambda: meter_provider
        self._spans = Spans(tracer_provider)
        self._points = Points(metrics.get_meter(SCOPE, meter_provider=meter_provider))
        said = os.environ.get(CONTENTS, "").lower()
        self._contents = said not in {"", "false", "0", "no_content"} if contents is None else contents
        self.wants_requests: bool | Literal["options"] = self._contents or "options"
        """What models are asked is told by the spans of the requests."""
        self._runs: dict[str, _Run] = {}
        self._tells: dict[type[AgentEvent], Callable[[_Run, Any], None]] = dict.fromkeys(NOTED, self._note) | {
            events.StepStarted: self._step_started,
            events.AttemptStarted: self._attempt_started,
            events.ModelAsked: self._model_asked,
            events.AttemptFinished: self._attempt_finished,
            events.ModelFinished: self._model_finished,
            events.ToolStarted: self._tool_started,
            events.ToolFinished: self._tool_finished,
            events.RetrievalStarted: self._retrieval_started,
            events.RetrievalFinished: self._retrieval_finished,
            events.MemoryLoaded: self._memory,
            events.MemoryStored: self._memory,
            events.MemoryCompacted: self._memory,
            events.RunFinished: self._run_finished,
        }

    @property
    def listens(self) -> bool:
        """Whether there is a provider for spans or figures: a run that begins without one does not tell its events."""
        return _records(self._spans.provider) or _records(self._meters())

    @contextmanager
    def outside(self, call_id: str) -> Iterator[None]:
        """Take what is told inside under this id for calls that belong to no run: see `observed`."""
        if not self.listens:
            yield
            return
        self._spans.look()
        before = self._context.get_current()
        around = _Open(self._trace.get_current_span(), before, before, [])
        run = self._runs[call_id] = _Run(time.time_ns(), None, around, before, SCOPE)
        try:
            yield
        finally:
            self._runs.pop(call_id, None)
            self._end_parts(run, time.time_ns())

    def __call__(self, event: AgentEvent) -> None:
        """Take an event of a run, in the context in which it happens."""
        tell = self._tells.get(type(event))
        if tell is not None and (run := self._runs.get(event.run_id)) is not None:
            tell(run, event)
        elif type(event) is events.RunStarted:
            self._run_started(event)

    def _note(self, run: _Run, event: AgentEvent) -> None:
        told = {f"factory.{name}": shown(getattr(event, name)) for name in NOTED[type(event)]}
        name = f"factory.{type(event).__struct_config__.tag}"
        run.run.span.add_event(name, told, run.at(event.at_s))

    def _run_started(self, event: events.RunStarted) -> None:
        agent = named(event.agent)
        attributes = without_none(
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": agent,
                "gen_ai.request.model": named(event.model),
                "gen_ai.conversation.id": None if event.session_id is None else named(event.session_id),
                "factory.run_id": named(event.run_id),
                "factory.timeout_s": event.timeout_s,
                "factory.rehearsal": event.rehearsal or None,
                "factory.resumed": event.resumed or None,
            }
        )
        began_ns = time.time_ns() - int(event.at_s * 1e9)
        before = self._context.get_current()
        name = f"invoke_agent {agent}"
        span = self._spans.first(name, before, attributes, began_ns + int(event.at_s * 1e9))
        # one that was not sampled is followed too, so that what others start in it is not sampled either
        if not span.get_span_context().is_valid and not _records(self._meters()):
            return  # nobody listens: the run costs a look-up an event
        within = self._context.set_value(_RUN, event.run_id, self._trace.set_span_in_context(span, before))
        run = _Run(began_ns, agent, _Open(span, before, within, []), within)
        if self._contents and span.is_recording():
            span.set_attribute("gen_ai.input.messages", as_messages("user", event.question))
        if len(self._runs) >= MAX_RUNS:
            self._close(self._runs.pop(next(iter(self._runs))), None)
        self._runs[event.run_id] = run
        self._context.attach(within)

    def _open(
        self, run: _Run, name: str, at_s: float, fact: Fact, operation: str = "", *, below: Context | None = None
    ) -> _Open:
        """Start a span below a context, by default the current one, and make it the current span."""
        kind = self._outside if operation in _CLIENTS else self._inside
        before = self._context.get_current() if below is None else below
        step = run.step
        parent = step.span if step is not None and before is step.inside else self._trace.get_current_span(before)
        span = self._spans.start(name, before, parent, kind, fact, run.at(at_s))
        inside = self._trace.set_span_in_context(span, before)
        self._context.attach(inside)
        facts = getattr(span, "facts", None)
        return _Open(span, before, inside, [] if facts is None else facts, operation)

    def _end(self, opened: _Open, at_ns: int, error: str = "", why: str = "") -> None:
        if error == "cancelled":  # a hedge that lost, a run that ended: nobody's fault
            opened.facts.append({"factory.outcome": error})
        elif error:
            opened.facts.append({"error.type": error})
            opened.span.set_status(self._trace.StatusCode.ERROR, shown(why) or None)
        if opened.facts and opened.facts is not getattr(opened.span, "facts", None):
            opened.span.set_attributes(put_together(opened.facts))
        opened.span.end(at_ns)
        self._leave(opened)

    def _leave(self, opened: _Open) -> None:
        """Where a span is the current one, the one before it is again."""
        # two looks: the first one is cheap, the second sees through what others have put into the context
        if self._context.get_current() is opened.inside or self._trace.get_current_span() is opened.span:
            self._context.attach(opened.before)

    def _step_started(self, run: _Run, event: events.StepStarted) -> None:
        self._settle(run)
        if run.step is not None:
            self._end(run.step, run.at(event.at_s))
        fact = {"factory.step": event.step} | ({"factory.final": True} if event.final else {})
        run.step = self._open(run, f"step {event.step}", event.at_s, fact, below=run.within)

    def _attempt_started(self, run: _Run, event: events.AttemptStarted) -> None:
        operation = named(event.operation)
        if not run.provider:
            run.provider = named(event.provider)
            run.run.span.set_attribute("gen_ai.provider.name", run.provider)
        fact = partial(an_attempt, run.agent, event)
        opened = self._open(run, f"{operation} {named(event.model)}", event.at_s, fact, operation)
        opened.seq = event.seq
        run.attempts.setdefault((event.provider, event.model, event.number), []).append(opened)

    def _model_asked(self, run: _Run, event: events.ModelAsked) -> None:
        fact = run.requests.told(event, contents=self._contents)
        for waiting in run.attempts.values():
            for opened in waiting:
                if opened.seq == event.seq:
                    opened.facts.append(fact)

    def _attempt_finished(self, run: _Run, event: events.AttemptFinished) -> None:
        attempt = event.attempt
        waiting = run.attempts.get((attempt.provider, attempt.model, attempt.number))
        if not waiting:
            return
        opened = waiting[0]
        if len(waiting) > 1:  # alike (two hedges of one model, parts of a batch): each ends where it is current
            current = self._trace.get_current_span()
            opened = next((one for one in waiting if one.span is current), opened)
        waiting.remove(opened)
        failed = "" if attempt.outcome == "ok" else named(attempt.outcome)
        self._points.later(self._points.attempt, opened.operation, attempt, failed, opened.inside)
        opened.facts.append(partial(an_end, attempt))
        if failed or opened.operation != "chat":
            self._end(opened, run.at(attempt.ended_s), failed, attempt.why)
            return
        self._settle(run)
        opened.attempt, run.answered = attempt, opened
        self._leave(opened)

    def _settle(self, run: _Run) -> None:
        """End the request that was answered and of whose answer nothing more is told."""
        if run.answered is not None and run.answered.attempt is not None:
            self._end(run.answered, run.at(run.answered.attempt.ended_s))
        run.answered = None

    def _model_finished(self, run: _Run, event: events.ModelFinished) -> None:
        response = event.response
        if run.answered is None:
            return  # what a journal knew was asked by another process
        answered, attempt = run.answered, run.answered.attempt
        # not the response itself: what was said is not kept until somebody exports it
        said = response.usage, response.finish_reason, response.model, response.cost_usd
        answered.facts.append(partial(an_answer, *said))
        if self._contents and answered.span.is_recording():
            answered.facts.append({"gen_ai.output.messages": turn(response)})
        provider = response.provider or (attempt.provider if attempt else SCOPE)
        asked = provider, response.requested_model, response.model, response.usage
        self._points.later(self._points.tokens, *asked, answered.inside)
        self._settle(run)

    def _tool_started(self, run: _Run, event: events.ToolStarted) -> None:
        name = named(event.tool, LONGEST_NAME)
        fact = partial(a_tool, run.agent, name, event.call_id)
        opened = self._open(run, f"execute_tool {name}", event.at_s, fact)
        self._tell_contents(opened, "gen_ai.tool.call.arguments", event.input)
        run.tools[event.call_id] = opened

    def _tool_finished(self, run: _Run, event: events.ToolFinished) -> None:
        opened = run.tools.pop(event.call_id, None)
        if opened is None:
            return
        self._tell_contents(opened, "gen_ai.tool.call.result", event.content)
        self._end(opened, run.at(event.at_s), "tool_error" if event.is_error else "")
        self._points.later(self._points.tool, run.provider, event.elapsed_s, event.is_error, opened.inside)

    def _retrieval_started(self, run: _Run, event: events.RetrievalStarted) -> None:
        collection = named(event.collection)
        fact = partial(a_retrieval, run.agent, event.collection, event.k, event.operation)
        opened = self._open(run, f"retrieval {collection}", event.at_s, fact, "retrieval")
        self._tell_contents(opened, "gen_ai.retrieval.query.text", event.query)
        run.retrievals[event.seq] = opened

    def _retrieval_finished(self, run: _Run, event: events.RetrievalFinished) -> None:
        opened = run.retrievals.pop(event.started, None)
        if opened is None:
            return
        began_s = event.at_s - event.elapsed_s
        for stage in event.stages:
            if stage.name in _STORES and stage.state != "skipped":
                told = {"factory.retrieval.stage": stage.name, "factory.retrieval.state": stage.state}
                from_s = began_s + stage.began_s
                name = f"search {stage.name}"
                step = self._spans.start(name, opened.inside, opened.span, self._inside, told, run.at(from_s))
                if stage.state != "ok":
                    step.set_status(self._trace.StatusCode.ERROR, shown(stage.reason) or None)
                step.end(run.at(from_s + stage.elapsed_s))
        opened.facts.append({"factory.retrieval.found": event.found})
        if amiss := tuple(shown(stage.told) for stage in event.stages if stage.state != "ok"):
            opened.facts.append({"factory.retrieval.incomplete": amiss})
        if event.scores:
            documents = [{"id": name, "score": score} for name, score in event.scores.items()]
            self._tell_contents(opened, "gen_ai.retrieval.documents", documents)
        failed = "cancelled" if event.error == "cancelled" else "retrieval_error" if event.error else ""
        self._end(opened, run.at(event.at_s), failed, event.error)
        about = {"gen_ai.operation.name": "retrieval", "gen_ai.provider.name": SCOPE}
        about |= {"error.type": failed} if failed else {}
        self._points.later(self._points.lasted, event.elapsed_s, about, opened.inside)

    def _memory(self, run: _Run, event: events.MemoryLoaded | events.MemoryStored | events.MemoryCompacted) -> None:
        name = _MEMORY[type(event)]
        told: dict[str, Any] = {"factory.memory.operation": name, "factory.memory.messages": event.messages}
        began_ns = run.at(event.at_s - event.elapsed_s)
        span = self._spans.start(f"memory {name}", run.within, run.run.span, self._inside, told, began_ns)
        span.end(run.at(event.at_s))

    def _run_finished(self, run: _Run, event: events.RunFinished) -> None:
        del self._runs[event.run_id]
        result = event.result
        span = run.run.span
        told = {
            "factory.status": result.status,
            "factory.stop_reason": result.stop_reason,
            "factory.steps": len(result.steps),
            "factory.cost_usd": result.cost_usd,
            "factory.still_running": tuple(named(left.tool) for left in result.still_running) or None,
            **usage_told(result.usage, "factory"),
        }
        span.set_attributes(without_none(told))
        if self._contents and span.is_recording() and result.answer is not None:
            span.set_attribute("gen_ai.output.messages", as_messages("assistant", result.answer))
        self._close(run, event)
        failed: dict[str, str] = {"error.type": result.stop_reason} if result.status == "failed" else {}
        about = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": run.provider or SCOPE}
        about["gen_ai.agent.name"] = run.agent or ""
        self._points.later(self._points.lasted, result.elapsed_s, about | failed, run.within)
        # whichever span of this run was the current one, what was before it is again
        if self._context.get_value(_RUN) == event.run_id:
            self._context.attach(run.run.before)

    def _tell_contents(self, opened: _Open, name: str, value: Any) -> None:
        """Have a span say what was asked or answered, where that is wanted."""
        if self._contents and opened.span.is_recording():
            opened.facts.append({name: as_json(value)})

    def _end_parts(self, run: _Run, now_ns: int) -> None:
        """End what is still open of a run."""
        self._settle(run)
        left = [opened for waiting in run.attempts.values() for opened in waiting]
        left += [*run.retrievals.values(), *run.tools.values()]
        for opened in left:
            self._end(opened, now_ns, "cancelled")
        if run.step is not None:
            self._end(run.step, now_ns)

    def _close(self, run: _Run, last: events.RunFinished | None) -> None:
        """End what is still open of a run, and the run."""
        now = time.time_ns() if last is None else run.at(last.at_s)
        self._end_parts(run, now)
        failed = last is not None and last.result.status == "failed"
        why = (last.result.error or "") if last is not None and failed else ""
        self._end(run.run, now, last.result.stop_reason if last is not None and failed else "", why)


_CLIENTS = ("chat", "embeddings", "rerank", "retrieval")
"""Operations that ask somebody else, a model or a collection."""

_STORES = ("dense", "lexical", "graph")
"""Steps of a retrieval that ask a store; those that ask a model are spans of their own already."""

_MEMORY = {events.MemoryLoaded: "load", events.MemoryStored: "store", events.MemoryCompacted: "compact"}


def _records(provider: TracerProvider | MeterProvider) -> bool:
    """Whether anything goes anywhere: the API's own providers, in place until there is a real one, throw it away."""
    return not type(provider).__module__.startswith(("opentelemetry.metrics", "opentelemetry.trace"))
