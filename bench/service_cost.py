"""
What the service costs beside the least that a proxy can cost: CPU per request of the process that serves, in pairs.

`python -m bench.service_cost` prints, for answers in one piece and streamed (20 chunks), microseconds of CPU per
request of a raw uvicorn proxy in 60 lines (the floor), of a chain and of an agent with one turn, at 1, 20 and 50 at
once, and their ratios: medians over `--rounds` in which all of them are asked in turn, so that they share the
machine's noise. Then the time that the service itself says it has taken (`x-factory-overhead-ms`), and the memory of
500 streams that stand open. `--litellm COMMAND` measures LiteLLM's proxy beside them (`litellm` of a venv of its own).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvicorn

from bench.server import USAGE, Connection, body_of

WORDS = [f"word{number}" for number in range(20)]
FILLER = "Numbers and what becomes of them. " * 28  # a request of about 1 kB


class Upstream(Connection):
    """A provider: whole answers after 50 ms, streams of 20 chunks 2 ms apart; the model `slow` waits 250 ms a chunk."""

    def _answer(self, asked: dict) -> None:
        if not asked.get("stream"):
            message = {"role": "assistant", "content": " ".join(WORDS)}
            body = body_of("chat.completion", {"index": 0, "message": message, "finish_reason": "stop"}, USAGE)
            told = msgspec.json.encode(body)
            self._write(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
            return
        self._write(b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        deltas = [({"content": f"{word} "}, None, None) for word in WORDS] + [({}, "stop", USAGE)]
        chunks = [
            body_of("chat.completion.chunk", {"index": 0, "delta": delta, "finish_reason": reason}, usage)
            for delta, reason, usage in deltas
        ]
        events = [*(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]
        pause_s = 0.25 if asked["model"] == "slow" else 0.002
        for number, event in enumerate(events):
            self._loop.call_later(number * pause_s, self._chunk, event)
        self._loop.call_later(len(events) * pause_s, self._transport.write, b"0\r\n\r\n")

    def _chunk(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))


class Floor:
    """The least: a raw ASGI application that reads and rewrites JSON both ways, and an aiohttp client."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._client: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._client is None:
            self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = msgspec.json.decode(body)
        asked["model"] = "m"
        url, data = f"{self._upstream}/chat/completions", msgspec.json.encode(asked)
        async with self._client.post(url, data=data, headers={"content-type": "application/json"}) as answer:
            kind = b"text/event-stream" if asked.get("stream") else b"application/json"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            if not asked.get("stream"):
                told = msgspec.json.decode(await answer.read())
                told["model"] = "floor"
                await send({"type": "http.response.body", "body": msgspec.json.encode(told)})
                return
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    told = msgspec.json.decode(line[6:])
                    told["model"] = "floor"
                    piece = b"data: " + msgspec.json.encode(told) + b"\n\n"
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(0.05), "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, all threads, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_kb(pid: int) -> int:
    """Return the memory of a process, in kB."""
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").open() if line.startswith("VmRSS"))


