"""Figures for Prometheus: what a run counts, labels that cannot grow, a format its own parser reads."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.events import LoopBlocked, RunFinished, RunStarted, ToolFinished
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.cli.worker_health import WorkerFigures
from shared_libs.observability import PrometheusMetrics
from shared_libs.service.settings import Settings
from shared_libs.service.state import Service
from shared_libs.testing.clock import VirtualLoop
from tests.support import run_virtual
from tests.unit.durable.cast import answers, working


def counted(*runs):
    metrics = PrometheusMetrics()
    for run in runs:
        for event in run:
            metrics(event)
    return metrics.registry.get_sample_value


@pytest.mark.promise("metrics")
def test_what_a_run_counts(answered, partial):
    value = counted(answered, partial)
    assert value("factory_runs_total", {"agent": "scout", "status": "answered", "stop_reason": "final_answer"}) == 1
    assert value("factory_runs_total", {"agent": "scout", "status": "partial", "stop_reason": "deadline"}) == 1
    assert value("factory_runs_in_progress", {"agent": "scout"}) == 0
    model = {"provider": "scripted", "model": "m-1"}
    assert value("factory_model_attempts_total", {**model, "outcome": "ok"}) == 5
    assert value("factory_model_attempts_total", {**model, "outcome": "rate_limited"}) == 1
    assert value("factory_model_wait_seconds_total", model) == 2.0
    assert value("factory_tokens_total", {**model, "type": "input"}) == 30
    assert value("factory_tokens_total", {**model, "type": "output"}) == 10
    assert value("factory_cost_usd_total", {"agent": "scout", **model}) == pytest.approx((30 + 2 * 10) / 1e6)
    assert value("factory_tool_calls_total", {"tool": "look", "outcome": "ok"}) == 2
    assert value("factory_tool_calls_total", {"tool": "look", "outcome": "error"}) == 1
    assert value("factory_abandoned_total", {"what": "tool"}) == 1
    assert value("factory_deadline_slack_seconds_count", {"agent": "scout"}) == 2
    assert value("factory_deadline_missed_total", {"agent": "scout"}) is None
    assert value("factory_memory_seconds_count", {"operation": "store"}) == 2


@pytest.mark.promise("metrics")
def test_names_that_a_model_invents_make_no_series():
    metrics = PrometheusMetrics()

    @tool
    async def known() -> str:
        """Known."""
        await asyncio.sleep(0.1)
        return "fine"

    calls = [Turn(text="", calls=[(f"invented_{number}", {}), ("known", {})]) for number in range(5)]
    agent = ReActAgent(llm=ScriptedLLM([*calls, "Done."]), tools=[known], observers=[metrics])
    run_virtual(agent.async_run("q"))
    tools = {
        sample.labels["tool"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "tool" in sample.labels
    }
    assert tools == {"known", "other"}


@pytest.mark.promise("metrics")
def test_labels_are_bounded():
    metrics = PrometheusMetrics(max_names=3)
    for number in range(50):
        run_id = f"r{number}"
        metrics(
            RunStarted(
                run_id=run_id,
                agent=f"a{number}",
                question="q",
                started_at="",
                timeout_s=1,
                model="m",
                protocol="native",
            )
        )
        metrics(
            ToolFinished(
                run_id=run_id, step=1, tool=f"t{number}", call_id="c", content="", is_error=False, elapsed_s=0.1
            )
        )
        metrics(
            LoopBlocked(run_id=run_id, tool=f"t{number}", call_id="c", blocked_s=1, stack="", interrupted=number > 1)
        )
    rescued = [s.value for f in metrics.registry.collect() for s in f.samples if s.name == "factory_loop_rescues_total"]
    assert sum(rescued) == number - 1
    for label in ("agent", "tool"):
        values = {s.labels[label] for f in metrics.registry.collect() for s in f.samples if label in s.labels}
        assert len(values) == 4
        assert "other" in values


def test_both_formats_are_what_their_parsers_read(answered):
    metrics = PrometheusMetrics()
    for event in answered:
        metrics(event)
    body, kind = metrics.exposition()
    assert kind.startswith("text/plain")
    assert {family.name for family in text_string_to_metric_families(body.decode())} >= {
        "factory_runs",
        "factory_tool_seconds",
    }
    body, kind = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(body.decode())}
    exemplars = [sample.exemplar for sample in families["factory_run_seconds"].samples if sample.exemplar]
    assert [exemplar.labels for exemplar in exemplars] == [{"run_id": "run-1"}]


def test_one_to_a_registry():
    registry = CollectorRegistry()
    PrometheusMetrics(registry)
    with pytest.raises(MisuseError, match="share it between agents"):
        PrometheusMetrics(registry)


def test_an_end_whose_beginning_was_not_seen_is_counted(answered):
    metrics = PrometheusMetrics()
    metrics(next(event for event in answered if isinstance(event, RunFinished)))
    value = metrics.registry.get_sample_value
    assert value("factory_runs_total", {"agent": "other", "status": "answered", "stop_reason": "final_answer"}) == 1


def test_a_run_behind_its_deadline_is_told(answered):
    first, last = answered[0], answered[-1]
    late = RunFinished(run_id=last.run_id, at_s=first.timeout_s + 0.06, result=last.result)
    assert counted([first, late])("factory_deadline_missed_total", {"agent": "scout"}) == 1


def test_the_lag_of_the_loop():
    metrics = PrometheusMetrics()

    async def main():
        async with metrics.watching_the_loop():
            await asyncio.sleep(5.05)
        await asyncio.sleep(5)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    value = metrics.registry.get_sample_value
    assert value("factory_loop_lag_seconds_count") == 50
    assert value("factory_loop_lag_seconds_bucket", {"le": "0.001"}) == 50


async def figures_of_a_worker(url):
    async with working(url, answers()) as worker:
        await worker.started.wait()
        figures = WorkerFigures(worker)
        await figures.look_at_the_queue()
        return list(figures.collect())


def test_what_went_on_elsewhere_is_not_under_way_here(answered):
    metrics = PrometheusMetrics()
    began = answered[0]
    for run_id in ("kept", "kept/call", "lost", "lost/call"):
        metrics(msgspec.structs.replace(began, run_id=run_id))
    metrics.keep_in_progress({"kept"})
    assert metrics.registry.get_sample_value("factory_runs_in_progress", {"agent": began.agent}) == 2


def test_alerts_and_dashboard_ask_only_for_what_there_is(answered, tmp_path):
    service = Service(Settings(configs=tmp_path, store=f"sqlite:///{tmp_path}/runs.db"))
    names = {sample for family in service.metrics.registry.collect() for sample in _series(family)}
    of_a_worker = asyncio.run(figures_of_a_worker(f"sqlite:///{tmp_path}/durable.db"))
    names |= {sample for family in of_a_worker for sample in _series(family)}
    rules = yaml.safe_load(Path("deploy/prometheus/alerts.yaml").read_text("utf-8"))
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads(Path("deploy/grafana/runs.json").read_text("utf-8"))
    asked += [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    used = {name for expression in asked for name in re.findall(r"\bfactory_\w+", expression)}
    assert len(used) > 20
    assert used <= names


def _series(family):
    if family.type == "counter":
        return [f"{family.name}_total"]
    return [family.name] if family.type == "gauge" else [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
