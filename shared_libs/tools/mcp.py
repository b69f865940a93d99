"""The `mcp` tool: all tools of an MCP server, as a process of ours (stdio) or at an address (streamable HTTP)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.tools.mcp_server import Server
from shared_libs.tools.mcp_transport import HTTPTransport, StdioTransport, Transport

MAX_NAME = 64
"""Characters of a tool's name that every provider takes."""

_log = logging.getLogger(__name__)


class MCPToolset(Toolset):
    """
    The tools of an MCP server.

    Args:
        command: the program that is the server, and its arguments; it talks over its stdin and stdout.
        url: where the server is, instead of a command (streamable HTTP).
        env: environment variables of the program; of ours it sees only a few such as PATH and HOME.
        cwd: the folder the program runs in.
        headers: headers sent with every request to the URL.
        tools: the names of the tools to offer, as the server calls them; by default all.
        prefix: put before every name, with a `_` between; needed when two servers have tools of one name.

    Raises:
        MisuseError: not exactly one of `command` and `url`, or an option of the other one.

    """

    def __init__(
        self,
        *,
        command: list[str] | None = None,
        url: str | None = None,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        headers: dict[str, str] | None = None,
        tools: list[str] | None = None,
        prefix: str | None = None,
    ) -> None:
        if (command is None) == (url is None):
            raise MisuseError("the mcp tool takes exactly one of `command` and `url`")
        if command is not None and not (command and command[0]):
            raise MisuseError("command is a list of the program and its arguments, such as [mcp-server-time]")
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise MisuseError("url is the http:// or https:// address of an MCP server")
        if url is None and headers:
            raise MisuseError("headers go with `url`; a `command` takes `env`")
        if url is not None and (env or cwd):
            raise MisuseError(f"{'env' if env else 'cwd'} goes with `command`; a `url` takes `headers`")
        if prefix is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", prefix):
            raise MisuseError("prefix is up to 32 letters, digits, '_' and '-'")
        self.name = _name_of(command) if command else urlsplit(url or "").netloc.rpartition("@")[2]
        self._wanted = tools
        self._prefix = f"{prefix}_" if prefix else ""
        address = urlsplit(url or "")
        hidden = [*(env or {}).values(), *(headers or {}).values(), address.password or "", address.query]

        def dial() -> Transport:
            return StdioTransport(command, env or {}, cwd) if command else HTTPTransport(url or "", headers or {})

        self._server = Server(self.name, dial, hidden)
        self._token: Any = None
        self._tools: list[BaseTool] = []

    async def aclose(self) -> None:
        """End the connection, and the server where it is a program of ours."""
        await self._server.aclose()

    async def _list(self) -> Sequence[BaseTool]:
        token, listed = await self._server.tools(self.timeout_s)
        if token is not self._token:
            self._tools = self._made(listed)
            self._token = token
        return self._tools

    def _made(self, listed: Sequence[Any]) -> list[BaseTool]:
        known = [tool.name for tool in listed]
        missing = [name for name in self._wanted or () if name not in known]
        if missing:
            raise ToolError(f"the MCP server {self.name} has no tool {missing[0]}; it has: {', '.join(known)}")
        made: dict[str, BaseTool] = {}
        for tool in listed:
            if self._wanted is not None and tool.name not in self._wanted:
                continue
            name = _sent_name(self._prefix + tool.name, made)
            try:
                made[name] = MCPTool(self._server, tool, name, self)
            except MisuseError as error:
                _log.warning("the tool %s of the MCP server %s is left out: %s", tool.name, self.name, error)
        return list(made.values())


class MCPTool(BaseTool):
    """One tool of an MCP server."""

    def __init__(self, server: Server, listed: Any, name: str, common: Toolset) -> None:
        self._server = server
        self._called = listed.name
        self.name = name
        self.description = listed.description or listed.title or ""
        self.parameters = listed.input_schema
        hints = listed.annotations
        self.idempotent = True if hints and (hints.read_only_hint or hints.idempotent_hint) else None
        self.timeout_s = common.timeout_s
        self.sequential = common.sequential
        self.needs_approval = common.needs_approval
        self.max_observation_chars = common.max_observation_chars
        _ = self.spec  # a schema that is none shows here

    async def execute(self, /, **arguments: Any) -> str:
        """Call it at the server."""
        result = await self._server.call(self._called, arguments, self.timeout_s)
        text = _as_text(result)
        if result.is_error:
            raise ToolError(text or f"{self.name} failed without a word")
        return text


def _name_of(command: list[str]) -> str:
    """The program, and what it launches where it is a launcher."""
    program = command[0].rpartition("/")[2]
    launched = next((word for word in command[1:] if not word.startswith("-")), "")
    if re.fullmatch(r"(npx|uvx|bunx|deno|node|python[\d.]*)", program) and re.fullmatch(r"[\w@./-]{1,80}", launched):
        return f"{program} {Path(launched).name if launched[0] == '/' else launched}"
    return program


def _sent_name(name: str, taken: dict[str, BaseTool]) -> str:
    """A name that every provider takes, and that no tool of this server has."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:MAX_NAME] or "_"
    name, number = plain, 2
    while name in taken:
        ending = f"_{number}"
        name = plain[: MAX_NAME - len(ending)] + ending
        number += 1
    return name


def _as_text(result: Any) -> str:
    """What a model reads of a result: its texts, and a note for what is none; else its structured content."""
    parts = [_part(block) for block in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _part(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type in ("image", "audio"):
        return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes; it is not shown]"
    if block.type == "resource_link":
        return f"[resource {block.uri}: {block.title or block.name}]"
    resource = block.resource
    if hasattr(resource, "text"):
        return f"[resource {resource.uri}]\n{resource.text}"
    return (
        f"[resource {resource.uri}, {resource.mime_type or 'binary'}, {len(resource.blob) * 3 // 4} bytes; not shown]"
    )
