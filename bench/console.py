"""
What the console and the store of runs cost where there is much.

`python -m bench.console [--runs 100000] [--events 10000] [--keep FILE]` fills a store with so many runs, one of so many
events, one of 100,000 steps and one with an answer of 10 MB, serves it, and looks at it in a real Chromium: the first
paint of each place, how long the page was busy at a stretch, and the time from a key to the next paint. The routes of
the service are measured beside it, and `factory runs` as a whole command.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from urllib.parse import quote

import aiohttp
import msgspec

from shared_libs.atomic import events as e
from shared_libs.atomic.results import Action, AgentResult, Observation, Step
from shared_libs.atomic.types import Attempt, LLMResponse, Usage
from shared_libs.observability import RunStore
from tests.browser import looking

FACTORY = [sys.executable, "-m", "shared_libs.cli"]
HELLO = "name: hello\nllm: {provider: rehearsal, script: hello}\ntools: [calculator]\n"
ORIGINALS = "WHERE run_id GLOB 'run-*' AND run_id NOT GLOB '*-*-*'"
WORDS = ["flights", "delays", "airports", "weather", "planes", "revenue", "churn", "orders", "refunds", "customers"]
WATCH = """
window.seen = {busy: 0, keys: []};
const watch = (type, take, more) => new PerformanceObserver(list => list.getEntries().forEach(take))
  .observe({type, buffered: true, ...more});
watch('longtask', each => { seen.busy = Math.max(seen.busy, each.duration); });
watch('event', each => { if (each.interactionId) seen.keys.push(each.duration); }, {durationThreshold: 16});
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def one_run(number: int, began: datetime, chance: random.Random) -> list[e.AgentEvent]:
    """A small run."""
    run_id, took_s = f"run-{number}", chance.lognormvariate(1, 1)
    model, agent = f"model-{number % 3}", f"agent-{number % 7}"
    attempt = Attempt(
        provider="openai", model=model, number=1, outcome="ok", started_s=0.01, first_token_s=took_s / 3, ended_s=took_s
    )
    status = "failed" if number % 50 == 0 else "answered"
    result = AgentResult(
        run_id=run_id, status=status, stop_reason="final_answer", answer=" ".join(chance.choices(WORDS, k=12)),
        elapsed_s=took_s, cost_usd=0.001, usage=Usage(100, 50), attempts=(attempt,),
    )  # fmt: skip
    told: list[e.AgentEvent] = [
        e.RunStarted(
            agent=agent, question=" ".join(chance.choices(WORDS, k=6)), started_at=began.isoformat(), timeout_s=60.0,
            model=model, protocol="native", session_id=f"s{number % 1000}",
        ),
        e.AttemptStarted(provider="openai", model=model, number=1),
        e.AttemptFinished(attempt=attempt),
        e.RunFinished(result=result),
    ]  # fmt: skip
    return _numbered(run_id, told, took_s)


def long_run(run_id: str, steps: int, answer: str = "done") -> list[e.AgentEvent]:
    """A run of many steps, each with five events."""
    told: list[e.AgentEvent] = [
        e.RunStarted(
            agent="hello", question="a long one", started_at=datetime.now(UTC).isoformat(), timeout_s=3600.0, model="m",
            protocol="native",
        )
    ]  # fmt: skip
    for step in range(1, steps + 1):
        call = f"c{step}"
        told += [
            e.StepStarted(step=step),
            e.ModelFinished(step=step, response=LLMResponse(text="I look.")),
            e.Thought(step=step, text="It has to be looked up."),
            e.ToolStarted(step=step, tool="look_up", input={"n": step}, call_id=call),
            e.ToolFinished(
                step=step, tool="look_up", call_id=call, content="seen " * 20, is_error=False, elapsed_s=0.01
            ),
        ]
    result = AgentResult(
        run_id=run_id, status="answered", stop_reason="final_answer", answer=answer, steps=tuple(
            Step(
                thought=event.text,
                actions=(Action("look_up", {"n": event.step}, f"c{event.step}"),),
                observations=(Observation(f"c{event.step}", "seen " * 20, is_error=False, elapsed_s=0.01),),
            )
            for event in told if isinstance(event, e.Thought)
        ),
    )  # fmt: skip
    told.append(e.RunFinished(result=result))
    return _numbered(run_id, told, 600.0)


def _numbered(run_id: str, told: list[e.AgentEvent], took_s: float) -> list[e.AgentEvent]:
    for seq, event in enumerate(told, 1):
        event.run_id, event.seq, event.at_s = run_id, seq, took_s * (seq - 1) / len(told)
    return told


