"""What the storms of `bench.service_storm` blow on: `factory serve` in a process, its provider, and a prober."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.server import USAGE, body_of

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


@asynccontextmanager
async def probing(url: str, pid: int, took: list[tuple[float, float]]) -> AsyncIterator[None]:
    """Ask `/healthz` all the while, from a process that does nothing else."""
    command = [sys.executable, "-m", "bench.service_weather", url, str(pid)]
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


if __name__ == "__main__":
    probe(sys.argv[1], int(sys.argv[2]))
