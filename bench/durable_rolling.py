"""
A rolling update over HTTP: two `factory serve` and two `factory worker` are replaced one after the other under load.

`python -m bench.durable_rolling` starts them on one PostgreSQL, as a deployment does: real commands, a folder of
definitions, an agent that is `durable`. Clients order all the while: some wait for the answer, some follow the events,
some submit in the background, some send the same request to two servers at once. They know the servers that a balancer
knows, and go to another one when theirs is gone, by the same `Idempotency-Key`, the run's id, or `Last-Event-ID`. Model
and effects are outside, and write down what they are asked. In the end each order is one run, which was answered once,
with what its own effects gave, and each effect happened once.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from shared_libs.durable import JobStore

TURNS = 3
AGENT = """\
name: orders
llm: {{provider: openai, model: outside, base_url: "{outside}/v1", api_key: "${{OUTSIDE_KEY}}"}}
tools:
  - {{use: http, allow: ["{host}"], methods: [POST]}}
durable: true
limits: {{timeout_s: 120, max_steps: 10}}
"""
DRAIN_S = 3
"""Seconds a server lets what it has end: less than many a run takes, so that clients have to go elsewhere."""

SERVICE = f"drain_notice_s: 1\ndrain_s: {DRAIN_S}\n"
WAYS = ("wait", "stream", "background", "twice")
GONE = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Outside:
    """A model in OpenAI's format and a till, each at a pace; `paid` counts what was paid, by the key it came with."""

    def __init__(self, pace_s: float) -> None:
        self.url = ""
        self.paid: collections.Counter[tuple[str, str]] = collections.Counter()
        self._pace_s = pace_s

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        await asyncio.sleep(self._pace_s)
        seen = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        order = next(message["content"] for message in asked["messages"] if message["role"] == "user").split()[-1]
        turn = len(seen) // 2
        calls = [
            {
                "id": f"c{turn}{side}",
                "type": "function",
                "function": {
                    "name": "http",
                    "arguments": json.dumps({"url": self.till(order, turn, side), "body": {}}),
                },
            }
            for side in range(2)
        ]
        paid = "|".join(text.rsplit("\n", 1)[-1] for text in seen)
        message = {"content": paid} if turn == TURNS else {"content": None, "tool_calls": calls}
        choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "outside"}
        if asked.get("stream"):
            return _streamed(body, choice, usage)
        return web.json_response(body | {"choices": [choice], "usage": usage})

    async def pay(self, request: web.Request) -> web.Response:
        place = request.match_info["order"], request.match_info["place"]
        self.paid[f"{place[0]} {place[1]}", request.headers["Idempotency-Key"]] += 1
        await asyncio.sleep(self._pace_s)
        return web.Response(text=f"order {place[0]} paid {place[1]}")

    def till(self, order: str, turn: int, side: int) -> str:
        return f"{self.url}/pay/{order}/{2 * turn + side}"


def _streamed(body: dict[str, Any], choice: dict[str, Any], usage: dict[str, Any]) -> web.Response:
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [call | {"index": index} for index, call in enumerate(delta["tool_calls"])]
    chunk = body | {"object": "chat.completion.chunk"}
    told = [
        chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}], "usage": usage},
    ]
    lines = [*(f"data: {json.dumps(one)}\n\n" for one in told), "data: [DONE]\n\n"]
    return web.Response(text="".join(lines), content_type="text/event-stream")


@asynccontextmanager
async def outside_of(pace_s: float) -> AsyncIterator[Outside]:
    outside = Outside(pace_s)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", outside.answer)
    app.router.add_post("/pay/{order}/{place}", outside.pay)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    outside.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield outside
    finally:
        await runner.cleanup()


