"""`factory doctor`: what is usable here, what a definition's models and servers say, and how to get the rest."""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import re
import shutil
import socket
import sys
from collections.abc import Awaitable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as version_of
from typing import NamedTuple

from shared_libs.atomic import Resilience, Retry
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.dialect import lessons
from shared_libs.atomic.llms.http_llm import HttpLLM
from shared_libs.atomic.llms.profiles import profile_of
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.cli.exits import ExitCode
from shared_libs.cli.loop import CommandLoop
from shared_libs.cli.queued import examined
from shared_libs.cli.words import version
from shared_libs.factory import load_agent
from shared_libs.factory.ports import Ports
from shared_libs.factory.registry import LLMS
from shared_libs.observability.printable import presentable
from shared_libs.observability.runs.reader import OFF, default_url
from shared_libs.tools.datasets import cache_dir

PATIENCE_S = 10.0
"""Seconds a model, a store or a server has for its answer."""

NARROW = 60
"""Columns below which a table would leave no room for its last column, which says what to do."""

_KNOCK_S = 0.5

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Where the key of a provider is looked for; it is never shown."""

_KEYLESS = {
    "local": "a real model without a key; too weak to be the default answerer",
    "local-embeddings": "vectors of texts without a key, for collections",
    "rehearsal": "always there; no model, and it says so",
    "rerank": "needs no key; it orders passages, at the `base_url` of a server for that",
}

EXTRAS = {
    "anthropic": "the Anthropic SDK, for a client of your own; Anthropic's models are asked without it",
    "postgres": "memory, limits and sql on PostgreSQL",
    "flights": "the flights data set of configs/flights.yaml",
    "mcp": "the tools of MCP servers",
    "python": "the python tool, a sandbox",
    "local": "the engine of a model on this machine",
    "durable": "runs on a queue that survive a crash, on PostgreSQL; schedules",
    "retrieval": "search in documents: a small embedding model, PDF, full text",
    "office": "office documents for retrieval",
    "qdrant": "vectors of collections in Qdrant",
    "neo4j": "graphs of collections in Neo4j",
    "otel": "OpenTelemetry: traces and metrics",
    "prometheus": "metrics for Prometheus",
    "service": "the HTTP service, `factory serve`",
    "oidc": "tokens of an identity provider, for the HTTP service",
    "testing": "pytest, for scenarios and fixtures",
}
"""What the extras bring; which libraries those are, the distribution's metadata says."""


class Row(NamedTuple):
    """Something looked at: whether it is usable, what it is, how it is, and what to do about it."""

    good: bool
    what: str
    state: str
    to_do: str = ""


def _good(what: str, state: str) -> Row:
    return Row(good=True, what=what, state=state)


