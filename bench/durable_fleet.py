"""
Several workers on one PostgreSQL: one is killed, one is stopped and comes back, all are replaced, 10,000 runs wait.

`python -m bench.durable_fleet fleet` kills one of three workers under 300 runs and stops another for a minute.
`… rollout` replaces two workers by two of another version, of the code and of the definition, while 50 runs are under
way: each is told to drain once its successor is ready. Effects that were begun once more are divided by why. `… queue`
lets 10,000 runs wait, and says what that costs who submits, looks and works. `… follow` says how old pieces of text are
that another process hears, and whether it hears all. Tools write down what they begin and end in a file outside.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.durable import said
from shared_libs.agents import Limits, ReActAgent
from shared_libs.atomic import LLMChunk, LLMResponse, Message, ToolCall, tool
from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.events import EventSink
from shared_libs.atomic.llms import BaseLLMWrapper
from shared_libs.atomic.scope import current_scope
from shared_libs.durable import Claim, Job, JobStore, Submission, Worker, WorkerPolicy, follow
from shared_libs.durable.holding import Holder
from shared_libs.observability.run_store import RunStore

TURNS = 4
AT_ONCE = 100
"""Runs that a worker does at once: three have slots for all there are, and none to spare."""


class Notes:
    """A file outside, a line for each thing that happens; whole, whatever kills the writer next."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, what: str, **more: Any) -> None:
        line = "\n" + json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **more}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

    def read(self) -> list[dict[str, Any]]:
        return [*said(self.path.read_text())] if self.path.exists() else []


class Paced(BaseLLMWrapper):
    """Has a pace."""

    pause_s = 0.0


class Model(Paced):
    """Calls two tools a turn, for some turns; answers with all it has seen."""

    async def _chat(self, messages: list[Message], tools: tuple, **options: object) -> LLMResponse:
        done = sum(message.role == "assistant" for message in messages)
        await asyncio.sleep(self.pause_s)
        if done >= TURNS:
            return LLMResponse(text="|".join(message.text for message in messages if message.role == "tool"))
        calls = tuple(ToolCall(f"c{done}{side}", "pay", {"amount": 2 * done + side}) for side in range(2))
        return LLMResponse(text="", tool_calls=calls, finish_reason="tool_calls")


class Speaks(Paced):
    """Says what time it is, again and again."""

    async def _stream(self, messages: list[Message], tools: tuple, **options: object) -> AsyncIterator[LLMChunk]:
        said = ""
        for _ in range(60):
            await asyncio.sleep(0.03)
            piece = f"{time.time():.6f} "
            said += piece
            yield LLMChunk("text", piece)
        yield LLMChunk("finished", response=LLMResponse(text=said))


def expected(run_id: str) -> str:
    return "|".join(f"{run_id} paid {amount}" for amount in range(2 * TURNS))


async def work(url: str, notes: Notes, version: int, pace_s: float, lease_s: float) -> None:
    """Be a worker of a version of the code: it can do definitions up to its own."""

    @tool
    async def pay(amount: int) -> str:
        key = current_scope().key
        notes.write("begun", key=key)
        await asyncio.sleep(pace_s)
        notes.write("ended", key=key)
        return f"{key.split('/')[0]} paid {amount}"

    def build(claim: Claim, sinks: Sequence[EventSink]) -> ReActAgent:
        if claim.definition["v"] > version:
            raise ConfigError([f"version {version} knows no definition {claim.definition['v']}"])
        model = Speaks("bench") if claim.definition["v"] == 0 else Model("bench")
        model.pause_s = pace_s / 2
        return ReActAgent(llm=model, tools=[pay], observers=sinks, limits=Limits(timeout_s=3600, max_repeats=99))

    claim = Holder.claim

    async def noted(self: Holder, *arguments: Any, **more: Any) -> list[Claim]:
        claims = await claim(self, *arguments, **more)
        for one in claims:
            notes.write("claimed", run=one.run_id, epoch=one.epoch)
        return claims

    keep = Holder.keep

    async def kept(self: Holder, claim: Claim, facts: Any, events: Any) -> bool:
        done = await keep(self, claim, facts, events)
        for fact in facts if done else ():
            notes.write("recorded", run=claim.run_id, name=fact.name)
        return done

    Holder.claim, Holder.keep = noted, kept  # type: ignore[method-assign]
    worker = Worker(url, build, policy=WorkerPolicy(concurrency=AT_ONCE, lease_s=lease_s))
    working = asyncio.create_task(worker.run())
    await worker.started.wait()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
    notes.write("ready")
    await working
    notes.write("left", rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Fleet:
    """Workers in processes of their own."""

    def __init__(self, url: str, notes: Notes, pace_s: float, lease_s: float) -> None:
        self.url, self.notes = url, notes
        self._times = str(pace_s), str(lease_s)
        self._all: list[asyncio.subprocess.Process] = []

    async def start(self, version: int = 1) -> asyncio.subprocess.Process:
        place = self.url, str(self.notes.path)
        command = [sys.executable, "-m", "bench.durable_fleet", "work", *place, str(version), *self._times]
        process = await asyncio.create_subprocess_exec(*command)
        self._all.append(process)
        while not any(row["what"] == "ready" and row["pid"] == process.pid for row in self.notes.read()):
            if process.returncode is not None:
                sys.exit("a worker failed by itself")
            await asyncio.sleep(0.05)
        return process

    async def stop(self) -> None:
        for process in self._all:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._all))


