"""The `mcp` tool: all tools of an MCP server, as a process of ours (stdio) or at an address (streamable HTTP)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from shared_libs.atomic.command_lines import password_in, secrets_of
from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.threads import Threads
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.tools import mcp_listing
from shared_libs.tools.mcp_auth import Credentials, Identity, SignIn
from shared_libs.tools.mcp_listing import Listed
from shared_libs.tools.mcp_server import Elicit, Server
from shared_libs.tools.mcp_transport import HTTPTransport, StdioTransport, Transport

MAX_NAME = 64
"""Characters of a tool's name that every provider takes."""

MAX_LISTED = 4 << 20
"""Bytes of all schemas of a server together: more than any model reads with a request."""

LARGE = 16 << 10
"""Bytes of a schema that is read in a thread; a smaller one takes some 3 ms of the loop."""

_READERS = Threads("mcp-schemas", 2)

_log = logging.getLogger(__name__)


class MCPToolset(Toolset):
    """
    The tools of an MCP server.

    What a host may add, as attributes or as methods of a subclass: `sign_in`, which brings a person to the address it
    is given and returns the one they were led back to; `identity`, which says for two addresses, of the authorization
    server and of the MCP server, who the user is (an ID-JAG); `elicit`, which answers a tool's question back, given
    its words and a JSON Schema: with an object, or None to decline. Each has the time of the connection or the call.

    Args:
        command: the program that is the server, and its arguments; it talks over its stdin and stdout.
        url: where the server is, instead of a command (streamable HTTP, else the transport by events before it).
        env: environment variables of the program; of ours it sees only a few such as PATH and HOME.
        cwd: the folder the program runs in.
        headers: headers sent with every request to the URL.
        auth: credentials of a program (OAuth) for the URL: `issuer`, the authorization server they are sent to,
            `client_id`, and `client_secret` (`method`: "basic" or "post") or `private_key` (PEM; `algorithm`); or, for
            a person who signs in, `redirect_uri` and what is registered, if anything is.
        tools: the names of the tools to offer, as the server calls them; by default all.
        prefix: put before every name, with a `_` between; needed when two servers have tools of one name.

    Raises:
        MisuseError: not exactly one of `command` and `url`, or an option of the other one.

    """

    sign_in: SignIn | None = None
    identity: Identity | None = None
    elicit: Elicit | None = None

    def __init__(
        self,
        *,
        command: list[str] | None = None,
        url: str | None = None,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        headers: dict[str, str] | None = None,
        auth: dict[str, str] | None = None,
        tools: list[str] | None = None,
        prefix: str | None = None,
    ) -> None:
        if (command is None) == (url is None):
            raise MisuseError("the mcp tool takes exactly one of `command` and `url`")
        if command is not None and not (command and command[0]):
            raise MisuseError("command is a list of the program and its arguments, such as [mcp-server-time]")
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise MisuseError("url is the http:// or https:// address of an MCP server")
        if url is None and (headers or auth):
            raise MisuseError(f"{'headers go' if headers else 'auth goes'} with `url`; a `command` takes `env`")
        if url is not None and (env or cwd):
            raise MisuseError(f"{'env' if env else 'cwd'} goes with `command`; a `url` takes `headers`")
        if prefix is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", prefix):
            raise MisuseError("prefix is up to 32 letters, digits, '_' and '-'")
        self.name = _name_of(command) if command else urlsplit(url or "").netloc.rpartition("@")[2]
        self._wanted = tools
        self._prefix = f"{prefix}_" if prefix else ""
        given = [*(env or {}).values(), *(headers or {}).values(), *secrets_of(command or [])]
        given += [(auth or {}).get("client_secret", ""), (auth or {}).get("private_key", "")]
        hidden = [
            *given,
            *(word for value in given for word in value.split()[1:]),
            password_in(url or ""),
            urlsplit(url or "").query,
        ]

        def dial(by_events: bool) -> Transport:
            if command:
                return StdioTransport(command, env or {}, cwd)
            sign = None if credentials is None else credentials.provider(url or "", self.sign_in, self.identity)
            return HTTPTransport(url or "", headers or {}, sign, by_events=by_events)

        self._server = Server(self.name, dial, hidden, lambda: self.elicit)
        credentials = None if auth is None else Credentials(auth, self._server.hide)
        self._token: Any = None
        self.left_out: dict[str, str] = {}
        """Tools of the server that are not offered, and why; as it was last listed."""
        self._tools: list[BaseTool] = []

    async def aclose(self) -> None:
        """End the connection, and the server where it is a program of ours."""
        await self._server.aclose()

    async def _list(self) -> Sequence[BaseTool]:
        token, items = await self._server.tools(self.timeout_s)
        if token is not self._token:
            self._tools = await self._made(items)
            self._token = token
        return self._tools

    async def _made(self, items: Sequence[Any]) -> list[BaseTool]:
        """Make the tools one by one: a bad one costs only itself, and the loop has its turn between two."""
        known = [*filter(None, map(mcp_listing.name_of, items))]
        missing = [name for name in self._wanted or () if name not in known]
        if missing:
            raise ToolError(f"the MCP server {self.name} has no tool {missing[0]}; it has: {', '.join(known)[:4_000]}")
        made: dict[str, BaseTool] = {}
        left_out: dict[str, str] = {}
        seen: set[str] = set()
        left = MAX_LISTED
        for place, item in enumerate(items, 1):
            called = mcp_listing.name_of(item)
            if called in seen or (self._wanted is not None and called not in self._wanted):
                continue
            await asyncio.sleep(0)
            try:
                name = _sent_name(self._prefix + called, made)
                size = mcp_listing.size_of(item)
                if size > left:
                    raise MisuseError(f"the schemas of all tools are larger than {MAX_LISTED >> 20} MiB; name some")
                made[name] = await self._one(item, name, in_a_thread=size > LARGE)
                seen.add(called)
                left -= size
            except MisuseError as error:
                which = called[:100] or f"number {place}"
                left_out[which] = str(error)
                _log.warning("the tool %s of the MCP server %s is left out: %s", which, self.name, error)
        self.left_out = left_out
        return list(made.values())

    async def _one(self, item: Any, name: str, *, in_a_thread: bool) -> MCPTool:
        if not in_a_thread:
            return self._ready(item, name)
        tool: MCPTool = await _READERS.submit(self._ready, {"item": item, "name": name}).result()
        return tool

    def _ready(self, item: Any, name: str) -> MCPTool:
        listed = mcp_listing.read(item)
        try:
            return MCPTool(self._server, listed, name, self)
        except MisuseError:
            plainer = mcp_listing.plainer(listed.parameters)
            if plainer is None:
                raise
            return MCPTool(self._server, msgspec.structs.replace(listed, parameters=plainer), name, self)


class MCPTool(BaseTool):
    """One tool of an MCP server."""

    def __init__(self, server: Server, listed: Listed, name: str, common: Toolset) -> None:
        self._server = server
        self._called = listed.name
        self.name = name
        self.description = listed.description
        self.parameters = listed.parameters
        self.idempotent = True if listed.harmless else None
        self.timeout_s = common.timeout_s
        self.sequential = common.sequential
        self.needs_approval = common.needs_approval
        self.max_observation_chars = common.max_observation_chars
        _ = self.spec  # a schema that is none shows here

    async def execute(self, /, **arguments: Any) -> str:
        """Call it at the server."""
        result = await self._server.call(self._called, arguments, self.timeout_s)
        text = "\n".join(block.text for block in result.content)
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
