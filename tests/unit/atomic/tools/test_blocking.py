"""Async tools that are known to block are told of before they do it, by what they call."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading

import pytest

from shared_libs.atomic import tool
from shared_libs.atomic.tools.blocking import BLOCKING, caution_for, suspicious
from shared_libs.tools.calculator import CalculatorTool
from tests.support import no_thread, run

WAIT_S = 20

SOURCE = """
import asyncio
import subprocess as processes
import time
import urllib.request
from time import sleep as nap
from urllib.request import urlopen

from shared_libs.atomic import BaseTool

async def sleeps():
    time.sleep(1)


async def naps():
    for _ in range(3):
        if nap(1):
            return [nap(2)]


async def asks():
    with urllib.request.urlopen("https://example.com") as page:
        return page.read()


async def asks_too():
    return urlopen("https://example.com").read()


async def starts():
    return processes.run(["ls"], check=False).returncode


async def imports():
    import requests

    return requests.get("https://example.com").text


async def imports_as():
    import sqlite3 as db
    from time import sleep as rest

    rest(1)
    return db.connect("a.db").execute("SELECT 1")


def _helper():
    return _deeper()


def _deeper():
    time.sleep(1)


async def helped():
    return _helper()


def closed_over():
    wait = time.sleep

    async def inner():
        wait(1)

    return inner


class Tool(BaseTool):
    name = "made"
    description = "Blocks."

    async def execute(self) -> None:
        time.sleep(1)


async def hands_on():
    await asyncio.to_thread(time.sleep, 1)
    return await asyncio.get_running_loop().run_in_executor(None, lambda: time.sleep(1))


async def awaits():
    await asyncio.sleep(1)
    run = asyncio.run
    return run


async def defines():
    def later():
        time.sleep(1)

    await asyncio.to_thread(later)


class _Client:
    async def get(self, address):
        return address


async def awaits_a_client():
    requests = _Client()
    return await requests.get("https://example.com")


async def parameter(requests):
    return requests.get("x")


async def looks(deep: bool) -> None:
    if deep:
        time.sleep(1)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("tools") / "tools_that_block.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("tools_that_block", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.promise("loop-rescued")
@pytest.mark.parametrize(
    ("function", "calls"),
    [
        ("sleeps", "time.sleep"),
        ("naps", "nap"),
        ("asks", "urllib.request.urlopen"),
        ("asks_too", "urlopen"),
        ("starts", "processes.run"),
        ("imports", "requests.get"),
        ("imports_as", "db.connect, rest"),
        ("helped", "time.sleep"),
        ("closed_over", "wait"),
        ("Tool", "time.sleep"),
    ],
)
def test_what_blocks_is_named_whatever_it_is_imported_as(source, function, calls):
    function = getattr(source, function)
    function = function().execute if function is source.Tool else function
    function = function() if function is source.closed_over else function
    assert suspicious(function)
    assert caution_for("t", function).startswith(f"tool t is async, but {calls} blocks the event loop")


@pytest.mark.parametrize("function", ["hands_on", "awaits", "defines", "awaits_a_client", "parameter", "Tool"])
def test_what_only_looks_alike_is_not(source, function):
    assert caution_for("t", getattr(source, function)) == ""


def test_the_source_of_what_mentions_but_a_word_of_a_name_is_not_parsed():
    """Nearly every tool was, in a thread: the `get` of a dict, the `run` of an object, our own calculator."""

    async def stock(item: str) -> int:
        return {"apple": 3}.get(item, 0)

    assert not any(map(suspicious, [stock, CalculatorTool().execute]))


def test_code_without_source_is_left_alone():
    exec("import time\nasync def typed():\n    time.sleep(1)", found := {"__name__": "typed"})  # typed at a prompt
    assert caution_for("t", found["typed"]) == ""


def test_the_first_call_warns_once(source):
    warned, said = threading.Event(), []

    class Heard(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())
            warned.set()

    log, handler = logging.getLogger("shared_libs.atomic.tools.blocking"), Heard()
    log.addHandler(handler)

    looks = tool(source.looks)

    async def main():
        for _ in range(3):
            assert not (await looks.async_run({"deep": False})).is_error
        assert await asyncio.to_thread(warned.wait, WAIT_S)

    try:
        asyncio.run(main())
    finally:
        log.removeHandler(handler)
    assert [text.partition(":")[0] for text in said] == [
        "tool looks is async, but time.sleep blocks the event loop, and with it every run there"
    ]


def test_the_names_are_names():
    assert len(set(BLOCKING)) == len(BLOCKING)
    assert all("." in name or name == "input" for name in BLOCKING)


def test_a_call_is_made_though_no_thread_can_start_to_look_at_its_source(source):
    looks = tool(source.looks)
    assert suspicious(looks.execute)
    with no_thread("factory-looks-source"):
        assert not run(looks.async_run({"deep": False})).is_error
