"""Foreign text in every field of every event: nothing that listens fails, and what it makes is what it should be."""

from __future__ import annotations

import asyncio
import io
import json
import threading

import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from shared_libs.atomic import events as e
from shared_libs.atomic.results import Action, AgentResult, Observation, Step
from shared_libs.atomic.types import Attempt, LLMResponse, Message, Stage, ToolCall, ToolSpec, Usage
from shared_libs.observability import (
    OpenTelemetry,
    PrometheusMetrics,
    RunRecorder,
    RunStore,
    draw_timeline,
    log_events,
    read_record,
    run_page,
    timeline_page,
    timelines,
)
from shared_libs.observability.log import configure_logging

FOREIGN = {
    "script": "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>",
    "terminal": "\x1b[31mred\x1b[2J\x1b]0;title\x07\x9b31m\x9d0;x\x9c\x1bP$q\x1b\\",
    "lines": 'one\ntwo\r\nthree\u2028four\x85five\n{"event": "run finished"}',
    "unseen": "abc\u202egnp.exe pa\u200bss\u2060w\ufefford \U000e0041",
    "nul": "a\0b",
    "half": "a\ud800b\udc00",
    "quoted": 'a"b\\c\nd}{e="f"',
    "markup": "[bold red]x[/] [/nothing] %s {0} {{x}} ${y} =cmd|' /C calc'!A0",
    "long": "word " * 4_000,
}


def told(text):
    """A run whose every field that may hold foreign text holds this one."""
    attempt = Attempt(provider=text, model=text, number=1, outcome=text, why=text, started_s=0.1, ended_s=2.4)
    good = msgspec.structs.replace(attempt, outcome="ok", first_token_s=0.2, usage=Usage(1, 2))
    answer = LLMResponse(
        text=text,
        tool_calls=(ToolCall(text, text, {text[:99]: [text]}),),
        usage=Usage(1, 2),
        model=text,
        requested_model=text,
        provider=text,
        finish_reason="stop",
    )
    stages = [Stage(name="dense", state="failed", elapsed_s=0.1, reason=text), Stage(name=text, state="ok")]
    asked = {"messages": [Message("user", text)], "tools": [ToolSpec(text, text, {"type": "object"})]}
    result = AgentResult(
        run_id="r",
        status="failed",
        stop_reason="error",
        answer=text,
        steps=(Step(text, (Action(text, {text: text}, text),), (Observation(text, text, True, 0.1),)),),  # noqa: FBT003
        usage=Usage(1, 2),
        elapsed_s=3.2,
        attempts=(attempt, good),
        error=text,
    )
    told = [
        e.RunStarted(
            agent=text,
            question=text,
            started_at="2026-11-28T02:00:00.000+00:00",
            timeout_s=60,
            model=text,
            protocol="native",
            session_id=text,
        ),
        e.MemoryLoaded(session_id=text, messages=1, elapsed_s=0.01),
        e.StepStarted(step=1),
        e.AttemptStarted(provider=text, model=text, number=1),
        e.ModelAsked(provider=text, model=text, options={text: text}, **asked),
        e.AttemptFinished(attempt=attempt),
        e.RetryScheduled(provider=text, model=text, wait_s=0.1, why=text),
        e.LimitWaited(provider=text, model=text, waited_s=0.1),
        e.FellBack(provider=text, model=text, next_provider=text, next_model=text, why=text),
        e.BreakerChanged(provider=text, model=text, state="open"),
        e.AttemptStarted(provider=text, model=text, number=1),
        e.TextDelta(text=text),
        e.ThinkingDelta(text=text),
        e.StreamRestarted(reason=text),
        e.AttemptFinished(attempt=good),
        e.ModelFinished(step=1, response=answer),
        e.Thought(step=1, text=text),
        e.ToolStarted(step=1, tool=text, input={text: text}, call_id=text),
        e.RetrievalStarted(operation="search", collection=text, query=text, k=3),
        e.RetrievalFinished(
            operation="search",
            collection=text,
            started=19,
            elapsed_s=0.1,
            scores={text: 0.5},
            stages=stages,
            error=text,
        ),
        e.ApprovalRequested(step=1, tool=text, input=text, call_id=text),
        e.ToolFinished(step=1, tool=text, call_id=text, content=text, is_error=True, elapsed_s=0.2),
        e.Abandoned(what="tool", name=text, call_id=text),
        e.AbandonedEnded(what="tool", name=text, call_id=text, late_s=0.1),
        e.LoopBlocked(tool=text, call_id=text, blocked_s=0.3, stack=text),
        e.LimitReached(stop_reason="deadline", why=text),
        e.Warned(message=text),
        e.RunFinished(result=result),
    ]
    for number, event in enumerate(told, 1):
        event.run_id, event.seq, event.at_s = "r", number, number / 10
    return told


