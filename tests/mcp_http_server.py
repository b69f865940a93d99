"""
An MCP server over streamable HTTP on the loopback, made with the MCP package; it prints its port when it listens.

Its arguments are the port (0: any) and the bearer token it asks for; `json` makes it answer without a stream.
"""

import asyncio
import os
import socket
import sys

import uvicorn
from mcp.server import MCPServer

server = MCPServer("http-test")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def silent() -> str:
    """Never answer."""
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append("silent")
    return ""


@server.tool()
def heard() -> list[str]:
    """Which calls were cancelled."""
    return cancelled


@server.tool()
def huge(size: int) -> str:
    """Say much."""
    return "x" * size


@server.tool()
def die() -> str:
    """End the server in the middle of a call."""
    os._exit(9)


cancelled: list[str] = []


def guarded(app, token):
    async def with_token(scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != f"Bearer {token}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return with_token


listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
sys.stdout.write(f"{listening.getsockname()[1]}\n")
sys.stdout.flush()
app = guarded(server.streamable_http_app(json_response="json" in sys.argv), sys.argv[2])
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
