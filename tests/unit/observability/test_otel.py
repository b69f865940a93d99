"""Spans and metrics by the GenAI conventions: their names, their parents, what early ends leave, what is exported."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes

from shared_libs.agents import ReActAgent
from shared_libs.atomic import InProcessMemory, Resilience, tool
from shared_libs.atomic.errors import LLMError, RateLimited
from shared_libs.atomic.llms import OpenAILLM, ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import Usage
from shared_libs.observability import OpenTelemetry, continued_from, telemetry_from_environment
from shared_libs.testing import FaultServer, Healthy
from shared_libs.tools.agent import AgentTool
from tests.support import run_virtual

KNOWN = {
    value
    for module in (gen_ai_attributes, error_attributes, http_attributes, server_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


class Traced:
    """A tracer provider of its own, what it saw, and the observer over it."""

    def __init__(self, **options):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = OpenTelemetry(self.tracers, MeterProvider(metric_readers=[self.reader]), **options)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def tree(self):
        """Each span's name below its parent's."""
        by_id = {span.context.span_id: span for span in self.spans}
        return {(by_id[s.parent.span_id].name if s.parent else None, s.name) for s in self.spans}

    def metrics(self):
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = metric
        return found


@tool
async def look(place: str) -> str:
    """Look something up."""
    with trace.get_tracer("mine").start_as_current_span("inside the tool"):
        await asyncio.sleep(1)
    return f"{place}: sk-abcdefghijklmnopqrstuvwxyz123456"


@tool
async def count(place: str) -> str:
    """Count."""
    return str(trace.get_current_span().get_span_context().span_id)


def script():
    return [
        Turn(
            text="I look.",
            calls=[("look", {"place": "a"}), ("count", {"place": "b"})],
            usage=Usage(4, 2, cache_creation_input_tokens=2),
        ),
        RateLimited("slow down", status_code=429, retry_after_s=2.0),
        Turn(text="There.", usage=Usage(20, 5, 3)),
    ]


def played(traced, turns=None, **options):
    agent = ReActAgent(
        llm=ScriptedLLM(script() if turns is None else turns, model="m-1"),
        tools=[look, count],
        name="scout",
        memory=InProcessMemory(),
        observers=[traced.observer],
    )
    return run_virtual(agent.async_run("Where?", session_id="s-1", **options))


@pytest.mark.promise("otel")
def test_a_run_reads_as_the_conventions_say():
    traced = Traced()
    result = played(traced)
    assert result.answer == "There."
    assert traced.tree() >= {
        (None, "invoke_agent scout"),
        ("invoke_agent scout", "memory load"),
        ("invoke_agent scout", "memory store"),
        ("invoke_agent scout", "step 1"),
        ("step 1", "chat m-1"),
        ("step 1", "execute_tool look"),
        ("step 1", "execute_tool count"),
        ("step 2", "chat m-1"),
    }
    [run] = traced.named("invoke_agent scout")
    assert dict(run.attributes) | {"factory.run_id": ""} == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "scripted",
        "gen_ai.agent.name": "scout",
        "gen_ai.request.model": "m-1",
        "gen_ai.conversation.id": "s-1",
        "factory.usage.input_tokens": 24,
        "factory.usage.output_tokens": 7,
        "factory.usage.cache_read.input_tokens": 3,
        "factory.usage.cache_creation.input_tokens": 2,
        "factory.run_id": "",
        "factory.timeout_s": 60.0,
        "factory.status": "answered",
        "factory.stop_reason": "final_answer",
        "factory.steps": 2,
    }
    first, limited, last = traced.named("chat m-1")
    assert first.kind is trace.SpanKind.CLIENT
    assert first.attributes["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert (limited.attributes["error.type"], limited.attributes["http.response.status_code"]) == ("rate_limited", 429)
    assert limited.status.status_code is trace.StatusCode.ERROR
    assert last.attributes["factory.waited_s"] == 2.0
    # what back ends add up over all spans of a trace is what was used, and not twice that
    assert (
        sum(span.attributes.get("gen_ai.usage.input_tokens", 0) for span in traced.spans) == result.usage.input_tokens
    )
    used = {name for span in traced.spans for name in span.attributes if not name.startswith("factory.")}
    assert used <= KNOWN


@pytest.mark.anyio
@pytest.mark.promise("otel")
async def test_what_a_tool_starts_is_its_child_and_nothing_stays_current():
    traced = Traced()
    seen = {}

    @tool
    async def probe() -> str:
        """Tell the current span."""
        seen["async"] = trace.get_current_span().get_span_context().span_id
        propagate.inject(seen)
        return "x"

    @tool
    def threaded() -> str:
        """Tell it in a thread."""
        return str(trace.get_current_span().get_span_context().span_id)

    agent = ReActAgent(
        llm=ScriptedLLM([Turn(calls=[("probe", {}), ("threaded", {})]), "Done."]),
        tools=[probe, threaded],
        observers=[traced.observer],
    )
    before = context.get_current()
    result = await agent.async_run("q")
    assert context.get_current() is before
    [probed], [counted] = traced.named("execute_tool probe"), traced.named("execute_tool threaded")
    assert seen["async"] == probed.context.span_id
    assert result.steps[0].observations[1].content == str(counted.context.span_id)
    assert f"{probed.context.trace_id:032x}-{probed.context.span_id:016x}" in seen["traceparent"]


def test_a_sub_agent_stands_below_the_call_that_asked_it():
    traced = Traced()
    inner = ReActAgent(llm=ScriptedLLM(["Inner."]), name="inner", observers=[traced.observer])
    outer = ReActAgent(
        llm=ScriptedLLM([Turn(calls=[("inner", {"question": "q"})] * 2), "Outer."]),
        tools=[AgentTool(inner, description="Ask the inner one.")],
        name="outer",
        observers=[traced.observer],
    )
    run_virtual(outer.async_run("q"))
    assert ("execute_tool inner", "invoke_agent inner") in traced.tree()
    calls = {span.context.span_id for span in traced.named("execute_tool inner")}
    assert {span.parent.span_id for span in traced.named("invoke_agent inner")} == calls
    assert len(calls) == 2


@pytest.mark.promise("otel")
@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_stream_that_its_reader_leaves_leaves_no_open_span(after, caplog):
    traced = Traced()
    agent = ReActAgent(llm=ScriptedLLM(script(), model="m-1"), tools=[look, count], observers=[traced.observer])

    async def main():
        before = context.get_current()
        stream = agent.async_stream("Where?")
        for _ in range(after):
            await anext(stream)
        await stream.aclose()
        assert context.get_current() is before

    run_virtual(main())
    [run] = traced.named("invoke_agent agent")
    assert run.attributes["factory.status"] == "cancelled"
    assert run.status.status_code is not trace.StatusCode.ERROR
    assert all(span.end_time is not None for span in traced.spans)
    assert "detach" not in caplog.text


def test_runs_side_by_side_do_not_touch_each_other():
    traced = Traced()
    agent = ReActAgent(llm=ScriptedLLM(["Yes."] * 20, model="m-1"), observers=[traced.observer])

    async def main():
        await asyncio.gather(*(agent.async_run("q") for _ in range(20)))

    run_virtual(main())
    runs = {span.context.span_id: span.context.trace_id for span in traced.named("invoke_agent agent")}
    assert len(set(runs.values())) == 20
    assert all(runs[step.parent.span_id] == step.context.trace_id for step in traced.named("step 1"))


@pytest.mark.promise("otel")
def test_contents_only_when_asked_for_and_without_secrets():
    said = {f"gen_ai.{name}" for name in ("input.messages", "output.messages", "tool.definitions")}
    said |= {"gen_ai.tool.call.arguments", "gen_ai.tool.call.result"}
    plain, full = Traced(), Traced(contents=True)
    played(plain)
    played(full)
    assert not [name for span in plain.spans for name in span.attributes if name in said]
    [looked] = full.named("execute_tool look")
    assert json.loads(looked.attributes["gen_ai.tool.call.arguments"]) == {"place": "a"}
    assert "sk-abc" not in looked.attributes["gen_ai.tool.call.result"]
    [run] = full.named("invoke_agent scout")
    [question] = json.loads(run.attributes["gen_ai.input.messages"])
    assert question == {"role": "user", "parts": [{"type": "text", "content": "Where?"}]}
    first, again, last = (span.attributes for span in full.named("chat m-1"))
    [turn] = json.loads(first["gen_ai.output.messages"])
    assert [part["type"] for part in turn["parts"]] == ["text", "tool_call", "tool_call"]
    asked = json.loads(last["gen_ai.input.messages"])
    assert asked[:2] == json.loads(first["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "tool", "tool"]
    assert again["gen_ai.input.messages"] == last["gen_ai.input.messages"]
    assert asked[3]["parts"][0]["type"] == "tool_call_response"
    assert "sk-abc" not in last["gen_ai.input.messages"]
    assert [one["name"] for one in json.loads(last["gen_ai.tool.definitions"])] == ["look", "count"]


def test_metrics_by_the_conventions():
    traced = Traced()
    played(traced)
    metrics = traced.metrics()
    assert set(metrics) >= {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}
    points = metrics["gen_ai.client.operation.duration"].data.data_points
    counted = {(p.attributes["gen_ai.operation.name"], p.attributes.get("error.type")): p.count for p in points}
    assert counted == {
        ("chat", None): 2,
        ("chat", "rate_limited"): 1,
        ("execute_tool", None): 2,
        ("invoke_agent", None): 1,
    }
    tokens = metrics["gen_ai.client.token.usage"]
    assert tokens.unit == "{token}"
    assert {p.attributes["gen_ai.token.type"]: p.sum for p in tokens.data.data_points} == {"input": 24, "output": 7}


@pytest.mark.anyio
@pytest.mark.promise("otel")
async def test_requests_carry_the_trace_and_a_run_goes_on_from_one():
    traced = Traced()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with FaultServer({"m": Healthy()}) as server:
        llm = OpenAILLM("m", api_key="k", base_url=server.url("openai", "m"), resilience=Resilience())
        async with ReActAgent(llm=llm, observers=[traced.observer]) as agent:
            with continued_from({"traceparent": parent}):
                await agent.async_run("q")
        [request] = server.requests
    [chat] = traced.named("chat m")
    port = urlsplit(llm.base_url).port
    assert (chat.attributes["server.address"], chat.attributes["server.port"]) == ("127.0.0.1", port)
    assert request.headers["traceparent"] == f"00-0af7651916cd43dd8448eb211c80319c-{chat.context.span_id:016x}-01"
    [run] = traced.named("invoke_agent agent")
    assert f"{run.parent.span_id:016x}" == "b7ad6b7169203331"


def test_requests_at_once_that_are_alike_end_each_at_its_own_time():
    """Two hedges of one model: the second one answers, the first is cut off."""

    class Slow(ScriptedLLM):
        async def _chat(self, messages, tools, **options):
            await asyncio.sleep(60)

    traced = Traced()
    slow = Slow(["never"], model="m", resilience=Resilience(strategy="hedged", hedge_after_s=1))
    slow.fallbacks = [ScriptedLLM(["Yes."], model="m")]
    result = run_virtual(ReActAgent(llm=slow, observers=[traced.observer]).async_run("q"))
    assert result.answer == "Yes."
    lost, won = traced.named("chat m")
    if lost.start_time > won.start_time:
        lost, won = won, lost
    assert lost.attributes["factory.outcome"] == "cancelled"
    assert "factory.outcome" not in won.attributes
    assert won.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_embeddings_are_called_so():
    class Embedding(ScriptedLLM):
        async def _embed(self, texts, **options):
            return np.ones((len(texts), 2), dtype=np.float32)

    model = Embedding([], model="e-1")

    @tool
    async def similar(place: str) -> str:
        """Embed."""
        return str((await model.async_embed([place])).shape)

    traced = Traced()
    turns = [Turn(calls=[("similar", {"place": "a"})]), "Done."]
    run_virtual(ReActAgent(llm=ScriptedLLM(turns), tools=[similar], observers=[traced.observer]).async_run("q"))
    assert ("execute_tool similar", "embeddings e-1") in traced.tree()
    [span] = traced.named("embeddings e-1")
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.kind is trace.SpanKind.CLIENT


@pytest.mark.promise("secrets-masked")
def test_no_secret_stands_in_the_words_of_a_failure_and_no_name_or_text_is_endless():
    key = "sk-abcdefghijklmnopqrstuvwxyz123456"
    traced = Traced(contents=True)
    turns = [
        RateLimited(f"key {key} is over its limit", status_code=429, retry_after_s=1.0),
        Turn(calls=[("x" * 10_000, {"password": "hunter2222", "text": "y" * 100_000})]),
        LLMError(f"bad request with {key}"),
    ]
    result = played(traced, turns)
    assert result.status == "failed"
    for span in traced.spans:
        told = span.to_json()
        assert key not in told
        assert "hunter2222" not in told
        assert len(span.name) < 100
        assert len(told) < 200_000


def test_what_a_sampler_leaves_out_leaves_out_what_stands_below_it():
    exporter = InMemorySpanExporter()
    tracers = TracerProvider(sampler=TraceIdRatioBased(0.0))
    others = TracerProvider()
    for provider in (tracers, others):
        provider.add_span_processor(SimpleSpanProcessor(exporter))

    @tool
    async def inner(place: str) -> str:
        """Start a span of another library's."""
        with others.get_tracer("other").start_as_current_span("inside"):
            return place

    agent = ReActAgent(
        llm=ScriptedLLM([Turn(calls=[("inner", {"place": "a"})]), "Done."]),
        tools=[inner],
        observers=[OpenTelemetry(tracers, NoOpMeterProvider())],
    )

    async def main():
        before = context.get_current()
        await agent.async_run("q")
        return before is context.get_current()

    assert run_virtual(main())
    assert exporter.get_finished_spans() == ()


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = HTTPServer(("127.0.0.1", 0), _Collector)
    server.bodies = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_an_exporter_sends_is_what_collectors_read(collector):
    program = """
import asyncio
from shared_libs.agents import ReActAgent
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.observability import telemetry_from_environment
agent = ReActAgent(llm=ScriptedLLM(["Yes."], model="m-1"), name="scout", observers=[telemetry_from_environment()])
asyncio.run(agent.async_run("q"))
"""
    place = f"http://127.0.0.1:{collector.server_port}"
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": place, "OTEL_SERVICE_NAME": "mine"}
    subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=60)
    traces = [ExportTraceServiceRequest.FromString(body) for path, body in collector.bodies if path == "/v1/traces"]
    metrics = [ExportMetricsServiceRequest.FromString(body) for path, body in collector.bodies if path == "/v1/metrics"]
    [resource] = {
        attribute.value.string_value
        for request in traces
        for spans in request.resource_spans
        for attribute in spans.resource.attributes
        if attribute.key == "service.name"
    }
    assert resource == "mine"
    names = [
        span.name
        for request in traces
        for r in request.resource_spans
        for scope in r.scope_spans
        for span in scope.spans
    ]
    assert sorted(names) == ["chat m-1", "invoke_agent scout", "step 1"]
    assert {m.name for q in metrics for r in q.resource_metrics for s in r.scope_metrics for m in s.metrics} >= {
        "gen_ai.client.operation.duration"
    }


@pytest.mark.promise("time-total")
def test_a_collector_that_does_not_answer_keeps_no_program_from_its_end(tmp_path):
    """A listener that accepts and says nothing, for which the SDK waits half a minute; the program has to end."""
    program = """
import asyncio
from shared_libs.agents import ReActAgent
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.observability import telemetry_from_environment
agent = ReActAgent(llm=ScriptedLLM(["Yes."]), observers=[telemetry_from_environment()])
asyncio.run(agent.async_run("q"))
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=25, capture_output=True)


def test_nobody_asks_for_an_export(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    assert telemetry_from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert telemetry_from_environment() is None
