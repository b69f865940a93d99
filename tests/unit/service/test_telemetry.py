"""What the service shows of itself: figures for Prometheus, and traces that go on from a client's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service import HELLO, serving, write
from tests.support import run


@pytest.mark.promise("metrics")
def test_the_figures_of_the_runs_it_did(tmp_path):
    async def main():
        async with serving(write(tmp_path, hello=HELLO)) as served:
            await served.run()
            async with served.http.get("/metrics") as answer:
                return answer.headers["content-type"], await answer.text()

    kind, body = run(main())
    assert kind.startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(body) for sample in family.samples]
    [runs] = [sample for sample in samples if sample.name == "factory_runs_total"]
    assert (runs.labels["agent"], runs.labels["status"], runs.value) == ("hello", "answered", 1)


@pytest.mark.promise("metrics")
def test_the_figures_of_what_is_asked_outside_runs(tmp_path):
    shelf = f'collections:\n  manual: {{url: "sqlite:///{tmp_path}/manual.db", embedder: null}}\n'
    chat = {"model": "hello/chain", "messages": [{"role": "user", "content": "What is 17 * 23?"}]}

    async def main():
        async with serving(write(tmp_path, hello=HELLO, collections=shelf)) as served:
            for path, body in (
                ("/v1/collections/manual/index", {"documents": [{"source": "a", "text": "Leave is 25 days."}]}),
                ("/v1/collections/manual/search", {"query": "leave"}),
                ("/v1/chat/completions", chat),
                ("/v1/chat/completions", chat | {"stream": True}),
                ("/v1/embeddings", {"model": "hello/chain", "input": ["a"]}),
            ):
                async with served.http.post(path, json=body) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
            return served.service.metrics

    metrics = run(main())
    value = metrics.registry.get_sample_value
    model = {"provider": "rehearsal", "model": "rehearsal"}
    assert value("factory_retrieval_seconds_count", {"operation": "search", "outcome": "ok"}) == 1
    assert value("factory_model_attempts_total", model | {"outcome": "ok"}) == 3
    assert value("factory_runs_total") is None


PROGRAM = """
import asyncio, json, pathlib, sys
from mcp import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.service import HELLO, serving, write

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

async def main():
    async with serving(write(pathlib.Path(sys.argv[1]), hello=HELLO)) as served:
        await served.run(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        await served.run()
        with trace.get_tracer("mine").start_as_current_span("asks by MCP"):
            async with Client(f"{served.url}/mcp") as client:
                await client.call_tool("hello", {"question": "What is 17 * 23?"})

asyncio.run(main())
spans = exporter.get_finished_spans()
runs = [span for span in spans if span.name == "invoke_agent hello"]
asked = [f"{span.context.trace_id:032x}" for span in spans if span.name == "asks by MCP"]
told = [[f"{r.context.trace_id:032x}", f"{r.parent.span_id:016x}" if r.parent else None] for r in runs]
print(json.dumps([*told, asked]))
"""


@pytest.mark.promise("otel")
def test_a_run_goes_on_with_the_trace_of_its_client(tmp_path):
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "none"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    first, alone, by_mcp, asked = json.loads(done.stdout.splitlines()[-1])
    assert first == ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"]
    assert alone[1] is None
    assert [by_mcp[0]] == asked
