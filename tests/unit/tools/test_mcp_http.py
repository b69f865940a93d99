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


async def failure(source: MCPToolset) -> str:
    with pytest.raises(ToolError) as caught:
        await source.async_list()
    await source.aclose()
    return str(caught.value)


@pytest.mark.promise("time-mcp")
@pytest.mark.promise("loop-per-client")
def test_a_server_is_listed_and_called_and_told_of_a_cancelled_call():
    async def in_a_loop_of_its_own(source):
        return json.loads((await (await listed(source))["add"].async_run({"a": 1, "b": 1})).content)

    async def main():
        async with serving() as port:
            source = source_at(port)
            tools = await listed(source)
            tools["silent"].timeout_s = 1.0
            said = [await tools["add"].async_run({"a": a, "b": 3}) for a in (2, "x")]
            said += [await tools[name].async_run({}) for name in ("silent", "heard")]
            await source.aclose()
            refused = await failure(source_at(port, "wrong-token"))
            inner = lambda: asyncio.run(in_a_loop_of_its_own(source))  # noqa: E731
            loops = [await asyncio.to_thread(inner) for _ in range(2)]
        return *said, refused, await failure(source_at(port)), loops

    added, wrong, silent, heard, refused, gone, loops = run(main())
    assert added.content == "5"
    assert "a: 'x' is not of type 'integer'" in wrong.content
    assert silent.content == "silent did not finish within its 1 s"
    assert "silent" in heard.content
    assert "HTTP 401 Unauthorized" in refused
    assert "wrong-token" not in refused
    assert "ConnectError" in gone
    assert loops == [2, 2]


async def of_any_size(source: MCPToolset):
    tools = await listed(source)
    return [await tools["huge"].async_run({"size": size}) for size in (100_000, 20_000_000, 10)]


def test_a_server_that_dies_in_a_call_or_is_replaced_between_two_is_asked_again():
    async def main():
        async with serving() as port:
            source = source_at(port)
            sizes = [await of_any_size(source)]
            died = await (await listed(source))["die"].async_run({})
        async with serving(port, "json"):
            tools = await listed(source)
            back = await tools["add"].async_run({"a": 1, "b": 1})
            sizes.append(await of_any_size(source))
        async with serving(port):
            results = [await tools["add"].async_run({"a": 1, "b": n}) for n in range(2)]
        await source.aclose()
        return died, back, results[-1], sizes

    died, back, replaced, sizes = run(main())
    assert died.is_error
    assert "was lost during the call of die" in died.content
    assert [back.content, replaced.content] == ["2", "2"]
    for long, endless, short in sizes:  # as an event, and as JSON
        assert long.content.endswith("[cut: 68000 of 100000 characters are not shown]")
        assert endless.is_error
        assert short.content == "x" * 10


@asynccontextmanager
async def forgetful(status: int, body: str, code: int | None = None, kind: str = "application/json"):
    """A server that forgets its first session once it has been called, or whose tool fails with a code."""
    from aiohttp import web

    seen: list[str] = []

    async def answer(request):
        asked = await request.json()
        seen.append(asked["method"])
        started = seen.count("initialize")
        if "id" not in asked:
            return web.Response(status=202)
        reply = {"jsonrpc": "2.0", "id": asked["id"]}
        if asked["method"] == "initialize":
            result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "f", "version": "1"}}
            return web.json_response(reply | {"result": result}, headers={"mcp-session-id": f"S{started}"})
        if asked["method"] == "tools/list":
            page = {"tools": [{"name": "a", "inputSchema": {"type": "object"}}], "nextCursor": "same"}
            return web.json_response(reply | {"result": page})
        if asked["method"] != "tools/call":
            return web.json_response(reply | {"error": {"code": -32601, "message": "unknown"}})
        if code is not None:
            error = {"code": code, "message": "quota exceeded", "data": {"allowed": ["Rome"]}}
            return web.json_response(reply | {"error": error})
        if kind == "compressed":
            return web.Response(body=body, headers={"content-encoding": "gzip"}, content_type="application/json")
        if request.headers.get("mcp-session-id") == "S1":
            return web.Response(status=status, text=body, content_type=kind)
        return web.json_response(reply | {"result": {"content": [{"type": "text", "text": "ok"}]}})

    app = web.Application()
    app.router.add_post("/mcp", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


async def three_calls(port: int):
    source = source_at(port)
    tool = (await listed(source))["a"]
    said = [(await tool.async_run({})).content for _ in range(3)]
    names = [*await listed(source)]
    await source.aclose()
    return said, names


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, '{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'),
        (404, ""),
        (404, '{"error":"gone"}'),
        (400, '{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: no valid session"}}'),
        (400, "no"),
        (410, ""),
        (401, '{"error":"session expired"}'),
        (200, '{"jsonrpc":"2.0","id":4,"error":{"code":-32001,"message":"Session not found"}}'),
        (200, '{"jsonrpc":"2.0","id":4,"error":{"code":-32000,"message":"No valid session ID provided"}}'),
        (200, '{"jsonrpc":"2.0","id":4,"error":{"code":-32600,"message":"Server not initialized"}}'),
    ],
)
def test_a_session_that_is_not_known_any_more_is_renewed_by_the_next_call(status, body):
    async def main():
        async with forgetful(status, body) as (port, seen):
            said, _ = await three_calls(port)
            return said, seen.count("initialize")

    said, started = run(main())
    assert f"HTTP {status}" in said[0] or status == 200
    assert "was lost" in said[0]
    assert said[1:] == ["ok", "ok"]
    assert started == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            400,
            '{"jsonrpc":"2.0","id":9,"error":{"code":-32602,"message":"no such city"}}',
            "application/json",
            "no such city",
        ),
        (500, '{"error":"the disk is full"}', "application/json", "the disk is full; HTTP 500"),
        (200, '{"jsonrpc":"2.0","id":9,"result":{"content":"plain"}}', "text/plain", "plain"),
        (200, '[{"id":9,"result":{"content":"a batch"}}]', "application/json", "a batch"),
        (200, "", "application/json", "its answer cannot be read"),
    ],
)
def test_what_a_call_is_answered_is_read_and_the_session_goes_on(status, body, kind, said):
    async def main():
        async with forgetful(status, body, kind=kind) as (port, seen):
            found, _ = await three_calls(port)
            return found, seen.count("initialize")

    found, started = run(main())
    assert all(said in text for text in found)
    assert started == 1


def test_an_answer_that_is_compressed_unasked_is_refused_unread():
    async def main():
        async with forgetful(200, "5 MB that would be 5 GB", kind="compressed") as (port, _):
            source = source_at(port)
            said = await (await listed(source))["a"].async_run({})
            await source.aclose()
            return said

    assert "the answer is compressed, which was not asked for" in run(main()).content


@pytest.mark.parametrize("code", [-32000, -32001, -32600, -32603, 7])
def test_an_error_of_a_tool_is_that_tools_whatever_its_code(code):
    async def main():
        async with forgetful(200, "", code) as (port, seen):
            said, names = await three_calls(port)
            return said, names, seen.count("initialize")

    said, names, started = run(main())
    assert all(
        text == "the MCP server " + text.split()[3] + ' refused the call of a: quota exceeded {"allowed": ["Rome"]}'
        for text in said
    )
    assert started == 1
    assert names == ["a"]  # a cursor that names a page again ends the list
