"""The real command in processes of its own, with agents whose models and tools come from an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from shared_libs.cli import main
from tests.nursery import Program, before_any_code

ROOT = Path(__file__).parents[3]
PATIENCE_S = 60
"""How long a test waits for a process before it counts as hanging."""

_MODULE = '''
import asyncio
import math
import sys
import time

from shared_libs.atomic import BaseTool, tool
from shared_libs.atomic.errors import RateLimited
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import Usage


PATIENCE_S = 600  # a machine may stand still for a while; only the signal is to end these


def echo(messages):
    said = [message.text for message in messages if message.role == "user"]
    return f"{len(said)} so far, last: {said[-1]}"


SCRIPTS = {
    "echo": lambda: [echo] * 9,
    "system": lambda: [lambda messages: next(message.text for message in messages if message.role == "system")],
    "length": lambda: [lambda messages: str(len(messages[-1].text))],
    "look": lambda: [Turn(text="I look.", calls=[("look", {"place": "here"})]), "It is 42."],
    "secret": lambda: [Turn(calls=[("look", {"token": "hunter2"})]), "Done."],
    "retry": lambda: [RateLimited("slow down", status_code=429, retry_after_s=0.01), "After all."],
    "slow": lambda: [Turn(text="one two three", chunk_delay_s=0.02), Turn(delay_s=math.inf)],
    "silent": lambda: [Turn(delay_s=math.inf)] * 9,
    "steps": lambda: [Turn(calls=[("look", {"place": "here"})]), "Half of it."],
    "control": lambda: ["a\\x1b[31mred\\x07 caf\\u00e9"],
    **{name: (lambda name=name: [Turn(calls=[("look", {"place": "x"}), (name, {})]), "no"])
       for name in ("absorb", "sleep", "block")},
}


class Played(ScriptedLLM):
    """Plays a script by its name."""

    provider = "played"

    def __init__(self, model: str, *, api_key=None, base_url=None, resilience=None, fallbacks=(), price=None,
                 options=None) -> None:
        super().__init__(SCRIPTS[model](), model=model, resilience=resilience, fallbacks=fallbacks, price=price)


@tool
async def look(place: str = "", token: str = "") -> str:
    """Look."""
    return f"seen {place}\\x1b[2J"


@tool(timeout_s=PATIENCE_S)
async def absorb() -> str:
    """Ignore every cancellation."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@tool(timeout_s=PATIENCE_S)
def sleep() -> str:
    """Hold a thread."""
    time.sleep(3600)


@tool(timeout_s=PATIENCE_S)
async def block() -> str:
    """Hold the event loop itself."""
    print("blocking", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.05)


class Unready(BaseTool):
    """Cannot be made ready."""

    name = "unready"
    description = "Cannot be made ready."

    async def aopen(self) -> None:
        raise RuntimeError("no such thing")

    async def execute(self) -> str:
        return ""


class Clinging(BaseTool):
    """Never closes."""

    name = "clinging"
    description = "Never closes."

    async def aclose(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    async def execute(self) -> str:
        return ""
'''

_ENTRY_POINTS = """
[genai_factory]
llm.played = cli_plugin:Played
tool.look = cli_plugin:look
tool.absorb = cli_plugin:absorb
tool.sleep = cli_plugin:sleep
tool.block = cli_plugin:block
tool.unready = cli_plugin:Unready
tool.clinging = cli_plugin:Clinging
"""

_COMMAND = ("-m", "shared_libs.cli")


class Command:
    """The `factory` command in a folder of its own."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        self.environment = kept | {
            "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
            "PYTHONWARNINGS": "error",
            "TERM": "xterm",
            "COLUMNS": "100",
            "LC_ALL": "C.UTF-8",
        }
        self._start = before_any_code(self.environment)

    def agent(self, script, *tools, **more):
        """Write a definition, and return its name."""
        lines = ["name: demo", f"llm: {{provider: played, model: {script}}}", f"tools: [{', '.join(tools)}]"]
        lines += [f"{key}: {value}" for key, value in more.items()]
        (self.folder / "agent.yaml").write_text("\n".join(lines) + "\n")
        return "agent.yaml"

    def start(self, *arguments, program=_COMMAND, **options):
        """Start the command, and return the process."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        given |= {"cwd": self.folder, "env": self.environment}
        as_ever = program is _COMMAND and before_any_code(self.environment) == self._start
        if as_ever and options.keys() <= {"stdin", "stdout", "stderr"}:
            return Program([*program, *arguments], **given)
        return subprocess.Popen([sys.executable, *program, *arguments], **given)

    def __call__(self, *arguments, said=b"", **options):
        """Run the command; return its exit code, stdout and stderr."""
        with self.start(*arguments, stdin=subprocess.PIPE, **options) as process:
            try:
                out, err = process.communicate(said, timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, (out or b"").decode(), (err or b"").decode()


@pytest.fixture
def factory(tmp_path):
    site = tmp_path / "site"
    info = site / "cli_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cli-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(dedent(_ENTRY_POINTS))
    (site / "cli_plugin.py").write_text(_MODULE)
    folder = tmp_path / "work"
    folder.mkdir()
    return Command(folder, site)


@pytest.fixture
def told(factory, monkeypatch, capsys):
    """Run the command in this process: what is told before anything begins needs no process of its own."""
    monkeypatch.chdir(factory.folder)
    monkeypatch.syspath_prepend(factory.site)
    for name in set(os.environ) - set(factory.environment):
        monkeypatch.delenv(name)
    for name in ("TERM", "COLUMNS"):
        monkeypatch.setenv(name, factory.environment[name])

    def run(*arguments):
        try:
            code = main([os.fsdecode(argument) for argument in arguments])
        except SystemExit as left:  # of the reader of arguments
            code = left.code
        return code, *capsys.readouterr()

    yield run
    sys.modules.pop("cli_plugin", None)  # the next test has one of its own
