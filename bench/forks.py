"""
Real servers that fork after they have used an agent: `python -m bench.forks`.

gunicorn with --preload, Celery with its prefork pool, multiprocessing, and `os.fork` itself. The parent asks an agent
first; then every child asks the same one: it calls a sync tool, a process tool, one of an MCP server and SQL, and goes
on with the session that the parent has begun. Needs `pip install gunicorn celery`; what is missing is left out. Exit
code 1 when a child did not get its answers.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from shared_libs.agents import ReActAgent
from shared_libs.atomic import tool
from shared_libs.atomic.llms import ScriptedLLM, Turn

WITHIN_S = 60.0


@tool(timeout_s=5)
def work(n: int) -> int:
    """Add one, in a thread."""
    return n + 1


@tool(timeout_s=30, isolation="process")
def apart(n: int) -> int:
    """Add one, in a process."""
    return n + 1


FOLDER = Path(os.environ.setdefault("BENCH_FORKS", tempfile.mkdtemp(prefix="forks")))
CALLS = [
    ("work", {"n": 1}),
    ("apart", {"n": 1}),
    ("echo", {"text": "heard"}),
    ("sql", {"query": "SELECT 40 + 2 AS it"}),
]
WANTED = "2 2 heard 42"


@functools.cache
def parts() -> dict[str, Any]:
    """Make what the agent has, once; imported here: the worker of the process tool needs none of it."""
    from shared_libs.memory import SQLMemory
    from shared_libs.tools.mcp import MCPToolset
    from shared_libs.tools.sql import SQLTool

    server = [sys.executable, str(Path(__file__).parents[1] / "tests" / "mcp_raw_server.py")]
    sql = SQLTool(url=f"sqlite:///{FOLDER / 'figures.db'}")
    memory = SQLMemory(f"sqlite:///{FOLDER / 'sessions.db'}")
    return {"tools": [work, apart, MCPToolset(command=server, tools=["echo"]), sql], "memory": memory}


def ask() -> str:
    """Have the agent call all tools; say what they gave, and how often the session was asked before."""
    model = ScriptedLLM([Turn(calls=CALLS), "done"])
    agent = ReActAgent(llm=model, **parts())
    result = asyncio.run(agent.async_run("go", session_id="s"))
    seen = [row.content for row in result.steps[0].observations] if result.steps else [str(result.error)]
    before = sum(message.role == "user" for message in model.requests[0]) - 1 if model.requests else 0
    return f"{' '.join(seen[:3])} {re.sub(r'[^0-9]', '', ''.join(seen[3:]))} after {before}"


def app(environ, start_response):
    """Answer a request of WSGI, in a child."""
    start_response("200 OK", [])
    return [f"{os.getpid()} {ask()}".encode()]


def gunicorn() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "-w",
        "2",
        "-b",
        f"127.0.0.1:{port}",
        "bench.forks:warm()",
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + WITHIN_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=WITHIN_S) as page:
                    return page.read().decode().partition(" ")[2]
            except OSError:
                time.sleep(0.1)
        return "no answer"
    finally:
        server.terminate()
        server.wait()


def warm():
    """Use the agent before the fork, and return the application."""
    ask()
    return app


CELERY = """
import sys
from pathlib import Path
from celery import Celery
from bench.forks import ask

folder = Path(sys.argv[1])
app = Celery("bench", broker="filesystem://")
app.conf.broker_transport_options = {
    name: str(folder) for name in ("data_folder_in", "data_folder_out", "control_folder")
}

@app.task(name="asked")
def asked():
    (folder / "said").write_text(ask())

ask()  # in the parent, before it forks
asked.delay()
app.worker_main(["worker", "--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle"])
"""


def celery() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CELERY, folder]
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            said, until = Path(folder) / "said", time.monotonic() + WITHIN_S
            while time.monotonic() < until and not (said.exists() and said.read_text()):
                time.sleep(0.1)
            return said.read_text() if said.exists() else "no answer"
        finally:
            worker.terminate()
            worker.wait()


def forked() -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ask().encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        return said.read()


def pooled() -> str:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(ask)


if __name__ == "__main__":
    (FOLDER / "figures.db").touch()
    print("parent", ask())
    kept = True
    for name, go, needs in (
        ("os.fork", forked, ""),
        ("multiprocessing", pooled, ""),
        ("gunicorn --preload", gunicorn, "gunicorn"),
        ("Celery prefork", celery, "celery"),
    ):
        if needs and importlib.util.find_spec(needs) is None:
            print(f"{name:20} left out: pip install {needs}")
            continue
        began = time.perf_counter()
        said = go()
        fine = said.startswith(WANTED) and not said.endswith("after 0")
        kept &= fine
        print(f"{name:20} {said:24} {time.perf_counter() - began:6.2f} s{'' if fine else '  BROKEN'}")
    shutil.rmtree(FOLDER)
    sys.exit(0 if kept else 1)
