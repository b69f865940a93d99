"""Approvals over HTTP: decided by people, here or after a restart, once."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.service import ASKED, HELLO, events_of, serving, write
from tests.support import run

ASKING = HELLO.replace("[calculator]", "[{use: calculator, needs_approval: true}]")


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=ASKING)


async def decide(served, run_id, decisions, **headers):
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.http.post(f"/v1/runs/{run_id}/decisions", json=decisions, headers=told) as answer:
        return answer.status, await answer.json(content_type=None)


@pytest.mark.promise("serve-approves")
def test_a_paused_run_goes_on_with_what_was_decided_and_only_once(folder):
    async def main():
        async with serving(folder) as served:
            _, _, paused = await served.run()
            run_id, call_id = paused["run_id"], paused["pending"][0]["call_id"]
            row = await served.get(f"/v1/runs/{run_id}")
            approved = {"decisions": {call_id: True}}
            both = await asyncio.gather(*(decide(served, run_id, approved) for _ in range(2)))
            late = await decide(served, run_id, approved)
            async with served.http.get(f"/v1/runs/{run_id}/events") as answer:
                events = events_of(await answer.read())
            _, _, other = await served.run()
            refused = {"decisions": {other["pending"][0]["call_id"]: {"approved": False, "reason": "not today"}}}
            return row[2], both, late, events, await decide(served, other["run_id"], refused)

    row, both, late, events, refused = run(main())
    assert row["status"] == "paused"
    assert sorted(status for status, _ in both) == [200, 409]
    (answered,) = (told for status, told in both if status == 200)
    assert (answered["status"], answered["run_id"]) == ("answered", row["run_id"])
    assert (late[0], late[1]["code"]) == (409, "conflict")
    assert [int(number) for number, _, _ in events] == list(range(1, len(events) + 1))
    assert [event for _, event, _ in events].count("run_started") == 2
    assert refused[0] == 200
    assert "not today" in json.dumps(refused[1]["steps"])


@pytest.mark.promise("serve-approves")
def test_a_run_that_waits_is_decided_on_after_a_restart_or_cancelled(folder):
    async def main():
        async with serving(folder) as served:
            paused = [(await served.run())[2] for _ in range(2)]
        async with serving(folder) as served:
            first, second = (one["run_id"] for one in paused)
            approved = {"decisions": {paused[0]["pending"][0]["call_id"]: True}}
            async with served.http.delete(f"/v1/runs/{second}") as answer:
                cancelled = await answer.json()
            gone = await decide(served, second, approved)
            return await decide(served, first, approved), cancelled, gone

    (status, told), cancelled, gone = run(main())
    assert (status, told["status"]) == (200, "answered")
    assert (cancelled["status"], gone[0]) == ("cancelled", 409)


def test_a_decision_that_is_none_is_refused(folder):
    async def main():
        async with serving(folder) as served:
            _, _, paused = await served.run()
            run_id, call_id = paused["run_id"], paused["pending"][0]["call_id"]
            bodies = [
                {},
                {"decisions": {}},
                {"decisions": {"nonsense": True}},
                {"decisions": {call_id: "yes"}},
                {"decisions": {call_id: {"approved": True, "why": 1}}},
                {"decisions": {call_id: {"approved": True, "result": {"content": "forged"}}}},
                {"decisions": {call_id: True}, "timeout": -1},
            ]
            told = [(await decide(served, run_id, body))[0] for body in bodies]
            nobody = await decide(served, "nothing", {"decisions": {call_id: True}})
            still = await decide(served, run_id, {"decisions": {call_id: True}})
            return told, nobody[0], still[0]

    assert run(main()) == ([400] * 7, 404, 200)


def test_a_decision_is_answered_with_events_or_at_once(folder):
    async def main():
        async with serving(folder) as served:
            paused = [(await served.run(body=ASKED))[2] for _ in range(2)]
            bodies = [{"decisions": {one["pending"][0]["call_id"]: True}} for one in paused]
            where = [f"/v1/runs/{one['run_id']}/decisions" for one in paused]
            async with served.http.post(where[0], json=bodies[0], headers={"accept": "text/event-stream"}) as answer:
                events = events_of(await answer.read())
            async with served.http.post(where[1], json=bodies[1], params={"background": "true"}) as answer:
                return events, answer.status

    events, status = run(main())
    assert (events[-1][1], status) == ("run_finished", 202)


@pytest.mark.promise("serve-once", "serve-approves")
def test_the_same_decision_sent_again_gets_what_became_of_the_first(folder):
    async def main():
        async with serving(folder) as served:
            _, _, paused = await served.run()
            approved = {"decisions": {paused["pending"][0]["call_id"]: True}}
            asks = [decide(served, paused["run_id"], approved, idempotency_key="k") for _ in range(3)]
            same = [*await asyncio.gather(*asks), await decide(served, paused["run_id"], approved, idempotency_key="k")]
            other = await decide(served, paused["run_id"], approved, idempotency_key="another")
            return same, other[0]

    same, other = run(main())
    assert [(status, told["answer"]) for status, told in same] == [(200, same[0][1]["answer"])] * 4
    assert other == 409
