"""MCP servers that cannot be used at once, or not at all: what is tried, and what is told."""

from __future__ import annotations

import asyncio
import json
import re
import sys

import anyio
import pytest
from mcp.shared.message import SessionMessage

from shared_libs.atomic import Deadline, MisuseError, ToolError
from shared_libs.atomic.scope import use_deadline
from shared_libs.tools import mcp_listing
from shared_libs.tools.mcp import MCPToolset
from shared_libs.tools.mcp_server import Server
from shared_libs.tools.mcp_wire import messages
from tests.support import run, run_virtual
from tests.unit.tools.mcp_scripted import scripted


@pytest.mark.promise("time-mcp")
def test_a_server_that_passes_over_discovery_is_asked_as_older_ones_are():
    async def main():
        source = scripted({"server/discover": None, "tools/list": {"tools": [{"name": "a"}]}})
        source.timeout_s = 4
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == ["a"]


def test_a_list_that_is_an_error_is_told_in_the_servers_words():
    async def main():
        source = scripted({"tools/list": {"raw": '{"jsonrpc":"2.0","id":$ID,"error":"licence expired"}'}})
        try:
            with pytest.raises(ToolError, match="licence expired"):
                await source.async_list()
        finally:
            await source.aclose()

    run(main())


def test_an_item_that_is_no_tool_is_refused_with_its_reason():
    with pytest.raises(MisuseError, match="no object"):
        mcp_listing.read({"name": "a", "inputSchema": 3})


TELLING = [
    ["--token=ARGV01SECRET"],
    ["--api-key", "ARGV02SECRET"],
    ["API_TOKEN=ARGV03SECRET"],
    ["--header", "Authorization: Bearer ARGV04SECRET"],
    ["--dsn=postgres://u:ARGV05SECRET@h/db"],
    ["https://h/sse?x=SECRET7ARGV"],
    ["https://me:ARGV07SECRET@h/x"],
    ["mysql", "-pARGV08SECRET"],
    ["-p", "ARGV09SECRET"],
    ["-u", "me:ARGV10SECRET"],
    ["--config", '{"apiKey": "ARGV11SECRET"}'],
    ["-c", "serve --token ARGV12SECRET --port 8080"],
    ["--dsn", "Server=h;Password=ARGV13SECRET;Port=1"],
    ["https://h/mcp?v=1&key=ARGV14SECRET"],
    ["--cookie", "sid=ARGV15SECRET"],
    ["--auth", "me:ARGV16SECRET"],
]


@pytest.mark.promise("secrets-masked")
def test_a_secret_among_the_arguments_of_a_program_is_in_no_error(monkeypatch):
    monkeypatch.setenv("OF_THE_SERVER_TOKEN", "SECRET7ARGV")
    code = "import sys; sys.exit(f'cannot start with {sys.argv}')"

    async def main():
        source = MCPToolset(command=[sys.executable, "-c", code, *(word for words in TELLING for word in words)])
        with pytest.raises(ToolError) as caught:
            await source.async_list()
        await source.aclose()
        return str(caught.value)

    told = run(main())
    assert "cannot start with" in told
    assert re.findall(r"\w*ARGV\w*", told) == []


class OfTomorrow:
    """A server in memory that takes five seconds to start, knows no beginning but that of 2026-07-28, and one page."""

    refuses = False

    def __init__(self):
        self.ended = asyncio.Event()

    async def __aenter__(self):
        into, heard = anyio.create_memory_object_stream(9)
        to_say, said = anyio.create_memory_object_stream(9)
        self._task = asyncio.get_running_loop().create_task(self._answer(into, said))
        return heard, to_say

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _answer(self, into, said):
        able = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "serverInfo": {}}
        page = {"tools": [{"name": "a"}], "nextCursor": "never"}
        results = {"server/discover": able, "tools/list": page}
        await asyncio.sleep(5)
        async with into, said:
            async for item in said:
                method, identity = item.message.method, getattr(item.message, "id", None)
                if (getattr(item.message, "params", None) or {}).get("cursor"):
                    continue
                told = {"error": {"code": -32601, "message": f"no {method}"}}
                if method in results:
                    told = {"result": results[method] | {"resultType": "complete", "cacheScope": "private", "ttlMs": 0}}
                for message in messages(json.dumps({"jsonrpc": "2.0", "id": identity} | told).encode()):
                    await into.send(SessionMessage(message))

    def why(self):
        return ""

    def said(self, code):
        return ""

    def forgot(self, code, message):
        return False


@pytest.mark.promise("time-mcp")
def test_a_server_of_todays_protocol_alone_that_starts_slowly_is_waited_for_and_its_tools_are_taken_as_far_as_they_come(
    caplog,
):
    async def main():
        server = Server("slow", lambda _: OfTomorrow(), [])
        try:
            with use_deadline(Deadline.after(20)):
                first = await server.tools(20)
                return first, await server.tools(20), asyncio.get_running_loop().time()
        finally:
            await server.aclose()

    first, again, at = run_virtual(main())
    assert [tool["name"] for tool in first[1]] == ["a"]
    assert again == first  # and the page is not waited for a second time
    assert at < 20
    assert "its next page does not come; 1 tools of it are taken" in caplog.text
