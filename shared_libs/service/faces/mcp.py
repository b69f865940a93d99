"""
The service as an MCP server, at `/mcp`: every agent that the key may run is a tool.

Streamable HTTP without sessions, so that any replica answers any request. Progress is told from the run's events to a
client that asks for it. The protocol itself is the MCP package's.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.events import AgentEvent, RunStarted, Thought, ToolFinished, ToolStarted
from shared_libs.atomic.loading import load
from shared_libs.atomic.results import AgentResult
from shared_libs.service.catalogue import Entry
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.runs import facts_of
from shared_libs.service.live import Asked, LiveRun, demand_of_run
from shared_libs.service.problems import Problem, problem_of
from shared_libs.service.routers.answers import session_of

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.server import ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

CALL = "factory.call"
"""Where the request's `Call` stands in its scope, for the tool that it calls."""

_LOOPBACK = ["127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*", "[::1]", "[::1]:*"]

_INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "description": "What the agent is asked, in words."},
        "session_id": {"type": "string", "description": "The conversation to go on with, where the agent remembers."},
    },
    "required": ["question"],
    "additionalProperties": False,
}


class McpFace:
    """
    The MCP server of a service. It is made when it is first asked, and lives in a task of its own.

    Args:
        open_to_all: whether no keys are kept. Then only names of this machine are answered: a web page whose name was
            rebound to it must not reach it through the browser of whoever reads it.

    """

    def __init__(self, *, open_to_all: bool) -> None:
        self._open_to_all = open_to_all
        self._manager: StreamableHTTPSessionManager | None = None
        self._living: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._over = asyncio.Event()

    async def answer(self, call: Call) -> None:
        """
        Answer a request.

        Raises:
            Problem: the MCP package is not installed.

        """
        call.scope[CALL] = call
        manager = self._manager or await self._made()
        await call.hand_over(manager.handle_request)

    async def aclose(self) -> None:
        """End what is under way."""
        self._over.set()
        if self._living is not None:
            await asyncio.wait([self._living])

    async def _made(self) -> StreamableHTTPSessionManager:
        async with self._lock:
            if self._manager is None:
                try:
                    await load("mcp.server.streamable_http_manager")
                except ImportError:
                    told = "the MCP face needs the extra `mcp`: pip install 'genai-factory[mcp]'"
                    raise Problem("not_found", told) from None
                manager, ready = _manager(open_to_all=self._open_to_all), asyncio.Event()
                self._living = asyncio.get_running_loop().create_task(self._live(manager, ready))
                await ready.wait()
                self._manager = manager
            return self._manager

    async def _live(self, manager: StreamableHTTPSessionManager, ready: asyncio.Event) -> None:
        async with manager.run():
            ready.set()
            await self._over.wait()


def _manager(*, open_to_all: bool) -> StreamableHTTPSessionManager:
    from mcp.server import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings

    server: Server[Any] = Server("genai-factory", on_list_tools=_list_tools, on_call_tool=_call_tool)
    origins = [f"http://{host}" for host in _LOOPBACK]
    guard = TransportSecuritySettings(
        enable_dns_rebinding_protection=open_to_all, allowed_hosts=_LOOPBACK, allowed_origins=origins
    )
    return StreamableHTTPSessionManager(server, stateless=True, security_settings=guard)


async def _list_tools(
    context: ServerRequestContext[Any, Any], _: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    import mcp_types as types

    call = _call_of(context)
    tools = [
        types.Tool(name=name, title=entry.name, description=entry.description or None, input_schema=_INPUT)
        for name, entry in _agents(call).items()
    ]
    return types.ListToolsResult(tools=tools)


async def _call_tool(
    context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
) -> types.CallToolResult:
    import mcp_types as types

    call = _call_of(context)
    try:
        result = await _run(context, call, params.name, params.arguments or {})
    except Exception as error:  # noqa: BLE001 - what a tool fails with is told to the model that called it
        problem = problem_of(error)
        return types.CallToolResult(content=[types.TextContent(text=problem.detail)], is_error=True)
    text = result.answer if result.status in ("answered", "partial") else result.error
    if result.status == "paused":
        waiting = ", ".join(action.tool for action in result.pending)
        text = f"This waits for a decision on {waiting}. Decide at POST /v1/runs/{result.run_id}/decisions."
    return types.CallToolResult(
        content=[types.TextContent(text=text or "")],
        structured_content={"answer": result.answer, **facts_of(result)},
        is_error=result.status in ("failed", "cancelled"),
    )


async def _run(
    context: ServerRequestContext[Any, Any], call: Call, name: str, arguments: dict[str, Any]
) -> AgentResult:
    entry = _agents(call).get(name)
    if entry is None:
        raise Problem("not_found", f"there is no tool {name[:80]!r}; there are {', '.join(_agents(call)) or 'none'}")
    question, session = arguments.get("question"), arguments.get("session_id")
    if not isinstance(question, str) or not question.strip():
        raise Problem("invalid_request", "question is a text that is not empty")
    if session is not None and (not isinstance(session, str) or entry.agent.memory is None):
        raise Problem("invalid_request", f"{entry.name} has no memory to keep a session in")
    demand = demand_of_run(entry, call.caller, call.deadline(entry.longest_s, streams=True))
    asked = Asked(question=question, session_id=session_of(call.caller, session))
    live = LiveRun(entry, asked, demand, record=call.service.record(call.caller))
    call.service.runs.begin(live)
    try:
        step = 0.0
        async for events in live.follow():
            for said in filter(None, map(_progress, events)):
                step += 1
                await context.session.report_progress(step, None, said)
        return await live.result()
    finally:
        if not live.task.done():
            live.task.cancel()


def _call_of(context: ServerRequestContext[Any, Any]) -> Call:
    request: Any = context.request
    call: Call = request.scope[CALL]
    return call


def _progress(event: AgentEvent) -> str:
    """What a client is told on the way."""
    match event:
        case RunStarted():
            return f"{event.agent} begins"
        case Thought():
            return event.text
        case ToolStarted():
            given = event.input if isinstance(event.input, str) else msgspec.json.encode(event.input).decode()
            return f"{event.tool}({given[:200]})"
        case ToolFinished():
            return f"{event.tool} {'failed' if event.is_error else 'is done'} ({event.elapsed_s:.1f} s)"
    return ""


def _agents(call: Call) -> dict[str, Entry]:
    """The agents that the key may run, by names that a tool may have."""
    visible = call.service.catalogue.visible(call.caller)
    return {re.sub(r"[^A-Za-z0-9_.-]", "_", entry.name)[:128]: entry for entry in visible if entry.kind == "agent"}
