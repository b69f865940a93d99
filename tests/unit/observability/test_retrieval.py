"""What a run asks of collections, seen by every listener: events, spans, figures, lines, timeline."""

from __future__ import annotations

import asyncio
import json

import pytest
from opentelemetry import trace
from structlog.testing import capture_logs

from shared_libs.agents import ReActAgent, RetrievalFinished, RetrievalStarted
from shared_libs.atomic.errors import RetrievalError
from shared_libs.atomic.events import decode_event
from shared_libs.atomic.llms import RehearsalLLM, ScriptedLLM, Turn
from shared_libs.observability import PrometheusMetrics, log_events
from shared_libs.observability.encoding import json_bytes
from shared_libs.observability.runs.contents import kept
from shared_libs.observability.timeline import timelines
from shared_libs.retrieval import Collection, Document
from shared_libs.tools.graph import GraphTool
from shared_libs.tools.retrieval import RetrievalTool
from tests.support import run
from tests.unit.observability.test_otel import KNOWN, Traced

DOCUMENTS = [
    Document(source="leave.md", title="Leave", text="Annual leave is 25 days. Ask first."),
    Document(source="sick.md", title="Sickness", text="Call before nine."),
]


def looked_up(tmp_path, calls, *, breaks=None):
    """A run that asks a collection; its events, its spans, its figures."""
    traced, metrics, heard = Traced(contents=True), PrometheusMetrics(), []
    collection = Collection("manual", tenant="a", stores=f"sqlite:///{tmp_path}/c.db", embedder=RehearsalLLM("hello"))
    if breaks is not None:
        collection.stores.words._search = breaks

    async def main():
        tools = [RetrievalTool(collection, documents=lambda: DOCUMENTS), GraphTool(collection)]
        llm = ScriptedLLM([Turn(calls=calls), "Done."], model="m-1")
        async with ReActAgent(llm=llm, tools=tools, observers=[traced.observer, metrics, heard.append]) as agent:
            await agent.async_run("How many days?")

    run(main())
    return heard, traced, metrics.registry.get_sample_value


@pytest.mark.promise("otel")
@pytest.mark.promise("metrics")
def test_what_a_collection_is_asked_is_told_to_every_listener(tmp_path):
    calls = [("retrieval", {"query": "days of leave"}), ("graph", {"cypher": "MATCH (e:Entity) RETURN e.name"})]
    heard, traced, value = looked_up(tmp_path, calls)
    asked = [event for event in heard if isinstance(event, RetrievalStarted)]
    answered = {event.operation: event for event in heard if isinstance(event, RetrievalFinished)}
    assert {event.seq: event.operation for event in asked} == {e.started: e.operation for e in answered.values()}
    found = answered["retrieve"]
    assert {stage.name for stage in found.stages if stage.state == "ok"} == {"lexical", "embed", "dense"}
    assert all(s.began_s >= 0 and s.began_s + s.elapsed_s <= found.elapsed_s for s in found.stages)
    assert (found.found, len(found.scores)) == (2, 2)

    assert traced.tree() >= {
        ("execute_tool retrieval", "retrieval manual"),
        ("retrieval manual", "embeddings rehearsal"),
        ("retrieval manual", "search lexical"),
        ("retrieval manual", "search dense"),
        ("execute_tool graph", "retrieval manual"),
    }
    spans = {s.attributes["factory.retrieval.operation"]: s for s in traced.named("retrieval manual")}
    span = spans["retrieve"]
    assert span.kind is trace.SpanKind.CLIENT
    assert span.attributes["gen_ai.operation.name"] == "retrieval"
    assert span.attributes["gen_ai.data_source.id"] == "manual"
    assert span.attributes["gen_ai.retrieval.query.text"] == "days of leave"
    assert json.loads(span.attributes["gen_ai.retrieval.documents"])[0]["id"] in found.scores
    # of the GenAI conventions' own releases, which the package of names does not have yet
    known = KNOWN | {"gen_ai.retrieval.top_k"}
    assert {name for name in span.attributes if not name.startswith("factory.")} <= known
    for stage in (*traced.named("search lexical"), *traced.named("search dense")):
        assert span.start_time <= stage.start_time <= stage.end_time <= span.end_time

    assert value("factory_retrieval_seconds_count", {"operation": "retrieve", "outcome": "ok"}) == 1
    assert value("factory_retrieval_stages_total", {"stage": "dense", "state": "ok"}) == 1
    [line] = timelines(heard)
    bars = {bar.label: bar for row in line.rows for bar in row.inner if bar.kind == "retrieval"}
    assert bars["retrieve manual"].note == "2 found"
    assert ("Asked", "days of leave") in bars["retrieve manual"].details
    assert decode_event(kept(asked[0], json_bytes(asked[0]), contents=False)).query == ""


@pytest.mark.promise("otel")
def test_a_branch_that_fails_is_told_beside_the_answer_and_no_answer_is_an_error(tmp_path):
    def breaks(*_):
        raise RetrievalError("the disk of postgresql://me:hunter2@db is gone")

    calls = [("retrieval", {"query": "days of leave"})]
    heard, traced, value = looked_up(tmp_path, calls, breaks=breaks)
    [span] = traced.named("retrieval manual")
    [incomplete] = span.attributes["factory.retrieval.incomplete"]
    assert incomplete.startswith("lexical failed: ")
    assert not [s for s in traced.spans if "hunter2" in s.to_json()]
    [failed] = traced.named("search lexical")
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert span.status.status_code is not trace.StatusCode.ERROR
    assert value("factory_retrieval_stages_total", {"stage": "lexical", "state": "failed"}) == 1
    [finished] = [event for event in heard if isinstance(event, RetrievalFinished)]
    with capture_logs() as lines:
        log_events()(finished)
    assert [(line["event"], line["log_level"]) for line in lines] == [("collection did not answer well", "warning")]


@pytest.mark.promise("otel")
def test_a_search_that_is_cancelled_ends_its_span_without_blame(tmp_path):
    async def hangs(*_):
        await asyncio.Event().wait()

    traced, heard = Traced(), []
    collection = Collection("manual", tenant="a", stores=f"sqlite:///{tmp_path}/c.db")

    async def main():
        async for _ in collection.async_index(DOCUMENTS):
            pass
        collection.stores.words._search = hangs
        llm = ScriptedLLM([Turn(calls=[("retrieval", {"query": "leave"})]), "Done."])
        tool = RetrievalTool(collection)
        tool.timeout_s = 0.05
        async with ReActAgent(llm=llm, tools=[tool], observers=[traced.observer, heard.append]) as agent:
            await agent.async_run("q")

    run(main())
    [span] = traced.named("retrieval manual")
    assert span.end_time is not None
    assert all(one.end_time is not None for one in traced.spans)
    assert trace.get_current_span() is trace.INVALID_SPAN