async def fill(file: Path, runs: int, events: int) -> None:
    """Fill a store: each kind of run as the runtime writes it, and copies of it as rows."""
    chance, now = random.Random(1), datetime.now(UTC)
    copies = max(1, runs // 1000)
    async with RunStore(f"sqlite:///{file}") as store:
        observe = store.observer(source="service")
        for number in range(runs // copies):
            began = now - timedelta(seconds=5 * copies * number)
            for event in one_run(number, began, chance):
                observe(event)
        longer = [long_run("big", events // 5), long_run("huge", 100_000), long_run("wide", 1, "word " * 2_000_000)]
        for first, *middle, last in longer:
            observe(first)
            if len(middle) <= events:
                for event in middle:
                    observe(event)
            observe(last)
            while not await store.flush():
                pass
        assert not store.lost
    await asyncio.to_thread(copy, file, copies, longer[1])


def copy(file: Path, copies: int, steps: list[e.AgentEvent]) -> None:
    """Copy every run so many times, each five seconds before the last; put the steps into the longest."""
    with sqlite3.connect(file) as rows:
        columns = [name for _, name, *_ in rows.execute("PRAGMA table_info(factory_runs)")]
        told = {"id": "id - :shift", "run_id": "run_id || '-' || :copy"}
        told["started_at"] = "strftime('%Y-%m-%dT%H:%M:%f+00:00', ((id - :shift) >> 22) / 1000.0, 'unixepoch')"
        names, values = ", ".join(columns), ", ".join(told.get(name, name) for name in columns)
        for number in range(1, copies):
            given = {"copy": number, "shift": (5000 * number) << 22}
            rows.execute(f"INSERT INTO factory_runs ({names}) SELECT {values} FROM factory_runs {ORIGINALS}", given)
        words = "question || ' ' || coalesce(answer, '')"
        copied = f"SELECT id, {words} FROM factory_runs WHERE run_id GLOB 'run-*-*'"
        rows.execute(f"INSERT OR IGNORE INTO factory_run_words (rowid, words) {copied}")
        (huge,) = rows.execute("SELECT id FROM factory_runs WHERE run_id = 'huge'").fetchone()
        encode = msgspec.json.Encoder().encode
        between = ((huge, event.seq, encode(event).decode()) for event in steps[1:-1])
        rows.executemany("INSERT INTO factory_run_events (run, seq, event) VALUES (?, ?, ?)", between)
    rows.close()


@asynccontextmanager
async def served(folder: Path, url: str):
    """Serve the store by the command itself, in a process of its own."""
    (folder / "hello.yaml").write_text(HELLO)
    command = [
        sys.executable,
        "-m",
        "shared_libs.cli",
        "serve",
        "--configs",
        str(folder),
        "--port",
        "0",
        "--store",
        url,
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        while b"listening on " not in (line := await process.stderr.readline()):
            assert line, "the service did not start"
        yield line.decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()


async def routes(url: str) -> None:
    """Measure what the list asks of the service."""
    yesterday = quote((datetime.now(UTC) - timedelta(days=1)).isoformat())
    cases = {
        "newest 50": "",
        "slowest": "order=slowest",
        "slowest since yesterday": f"order=slowest&since={yesterday}",
        "failed": "status=failed",
        "of an agent": "agent=agent-3",
        "of a session": "session_id=s17",
        "with words": "text=refunds+churn",
        "slowest of an agent since yesterday": f"order=slowest&agent=agent-3&since={yesterday}",
    }
    print(f"\n{'GET /v1/runs':44}{'median ms':>10}{'most ms':>10}")
    async with aiohttp.ClientSession(url) as http:
        for name, query in cases.items():
            took = []
            for _ in range(7):
                began = time.perf_counter()
                async with http.get(f"/v1/runs?{query}") as answer:
                    assert len((await answer.json())["runs"]) == 50
                took.append((time.perf_counter() - began) * 1e3)
            print(f"{name:44}{median(took):>10.1f}{max(took):>10.1f}")


async def look(url: str, place: str, ready: str, keys: list[str], focus: str) -> None:
    """Measure one place of the page."""
    async with looking(url) as page:
        await page.add_init_script(WATCH)
        page.set_default_timeout(120_000)
        began = time.perf_counter()
        await page.goto(f"/#/{place}")
        await page.locator(ready).first.wait_for()
        ready_ms = (time.perf_counter() - began) * 1e3
        await page.locator(focus).first.focus()
        for key in keys:
            await page.keyboard.press(key)
        await page.wait_for_timeout(300)
        paint, seen = await page.evaluate(PAINT), await page.evaluate("seen")
        slow = sorted(seen["keys"])
        most, middle = (slow[-1], median(slow)) if slow else (0.0, 0.0)
        print(f"{place:20}{paint:>14.0f}{ready_ms:>14.0f}{seen['busy']:>14.0f}{middle:>14.0f}{most:>14.0f}")


def command(url: str) -> None:
    """Measure `factory runs`."""
    print(f"\n{'command':44}{'median ms':>10}")
    environment = os.environ | {"FACTORY_RUNS": url}
    for arguments in (["--version"], ["runs"], ["runs", "--slowest", "--since", "1d"], ["runs", "run-17"]):
        took = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([*FACTORY, *arguments], env=environment, capture_output=True, check=True)
            took.append((time.perf_counter() - began) * 1e3)
        print(f"factory {' '.join(arguments):36}{median(took):>10.0f}")


async def main() -> None:
    """Measure it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="the store's file; used as it is when it is there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = asked.keep or Path(folder) / "runs.db"
        url = f"sqlite:///{file}"
        if not file.exists():
            began = time.perf_counter()
            await fill(file, asked.runs, asked.events)
            print(f"filled in {time.perf_counter() - began:.0f} s: {file.stat().st_size >> 20} MiB")
        (Path(folder) / "configs").mkdir()
        async with served(Path(folder) / "configs", url) as address:
            await routes(address)
            heads = ("first paint", "ready", "busy at most", "key median", "key most")
            print(f"\n{'place, in ms':20}" + "".join(f"{head:>14}" for head in heads))
            arrows = ["ArrowDown"] * 10 + ["PageDown"] * 10 + ["End", "Home"] + ["ArrowDown"] * 5
            await look(address, "runs", "tbody tr", list("refunds"), "input[type=search]")
            for run_id, steps in (("big", asked.events // 5), ("huge", 100_000), ("wide", 1)):
                whole = f"[aria-rowcount='{2 * steps + 1}']"
                await look(address, f"runs/{run_id}", whole, arrows, ".lanes")
        command(url)


if __name__ == "__main__":
    asyncio.run(main())
