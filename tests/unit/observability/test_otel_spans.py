"""Spans that are not the SDK's are to processors, samplers, limits and other libraries what the SDK's are."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import StatusCode

from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.observability import OpenTelemetry
from shared_libs.observability.otel_points import MOST_POINTS
from shared_libs.observability.otel_run_span import RunSpan
from tests.support import run_virtual
from tests.unit.durable.cast import agent, by_length, ended, opened, submit, until, working

SCRIPT = [Turn(calls=[("look", {"place": "a"})]), "Done."]
BELOW = ["chat m", "execute_tool look", "step 1", "chat m", "step 2"]


@tool
async def look(place: str) -> str:
    """Look something up."""
    return place


def spans_of(run_tool=look, *, processors=(), script=SCRIPT, **provider):
    """A run by a provider of somebody's own; what was exported."""
    exporter, tracers = InMemorySpanExporter(), TracerProvider(**provider)
    for processor in (*processors, SimpleSpanProcessor(exporter)):
        tracers.add_span_processor(processor)
    reader = InMemoryMetricReader()
    observer = OpenTelemetry(tracers, MeterProvider(metric_readers=[reader]))
    agent = ReActAgent(llm=ScriptedLLM(script, model="m"), tools=[run_tool], observers=[observer])
    run_virtual(agent.async_run("q"))
    return exporter.get_finished_spans(), reader


@pytest.mark.promise("otel")
def test_what_a_tool_does_to_its_span_is_exported():
    @tool(name="look")
    async def marks(place: str) -> str:
        """Mark the current span in every way there is."""
        span = trace.get_current_span()
        with trace.get_tracer("mine").start_as_current_span("other") as other:
            span.add_link(other.get_span_context(), {"why": "near"})
        span.set_attribute("rows", 3)
        span.set_attributes({"words": ["a", "b"]})
        span.add_event("seen", {"place": place})
        span.record_exception(ValueError("odd"))
        span.update_name(f"{span.name}!")
        span.set_status(StatusCode.OK)
        span.set_status(StatusCode.ERROR, "no: it was well already")
        return place

    spans, _ = spans_of(marks)
    [span] = [span for span in spans if span.name == "execute_tool look!"]
    assert span.attributes["rows"] == 3
    assert span.attributes["words"] == ("a", "b")
    assert span.attributes["gen_ai.tool.name"] == "look"
    assert [event.name for event in span.events] == ["seen", "exception"]
    assert span.events[1].attributes["exception.message"] == "odd"
    assert span.status.status_code is StatusCode.OK
    assert len(span.links) == 1
    assert '"execute_tool look!"' in span.to_json()


@pytest.mark.promise("otel")
def test_processors_see_every_span_begin_and_end():
    class Marks(SpanProcessor):
        """Puts what travels with a request on every span, as processors of the field do."""

        def __init__(self):
            self.began, self.ended = [], []

        def on_start(self, span, parent_context=None):
            self.began.append(span.name)
            span.set_attribute("tenant", str(baggage.get_baggage("tenant", parent_context)))

        def on_end(self, span):
            assert isinstance(span, ReadableSpan)
            self.ended.append(span.name)

    marks = Marks()
    before = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        spans, _ = spans_of(processors=[marks])
    finally:
        context.detach(before)
    assert sorted(marks.began) == sorted(marks.ended) == sorted(["invoke_agent agent", *BELOW])
    assert {span.attributes["tenant"] for span in spans} == {"acme"}
    assert sum(isinstance(span, RunSpan) for span in spans) == len(BELOW)
    assert {span.resource for span in spans} == {spans[0].resource}
    assert {span.instrumentation_scope.name for span in spans} == {"genai-factory"}


