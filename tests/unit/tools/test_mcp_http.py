"""An MCP server over streamable HTTP, in a process of its own on the loopback."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared_libs.atomic import ToolError
from shared_libs.tools.mcp import MCPToolset
from tests.support import run

SERVER = Path(__file__).parents[2] / "mcp_http_server.py"
TOKEN = "secret-token"


@asynccontextmanager
async def serving(port: int = 0, *more: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SERVER), str(port), TOKEN, *more), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def source_at(port: int, token: str = TOKEN) -> MCPToolset:
    return MCPToolset(url=f"http://127.0.0.1:{port}/mcp", headers={"Authorization": f"Bearer {token}"})


async def listed(source: MCPToolset):
    return {tool.name: tool for tool in await source.async_list()}


@pytest.mark.promise("time-mcp")
def test_a_server_is_listed_and_called_and_told_of_a_cancelled_call():
    async def main():
        async with serving() as port:
            source = source_at(port)
            source.timeout_s = 1.0
            tools = await listed(source)
            added = await tools["add"].async_run({"a": 2, "b": 3})
            wrong = await tools["add"].async_run({"a": "x", "b": 3})
            silent = await tools["silent"].async_run({})
            heard = await tools["heard"].async_run({})
            await source.aclose()
            return added, wrong, silent, heard

    added, wrong, silent, heard = run(main())
    assert added.content == "5"
    assert "a: 'x' is not of type 'integer'" in wrong.content
    assert silent.content == "silent did not finish within its 1 s"
    assert "silent" in heard.content


def test_a_refused_connection_and_a_refused_key_are_told_without_the_key():
    async def failure(source):
        with pytest.raises(ToolError) as caught:
            await source.async_list()
        await source.aclose()
        return str(caught.value)

    async def main():
        async with serving() as port:
            refused = await failure(source_at(port, "wrong-token"))
        return refused, await failure(source_at(port))

    refused, gone = run(main())
    assert "HTTP 401 Unauthorized" in refused
    assert "wrong-token" not in refused
    assert "ConnectError" in gone


@pytest.mark.parametrize("more", [(), ("json",)])
def test_an_endless_answer_is_an_error_and_a_long_one_is_cut(more):
    async def main():
        async with serving(0, *more) as port:
            source = source_at(port)
            tools = await listed(source)
            results = [await tools["huge"].async_run({"size": size}) for size in (100_000, 20_000_000, 10)]
            await source.aclose()
            return results

    long, endless, short = run(main())
    assert long.content.endswith("[cut: 68000 of 100000 characters are not shown]")
    assert endless.is_error
    assert short.content == "x" * 10


def test_a_server_that_dies_in_a_call_is_an_observation_and_its_successor_is_used():
    async def main():
        async with serving() as port:
            source = source_at(port)
            tools = await listed(source)
            died = await tools["die"].async_run({})
        async with serving(port):
            back = await tools["add"].async_run({"a": 1, "b": 1})
        await source.aclose()
        return died, back

    died, back = run(main())
    assert died.is_error
    assert "was lost during the call of die" in died.content
    assert back.content == "2"


def test_a_server_that_was_replaced_between_two_calls_is_asked_again():
    async def main():
        async with serving() as port:
            source = source_at(port)
            tools = await listed(source)
        async with serving(port):
            results = [await tools["add"].async_run({"a": 1, "b": n}) for n in range(2)]
        await source.aclose()
        return [result.content for result in results]

    assert run(main())[-1] == "2"


@pytest.mark.promise("loop-per-client")
def test_one_source_works_in_one_loop_after_another():
    source: MCPToolset

    async def use(port):
        tools = await listed(source)
        return json.loads((await tools["add"].async_run({"a": 1, "b": 1})).content)

    async def main():
        nonlocal source
        async with serving() as port:
            source = source_at(port)
            inner = lambda: asyncio.run(use(port))  # noqa: E731
            return await asyncio.to_thread(inner), await asyncio.to_thread(inner)

    assert run(main()) == (2, 2)