@pytest.fixture(params=FOREIGN)
def run(request):
    return told(FOREIGN[request.param])


def is_clean(text):
    return not any((char < " " and char not in "\n\t") or "\x7f" <= char < "\xa0" or char == "\u202e" for char in text)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_log_is_a_line_an_event(run, as_json):
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    configure_logging("debug", stream=out, as_json=as_json)
    log = log_events()
    for event in run:
        log(event)
    out.flush()
    written = out.buffer.getvalue().decode()
    assert is_clean(written)
    lines = written.split("\n")[:-1]
    lines = lines if as_json else [line for line in lines if not line.startswith("    ")]
    assert len(lines) == 22  # but for pieces of text, and what models were asked
    if as_json:
        assert all(json.loads(line)["event"] for line in lines)


def test_a_terminal_and_pages_show_it_as_text(run):
    drawn = io.StringIO()
    for line in timelines(run):
        draw_timeline(line, Console(file=drawn, width=80))
    assert is_clean(drawn.getvalue())
    assert drawn.getvalue().encode()
    assert b"<img" not in timeline_page(timelines(run)).encode()
    page = run_page(run)
    assert page.encode()
    assert "<img" not in page
    blocks = page.split('<script type="application/json">')[1:]
    assert all(json.loads(block.partition("</script>")[0]) for block in blocks)


def test_records_and_stores_keep_all_of_it(run, tmp_path):
    with RunRecorder(tmp_path / "r.jsonl") as recorder:
        for event in run:
            recorder(event)
    kinds = [type(event) for event in run]
    assert [type(event) for event in read_record(tmp_path / "r.jsonl")] == kinds

    async def kept():
        async with RunStore(f"sqlite:///{tmp_path}/r.db") as store:
            observe = store.observer()
            for event in run:
                observe(event)
            await store.flush(60)
            events = await store.async_events("r")
            return store.lost, events, await store.async_requests("r")

    lost, events, requests = asyncio.run(kept())
    assert (lost, len(events), len(requests)) == (0, len(run) - 1, 1)


def test_spans_and_points_can_be_sent(run, caplog):
    exporter, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observe = OpenTelemetry(tracers, MeterProvider(metric_readers=[reader]), contents=True)
    for event in run:
        observe(event)
    spans = exporter.get_finished_spans()
    assert len(spans) == 8
    assert encode_spans(spans).SerializeToString()
    assert encode_metrics(reader.get_metrics_data()).SerializeToString()
    assert caplog.records == []
    assert max(len(span.name) for span in spans) < 600
    told = {name: value for span in spans for name, value in span.attributes.items() if isinstance(value, str)}
    assert max(len(value) for name, value in told.items() if name.endswith((".id", ".name", ".model", ".type"))) <= 256
    assert json.loads(told["gen_ai.output.messages"])[0]["parts"]


def test_a_scrape_is_what_its_parser_reads(run):
    metrics = PrometheusMetrics()
    for event in run:
        metrics(event)
    assert metrics.exposition("application/openmetrics-text")[0].endswith(b"# EOF\n")
    body, _ = metrics.exposition("text/plain")
    assert len(list(text_string_to_metric_families(body.decode()))) > 20
    assert len(body) < 100_000


def test_contents_of_any_length_are_whole_messages():
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observe = OpenTelemetry(tracers, contents=True)
    for event in told("no end " * 20_000):
        observe(event)
    messages = [
        json.loads(value)
        for span in exporter.get_finished_spans()
        for name, value in span.attributes.items()
        if name in ("gen_ai.input.messages", "gen_ai.output.messages")
    ]
    assert len(messages) == 3
    assert all(len(message["parts"][0]["content"]) == 32_000 for [message] in messages)


def test_a_closed_record_leaves_no_thread(tmp_path):
    for number in range(3):
        with RunRecorder(tmp_path / f"{number}.jsonl") as recorder:
            for event in told("x"):
                recorder(event)
    threads = [thread for thread in threading.enumerate() if thread.name == "factory-record"]
    for thread in threads:
        thread.join(60)
    assert not [thread for thread in threads if thread.is_alive()]
    recorder(told("x")[0])  # begins again
    recorder.close()
    assert len(read_record(recorder.path)) == len(told("x")) + 1