class Programs:
    """The commands of the deployment; `servers` are those that the balancer sends clients to."""

    def __init__(self, folder: Path, url: str) -> None:
        self.servers: list[str] = []
        self._folder = folder
        self._variables = os.environ | {"FACTORY_RUNS": url, "OUTSIDE_KEY": "sk-outside"}
        self._all: list[asyncio.subprocess.Process] = []

    async def server(self) -> tuple[asyncio.subprocess.Process, str]:
        words = ("serve", "--configs", str(self._folder / "configs"), "--port", "0")
        process, line = await self._started(words, "listening on ")
        address = line.split("listening on ")[1].strip()
        self.servers.append(address)
        return process, address

    async def worker(self) -> asyncio.subprocess.Process:
        return (await self._started(("worker", "--concurrency", "100", "--grace", "20"), "runs at once"))[0]

    async def replace_server(self, old: asyncio.subprocess.Process, address: str) -> float:
        """Start one more, then end the old one; it stays with the balancer until it says that it is not ready."""
        await self.server()
        old.send_signal(signal.SIGTERM)
        began = time.monotonic()
        async with aiohttp.ClientSession() as client:
            while await _is_ready(client, address):
                await asyncio.sleep(0.1)
        self.servers.remove(address)
        await old.wait()
        return time.monotonic() - began

    async def replace_worker(self, old: asyncio.subprocess.Process) -> float:
        await self.worker()
        old.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await old.wait()
        return time.monotonic() - began

    async def stop(self) -> None:
        for process in self._all:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._all))

    async def _started(self, words: Sequence[str], ready: str) -> tuple[asyncio.subprocess.Process, str]:
        log = self._folder / f"{words[0]}{len(self._all)}.log"
        with log.open("w") as told:
            command = [sys.executable, "-m", "shared_libs.cli", *words]
            process = await asyncio.create_subprocess_exec(*command, env=self._variables, stdout=told, stderr=told)
        self._all.append(process)
        while True:
            for line in log.read_text().splitlines():
                if ready in line:
                    return process, line
            if process.returncode is not None:
                sys.exit(f"`factory {words[0]}` ended by itself ({process.returncode}): {log.read_text()}")
            await asyncio.sleep(0.05)


