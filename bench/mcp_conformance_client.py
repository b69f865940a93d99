"""
The client of the MCP conformance suite: our `mcp` tool, which lists what a scenario's server has and calls all of it.

    npx -p node@22 -p @modelcontextprotocol/conformance conformance client --scenario tools_call \
        --command "python -m bench.mcp_conformance_client"

The suite puts the server's address behind the command.
"""

import asyncio
import sys

from shared_libs.tools.mcp import MCPToolset

ARGUMENTS = {"number": 3, "integer": 3, "string": "x", "boolean": True, "array": [], "object": {}}


async def main(url: str) -> None:
    source = MCPToolset(url=url)
    try:
        for tool in await source.async_list():
            fields = tool.parameters["properties"]
            result = await tool.async_run(
                {name: ARGUMENTS[field.get("type", "string")] for name, field in fields.items()}
            )
            print(f"{tool.name}: {'error ' if result.is_error else ''}{result.content}")
    finally:
        await source.aclose()


asyncio.run(main(sys.argv[-1]))
