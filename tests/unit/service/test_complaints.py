"""What users of other gateways complained of and no other test of ours shows; docs/complaints.md has all of it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared_libs.service.bodies import OFF_LOOP_BYTES, Bodies
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow
from shared_libs.service.key_store import key_store
from shared_libs.service.streams import SEND_TIMEOUT_S, EventStream
from shared_libs.testing import FaultServer, Healthy, Silence
from shared_libs.testing.faults.catalogue import Drip
from tests.service import HELLO, model_at, serving, write
from tests.support import run, run_virtual

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


async def until(holds):
    """Wait until something holds."""
    async with asyncio.timeout(20):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


@pytest.mark.promise("serve-disconnect")
def test_who_leaves_the_queue_or_a_stream_leaves_nothing_and_a_detached_run_keeps_its_slot(tmp_path):
    async def main():
        async with FaultServer({"m": Silence(), "words": Drip(0.05)}) as upstream:
            chatty = model_at(upstream, name="chatty").replace("model: m", "model: words")
            async with serving(write(tmp_path, remote=model_at(upstream), chatty=chatty), slots=1) as served:

                def standing(target="remote/chain"):
                    told = served.service.admission.told().get(target, {"taken": 0, "waiting": 0})
                    return told["taken"], told["waiting"]

                ask = {"model": "remote/chain"} | CHAT
                first, second = (asyncio.create_task(served.http.post("/v1/chat/completions", json=ask)) for _ in "ab")
                await until(lambda: standing() == (1, 1))
                second.cancel()
                await until(lambda: standing() == (1, 0))
                first.cancel()
                await until(lambda: standing() == (0, 0))
                await upstream.until_left()
                words = {"model": "chatty/chain", "stream": True} | CHAT
                lives = {"x-stainless-read-timeout": "0.3"}  # a sign of life comes long before a word does
                async with served.http.post("/v1/chat/completions", json=words, headers=lives) as answer:
                    await answer.content.readany()
                await until(lambda: standing("chatty/chain") == (0, 0))
                await upstream.until_left()
                headers = {"x-on-disconnect": "continue"}
                run_of_it = asyncio.create_task(
                    served.http.post("/v1/agents/remote/runs", json={"question": "hello"}, headers=headers)
                )
                chain_of_it = asyncio.create_task(served.http.post("/v1/chat/completions", json=ask, headers=headers))
                await until(lambda: standing("remote") == standing() == (1, 0))
                run_of_it.cancel()
                chain_of_it.cancel()
                await asyncio.sleep(0.1)
                return standing("remote"), standing(), len(served.service.runs)

    assert run(main()) == ((1, 0), (1, 0), 1)


@pytest.mark.promise("serve-bounded")
def test_a_reader_that_takes_nothing_is_cut_off_in_time():
    cuts = []

    async def main():
        loop = asyncio.get_running_loop()

        async def send(message):
            if message["type"] == "http.response.body":
                await loop.create_future()

        stream = EventStream(send, keep_alive_s=15.0, cut=lambda: cuts.append(loop.time() - began))
        began = loop.time()
        writing = asyncio.create_task(stream.write(b"data: 1\n\n"))
        await asyncio.sleep(10 * SEND_TIMEOUT_S)
        writing.cancel()

    run_virtual(main())
    assert cuts == [pytest.approx(SEND_TIMEOUT_S, abs=0.1)]


@pytest.mark.promise("serve-bounded")
def test_a_reader_of_a_flood_that_takes_nothing_is_cut_off_long_before_that(tmp_path):
    flood = Healthy(" ".join(["x" * 50_000] * 300))

    async def main():
        async with (
            FaultServer({"m": flood}) as upstream,
            serving(write(tmp_path, remote=model_at(upstream))) as served,
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
            writer.transport.pause_reading()
            body = b'{"model":"remote/chain","stream":true,"messages":[{"role":"user","content":"hello"}]}'
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await upstream.until_asked(1)
            await until(lambda: served.service.admission.told()["remote/chain"]["taken"] == 0)
            writer.transport.abort()

    run(main())


@pytest.mark.promise("serve-answers")
def test_a_server_whose_database_is_away_is_alive_ready_and_answers(tmp_path):
    key = Key.new()
    row = KeyRow(id=key.id, hash=key.hash(""), team="t")

    async def main():
        await key_store("keys.yaml", write(tmp_path, hello=HELLO)).keep(row)
        async with serving(tmp_path, key=str(key), store="postgresql://me@127.0.0.1:1/nowhere") as served:
            probes = [(await served.get(path))[0] for path in ("/healthz", "/readyz")]
            status, _, told = await served.run()
            return probes, status, told["status"], (await served.get("/v1/runs"))[0]

    assert run(main()) == ([200, 200], 200, "answered", 503)


COSTLY = {
    "/v1/chat/completions": {"model": "hello"} | CHAT,
    "/v1/messages": {"model": "hello"} | CHAT,
    "/v1/responses": {"model": "hello", "input": "hi"},
    "/v1/agents/hello/runs": {"question": "hi"},
    "/v1/embeddings": {"model": "hello/chain", "input": "hi"},
    **{
        path: {"model": "hello/chain", "query": "hi", "documents": ["a"]}
        for path in ("/v1/rerank", "/v2/rerank", "/rerank")
    },
    "/v1/collections/mine/index": {"documents": [{"source": "a", "text": "b"}]},
    "/v1/collections/mine/search": {"question": "hi"},
    "/v1/collections/mine/retrieve": {"question": "hi"},
    "/v1/graph/probe": {"models": ["hello/chain"]},
    "/v1/graph/extract": {"models": ["hello/chain"], "text": "hi"},
}


@pytest.mark.promise("budgets-refuse")
def test_no_route_that_costs_a_models_time_escapes_a_limit(tmp_path):
    key = Key.new()
    row = KeyRow(id=key.id, hash=key.hash(""), team="t", budget_usd=1e-6, budget_window="total", requests_per_minute=1)

    async def main():
        await key_store("keys.yaml", write(tmp_path, hello=HELLO)).keep(row)
        own = f"sqlite:///{tmp_path / 'own.db'}"
        async with serving(tmp_path, key=str(key), collections=own) as served:
            await served.run()
            told = {}
            for path, body in COSTLY.items():
                async with served.http.post(path, json=body) as answer:
                    told[path] = answer.status
            document = (await served.get("/openapi.json"))[2]
            return told, {path for path, methods in document["paths"].items() if "post" in methods}

    told, routes = run(main())
    assert told == dict.fromkeys(COSTLY, 429)
    free = {"/v1/session", "/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/responses/{id}/cancel"}
    free |= {"/v1/graph/upsert", "/v1/graph/query"}
    free |= {"/v1/runs/{run_id}/decisions", "/mcp"}  # which begin runs as `/v1/agents/{name}/runs` does
    named = {path.replace("/hello/", "/{name}/").replace("/mine/", "/{name}/") for path in COSTLY}
    assert routes - free == named


@pytest.mark.promise("serve-bounded")
def test_the_loop_turns_while_large_bodies_are_read_one_after_the_other():
    """Each waits for a thread, which is held; the loop does not, and no second one is begun beside it."""
    gate, begun = threading.Event(), []

    class Held(ThreadPoolExecutor):
        def submit(self, call, /, *given):
            begun.append(call)
            return super().submit(lambda: (gate.wait(10), call(*given))[1])

    async def main():
        asyncio.get_running_loop().set_default_executor(Held(2))
        bodies, large = Bodies(), b'{"text": "' + b"x" * OFF_LOOP_BYTES + b'"}'
        reading = [asyncio.create_task(bodies.decoded(large)) for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert await bodies.decoded(b"{}") == {}
        assert (len(begun), [each.done() for each in reading]) == (1, [False, False])
        gate.set()
        assert [len(each["text"]) for each in await asyncio.gather(*reading)] == [OFF_LOOP_BYTES] * 2
        assert len(begun) == 2

    run(main())


@pytest.mark.promise("admit-slots")
def test_a_dead_upstream_takes_the_slots_of_nobody_else(tmp_path):
    async def main():
        async with (
            FaultServer({"m": Silence()}) as upstream,
            serving(write(tmp_path, remote=model_at(upstream), hello=HELLO), slots=1) as served,
        ):
            asks = [asyncio.create_task(served.run("remote")) for _ in range(3)]
            await upstream.until_asked(1)
            status, _, told = await served.run("hello")
            for each in asks:
                each.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
            return status, told["status"]

    assert run(main()) == (200, "answered")