@asynccontextmanager
async def fleet_of(url: str, folder: Path, pace_s: float, lease_s: float) -> Any:
    fleet = Fleet(url, Notes(folder / "notes"), pace_s, lease_s)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(JobStore(url))
        stack.push_async_callback(fleet.stop)
        yield fleet, store


async def submit(store: JobStore, run_ids: Sequence[str], version: int = 1) -> None:
    for run_id in run_ids:
        definition = {"name": "a", "v": version}
        made = Submission(run_id=run_id, agent="a", definition=definition, question="go", followed=version == 0)
        await store.submit(made, f"v{version}")


async def ended(store: JobStore, run_ids: Sequence[str], patience_s: float = 600) -> list[Job]:
    async with asyncio.timeout(patience_s):
        while await store.find(statuses=("queued", "running", "waiting"), limit=1):
            await asyncio.sleep(0.1)
    jobs = [await store.get(run_id) for run_id in run_ids]
    return [job for job in jobs if job is not None]


def causes(rows: Sequence[dict[str, Any]], became: Mapping[int, str]) -> collections.Counter[str]:
    """
    Count the effects that were begun once more, by why: what became of the worker that had begun them before.

    `became` says so of those that something became of; what was recorded, or was another's, must not be among them.
    """
    before: dict[str, dict[str, Any]] = {}
    ended, recorded = set(), set()
    found: collections.Counter[str] = collections.Counter()
    for row in rows:
        if row["what"] == "ended":
            ended.add((row["key"], row["pid"]))
        elif row["what"] == "recorded":
            recorded.add((row["run"], row["name"]))
        elif row["what"] == "begun":
            run, *_, call = (key := row["key"]).split("/")
            if key in before:
                pid = before[key]["pid"]
                why = became.get(pid, "nothing was wrong with it")
                stage = "had ended, not recorded" if (key, pid) in ended else "in flight"
                found["recorded before" if (run, f"tool.{call}") in recorded else f"{why}, {stage}"] += 1
            before[key] = row
    return found


MUST_NOT_BE = ("recorded before", "nothing was wrong with it")


async def judged(
    store: JobStore, jobs: Sequence[Job], run_ids: Sequence[str], notes: Notes, became: Mapping[int, str] = {}
) -> str:
    """
    Say what became of the runs, and of every effect; end the program where it is not as it should be.

    `became` says what became of a worker.
    """
    rows = notes.read()
    wrong = [job.run_id for job in jobs if job.status != "answered" or job.result["answer"] != expected(job.run_id)]
    ends = [
        sum(event["type"] == "run_finished" and event["result"]["status"] != "paused" for event in events)
        for events in [await store.events(job.run_id) for job in jobs]
    ]
    begun = collections.Counter(row["key"] for row in rows if row["what"] == "begun")
    holder: dict[str, int] = {}
    zombies = 0
    for row in rows:
        if row["what"] == "claimed":
            holder[row["run"]] = row["pid"]
        elif row["what"] == "begun":
            zombies += holder[row["key"].split("/")[0]] != row["pid"]
    lost, twice = len(run_ids) - len(jobs), causes(rows, became)
    unfounded = sum(count for why, count in twice.items() if why.startswith(MUST_NOT_BE))
    divided = "; ".join(f"{why}: {count}" for why, count in sorted(twice.items())) or "none"
    told = (
        f"{len(jobs)} of {len(run_ids)} runs ended, lost {lost}, wrong {len(wrong)}, ended more than once "
        f"{sum(count > 1 for count in ends)}, effects {len(begun)} of {len(run_ids) * 2 * TURNS}, begun by who "
        f"had lost the run {zombies}, begun once more {sum(twice.values())} ({divided})"
    )
    if lost or wrong or zombies or unfounded or set(ends) != {1} or len(begun) != len(run_ids) * 2 * TURNS:
        print(told, wrong[:3])
        sys.exit("not as it should be")
    return told