def _bad(what: str, state: str, to_do: str = "") -> Row:
    return Row(good=False, what=what, state=state, to_do=to_do)


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is usable; with a definition, ask what it names. Keys are never shown."""
    _show([*_package(), *_providers(), *_extras(), *_stores(), *_queue()])
    if arguments.config is None:
        return ExitCode.ANSWERED
    print(flush=True)
    notes: list[str] = []
    rows = _asked(arguments.config, notes)
    _show([*(_bad("note", note) for note in notes), *rows])
    return ExitCode.ANSWERED if all(row.good for row in rows) else ExitCode.FAILED


def _show(rows: Sequence[Row]) -> None:
    if not sys.stdout.isatty() or shutil.get_terminal_size().columns < NARROW:
        width = max(len(row.what) for row in rows)
        for good, what, state, to_do in rows:
            print(f"{'ok' if good else '--'}  {presentable(what):<{width}}  {presentable(state)}")
            if to_do:
                print(f"    {'':<{width}}  {to_do}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for good, what, state, to_do in rows:
        words = Text(presentable(state))
        if to_do:
            words.append(f"\n{to_do}", style="bold")
        table.add_row(Text("ok", style="green") if good else Text("--", style="yellow"), Text(presentable(what)), words)
    Console(highlight=False).print(table)


def _package() -> list[Row]:
    return [_good("genai-factory", f"{version()} on Python {sys.version.split()[0]}")]


def _providers() -> Iterator[Row]:
    for name in LLMS.names():
        what = f"provider {name}"
        try:
            provider = LLMS.load(name)
            if name in ("local", "local-embeddings"):
                provider()
        except MisuseError as error:
            yield _bad(what, "not usable", str(error))
            continue
        key = _KEYS.get(name)
        if name == "ollama":
            yield _ollama(what, provider("any").base_url)
        elif key is None:
            yield _good(what, _KEYLESS.get(name, "needs no key"))
        elif os.environ.get(key):
            yield _good(what, f"{key} is set")
        else:
            to_do = f"export {key}=…, or write it to .env, or name a `base_url` whose server needs no key"
            yield _bad(what, f"{key} is not set", to_do)


def _ollama(what: str, base_url: str) -> Row:
    from urllib.parse import urlsplit

    parts = urlsplit(base_url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_KNOCK_S).close()
    except OSError:
        return _bad(what, f"needs no key; no server answers at {base_url}", "ollama serve, or set OLLAMA_HOST")
    return _good(what, f"needs no key; a server answers at {base_url}")


def _extras() -> Iterator[Row]:
    for extra, words in EXTRAS.items():
        missing = [name for name in _libraries_of(extra) if not _is_installed(name)]
        if missing:
            yield _bad(f"extra {extra}", f"missing: {words}", f"pip install 'genai-factory[{extra}]'")
        else:
            yield _good(f"extra {extra}", words)


def _libraries_of(extra: str) -> list[str]:
    try:
        told = requires("genai-factory") or []
    except PackageNotFoundError:
        return []
    wanted = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    return [name[0] for line in told if wanted.search(line) and (name := re.match(r"[\w.-]+", line))]


def _is_installed(name: str) -> bool:
    try:
        version_of(name)
    except PackageNotFoundError:
        return False
    return True


def _stores() -> list[Row]:
    here = os.access(".", os.W_OK)
    memory = Row(here, "memory in SQLite", "this folder can be written" if here else "this folder cannot be written")
    try:
        folder = cache_dir()
    except MisuseError as error:
        return [_bad("cache", str(error)), memory]
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(nearest, os.W_OK)
    cached = (folder / "nycflights13-v1.db").is_file()
    cache = f"{folder}{'' if writable else ' cannot be written'}"
    return [
        Row(writable, "cache", cache, "" if writable else "set FACTORY_CACHE_DIR to another folder"),
        Row(cached, "data flights", "loaded" if cached else "not loaded yet; the first run loads it"),
        memory,
    ]


def _queue() -> Iterator[Row]:
    """Where runs are kept there may be a queue of durable ones: who holds what, and how much there is."""
    try:
        url = default_url()
    except MisuseError as error:
        yield _bad("runs", str(error))
        return
    if url != OFF:
        for good, what, state in examined(url):
            yield Row(good, what, state)


class _Collected(Ports):
    """Notes all by which an agent reaches the outside, those of the agents it calls included."""

    def __init__(self) -> None:
        self.models: list[BaseLLMWrapper] = []
        self.tools: list[BaseTool | Toolset] = []
        self.memories: list[BaseMemory] = []

    def model(self, llm: BaseLLMWrapper, agent: str) -> BaseLLMWrapper:
        """Note a model."""
        self.models.append(llm)
        return llm

    def tool(self, tool: BaseTool | Toolset, agent: str) -> BaseTool | Toolset:
        """Note a tool."""
        self.tools.append(tool)
        return tool

    def memory(self, memory: BaseMemory, agent: str) -> BaseMemory:
        """Note the memory."""
        self.memories.append(memory)
        return memory


def _asked(config: str, notes: list[str]) -> list[Row]:
    """Ask the models of a definition a word, and open its stores and servers; a row for each, in its order."""
    found = _Collected()
    agent = load_agent(config, ports=found, on_note=notes.append)
    loop = CommandLoop()
    try:
        rows = loop.run(_all(found))
    finally:
        loop.clean_up(agent.aclose())
        loop.close()
    return rows + [_good(f"learnt of {name}", "; ".join(words)) for name, words in lessons()]


async def _all(found: _Collected) -> list[Row]:
    asked = [_model(llm) for llm in _different(found.models)]
    opened = [_memory(memory) for memory in found.memories]
    listed = [_tool(tool) for tool in found.tools]
    return [row for rows in await asyncio.gather(*asked, *opened, *listed) for row in rows]


def _different(models: Sequence[BaseLLMWrapper]) -> list[BaseLLMWrapper]:
    """Leave out what several definitions name in the same way."""
    return list({(llm.provider, llm.model, getattr(llm, "base_url", "")): llm for llm in models}.values())


async def _model(llm: BaseLLMWrapper) -> list[Row]:
    what = f"model {llm.provider}/{llm.model}"
    if llm.rehearsal:
        return [_good(what, "recorded decisions; no model")]
    alone = copy.copy(llm)  # without its fallbacks, and asked once
    alone.fallbacks, alone.resilience = (), Resilience(retry=Retry(attempts=1))
    rows = await _tried(what, alone.async_chat("Answer with the word ok.", timeout=PATIENCE_S, stream=False), "answers")
    await alone.aclose()
    if isinstance(llm, HttpLLM) and (known := _known_of(llm)):
        rows.append(_good(f"known of {llm.provider}/{llm.model}", known))
    return rows


def _known_of(llm: HttpLLM) -> str:
    profile = profile_of(llm.base_url, llm.model)
    words = [f"{old} is sent as {new}" for old, new in profile.renamed]
    words += [f"{name} is not sent" for name in profile.dropped]
    words += profile.traits
    words += [f"{profile.texts_at_once} texts at once"] if profile.texts_at_once else []
    return ", ".join(words)


async def _memory(memory: BaseMemory) -> list[Row]:
    return await _tried(f"memory {type(memory).__name__}", memory.async_open(), "opens")


async def _tool(tool: BaseTool | Toolset) -> list[Row]:
    if isinstance(tool, BaseTool):
        return await _tried(f"tool {tool.name}", tool.aopen(), "ready")
    what = f"tools of {tool.name}"
    rows = await _tried(what, tool.async_list(), "listed")
    left_out: dict[str, str] = getattr(tool, "left_out", {})
    return rows + [_bad(f"tool {name} of {tool.name}", f"left out: {why}") for name, why in left_out.items()]


async def _tried(what: str, asked: Awaitable[object], good: str) -> list[Row]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(PATIENCE_S):
            got = await asked
    except TimeoutError:
        return [_bad(what, f"no answer within {PATIENCE_S:g} s")]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the user asked for
        return [_bad(what, " ".join(str(error).split()) or type(error).__name__)]
    several = f"{len(got)} tools, " if isinstance(got, Sequence) else ""
    return [_good(what, f"{several}{good} in {loop.time() - began:.2f} s")]
