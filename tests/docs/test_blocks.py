"""Every block of code in the documentation does what the page says: Python runs, YAML holds, commands are known."""

from __future__ import annotations

import argparse
import ast
import asyncio
import gc
import inspect
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from shared_libs.cli.checking import SCENARIO, check
from shared_libs.cli.words import parsed
from shared_libs.factory.spec import AgentSpec
from shared_libs.service.settings import load_settings
from shared_libs.testing import BackgroundFaultServer, load_scenarios
from tests.docs.given import GIVEN, said
from tests.docs.reading import PAGES, ROOT, blocks
from tests.nursery import ran

NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
NEEDS = {
    "docs/guides/django.md": ["celery", "django"],
    "docs/guides/migration.md": ["langchain_openai", "pydantic_ai"],
}
PART = {"name": "part", "llm": {"provider": "openai", "model": "m"}}
PLUGIN = ("--disable-plugin-autoload", "-p", "genai_factory_pytest", "-p", "anyio", "-p", "xdist")
VARIABLES = ("API_TOKEN", "DB_PASSWORD", "TOOLS_TOKEN")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder: the repository's definitions, keys in the environment, and models that answer."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", *VARIABLES):
        monkeypatch.setenv(name, "a-key")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///app.db")
    with BackgroundFaultServer({"*": said}) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url("openai"))
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url("anthropic"))
        yield tmp_path
    for module in [name for name, one in sys.modules.items() if str(tmp_path) in str(getattr(one, "__file__", ""))]:
        del sys.modules[module]


@pytest.mark.promise("docs-run")
@pytest.mark.filterwarnings("ignore:unclosed", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("page", NAMES)
def test_a_page_does_what_it_says(page, folder, capsys):
    """Its files are kept, its Python runs, its YAML holds and its commands are understood, from top to bottom."""
    for module in NEEDS.get(page, ()):
        pytest.importorskip(module, reason="pip install 'genai-factory[docs]'")
    names = {"__name__": "__main__", **GIVEN.get(page, lambda _: {})(folder)}
    tests, opened = [], {}
    with asyncio.Runner() as runner:
        for block in blocks(ROOT / page):
            if block.shown:
                continue
            place = f"{page}:{block.line}"
            if block.file:
                (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.file).write_text(block.code)
            if block.file.startswith("test_"):
                tests.append(block.file)
            elif block.language == "python":
                _run(block, place, names, runner)
                opened |= {id(one): one for one in _closable(names)}
            elif block.language == "yaml":
                assert _problems(block, folder, capsys) == "", place
            elif block.language == "json":
                json.loads(block.code)
            elif block.language in ("console", "sh", "bash"):
                _understand(block, place, capsys)
        runner.run(_closed(opened.values()))
    gc.collect()  # what a block has replaced before it was closed goes here, and not in the test of somebody else
    if tests:
        done = ran("-m", "pytest", "-q", "-n", "0", *PLUGIN, *tests, cwd=folder)
        assert done.returncode == 0, done.stdout


def _run(block, place, names, runner):
    lines = "\n" * (block.line - 1)  # so that a traceback has the page's lines
    code = compile(lines + block.code, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)
        return

    async def awaited():
        await eval(code, names)

    runner.run(awaited())


def _closable(names):
    """Give what a page has opened, in its modules too."""
    modules = [vars(one) for one in sys.modules.values() if str(Path.cwd()) in str(getattr(one, "__file__", ""))]
    for value in [value for space in (names, *modules) for value in space.values()]:
        if not isinstance(value, type) and inspect.iscoroutinefunction(getattr(value, "aclose", None)):
            yield value


async def _closed(opened):
    for one in opened:
        await one.aclose()


def _problems(block, folder, capsys):
    """Check a block as the kind of file it is, or is a part of; the files of others are only read."""
    told = []
    for document in yaml.safe_load_all(block.code):
        if "kind" in document:
            told += _cluster(document, folder, capsys)
            continue
        path = folder / (block.file or _name_for(document))
        if path.name == "part.yaml":
            path.write_text(yaml.safe_dump(PART | document))
        elif not block.file:
            path.write_text(block.code)
        if path == folder:
            continue
        if path.name == "service.yaml":
            load_settings(folder)
        elif path.name.endswith(SCENARIO):
            load_scenarios(path)
        elif check(argparse.Namespace(paths=[path])):
            told.append(capsys.readouterr().err)
    return "".join(told)


def _cluster(manifest, folder, capsys):
    """Check what a manifest of Kubernetes says to us: files of ours in a ConfigMap, and our command's arguments."""
    for name, text in manifest.get("data", {}).items():
        (folder / name).write_text(text)
        if name == "service.yaml":
            load_settings(folder)
        elif check(argparse.Namespace(paths=[folder / name])):
            yield capsys.readouterr().err
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", ()):
        first, *words = map(str, container["args"])
        assert first == "factory"
        parsed(words)


def _name_for(document):
    """Name the kind of file by what stands in it; "" for the files of others."""
    if "scenario" in document:
        return "block.scenario.yaml"
    if "llm" in document and "name" in document:
        return "agent.yaml"
    return "part.yaml" if document.keys() <= AgentSpec.model_fields.keys() else ""


def _understand(block, place, capsys):
    for words in _commands(block):
        try:
            parsed(words)
        except SystemExit:
            pytest.fail(f"{place}: factory {shlex.join(words)}\n{capsys.readouterr().err}")


def _commands(block):
    """Give the words of every `factory` command of a block; with a prompt, only what stands behind one is a command."""
    text = block.code.replace("\\\n", " ")
    prompted = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    for line in prompted or text.splitlines():
        for part in re.split(r" (?:&&|\|\||\|) ", line):
            if part.strip().startswith("factory "):
                yield shlex.split(part, comments=True)[1:]


def test_what_is_only_shown_says_why():
    """A page may show a piece of something; it is rare, and told."""
    shown = [block for page in PAGES for block in blocks(page) if block.shown]
    assert len(shown) <= 6, [f"{block.page}:{block.line}: {block.shown}" for block in shown]
