"""
The client of the MCP conformance suite: our `mcp` tool, which lists what a scenario's server has and calls all of it.

    npx -p node@22 -p @modelcontextprotocol/conformance conformance client --scenario tools_call \
        --command "python -m bench.mcp_conformance_client"

The suite puts the server's address behind the command, and what a scenario is given into environment variables. The
authorization server is the one that the server names; users write theirs down. A person who signs in is one who agrees
at once: their browser is led back by the first answer. One who is asked by a tool answers with what is usual.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

from shared_libs.tools.mcp import MCPToolset

ARGUMENTS = {"number": 3, "integer": 3, "string": "x", "boolean": True, "array": [], "object": {}}

GIVEN: dict[str, str] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")


async def sign_in(address: str) -> str:
    """Agree, and return where the browser is led back to."""
    async with httpx2.AsyncClient() as client:
        return (await client.get(address)).headers["location"]


async def identity(issuer: str, resource: str) -> str:
    """Have the company's identity provider say who the user is, for an authorization server (RFC 8693)."""
    asked = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
        "subject_token": GIVEN["idp_id_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "audience": issuer,
        "resource": resource,
        "client_id": GIVEN["idp_client_id"],
    }
    async with httpx2.AsyncClient() as client:
        token: str = (await client.post(GIVEN["idp_token_endpoint"], data=asked)).json()["access_token"]
        return token


async def elicit(words: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer with nothing: what is usual is filled in."""
    del words, schema
    return {}


async def given_credentials(url: str) -> dict[str, str]:
    """Return the `auth` of a scenario."""
    if not SCENARIO.startswith("auth/client-credentials") and "idp_id_token" not in GIVEN:
        known = {key: GIVEN[key] for key in ("client_id", "client_secret") if key in GIVEN}
        metadata = "https://conformance-test.local/client-metadata.json"
        return {"redirect_uri": "http://localhost:3000/callback", "client_metadata_url": metadata} | known
    parts = urlsplit(url)
    async with httpx2.AsyncClient() as client:
        found = await client.get(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}")
    auth = {"issuer": found.json()["authorization_servers"][0], "client_id": GIVEN["client_id"]}
    if "private_key_pem" in GIVEN:
        return auth | {"private_key": GIVEN["private_key_pem"], "algorithm": GIVEN["signing_algorithm"]}
    return auth | {"client_secret": GIVEN["client_secret"]}


async def main(url: str) -> None:
    source = MCPToolset(url=url, auth=await given_credentials(url) if SCENARIO.startswith("auth/") else None)
    source.sign_in, source.elicit = sign_in, elicit
    if "idp_id_token" in GIVEN:
        source.identity = identity
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