async def killed_and_stopped(url: str, folder: Path, runs: int, stopped_s: float, lease_s: float) -> None:
    run_ids = [f"r{number}" for number in range(runs)]
    async with fleet_of(url, folder, 2.0, lease_s) as (fleet, store):
        first, second, _ = [await fleet.start() for _ in range(3)]
        await submit(store, run_ids)
        await under_way(fleet, runs // 10)
        first.kill()
        killed_at = time.time()
        second.send_signal(signal.SIGSTOP)
        stopped_at = time.time()
        await asyncio.sleep(stopped_s)
        second.send_signal(signal.SIGCONT)
        jobs = await ended(store, run_ids)
        became = {first.pid: "its worker was killed", second.pid: "its worker was stopped"}
        print(await judged(store, jobs, run_ids, fleet.notes, became))
        rows = fleet.notes.read()
        for what, pid, at in (("killed", first.pid, killed_at), ("stopped", second.pid, stopped_at)):
            waits = takeovers(rows, pid, at)
            most, middle = max(waits, default=0.0), statistics.median(waits or [0.0])
            print(f"{what}: its {len(waits)} runs were another's after {middle:.1f} s (median), {most:.1f} s (most)")


async def under_way(fleet: Fleet, effects: int) -> None:
    """Wait until so many effects have ended."""
    while sum(row["what"] == "ended" for row in fleet.notes.read()) < effects:
        await asyncio.sleep(0.05)


def takeovers(rows: Sequence[dict[str, Any]], pid: int, at: float) -> list[float]:
    """Return how long each run that a worker held then was nobody's, in seconds."""
    claims = [row for row in rows if row["what"] == "claimed"]
    holder = {row["run"]: row["pid"] for row in claims if row["at"] <= at}
    later = [row for row in claims if row["at"] > at and holder.get(row["run"]) == pid]
    first = {row["run"]: row["at"] - at for row in reversed(later)}
    return list(first.values())


async def replaced(url: str, folder: Path, runs: int, lease_s: float) -> None:
    old, new = ([f"{kind}{number}" for number in range(runs // 2)] for kind in ("old", "new"))
    async with fleet_of(url, folder, 0.3, lease_s) as (fleet, store):
        workers = [await fleet.start(1) for _ in range(2)]
        await submit(store, old, version=1)
        await under_way(fleet, runs // 5)
        await submit(store, new, version=2)  # whoever asks has rolled out first: no worker knows it yet
        took = []
        for worker in workers:
            await fleet.start(2)
            began = time.monotonic()
            worker.terminate()
            await worker.wait()
            took.append(time.monotonic() - began)
        jobs = await ended(store, [*old, *new])
        print(await judged(store, jobs, [*old, *new], fleet.notes))
        handed = sum(job.epoch > 1 for job in jobs)
        print(f"{handed} runs were handed over; the two workers left after {took[0]:.1f} and {took[1]:.1f} s")


async def listened_to(url: str, folder: Path) -> None:
    """Follow a run from this process while another does it; how old each piece of text is when it is here."""
    async with fleet_of(url, folder, 0.0, 10.0) as (fleet, store):
        await fleet.start()
        ages, before = [], 0
        for number in range(5):
            await submit(store, [f"r{number}"], version=0)
            listens_from = 0.0
            async for event in follow(url, f"r{number}"):
                listens_from = listens_from or time.time()
                if event["type"] == "text_delta":
                    moments = [float(said) for said in event["text"].split()]
                    ages += [1000 * (time.time() - said) for said in moments if said >= listens_from]
                    before += sum(said < listens_from for said in moments)
        ages.sort()
        middle, late, last = (ages[int(len(ages) * share) - 1] for share in (0.5, 0.95, 1.0))
        print(
            f"{len(ages) + before} of {5 * 60} pieces, {before} of them said before anybody listened; the others: "
            f"{middle:.0f} ms old (median), {late:.0f} ms (p95), {last:.0f} ms (most)"
        )


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def command(words: Sequence[str], variables: Mapping[str, str]) -> tuple[float, float]:
    """Run a `factory` command; return the seconds of CPU and of waiting that it took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = [sys.executable, "-m", "shared_libs.cli", *words]
    subprocess.run(done, env=os.environ | variables, check=words[0] != "doctor", capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.perf_counter() - began


async def waiting(url: str, folder: Path, runs: int) -> None:
    async with fleet_of(url, folder, 0.0, 10.0) as (fleet, store):
        sizes = []
        for begin in range(0, runs, runs // 10):
            began = time.perf_counter()
            await submit(store, [f"r{number}" for number in range(begin, begin + runs // 10)])
            sizes.append(rss_mb(os.getpid()))
        each_ms = 1000 * (time.perf_counter() - began) / (runs // 10)
        print(
            f"submitting: {each_ms:.1f} ms each, {sizes[0]:.0f} MB after {runs // 10} and {sizes[-1]:.0f} after {runs}"
        )
        began = time.perf_counter()
        await store.find(limit=20)
        listed = time.perf_counter() - began
        began = time.perf_counter()
        await store.workers()
        counted = await store.sizes()
        examined = time.perf_counter() - began
        print(f"{counted.statuses}: listed in {1000 * listed:.0f} ms, examined in {1000 * examined:.0f} ms")
        async with RunStore(url):  # as `factory submit` opens it; `runs` lists what it keeps
            pass
        for words in (["runs"], ["runs", "r7"], ["doctor"]):
            told = [await asyncio.to_thread(command, words, {"FACTORY_RUNS": url}) for _ in range(5)]
            cpu_s, wall_s = (statistics.median(times) for times in zip(*told, strict=True))
            print(f"factory {' '.join(words)}: {cpu_s:.2f} s CPU, {wall_s:.2f} s, the start of Python included")
        worker = await fleet.start()
        marks = []
        for share in (0.05, 0.5):
            while (await store.sizes()).statuses.get("answered", 0) < runs * share:
                await asyncio.sleep(0.5)
            marks.append(rss_mb(worker.pid))
        print(f"the worker: {marks[0]:.0f} MB after {runs // 20} runs, {marks[1]:.0f} after {runs // 2}")


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        url, notes, version, pace_s, lease_s = sys.argv[2:]
        asyncio.run(work(url, Notes(Path(notes)), int(version), float(pace_s), float(lease_s)))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fleet", "rollout", "queue", "follow"))
    parser.add_argument("--runs", type=int, help="default: 300 for fleet, 50 for rollout, 10,000 for queue")
    parser.add_argument("--stopped", type=float, default=60.0, help="seconds a worker is stopped (default: 60)")
    parser.add_argument("--server", help="where a PostgreSQL listens; default: one of its own")
    parser.add_argument("--lease", type=float, default=10.0, help="the lease, in seconds (default: 10)")
    arguments = parser.parse_args()
    from tests.postgres import running_postgres

    runs = arguments.runs or {"fleet": 300, "rollout": 50, "queue": 10_000, "follow": 5}[arguments.what]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = arguments.server or stack.enter_context(running_postgres()).place
        url, place = f"postgresql://owner@{server}", Path(folder)
        if arguments.what == "fleet":
            asyncio.run(killed_and_stopped(url, place, runs, arguments.stopped, arguments.lease))
        elif arguments.what == "rollout":
            asyncio.run(replaced(url, place, runs, arguments.lease))
        elif arguments.what == "queue":
            asyncio.run(waiting(url, place, runs))
        else:
            asyncio.run(listened_to(url, place))


if __name__ == "__main__":
    main()
