"""
What one model call costs over loopback HTTP, measured in one run: read the ratios, not the milliseconds.

`python -m bench.calls` prints, for 1, 50 and 500 calls at once, streamed or not,
1. CPU of this process per call: the vendor's SDK, our wrapper with its whole onion, and plain aiohttp with a fast JSON
   decoder, which is the floor; medians of interleaved rounds;
2. the throughput with a server that takes 50 ms, 50 at once, as a share of the perfect 1,000 calls a second.

`--quick` makes it short and rough; `--profile` prints where our call's time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics

import aiohttp
import msgspec

from bench.harness import crowd, server
from shared_libs.atomic.llms import OpenAILLM

MESSAGES = [
    {"role": "system", "content": "Use the tools."},
    {"role": "user", "content": "What is 1 + 2, and its double?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": '{"a":1,"b":2}'}}
            for n, name in enumerate(("add", "double"))
        ],
    },
    {"role": "tool", "tool_call_id": "call_0", "content": "3"},
    {"role": "tool", "tool_call_id": "call_1", "content": "6"},
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "A sum.", "parameters": SCHEMA}}
    for name in ("add", "double")
]
ANSWER = "The sum is 3 and its double is 6."


class Sdk:
    """The vendor's SDK as it comes."""

    def __init__(self, url: str, *, stream: bool) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60)
        self.call = self._streamed if stream else self._whole
        self.aclose = self._client.close

    async def _whole(self) -> str:
        answer = await self._client.chat.completions.create(model="bench", messages=MESSAGES, tools=TOOLS)
        return answer.choices[0].message.content

    async def _streamed(self) -> str:
        stream = await self._client.chat.completions.create(model="bench", messages=MESSAGES, tools=TOOLS, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


class Wrapper:
    """Ours: retry, breaker, timeouts, ledger and all."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self._llm = OpenAILLM("bench", base_url=url, api_key="none")
        self.call = self._streamed if stream else self._whole
        self.aclose = self._llm.aclose

    async def _whole(self) -> str:
        return (await self._llm.async_chat(MESSAGES, TOOLS)).text

    async def _streamed(self) -> str:
        pieces: list[str] = []
        await self._llm.async_chat(MESSAGES, TOOLS, on_chunk=lambda chunk: pieces.append(chunk.text))
        return "".join(pieces)


class Floor:
    """Bytes out, bytes in, no resilience at all."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._url = f"{url}/chat/completions"
        self._body = {"model": "bench", "messages": MESSAGES, "tools": TOOLS, "stream": stream}
        self._headers = {"content-type": "application/json", "authorization": "Bearer none"}
        self.call = self._streamed if stream else self._whole
        self.aclose = self._session.close

    async def _whole(self) -> str:
        async with self._session.post(self._url, data=msgspec.json.encode(self._body), headers=self._headers) as answer:
            return msgspec.json.decode(await answer.read())["choices"][0]["message"]["content"]

    async def _streamed(self) -> str:
        pieces = []
        async with self._session.post(self._url, data=msgspec.json.encode(self._body), headers=self._headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    delta = msgspec.json.decode(line[6:])["choices"][0]["delta"]
                    pieces.append(delta.get("content") or "")
        return "".join(pieces)


CONTESTANTS = {"SDK": Sdk, "ours": Wrapper, "aiohttp": Floor}


async def compare(at_once: int, rounds: int, calls: int, url: str, *, stream: bool) -> None:
    """Print one row: CPU per call of each contestant, and what ours is of the others'."""
    contestants = {name: kind(url, stream=stream) for name, kind in CONTESTANTS.items()}
    taken: dict[str, list] = {name: [] for name in contestants}
    for contestant in contestants.values():
        assert (await contestant.call()).strip() == ANSWER
        await crowd(contestant.call, at_once, 2 * at_once)
    gc.collect()  # of imports and warming up: it would fall on whoever makes garbage next
    for _ in range(rounds):
        for name, contestant in contestants.items():
            taken[name].append(await crowd(contestant.call, at_once, max(calls, 3 * at_once)))
    cpu = {name: 1000 * statistics.median(row[0] for row in rows) for name, rows in taken.items()}
    label = f"{at_once} at once{', streaming' if stream else ''}"
    print(
        f"{label:24}{cpu['SDK']:8.2f}{cpu['ours']:8.2f}{cpu['aiohttp']:9.2f}{cpu['ours'] / cpu['SDK']:10.3f}"
        f"{cpu['ours'] / cpu['aiohttp']:14.2f}",
        flush=True,
    )
    for contestant in contestants.values():
        await contestant.aclose()


async def throughput(rounds: int) -> None:
    """
    Print calls a second at 50 at once with a server of 50 ms; the floor says what this machine can give.

    A round is long, because its first wave starts all at once and is no steady state.
    """
    print("\n2. calls a second, server of 50 ms, 50 at once; perfect is 1,000\n")
    with server(18084, 0.05) as url:
        contestants = {name: kind(url, stream=False) for name, kind in CONTESTANTS.items()}
        taken: dict[str, list] = {name: [] for name in contestants}
        for contestant in contestants.values():
            await crowd(contestant.call, 50, 100)
        for _ in range(rounds):
            for name, contestant in contestants.items():
                taken[name].append(1 / (await crowd(contestant.call, 50, 80 * 50))[1])
        for name, rates in taken.items():
            print(f"{name:24}{statistics.median(rates):8.0f}   {statistics.median(rates) / 1000:.1%}")
            await contestants[name].aclose()


async def profile() -> None:
    """Print where our call's time goes, one at a time."""
    with server(18085, 0.0) as url:
        ours = Wrapper(url, stream=False)
        await crowd(ours.call, 1, 200)
        profiler = cProfile.Profile()
        profiler.enable()
        await crowd(ours.call, 1, 2000)
        profiler.disable()
        await ours.aclose()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


async def _main(*, quick: bool, profiled: bool) -> None:
    rounds, calls = (3, 60) if quick else (7, 400)
    print("1. CPU per call over HTTP (ms)\n")
    print(f"{'':24}{'SDK':>8}{'ours':>8}{'aiohttp':>9}{'ours/SDK':>10}{'ours/aiohttp':>14}")
    for stream in (False, True):
        for at_once, delay_s, port in ((1, 0.0, 18081), (50, 0.05, 18082), (500, 0.05, 18083)):
            with server(port, delay_s) as url:
                await compare(at_once, rounds, calls, url, stream=stream)
    await throughput(rounds // 2)
    if profiled:
        await profile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(_main(quick=arguments.quick, profiled=arguments.profile))


if __name__ == "__main__":
    main()
