"""A process with more to do than it can: it refuses some of it, says so, and is in time with the rest."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared_libs.atomic.deadline import Deadline
from shared_libs.observability import PrometheusMetrics
from shared_libs.service.admission import Admission, Demand
from shared_libs.service.callers import Caller
from shared_libs.service.lag import LoopLag
from shared_libs.service.problems import Problem
from shared_libs.service.settings import TeamLimits
from tests.service import HELLO, serving, write
from tests.support import run, run_virtual

PRIORITIES = ("critical", "default", "sheddable")


@asynccontextmanager
async def busy(each_s):
    """Let every turn of the loop take so long: what is due waits for all that is there."""
    loop, is_over = asyncio.get_running_loop(), asyncio.Event()

    def work():
        loop.pass_by(each_s)
        if not is_over.is_set():
            loop.call_soon(work)

    work()
    try:
        yield
    finally:
        is_over.set()


@pytest.mark.promise("admit-lag")
def test_a_loop_that_is_late_each_time_refuses_what_matters_least_and_then_all_but_what_is_critical():
    async def main():
        lag, loop = LoopLag(), asyncio.get_running_loop()
        admission, seen, took_s = Admission(lag=lag), [], []

        async def taken():
            told = {}
            for priority in PRIORITIES:
                demand = Demand(
                    caller=Caller(priority="critical"), target="m", deadline=Deadline.after(60), priority=priority
                )
                try:
                    async with admission.enter(demand):
                        told[priority] = True
                except Problem as problem:
                    told[priority] = (problem.code, problem.kind.status, problem.retry_after_s)
            seen.append((told, lag.ready))

        looks = asyncio.Queue()

        def look(late_s):
            lag.look(late_s)
            looks.put_nowait(lag.refuses)

        async with PrometheusMetrics().watching_the_loop(look):
            await asyncio.sleep(1)
            loop.pass_by(3)  # something held it, once
            await asyncio.sleep(0.2)
            await taken()
            async with busy(0.03):  # as busy as can be, and in time
                await asyncio.sleep(10)
                await taken()
            async with busy(0.3):
                began_at = loop.time()
                for refused in ("sheddable", "default"):
                    while await looks.get() != refused:
                        pass
                    await taken()
                    took_s.append(loop.time() - began_at)
            await asyncio.sleep(0.5)
            await taken()
        return seen, took_s, admission.told()["m"]

    seen, took_s, told = run_virtual(main())
    assert 1 <= took_s[0] < 4
    assert 5 <= took_s[1] < 6.5
    refused = ("server_busy", 503, 1.0)
    all_of_it = (dict.fromkeys(PRIORITIES, True), True)
    assert seen[0] == seen[1] == seen[4] == all_of_it
    assert seen[2] == ({"critical": True, "default": True, "sheddable": refused}, True)
    assert seen[3] == ({"critical": True, "default": refused, "sheddable": refused}, False)
    assert (told["taken"], told["refused"]) == (0, {"server_busy": 3})


@pytest.mark.promise("admit-lag", "metrics-service")
def test_a_server_that_is_behind_is_alive_not_ready_and_tells_its_clients_when_to_come_back(tmp_path):
    async def main():
        limits = {"ops": TeamLimits(requests_per_minute=9, budget_usd=2.5)}
        async with serving(write(tmp_path, hello=HELLO), teams=limits) as served:
            loop, is_over, lag = asyncio.get_running_loop(), asyncio.Event(), served.service.lag

            def behind():
                for late_s in (0.0, *[10.0] * 5):  # whatever the loop really is
                    lag.look(late_s)
                if not is_over.is_set():
                    loop.call_soon(behind)

            asked = {"model": "hello", "messages": [{"role": "user", "content": "hi"}]}
            behind()
            async with served.http.post("/v1/chat/completions", json=asked) as answer:
                chat = answer.status, answer.headers["retry-after"], answer.headers["x-should-retry"]
            run_ = await served.run()
            alive, ready = await served.get("/healthz"), await served.get("/readyz")
            status = await served.get("/v1/status")
            async with served.http.get("/metrics") as answer:
                figures = await answer.text()
            is_over.set()
            async with asyncio.timeout(5):
                while (await served.get("/readyz"))[0] != 200:
                    pass
            return chat, run_, alive, ready, status, figures, await served.run()

    chat, run_, alive, ready, status, figures, after = run(main())
    assert chat == (503, "1", "true")
    assert (run_[0], run_[2]["code"], run_[2]["retry_after_s"]) == (503, "server_busy", 1.0)
    assert (alive[0], ready[0], ready[2]["status"]) == (200, 503, "busy")
    assert status[2]["loop"] == {"late_s": 10.0, "refuses": "default"}
    samples = {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(figures)
        for sample in family.samples
    }
    assert samples["factory_load_shedding",] == 2
    assert samples["factory_loop_late_seconds",] == 10.0
    assert samples["factory_requests_refused_total", "server_busy", "hello"] == 2
    assert samples["factory_team_limit", "ops", "usd", "month"] == 2.5
    assert ("factory_team_limit_left", "ops", "usd", "month") not in samples  # nobody has looked yet
    assert after[0] == 200