@contextmanager
def program(*command: str, **environment: str) -> Iterator[int]:
    """Run a program; yield its process."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment
    ) as it:
        try:
            yield it.pid
        finally:
            it.terminate()
            try:
                it.wait(10)
            except subprocess.TimeoutExpired:
                it.kill()


class Target:
    """Whom to ask: the address, the model, and the process that serves."""

    def __init__(self, name: str, url: str, model: str, pid: int) -> None:
        self.name, self.url, self.model, self.pid = name, url, model, pid

    async def load(self, *, stream: bool, at_once: int, requests: int) -> tuple[float, float, list[float]]:
        """Ask; return CPU microseconds and wall seconds per request, and what the service says it took, in ms."""
        body = {"model": self.model, "stream": stream, "messages": [{"role": "user", "content": FILLER}]}
        data = msgspec.json.encode(body)
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        left, overheads = iter(range(requests)), []
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as http:

            async def worker(asks: Iterator[int]) -> None:
                for _ in asks:
                    async with http.post(f"{self.url}/v1/chat/completions", data=data) as answer:
                        told = await answer.read()
                        if answer.status != 200 or (stream and not told.endswith(b"data: [DONE]\n\n")):
                            raise RuntimeError(f"{self.name}: {answer.status} {told[-200:]!r}")
                        overheads.append(float(answer.headers.get("x-factory-overhead-ms", 0)))

            await asyncio.gather(*(worker(iter(range(1))) for _ in range(at_once)))  # connections, and what is first
            overheads.clear()
            cpu, wall = cpu_s(self.pid), time.perf_counter()
            await asyncio.gather(*(worker(left) for _ in range(at_once)))
            return (cpu_s(self.pid) - cpu) / requests * 1e6, (time.perf_counter() - wall) / requests, overheads


async def until_up(url: str) -> None:
    """Wait until somebody answers."""
    async with aiohttp.ClientSession() as http:
        for _ in range(1800):
            try:
                async with http.get(f"{url}/healthz"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
    raise RuntimeError(f"nobody listens at {url}")


async def open_streams(target: Target, streams: int) -> float:
    """Return the memory that a stream takes while it stands open, in kB."""
    before = rss_kb(target.pid)
    task = asyncio.create_task(target.load(stream=True, at_once=streams, requests=streams))
    most = before
    while not task.done():
        await asyncio.sleep(0.1)
        most = max(most, rss_kb(target.pid))
    await task
    return (most - before) / streams


def table(title: str, targets: list[Target], figures: dict[str, list[float]], unit: str) -> None:
    """Print medians, and medians of the ratios to the floor."""
    floor = figures[targets[0].name]
    print(f"  {title:<24}", end="")
    for target in targets:
        mine = figures[target.name]
        ratio = statistics.median(one / other for one, other in zip(mine, floor, strict=True))
        print(f"{target.name} {statistics.median(mine):>8.0f} {unit} ({ratio:.2f})   ", end="")
    print(flush=True)


async def measure(targets: list[Target], arguments: argparse.Namespace) -> None:
    for at_once in arguments.at_once:
        for stream in (False, True):
            cpu: dict[str, list[float]] = {target.name: [] for target in targets}
            wall: dict[str, list[float]] = {target.name: [] for target in targets}
            overheads: list[float] = []
            for _ in range(arguments.rounds):
                for target in targets:
                    share = 10 if target.name == "litellm" else 1
                    requests = max(at_once, arguments.requests // share)
                    cost, took, told = await target.load(stream=stream, at_once=at_once, requests=requests)
                    cpu[target.name].append(cost)
                    wall[target.name].append(1 / took)
                    overheads += told if target.name == "chain" else []
            how = f"{'streamed' if stream else 'whole'}, {at_once} at once"
            table(how, targets, cpu, "us")
            if at_once == 50:
                table("  requests a second", targets, wall, "/s")
            if at_once == 20 and not stream:
                overheads.sort()
                half, most = overheads[len(overheads) // 2], overheads[int(len(overheads) * 0.95)]
                print(f"  x-factory-overhead-ms of the chain at 20: p50 {half:.2f}, p95 {most:.2f}")


KEY = "sk-bench-0123456789"
CONFIG = """
name: bot
description: Answers at once.
llm: {{provider: openai, model: {model}, base_url: '{url}', api_key: x}}
"""
LITELLM = """
model_list:
  - {{model_name: bot, litellm_params: {{model: openai/m, api_base: '{url}', api_key: x}}}}
litellm_settings: {{telemetry: false, request_timeout: 60}}
"""


@contextmanager
def everybody(arguments: argparse.Namespace, folder: Path) -> Iterator[list[Target]]:
    """Run all of them."""
    me, upstream = [sys.executable, "-m", "bench.service_cost"], "http://127.0.0.1:18191/v1"
    (folder / "bot.yaml").write_text(CONFIG.format(model="m", url=upstream))
    (folder / "slow.yaml").write_text(CONFIG.format(model="slow", url=upstream).replace("bot", "slow"))
    (folder / "service.yaml").write_text(f"store: 'sqlite:///{folder}/runs.db'\nslots: 1000\n")
    (folder / "litellm.yml").write_text(LITELLM.format(url=upstream))
    with ExitStack() as stack:
        stack.enter_context(program(*me, "--role", "upstream", "--port", "18191"))
        floor = stack.enter_context(program(*me, "--role", "floor", "--port", "18192", "--upstream", upstream))
        serve = [sys.executable, "-m", "shared_libs.cli", "serve", "--configs", str(folder), "--port", "18193"]
        ours = stack.enter_context(program(*serve))
        urls = [f"http://127.0.0.1:{port}" for port in (18192, 18193, 18194)]
        targets = [
            Target("floor", urls[0], "bot", floor),
            Target("chain", urls[1], "bot/chain", ours),
            Target("agent", urls[1], "bot", ours),
        ]
        if arguments.litellm:
            command = [arguments.litellm, "--config", str(folder / "litellm.yml"), "--port", "18194"]
            quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
            targets.append(Target("litellm", urls[2], "bot", stack.enter_context(program(*command, **quiet))))
        yield targets


async def compare(targets: list[Target], arguments: argparse.Namespace) -> None:
    """Wait for all of them, and measure."""
    for target in targets:
        await until_up(target.url)
    print("\nCPU per request of the process that serves, microseconds (ratio to the floor)\n")
    await measure(targets, arguments)
    ours = targets[1]
    each = await open_streams(Target("slow", ours.url, "slow/chain", ours.pid), 500)
    print(f"\n  500 streams of a chain that stand open: {each:.0f} kB each")


def main() -> None:
    """Measure, or be one of those that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 20, 50])
    parser.add_argument("--litellm", metavar="COMMAND")
    parser.add_argument("--role", choices=("upstream", "floor"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "upstream":
        asyncio.run(_upstream(arguments.port))
    elif arguments.role == "floor":
        app = Floor(arguments.upstream)
        uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="error", lifespan="off", access_log=False)
    else:
        with tempfile.TemporaryDirectory() as folder, everybody(arguments, Path(folder)) as targets:
            asyncio.run(compare(targets, arguments))


if __name__ == "__main__":
    main()
