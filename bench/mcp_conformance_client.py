"""
The client of the MCP conformance suite: our `mcp` tool, which lists what a scenario's server has and calls all of it.

    npx -p node@22 -p @modelcontextprotocol/conformance conformance client --scenario tools_call \
        --command "python -m bench.mcp_conformance_client"

The suite puts the server's address behind the command, and credentials into an environment variable
(`auth/client-credentials-basic`). The authorization server is the one that the server names; users write theirs down.
"""

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

import httpx2

from shared_libs.tools.mcp import MCPToolset

ARGUMENTS = {"number": 3, "integer": 3, "string": "x", "boolean": True, "array": [], "object": {}}


async def given_credentials(url: str) -> dict[str, str] | None:
    """Return the `auth` of a scenario that has some."""
    given = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    if "client_secret" not in given:
        return None
    parts = urlsplit(url)
    async with httpx2.AsyncClient() as client:
        found = await client.get(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}")
    return {"issuer": found.json()["authorization_servers"][0]} | {
        key: given[key] for key in ("client_id", "client_secret")
    }


async def main(url: str) -> None:
    source = MCPToolset(url=url, auth=await given_credentials(url))
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
