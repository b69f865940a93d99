"""Durable runs over HTTP: whoever does them, they are answered in time, and found by their id at any server."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.service import ASKED, HELLO, at_work, events_of, serving, write
from tests.support import run
from tests.unit.durable.cast import until

DURABLE = HELLO.replace("name: hello", "name: kept") + "durable: {concurrency: 4}\n"
ASKING = DURABLE.replace("[calculator]", "[{use: calculator, needs_approval: true}]")


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO, kept=DURABLE)


async def status_of(served, run_id):
    return (await served.get(f"/v1/runs/{run_id}"))[2]


@pytest.mark.promise("serve-durable")
@pytest.mark.parametrize(("agent", "query"), [("hello", "?durable=1"), ("kept", "")])
def test_a_durable_run_is_answered_as_any_other_and_found_at_another_server(folder, agent, query):
    async def main():
        async with serving(folder) as served, at_work(folder):
            status, headers, told = await served.run(agent, query=query, idempotency_key="k")
            again = await served.run(agent, query=query, idempotency_key="k")
            async with served.http.post(
                f"/v1/agents/{agent}/runs{query}", json=ASKED, headers={"accept": "text/event-stream"}
            ) as answer:
                events = events_of(await answer.read())
        async with serving(folder) as other:
            row = await status_of(other, told["run_id"])
            resent = await other.run(agent, query=query, idempotency_key="k")
            async with other.http.get(f"/v1/runs/{told['run_id']}/events", headers={"last-event-id": "2"}) as answer:
                late = events_of(await answer.read())
            return status, headers, told, again, events, row, resent, late

    status, headers, told, again, events, row, resent, late = run(main())
    assert (status, told["status"], told["answer"][:13]) == (200, "answered", "17 * 23 = 391")
    assert headers["x-factory-run-id"] == told["run_id"]
    assert again[2]["run_id"] == resent[2]["run_id"] == told["run_id"]
    assert (resent[0], resent[2]["answer"]) == (200, told["answer"])
    assert (events[0][1], events[-1][1]) == ("run_started", "run_finished")
    assert [event for _, event, _ in events].count("run_finished") == 1
    assert json.loads(events[-1][2])["result"]["status"] == "answered"
    assert (row["status"], row["source"], row["result"]["answer"]) == ("answered", "worker", told["answer"])
    assert [int(number) for number, _, _ in late] == sorted({int(number) for number, _, _ in late})
    assert int(late[0][0]) > 2


@pytest.mark.promise("serve-durable")
def test_where_no_worker_lives_the_answer_comes_by_the_deadline_and_the_run_goes_on(folder):
    async def main():
        async with serving(folder) as served:
            began = asyncio.get_running_loop().time()
            status, _, told = await served.run("kept", x_request_timeout="2")
            took_s = asyncio.get_running_loop().time() - began
            queued = await status_of(served, told["run_id"])
            async with at_work(folder):
                ended = await until(
                    status_of, served, told["run_id"], wanted=lambda row: row["status"] not in ("queued", "running")
                )
            return status, told, took_s, queued, ended

    status, told, took_s, queued, ended = run(main())
    assert (status, told["status"], told["stop_reason"], told["answer"]) == (200, "partial", "deadline", None)
    assert "no worker has begun it yet" in told["error"]
    assert took_s < 30  # and not the 60 s that its definition gives
    assert (queued["status"], ended["status"]) == ("queued", "answered")


@pytest.mark.promise("serve-durable")
def test_a_worker_that_dies_costs_the_client_no_answer(folder):
    """What was seen until then is told; the run is taken over and ends."""
    from shared_libs.durable.holding import Holder

    async def main():
        async with serving(folder) as served:
            _, _, begun = await served.run("kept", query="?background=1")
            store = served.service.queue.store
            dead = Holder(store.database, "dead")  # it never beats
            (claim,) = await dead.claim(1)
            seen = [
                {
                    "type": "run_started",
                    "agent": "kept",
                    "question": "q",
                    "started_at": "",
                    "timeout_s": 1.0,
                    "model": "m",
                    "protocol": "native",
                },
                {"type": "tool_started", "step": 1, "tool": "calculator", "input": {"a": 1}, "call_id": "c"},
                {
                    "type": "tool_finished",
                    "step": 1,
                    "tool": "calculator",
                    "call_id": "c",
                    "content": "391",
                    "is_error": False,
                    "elapsed_s": 0.1,
                },
            ]
            same = {"run_id": claim.run_id, "at_s": 0.1}
            await dead.keep(claim, (), [(n, json.dumps(e | same | {"seq": n})) for n, e in enumerate(seen, 1)])
            entry = served.service.catalogue.find(_anyone(), "kept", kind="agent")
            return begun, await _followed(served, entry, claim.run_id)

    begun, result = run(main())
    assert (result.run_id, result.status) == (begun["run_id"], "partial")
    assert "391" in result.answer
    assert [row.content for row in result.steps[0].observations] == ["391"]
    assert "it goes on" in result.error


def _anyone():
    from shared_libs.service.callers import ANYONE

    return ANYONE


async def _followed(served, entry, run_id):
    from shared_libs.atomic import Deadline
    from shared_libs.service.admission import Demand
    from shared_libs.service.durable import DurableRun

    demand = Demand(caller=_anyone(), target=entry.name, deadline=Deadline.after(0.5))
    return await DurableRun(entry, demand, served.service.queue, run_id).perform(served.service.admission)


@pytest.mark.promise("serve-durable")
def test_a_server_that_stops_while_a_run_is_submitted_answers_when_it_stands_and_one_that_has_not_begun_is_for_others(
    folder,
):
    from shared_libs.atomic import Deadline
    from shared_libs.service.admission import Demand
    from shared_libs.service.durable import DurableRun
    from shared_libs.service.problems import Problem

    async def main():
        begun, proceed, stands = asyncio.Event(), asyncio.Event(), []

        async def begin(run):
            begun.set()
            await proceed.wait()
            stands.append(run.id)

        async with serving(folder) as served:
            entry = served.service.catalogue.find(_anyone(), "kept", kind="agent")
            demand = Demand(caller=_anyone(), target=entry.name, deadline=Deadline.after(20))
            live, late = (DurableRun(entry, demand, served.service.queue, name, begin=begin) for name in ("r", "late"))
            for one in (live, late):
                one.begin(served.service.admission)
                if one is live:
                    await begun.wait()
                one.leave()
            proceed.set()
            with pytest.raises(Problem, match="this server stops") as refused:
                await late.result()
            return (await live.result()).status, stands, refused.value.kind.status

    assert run(main()) == ("partial", ["r"], 503)


@pytest.mark.promise("serve-durable")
def test_a_server_that_is_replaced_costs_no_run_and_one_key_is_one_run_at_two_servers(folder):
    """As `python -m bench.durable_rolling` does with real programs under load."""

    async def followed(served, run_id):
        async with served.http.get(f"/v1/runs/{run_id}/events") as answer:
            return events_of(await answer.read())

    async def main():
        async with serving(folder) as stays:
            await stays.service.queue.store.aopen()
            async with serving(folder) as goes:
                there = asyncio.create_task(goes.run("kept", idempotency_key="k"))
                await until(stays.service.queue.store.standing, wanted=lambda standing: standing == {"queued": 1})
                here = asyncio.create_task(stays.run("kept", idempotency_key="k"))  # second: it is the other's run
                goes.server.should_exit = True
                status, _, left = await there
            following = asyncio.create_task(followed(stays, left["run_id"]))
            async with at_work(folder):
                return status, left, await following, (await here)[2], await stays.service.queue.store.find()

    status, left, events, told, jobs = run(main())
    assert (status, left["status"], "it goes on" in left["error"] or "no worker" in left["error"]) == (
        200,
        "partial",
        True,
    )
    assert [job.run_id for job in jobs] == [told["run_id"]] == [left["run_id"]]
    assert [kind for _, kind, _ in events].count("run_finished") == 1
    assert json.loads(events[-1][2])["result"]["answer"] == told["answer"]


@pytest.mark.promise("serve-durable")
def test_one_that_waits_is_decided_or_cancelled_at_any_server_and_once(tmp_path):
    folder = write(tmp_path, kept=ASKING)

    async def main():
        async with serving(folder) as served, at_work(folder):
            paused = [(await served.run("kept"))[2] for _ in range(2)]
        async with serving(folder) as other, serving(folder) as third, at_work(folder):
            first, second = (one["run_id"] for one in paused)
            waits = await status_of(other, first)
            body = {"decisions": {paused[0]["pending"][0]["call_id"]: True}}
            both = await asyncio.gather(
                *(one.http.post(f"/v1/runs/{first}/decisions", json=body) for one in (other, third))
            )
            told = [(answer.status, await answer.json(content_type=None)) for answer in both]
            async with third.http.delete(f"/v1/runs/{second}") as answer:
                assert answer.status == 200
            async with third.http.post(f"/v1/runs/{second}/decisions", json=body) as answer:
                late = answer.status
            cancelled = await until(status_of, other, second, wanted=lambda row: row["status"] == "cancelled")
            return paused, waits, told, cancelled, late

    paused, waits, told, cancelled, late = run(main())
    assert [one["status"] for one in paused] == ["paused", "paused"]
    assert waits["status"] == "paused"
    assert waits["result"]["pending"][0]["call_id"] == paused[0]["pending"][0]["call_id"]
    assert sorted(status for status, _ in told) == [200, 409]
    assert next(one for status, one in told if status == 200)["status"] == "answered"
    assert (cancelled["status"], late) == ("cancelled", 409)


@pytest.mark.promise("serve-durable")
def test_in_the_background_its_id_comes_after_the_commit_and_it_is_cancelled_before_it_begins(folder):
    async def main():
        async with serving(folder) as served:
            status, headers, told = await served.run("hello", query="?durable&background")
            row = await status_of(served, told["run_id"])
            async with served.http.delete(f"/v1/runs/{told['run_id']}") as answer:
                cancelled = await answer.json()
            wrong = await served.run("hello", query="?durable=maybe")
            plain = await served.run("kept", query="?durable=0")
            return status, headers, told, row, cancelled, wrong, plain

    status, headers, told, row, cancelled, wrong, plain = run(main())
    assert (status, told["status"], headers["location"]) == (202, "queued", f"/v1/runs/{told['run_id']}")
    assert (row["status"], row["question"], cancelled["status"]) == ("queued", ASKED["question"], "cancelled")
    assert (wrong[0], wrong[2]["param"]) == (400, "durable")
    assert plain[0] == 400  # its definition says that it runs where its facts are kept
    assert "nothing keeps its facts here" in plain[2]["detail"]


@pytest.mark.promise("serve-durable")
def test_a_store_that_is_away_is_told_before_anything_is_promised(folder):
    async def main():
        async with serving(folder) as served:
            from shared_libs.service.durable import Queue

            there, served.service.queue = (
                served.service.queue,
                Queue("postgresql://me:geheim@127.0.0.1:1/nowhere"),
            )
            away = [await served.run("kept", query="?background=1"), await served.run("kept", idempotency_key="k")]
            served.service.queue = there
            async with at_work(folder):  # what was refused is forgotten: the same key begins a run
                return away, await served.run("kept", idempotency_key="k")

    away, again = run(main())
    assert [(status, told["code"]) for status, _, told in away] == [(503, "store_unavailable")] * 2
    assert "geheim" not in json.dumps([told for _, _, told in away])
    assert (again[0], again[2]["status"]) == (200, "answered")
