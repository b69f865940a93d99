"""A server that says what a test tells it to, and what is made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from shared_libs.tools.mcp import MCPToolset
from tests.support import run

SERVER = Path(__file__).parents[2] / "mcp_scripted_server.py"
REFUSED = '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32602,"message":"Invalid cursor"}}'
OBJECT = {"type": "object", "properties": {}}


def scripted(says: dict, *more: str, **options) -> MCPToolset:
    return MCPToolset(command=[sys.executable, str(SERVER), json.dumps(says), *more], **options)


def listed(*items):
    """The tools made of a list, and the reasons for the others."""

    async def main():
        source = scripted({})
        tools = await source._made(items)
        return {tool.name: tool for tool in tools}, source.left_out

    return run(main())


def said_by_calls(results: list, *more: str):
    """What is made of one call after another, each answered with the next result."""

    async def main():
        source = scripted({"tools/list": {"tools": [{"name": "a"}]}, "tools/call": results}, *more)
        try:
            (tool,) = await source.async_list()
            return [await tool.async_run({}) for _ in results]
        finally:
            await source.aclose()

    return run(main())


def said_by_a_call(result, *more: str):
    (said,) = said_by_calls([result], *more)
    return said
