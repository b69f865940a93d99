"""Runs over HTTP: in the background, followed at any time, cancelled, repeated, and left by their clients."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from shared_libs.service.callers import ANYONE
from shared_libs.testing import FaultServer, Healthy, Silence, SlowFirstToken
from tests.service import ASKED, HELLO, events_of, model_at, serving, write
from tests.support import run


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO)


@asynccontextmanager
async def model(fault):
    """A model at a server of its own; `asked` waits for its next request."""
    seen = asyncio.Queue()
    async with FaultServer({"m": fault}, listener=seen.put_nowait) as upstream:

        async def asked():
            async with asyncio.timeout(10):
                await seen.get()

        upstream.asked = asked
        yield upstream


async def read_events(served, run_id, **headers):
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.http.get(f"/v1/runs/{run_id}/events", headers=told) as answer:
        return events_of(await answer.read())


@pytest.mark.promise("serve-resumes")
def test_a_run_in_the_background_is_found_listed_and_followed_from_any_event_also_after_a_restart(folder):
    async def main():
        async with serving(folder) as served:
            status, headers, told = await served.run(query="?background")
            where = headers["location"]
            whole = await read_events(served, told["run_id"])
            again = [await read_events(served, told["run_id"], last_event_id=n) for n in ("-1", "3", "9999")]
            _, _, second = await served.run(prefer="respond-async")
            await read_events(served, second["run_id"])
            row = await served.get(where)
            page = await served.get("/v1/runs?status=answered&agent=hello&limit=1")
        async with serving(folder) as served:  # another process, as far as it knows
            later = [await read_events(served, told["run_id"], last_event_id=n) for n in ("-1", "3")]
            return status, told, whole, again, row, page, later, await served.get("/v1/runs?text=17")

    status, told, whole, again, row, page, later, found = run(main())
    assert (status, told["status"]) == (202, "running")
    assert [int(number) for number, _, _ in whole] == list(range(1, len(whole) + 1))
    assert whole[-1][1] == "run_finished"
    assert again == [whole, [event for event in whole if int(event[0]) > 3], []]
    assert (row[2]["run_id"], row[2]["status"], row[2]["source"]) == (told["run_id"], "answered", "service")
    assert row[2]["result"]["answer"].startswith("17 * 23 = 391.")
    assert len(page[2]["runs"]) == 1
    assert page[2]["next"]
    for events in later:
        assert events[-1][1] == "run_finished"
        assert json.loads(events[-1][2])["result"]["status"] == "answered"
    assert min(int(number) for number, _, _ in later[1]) > 3
    assert len(found[2]["runs"]) == 2


@pytest.mark.promise("serve-resumes")
def test_what_nobody_has_is_not_found(folder):
    async def main():
        async with serving(folder) as served:
            paths = [
                "/v1/runs/nothing",
                "/v1/runs/nothing/events",
                "/v1/runs?limit=0",
                "/v1/runs?after=x",
                "/v1/runs?x=1",
            ]
            told = [(await served.get(path))[::2] for path in paths]
            async with served.http.delete("/v1/runs/nothing") as answer:
                return [*told, (answer.status, await answer.json(content_type=None))]

    told = run(main())
    assert [status for status, _ in told] == [404, 404, 400, 400, 400, 404]
    assert [one["code"] for _, one in told] == ["not_found"] * 2 + ["invalid_request"] * 3 + ["not_found"]


def test_a_run_that_waited_for_a_slot_tells_how_long_and_its_row_says_so(folder):
    """Ten seconds for its client were two for its own time, and nothing told of the other eight."""

    async def main():
        async with model(SlowFirstToken(0.5)) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder, slots=1) as served:
                _, _, first = await served.run("remote", query="?background")
                await upstream.asked()
                _, _, second = await served.run("remote", query="?background")
                began = [
                    json.loads((await read_events(served, told["run_id"]))[0][2])["waited_s"]
                    for told in (first, second)
                ]
                _, _, row = await served.get(f"/v1/runs/{second['run_id']}")
                return began, row["why"]

    began, why = run(main())
    assert began[0] < 0.1 < began[1]
    assert "Besides, it waited" in why
    assert "for its turn, which is none of its time." in why


@pytest.mark.promise("serve-disconnect")
def test_a_run_is_cancelled_by_delete_and_says_so_everywhere(folder):
    async def main():
        async with model(Silence()) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder) as served:
                _, _, told = await served.run("remote", query="?background")
                waiting = asyncio.create_task(read_events(served, told["run_id"]))
                await upstream.asked()
                async with served.http.delete(f"/v1/runs/{told['run_id']}") as answer:
                    gone = answer.status, await answer.json()
                events = await waiting
                async with served.http.delete(f"/v1/runs/{told['run_id']}") as answer:
                    again = answer.status, await answer.json()
                return gone, events, again, len(served.service.runs)

    gone, events, again, left = run(main())
    assert (gone[0], gone[1]["status"], again[1]["status"]) == (200, "cancelled", "cancelled")
    assert events[-1][1] == "run_finished"
    assert json.loads(events[-1][2])["result"]["status"] == "cancelled"
    assert left == 0


@pytest.mark.promise("serve-disconnect")
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(("policy", "goes_on"), [("cancel", False), ("continue", True)])
def test_what_becomes_of_a_run_whose_client_has_gone_is_a_policy(folder, accept, policy, goes_on):
    async def main():
        async with model(SlowFirstToken(delay_s=0.3, answer=Healthy(text="At last."))) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder) as served:
                headers = {"accept": accept, "x-on-disconnect": policy}
                asking = asyncio.create_task(served.run("remote", accept=accept, x_on_disconnect=policy))
                await upstream.asked()
                run_id = next(iter(served.service.runs._live))
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                events = await asyncio.wait_for(read_events(served, run_id), 5)
                return json.loads(events[-1][2])["result"]["status"], headers

    assert run(main())[0] == ("answered" if goes_on else "cancelled")


@pytest.mark.promise("serve-disconnect")
def test_an_orphan_ends_with_its_grace_and_not_while_somebody_follows(folder):
    async def main():
        async with model(Silence()) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder, orphan_grace_s=0.05) as served:
                asking = asyncio.create_task(served.run("remote"))
                await upstream.asked()
                (live,) = served.service.runs._live.values()
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                async with asyncio.timeout(5):
                    await asyncio.wait([live.task])
                return live.told_its_end and live.events[-1].result.status

    assert run(main()) == "cancelled"


@pytest.mark.promise("serve-once")
def test_a_request_with_a_key_is_run_once_at_once_later_and_after_a_restart(folder):
    async def main():
        async with model(SlowFirstToken(delay_s=0.1, answer=Healthy(text="Once."))) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder) as served:
                both = await asyncio.gather(*(served.run("remote", idempotency_key="k") for _ in range(2)))
                later = await served.run("remote", idempotency_key="k")
                other = await served.run("remote", {"question": "Something else?"}, idempotency_key="k")
                elsewhere = await served.run("hello", idempotency_key="k")
            async with serving(folder) as served:
                another = await served.run("remote", {"question": "Something else?"}, idempotency_key="k")
                after = await served.run("remote", idempotency_key="k")
            return [*both, later, after], other, another, elsewhere, len(upstream.requests)

    same, other, another, elsewhere, requests = run(main())
    assert {told["run_id"] for _, _, told in same} == {same[0][2]["run_id"]}
    assert {told["answer"] for _, _, told in same} == {"Once."}
    assert (other[0], other[2]["code"]) == (another[0], another[2]["code"]) == (422, "idempotency_mismatch")
    assert elsewhere[2]["run_id"] != same[0][2]["run_id"]
    assert requests == 1


@pytest.mark.promise("serve-once")
def test_the_retry_of_an_sdk_joins_its_run_and_two_first_requests_are_two(folder):
    async def main():
        async with model(SlowFirstToken(delay_s=0.1, answer=Healthy(text="Once."))) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder) as served:
                one = asyncio.create_task(served.run("remote", x_stainless_retry_count="0"))
                await upstream.asked()
                hurried = await served.run("remote", x_stainless_retry_count="1", x_request_timeout="0.01")
                retry = await served.run("remote", x_stainless_retry_count="1")
                first = await one
                second = await served.run("remote", x_stainless_retry_count="0")
                ids = [told[2]["run_id"] for told in (first, retry, second)]
                return *ids, hurried, len(upstream.requests)

    first, retry, second, hurried, requests = run(main())
    assert first == retry != second
    assert (hurried[0], hurried[1]["x-factory-run-id"], hurried[2]["code"]) == (504, first, "deadline_exceeded")
    assert requests == 2


@pytest.mark.promise("serve-deadline")
def test_an_answer_leaves_before_its_client_gives_up(folder):
    async def main():
        async with model(Silence()) as upstream:
            write(folder, remote=model_at(upstream, limits="{timeout_s: 30}"))
            async with serving(folder) as served:
                timeout = aiohttp.ClientTimeout(total=5)
                headers = {"x-stainless-read-timeout": "0.6"}
                async with served.http.post(
                    "/v1/agents/remote/runs", json=ASKED, headers=headers, timeout=timeout
                ) as answer:
                    return answer.headers["x-factory-deadline"], await answer.json()

    deadline, told = run(main())
    assert deadline == "0.350"
    assert told["stop_reason"] == "deadline"
    assert told["elapsed_s"] <= 0.4


@pytest.mark.promise("serve-bounded")
def test_a_silent_stream_shows_that_it_lives(folder):
    async def main():
        async with model(SlowFirstToken(delay_s=0.5, answer=Healthy(text="At last."))) as upstream:
            write(folder, remote=model_at(upstream))
            async with serving(folder) as served:
                headers = {"accept": "text/event-stream", "x-stainless-read-timeout": "0.3"}
                async with served.http.post("/v1/agents/remote/runs", json=ASKED, headers=headers) as answer:
                    return await answer.read()

    raw = run(main())
    assert raw.count(b": still here\n\n") >= 3
    assert events_of(raw)[-1][1] == "run_finished"


@pytest.mark.promise("runs-sent")
def test_what_models_were_asked_is_had_a_page_at_a_time_by_the_team_and_is_in_no_stream(folder):
    async def main():
        async with serving(folder) as served:
            _, headers, _ = await served.run()
            where = f"/v1/runs/{headers['x-factory-run-id']}"
            first = await served.get(f"{where}/requests?limit=1")
            rest = await served.get(f"{where}/requests?after={first[2]['next']}")
            events = await read_events(served, headers["x-factory-run-id"])
            unknown = await served.get("/v1/runs/nobody/requests")
            brief = await served.get(f"{where}?brief=true")
            async with served.http.get(f"{where}/events?brief=true") as answer:
                briefly = json.loads(events_of(await answer.read())[-1][2])["result"]
        async with serving(folder, contents=False) as served:
            _, headers, _ = await served.run()
            where = f"/v1/runs/{headers['x-factory-run-id']}"
            none = await served.get(f"{where}/requests")
            unsaved = [await served.get(f"{where}/{kind}") for kind in ("scenario", "cassette")]
        return first, rest, events, unknown, none, unsaved, brief[2]["result"], briefly

    first, rest, events, unknown, none, unsaved, *briefs = run(main())
    whole = json.loads(events[-1][2])["result"]
    for brief in briefs:
        assert {name: whole[name] for name in whole if name not in ("steps", "attempts", "state")} == brief
    assert [(status, "without contents" in told["detail"]) for status, _, told in unsaved] == [(409, True)] * 2
    (asked,) = first[2]["requests"]
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert [tool["name"] for tool in asked["tools"]] == ["calculator"]
    (then,) = rest[2]["requests"]
    assert (then["base"], then["kept"], then["tools"], rest[2]["next"]) == (asked["seq"], 2, None, None)
    assert [message["role"] for message in then["messages"]] == ["assistant", "tool"]
    assert "model_asked" not in {kind for _, kind, _ in events}
    assert (unknown[0], none[2]) == (404, {"requests": [], "next": None})


@pytest.mark.promise("serve-forgets")
def test_a_session_is_forgotten_with_its_runs_and_not_while_one_waits(folder):
    async def main():
        asks = HELLO.replace("[calculator]", "[{use: calculator, needs_approval: true}]")
        write(folder, asks=asks.replace("name: hello", "name: asks"))
        async with serving(folder) as served:

            async def forget(path):
                async with served.http.delete(f"/v1/agents/{path}") as answer:
                    return answer.status, await answer.json()

            for agent, session in (("hello", "a/b"), ("hello", "a/b"), ("hello", "other"), ("asks", "a/b")):
                _, _, ended = await served.run(agent, ASKED | {"session_id": session})
            waits = await forget("asks/sessions/a/b")
            async with served.http.delete(f"/v1/runs/{ended['run_id']}"):
                pass
            told = [await forget(f"{agent}/sessions/a/b") for agent in ("hello", "hello", "asks", "nobody")]
            told.append(await forget(f"hello/sessions/{'x' * 201}"))
            memory = served.service.catalogue.find(ANYONE, "hello").agent.memory
            left = [len(await memory.async_load(session)) for session in ("/a/b", "other")]
            return waits, ended["run_id"], told, left, (await served.get("/v1/runs"))[2]["runs"]

    waits, waiting, told, left, runs = run(main())
    assert (waits[0], waits[1]["runs"]) == (409, [waiting])
    assert [(status, found.get("runs")) for status, found in told] == [
        (200, 2),
        (200, 0),
        (200, 1),
        (404, None),
        (404, None),
    ]
    assert left[0] == 0 < left[1]
    assert [row["session_id"] for row in runs] == ["other"]
