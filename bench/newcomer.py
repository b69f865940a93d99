"""
Three sessions of somebody new, from an empty environment and by the documentation alone.

`python -m bench.newcomer [--only service|slow|scenario] [--environment DIR]` makes the environment by the lines of the
pages, does what they say with the files they show, and prints each step with its seconds of wall clock and of CPU. A
model is a server on loopback that answers as `tests/docs/given.py` says; PostgreSQL is real. Exit code 1 where a step
did not do what its page promises. The install is most of the time: `--environment` takes one that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from shared_libs.agents import ReActAgent, RunFinished, RunStarted
from shared_libs.atomic import tool
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.events import AgentEvent
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.observability import RunStore
from shared_libs.testing import BackgroundFaultServer
from shared_libs.testing.clock import run_virtual
from tests.docs.given import said
from tests.docs.reading import ROOT, blocks
from tests.postgres import running_postgres
from tests.support import run

RUNS = 10_000


class Session:
    """What somebody does in a folder of his own; every step is timed."""

    def __init__(self, title: str, environment: Path, folder: Path, **variables: str) -> None:
        self._programs = environment / "bin"
        self.folder = folder
        path = f"{self._programs}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))}
        self._variables = {**kept, "PATH": path, "HOME": str(folder), "NO_COLOR": "1", **variables}
        self._began = time.perf_counter()
        self.ok = True
        print(f"\n{title}\n{'wall s':>8} {'CPU s':>7}  step")

    def does(self, *words: str, code: int = 0, says: str = "") -> str:
        """Run a command; it ends with the code and says the words, or the session has failed."""
        with self.timed(" ".join(words)) as told:
            done = subprocess.run(
                words, cwd=self.folder, env=self._variables, capture_output=True, text=True, timeout=900, check=False
            )
            text = done.stdout + done.stderr
            if done.returncode != code or says not in text:
                self.ok = False
                told.append(f"   FAILED: {done.returncode}, not {code}, or without {says!r}\n{text[-2000:]}")
        return text

    def writes(self, name: str, text: str) -> None:
        """Keep a file."""
        (self.folder / name).write_text(text)

    @contextmanager
    def runs(self, *words: str) -> Iterator[None]:
        """Run a program beside the session."""
        with subprocess.Popen([self._programs / words[0], *words[1:]], cwd=self.folder, env=self._variables) as program:
            try:
                yield
            finally:
                program.terminate()
                program.wait(30)

    @contextmanager
    def timed(self, step: str) -> Iterator[list[str]]:
        """Print what a step took, and what it is told."""
        told: list[str] = []
        began, before = time.perf_counter(), _cpu()
        yield told
        print(f"{time.perf_counter() - began:8.2f} {_cpu() - before:7.2f}  {step[:110]}")
        for line in told:
            print(line)

    def ends(self) -> bool:
        """Print the whole; return whether all was as it should be."""
        whole = "as promised" if self.ok else "NOT AS PROMISED"
        print(f"{time.perf_counter() - self._began:8.2f}          in all: {whole}")
        return self.ok


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _shown(page: str, file: str) -> str:
    """Return a file as a page shows it."""
    return next(block.code for block in blocks(ROOT / "docs" / page) if block.file == file)


def service(environment: Path, folder: Path) -> bool:
    """An agent with a typed answer in a route of FastAPI, its memory in PostgreSQL: docs/guides/fastapi.md."""
    with running_postgres() as server, BackgroundFaultServer({"*": said}) as model:
        session = Session(
            "An agent with a typed answer in a FastAPI route, its memory in PostgreSQL (docs/guides/fastapi.md)",
            environment,
            folder,
            DATABASE_URL=f"postgresql://owner@{server.place}",
            OPENAI_API_KEY="k",
            OPENAI_BASE_URL=model.url("openai"),
        )
        session.writes("app.py", _shown("guides/fastapi.md", "app.py"))
        with session.runs("uvicorn", "app:app", "--port", "8765", "--log-level", "warning"):
            with session.timed("uvicorn app:app answers"):
                _asked("http://127.0.0.1:8765/openapi.json", tries=600)
            url = "http://127.0.0.1:8765/orders/ask?question=Where+is+order+7%3F&session=ann&user=Ann"
            for step in ("the first question", "the second, with the first in its memory"):
                with session.timed(step) as told:
                    answer = _asked(url, method="POST")
                    told.append(f"                  {answer}")
                    session.ok = session.ok and json.loads(answer) == {"number": 7, "state": "on its way to Ann"}
        sent = model.requests[-1].body["messages"]
        session.ok = session.ok and sum(message["role"] == "user" for message in sent) == 2
        session.does("factory", "runs", "--store", f"postgresql://owner@{server.place}", says="Where is order")
        return session.ends()


def _asked(url: str, *, method: str = "GET", tries: int = 1) -> str:
    for tried in range(tries):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError:
            raise
        except OSError:
            if tried == tries - 1:
                raise
            time.sleep(0.1)
    raise AssertionError("never asked")


def slow(environment: Path, folder: Path) -> bool:
    """Why was it slow yesterday: docs/cli.md and docs/runs.md, over a store of 10,000 runs."""
    store = f"sqlite:///{folder / 'runs.db'}"
    run(_filled(store))
    title = f"Why was it slow yesterday, of {RUNS:,} runs (docs/start.md, docs/runs.md)"
    session = Session(title, environment, folder, FACTORY_RUNS=store)
    session.does("factory", "runs", "--since", "2d", "--slowest", "-n", "5", says="slow-one")
    session.does("factory", "runs", "slow-one", says="Retry-After")
    session.does("factory", "runs", "--text", "strange parcel", says="slow-one")
    session.does("factory", "runs", "--status", "failed", says="")
    session.does("factory", "trace", "slow-one", "--html", "slow.html")
    return session.ends()


async def _filled(store: str) -> None:
    """Record runs of yesterday: many that are alike, and one whose model said when to come again."""

    @tool
    async def look_up(item: str) -> str:
        """Look something up."""
        return f"{item}: on its way"

    usual = _events(ReActAgent(ScriptedLLM([Turn(calls=[("look_up", {"item": "7"})]), "It is on its way."]), [look_up]))
    told = RateLimited("busy", retry_after_s=17.0)
    odd = _events(ReActAgent(ScriptedLLM([told, "It is on its way."]), [look_up]), "Where is the strange parcel?")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    async with RunStore(store) as kept:
        record = kept.observer(source="library")
        for number in range(RUNS):
            of, name = (odd, "slow-one") if number == RUNS // 2 else (usual, f"run-{number}")
            for event in of:
                record(_moved(event, name, yesterday + timedelta(seconds=number / 10)))
            while number % 200 == 0 and not await kept.flush():
                pass  # a busy machine: what finds no room in the queue would be lost
        while not await kept.flush():
            pass


def _events(agent: ReActAgent, question: str = "Where is order 7?") -> Sequence[AgentEvent]:
    async def heard() -> list[AgentEvent]:
        return [event async for event in agent.async_stream(question, timeout=60)]

    found: list[AgentEvent] = []
    import threading

    thread = threading.Thread(target=lambda: found.extend(run_virtual(heard())))  # a loop of its own
    thread.start()
    thread.join()
    return found


def _moved(event: AgentEvent, name: str, when: datetime) -> AgentEvent:
    if isinstance(event, RunStarted):
        return msgspec.structs.replace(event, run_id=name, started_at=when.isoformat())
    if isinstance(event, RunFinished):
        return msgspec.structs.replace(event, run_id=name, result=msgspec.structs.replace(event.result, run_id=name))
    return msgspec.structs.replace(event, run_id=name)


def scenario(environment: Path, folder: Path) -> bool:
    """A first scenario that fails, is understood and mended: docs/guides/testing.md."""
    session = Session(
        "A first scenario that fails, is understood and mended (docs/guides/testing.md)", environment, folder
    )
    session.does("factory", "init", "shop", says="factory scenario")
    session.folder = folder / "shop"
    session.does("factory", "scenario", "agent.scenario.yaml", says="1 passed")
    session.does("factory", "run", "agent.yaml", "What", "is", "17", "*", "23?", says="391")
    page = "guides/testing.md"
    text = _shown(page, "longer.scenario.yaml")
    session.writes("longer.scenario.yaml", text)
    failed = session.does("factory", "scenario", "longer.scenario.yaml", code=1, says="Difference: ")
    print("\n".join(f"                  {line}" for line in failed.splitlines()[:3]))
    another, models = (block.code for block in blocks(ROOT / "docs" / page) if block.language == "text")
    agent = (session.folder / "agent.yaml").read_text()
    first = next(line for line in agent.splitlines(keepends=True) if "gpt-5.4-mini" in line)
    session.writes("agent.yaml", agent.replace(first, first + another))
    session.writes("longer.scenario.yaml", text[: text.index("models:")] + models + text[text.index("faults:") :])
    session.does("factory", "check", ".", says="longer.scenario.yaml: ok")
    session.does("factory", "scenario", "longer.scenario.yaml", says="1 passed")
    session.does("pytest", "-q", says="2 passed")
    return session.ends()


SESSIONS = {"service": service, "slow": slow, "scenario": scenario}


def main() -> int:
    """Do the sessions; 0 where every step did what its page promises."""
    parser = argparse.ArgumentParser(prog="python -m bench.newcomer")
    parser.add_argument("--only", choices=SESSIONS)
    parser.add_argument("--environment", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        environment = arguments.environment or Path(place) / "environment"
        if arguments.environment is None:
            session = Session("An empty environment", environment, Path(place))
            session.does(sys.executable, "-m", "venv", str(environment))
            wanted = f"{ROOT}[service,postgres,testing]"
            session.does(str(environment / "bin" / "pip"), "install", "-q", wanted)
            session.ends()
        ok = True
        for name, session_of in SESSIONS.items():
            if arguments.only in (None, name):
                folder = Path(place) / name
                folder.mkdir()
                ok = session_of(environment, folder) and ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