async def _is_ready(client: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with client.get(f"{address}/readyz") as answer:
            return answer.status == 200
    except GONE:
        return False


class Client:
    """Orders, and stays with its order until it has the answer; `moves` counts how often it went elsewhere."""

    def __init__(self, order: int, way: str, programs: Programs, http: aiohttp.ClientSession) -> None:
        self.order, self.way = order, way
        self.run_ids: set[str] = set()
        self.ends: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self.moves = 0
        self.took_s = 0.0
        self._programs, self._http = programs, http

    async def run(self) -> None:
        began = time.monotonic()
        await {"wait": self._wait, "stream": self._stream, "background": self._submit, "twice": self._twice}[self.way]()
        self.took_s = time.monotonic() - began

    async def _wait(self, server: int = 0) -> None:
        told = await self._anywhere("POST", self._place(), server, json=self._question(), headers=self._key())
        self.run_ids.add(told["run_id"])
        await self._end_of(told)

    async def _twice(self) -> None:
        await asyncio.gather(self._wait(0), self._wait(1))
        assert len(self.ends) == 2
        self.ends.pop()  # one answer, to each of two requests

    async def _submit(self) -> None:
        place = f"{self._place()}?background=1"
        told = await self._anywhere("POST", place, json=self._question(), headers=self._key())
        self.run_ids.add(told["run_id"])
        await self._follow(told["run_id"])

    async def _stream(self) -> None:
        place, method, run_id = self._place(), "POST", ""
        while not self.ends:
            after = {"Last-Event-ID": str(self.seen[-1])} if self.seen else {}
            given = {"json": self._question()} if method == "POST" else {}
            told = {"accept": "text/event-stream"} | (self._key() if method == "POST" else after)
            try:
                async with self._http.request(method, self._server() + place, headers=told, **given) as answer:
                    if answer.status >= 500:
                        raise aiohttp.ClientConnectionError
                    run_id = answer.headers.get("x-factory-run-id", run_id)
                    await self._hear(answer)
            except GONE:
                pass
            if run_id:
                self.run_ids.add(run_id)
                place, method = f"/v1/runs/{run_id}/events", "GET"
            if not self.ends:
                self.moves += 1
                await asyncio.sleep(0.1)

    async def _follow(self, run_id: str) -> None:
        while not self.ends:
            after = {"Last-Event-ID": str(self.seen[-1])} if self.seen else {}
            try:
                place = f"{self._server()}/v1/runs/{run_id}/events"
                async with self._http.get(place, headers=after) as answer:
                    await self._hear(answer)
            except GONE:
                pass
            if not self.ends:
                self.moves += 1
                await asyncio.sleep(0.1)

    async def _hear(self, answer: aiohttp.ClientResponse) -> None:
        async for line in answer.content:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                self.seen.append(event["seq"])
                if event["type"] == "run_finished" and event["result"]["stop_reason"] != "handed_over":
                    self.ends.append(event["result"])

    async def _end_of(self, told: dict[str, Any]) -> None:
        """Take an answer; one that says that the run goes on is no answer yet."""
        while told["status"] in OPEN or (told["status"] == "partial" and "it goes on" in (told["error"] or "")):
            self.moves += told["status"] == "partial"
            await asyncio.sleep(0.2)
            row = await self._anywhere("GET", f"/v1/runs/{told['run_id']}")
            told = row["result"] or row
        self.ends.append(told)

    async def _anywhere(self, method: str, place: str, server: int = 0, **more: Any) -> Any:
        while True:
            try:
                async with self._http.request(method, self._server(server) + place, **more) as answer:
                    if answer.status < 500:
                        told = await answer.json()
                        if answer.status >= 400:
                            sys.exit(f"{method} {place}: {answer.status} {told}")
                        return told
            except GONE:
                pass
            self.moves += 1
            await asyncio.sleep(0.1)

    def _server(self, more: int = 0) -> str:
        servers = self._programs.servers
        return servers[(self.order + self.moves + more) % len(servers)]

    def _place(self) -> str:
        return "/v1/agents/orders/runs"

    def _question(self) -> dict[str, Any]:
        return {"question": f"Please pay order {self.order}"}

    def _key(self) -> dict[str, str]:
        return {"Idempotency-Key": f"order-{self.order}"}


OPEN = ("queued", "running")


async def rolled(url: str, folder: Path, rate: float, pace_s: float) -> None:
    async with AsyncExitStack() as stack:
        outside = await stack.enter_async_context(outside_of(pace_s))
        (folder / "configs").mkdir()
        host = outside.url.removeprefix("http://")
        (folder / "configs" / "orders.yaml").write_text(AGENT.format(outside=outside.url, host=host))
        (folder / "configs" / "service.yaml").write_text(SERVICE)
        programs = Programs(folder, url)
        stack.push_async_callback(programs.stop)
        servers = [await programs.server() for _ in range(2)]
        workers = [await programs.worker() for _ in range(2)]
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        clients: list[Client] = []
        rolling = asyncio.create_task(replaced(programs, servers, workers))
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            while not rolling.done() or len(clients) % len(WAYS):
                clients.append(Client(len(clients), WAYS[len(clients) % len(WAYS)], programs, http))
                group.create_task(clients[-1].run())
                await asyncio.sleep(1 / rate)
        print(await rolling)
        store = await stack.enter_async_context(JobStore(url))
        print(await judged(store, clients, outside))


async def replaced(programs: Programs, servers: Sequence[Any], workers: Sequence[Any]) -> str:
    await asyncio.sleep(3)  # until there is load on all of them
    took = []
    for server, worker in zip(servers, workers, strict=True):
        took.append(await programs.replace_server(*server))
        took.append(await programs.replace_worker(worker))
    await asyncio.sleep(1)
    return "left after " + ", ".join(f"{seconds:.1f} s" for seconds in took) + " (server, worker, server, worker)"


async def judged(store: JobStore, clients: Sequence[Client], outside: Outside) -> str:
    """Say what became of the orders; end the program where it is not as it should be."""
    jobs = await store.find(limit=100_000)
    answers = {
        client.order: "|".join(f"order {client.order} paid {place}" for place in range(2 * TURNS)) for client in clients
    }
    lost = sum(not client.ends for client in clients)
    twice = sum(len(client.ends) > 1 for client in clients)
    several = sum(len(client.run_ids) != 1 for client in clients)
    wrong = [client for client in clients if any(end["answer"] != answers[client.order] for end in client.ends)]
    unordered = sum(client.seen != sorted(set(client.seen)) for client in clients)
    repeated = sum(count > 1 for count in outside.paid.values())
    keys = collections.Counter(place for place, _ in outside.paid)
    moved = sum(client.moves > 0 for client in clients)
    handed = sum(job.epoch > 1 for job in jobs)
    effects = len(clients) * 2 * TURNS
    waits = sorted(client.took_s for client in clients)
    told = (
        f"{len(clients)} orders, {len(jobs)} runs, lost {lost}, answered twice {twice}, of several runs {several}, "
        f"wrong {len(wrong)}, events out of order or twice {unordered}\n{len(keys)} of {effects} effects, done twice "
        f"{repeated}, under two keys {sum(count > 1 for count in keys.values())}\n{moved} clients went to another "
        f"server, {handed} runs were handed over to another worker; an answer took {statistics.median(waits):.1f} s "
        f"(median), {waits[-1]:.1f} s (most)"
    )
    as_wanted = len(jobs) == len(clients) and len(keys) == effects
    if not as_wanted or lost or twice or several or wrong or unordered or repeated or set(keys.values()) != {1}:
        print(told, [(client.way, client.run_ids, client.ends) for client in wrong[:3]])
        sys.exit("not as it should be")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=5.0, help="orders a second (default: 5)")
    parser.add_argument("--pace", type=float, default=0.7, help="seconds of an answer of model or till (default: 0.7)")
    arguments = parser.parse_args()
    from tests.postgres import running_postgres

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(running_postgres())
        url = f"postgresql://owner@{server.place}"
        asyncio.run(rolled(url, Path(folder), arguments.rate, arguments.pace))


if __name__ == "__main__":
    main()