@pytest.mark.promise("otel")
def test_what_a_span_is_told_is_made_when_somebody_reads_it_and_keeps_no_contents():
    kept = []

    class Keeps(SpanProcessor):
        """Reads later, as the processor of a batch does."""

        def on_end(self, span):
            kept.append(span)

    tracers = TracerProvider()
    tracers.add_span_processor(Keeps())
    script = [Turn(text="SAID", calls=[("look", {"place": "SAID"})]), "SAID"]
    heard = []
    observers = [OpenTelemetry(tracers, MeterProvider(), contents=False), heard.append]
    agent = ReActAgent(llm=ScriptedLLM(script, model="m"), tools=[look], observers=observers)
    run_virtual(agent.async_run("SAID"))
    ours = [span for span in kept if isinstance(span, RunSpan)]
    made = [fact for span in ours for fact in span.facts if not isinstance(fact, dict)]
    assert len(made) == 3 * 2 + 1 + 2  # of a request three (began, asked, ended and answered), of a tool one
    assert "SAID" in repr(heard)
    assert "SAID" not in repr(made)
    [asked, *_] = [span for span in ours if span.name == "chat m"]
    assert asked.attributes["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert asked.attributes == asked.attributes
    assert [type(fact) for fact in asked.facts] == [dict]  # made once


class NoTools(Sampler):
    """Leaves out by name."""

    def should_sample(self, parent_context, trace_id, name, *more, **others):
        left_out = name.startswith("execute_tool")
        return SamplingResult(Decision.DROP if left_out else Decision.RECORD_AND_SAMPLE)

    def get_description(self):
        return "no tools"


@pytest.mark.promise("otel")
@pytest.mark.parametrize("sampler", [NoTools(), ParentBased(ALWAYS_ON, local_parent_sampled=NoTools())])
def test_a_sampler_that_decides_by_name_is_asked_for_every_span(sampler):
    spans, _ = spans_of(sampler=sampler)
    assert sorted(span.name for span in spans) == ["chat m", "chat m", "invoke_agent agent", "step 1", "step 2"]


@pytest.mark.promise("otel")
def test_limits_of_the_provider_are_kept():
    limits = SpanLimits(max_span_attributes=3, max_span_attribute_length=4)
    spans, _ = spans_of(span_limits=limits)
    assert len(spans) == 1 + len(BELOW)
    for span in spans:
        assert len(span.attributes) <= 3
        assert all(len(value) <= 4 for value in span.attributes.values() if isinstance(value, str))


@pytest.mark.promise("otel")
def test_a_point_leads_to_its_span_and_none_is_lost_however_many_wait():
    times = MOST_POINTS * 52 // 100
    script = [*[Turn(calls=[("look", {"place": str(n)})] * 10) for n in range(times // 10)], "Done."]
    exporter, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observer = OpenTelemetry(tracers, MeterProvider(metric_readers=[reader]))
    llm = ScriptedLLM(script * 2, model="m")
    agent = ReActAgent(llm=llm, tools=[look], limits=Limits(max_steps=100, max_tool_calls=10_000), observers=[observer])
    for _ in range(2):
        run_virtual(agent.async_run("q"))
    [resource] = reader.get_metrics_data().resource_metrics
    metrics = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    points = metrics["gen_ai.client.operation.duration"].data.data_points
    [tools] = [point for point in points if point.attributes["gen_ai.operation.name"] == "execute_tool"]
    assert tools.count == 2 * times
    spans = {span.context.span_id: span.name for span in exporter.get_finished_spans()}
    assert {spans[exemplar.span_id] for exemplar in tools.exemplars} == {"execute_tool look"}


@pytest.mark.promise("otel")
def test_a_durable_run_belongs_to_the_trace_it_was_submitted_in(tmp_path):
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observer = OpenTelemetry(tracers, MeterProvider())
    url = f"sqlite:///{tmp_path}/runs.db"

    async def main():
        async with opened(url) as store:
            with tracers.get_tracer("mine").start_as_current_span("order"):
                await submit(store, "traced")
            await submit(store, "alone")
            async with working(url, agent(lambda: by_length("done"), observers=[observer])):
                for run_id in ("traced", "alone"):
                    await until(store.get, run_id, wanted=ended)

    asyncio.run(main())
    runs = {span.attributes.get("factory.run_id"): span for span in exporter.get_finished_spans()}
    [order] = [span for span in exporter.get_finished_spans() if span.name == "order"]
    assert runs["traced"].parent.span_id == order.context.span_id
    assert runs["traced"].context.trace_id == order.context.trace_id
    assert runs["alone"].parent is None
