"""What is asked of models and collections where no run is, seen by observers: spans, figures, and nothing left open."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from opentelemetry import context, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from shared_libs.agents import ReActAgent
from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import ProviderUnavailable, RateLimited
from shared_libs.atomic.llms import RehearsalLLM, ScriptedLLM, Turn
from shared_libs.atomic.types import Price, Usage
from shared_libs.observability import OpenTelemetry, PrometheusMetrics, observed
from shared_libs.retrieval import Collection, Document
from tests.support import run, run_virtual
from tests.unit.observability.test_otel import KNOWN, Traced

MODEL = {"provider": "scripted", "model": "m-1"}


class Embedding(ScriptedLLM):
    async def _embed(self, texts, **options):
        return np.ones((len(texts), 2), dtype=np.float32)


def watched(ask, *, within=None):
    """Ask something outside any run; the spans and the figures of it."""
    traced, metrics = Traced(), PrometheusMetrics()

    async def main():
        before = context.get_current()
        with observed(traced.observer, metrics):
            await ask()
        assert context.get_current() is before

    (within or run_virtual)(main())
    return traced, metrics.registry.get_sample_value


@pytest.mark.promise("otel", "metrics")
def test_a_model_that_is_asked_by_itself_has_its_span_and_its_figures():
    turns = [RateLimited("slow down", status_code=429, retry_after_s=1.0), Turn(text="Yes.", usage=Usage(4, 2))]
    llm = ScriptedLLM(turns, model="m-1", price=Price(input=1, output=2))
    traced, value = watched(lambda: llm.async_chat("Is it?"))
    failed, answered = traced.spans
    assert {span.name for span in traced.spans} == {"chat m-1"}
    assert failed.attributes["error.type"] == "rate_limited"
    assert failed.parent is answered.parent is None
    assert answered.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert answered.attributes["gen_ai.usage.input_tokens"] == 4
    assert answered.attributes["factory.cost_usd"] > 0
    assert answered.start_time > failed.end_time
    assert {key for key in answered.attributes if not key.startswith("factory.")} <= KNOWN
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= traced.metrics().keys()
    assert value("factory_model_attempts_total", MODEL | {"outcome": "ok"}) == 1
    assert value("factory_tokens_total", MODEL | {"type": "input"}) == 4
    assert value("factory_cost_usd_total", MODEL | {"agent": "other"}) > 0


@pytest.mark.promise("otel", "metrics")
def test_embeddings_and_collections_outside_a_run(tmp_path):
    embedder = RehearsalLLM("hello")

    async def ask():
        await Embedding([], model="e-1").async_embed(["a"])
        collection = Collection("manual", tenant="a", stores=f"sqlite:///{tmp_path}/c.db", embedder=embedder)
        async for _ in collection.async_index([Document(source="a.md", text="Annual leave is 25 days.")]):
            pass
        await collection.async_search("leave")
        await collection.aclose()

    traced, value = watched(ask, within=run)
    assert {
        (None, "embeddings e-1"),
        (None, "retrieval manual"),
        ("retrieval manual", "search lexical"),
    } <= traced.tree()
    assert value("factory_retrieval_seconds_count", {"operation": "search", "outcome": "ok"}) == 1
    assert value("factory_retrieval_stages_total", {"stage": "lexical", "state": "ok"}) == 1


def test_calls_side_by_side_stand_below_what_is_current_and_a_cancelled_one_leaves_nothing_open():
    traced = Traced()
    tracer = traced.tracers.get_tracer("mine")

    async def one(name):
        with tracer.start_as_current_span(name), observed(traced.observer):
            await ScriptedLLM([Turn(text="x", delay_s=1)], model=f"m-{name}").async_chat("q")

    async def main():
        await asyncio.gather(one("a"), one("b"))
        task = asyncio.create_task(one("c"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        assert trace.get_current_span() is trace.INVALID_SPAN

    run_virtual(main())
    assert {("a", "chat m-a"), ("b", "chat m-b"), ("c", "chat m-c")} <= traced.tree()
    [cancelled] = traced.named("chat m-c")
    assert cancelled.attributes["factory.outcome"] == "cancelled"


def test_a_run_has_its_own_listeners_and_one_that_fails_ends_no_call():
    heard, traced = [], Traced()

    def broken(event):
        raise RuntimeError("no")

    async def main():
        with observed(broken, heard.append):
            failing = ScriptedLLM(
                [ProviderUnavailable("away", status_code=503)], resilience=Resilience(retry={"attempts": 1})
            )
            with pytest.raises(ProviderUnavailable):
                await failing.async_chat("q")
            count = len(heard)
            await ReActAgent(llm=ScriptedLLM(["x"]), observers=[traced.observer]).async_run("q")
            return count

    assert run_virtual(main()) == len(heard) == 2
    assert traced.named("invoke_agent agent")


def test_without_a_provider_nobody_is_told_anything():
    observer = OpenTelemetry(NoOpTracerProvider(), NoOpMeterProvider())
    told = []

    class Counting:
        listens = observer.listens

        def __call__(self, event):
            told.append(event)

    run_virtual(ReActAgent(llm=ScriptedLLM(["x"]), observers=[Counting()]).async_run("q"))
    assert not told
    assert Traced().observer.listens
