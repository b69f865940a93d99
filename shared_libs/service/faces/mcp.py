"""
The service as an MCP server, at `/mcp`: the agents that the key may run are tools, and the collections it may read.

Streamable HTTP without sessions, so that any replica answers any request. Progress is told from the run's events to a
client that asks for it. A call of a tool that needs an approval is asked of the person at the client, where the client
can ask and the key may decide: the answer is that input is wanted, and the call comes again with it (protocol of
2026-07-28; before it, that needs a session). The protocol itself is the MCP package's.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import MisuseError, RetrievalError, ToolError
from shared_libs.atomic.events import AgentEvent, RunStarted, Thought, ToolFinished, ToolStarted
from shared_libs.atomic.loading import importing, load
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Usage
from shared_libs.service.catalogue import Entry
from shared_libs.service.durable import durable_run, wants_durable
from shared_libs.service.endpoint import Call
from shared_libs.service.faces.mcp_approvals import approvals_of, decisions_of, may_ask
from shared_libs.service.faces.mcp_resources import CALL, call_of, list_documents, list_templates, read_resource
from shared_libs.service.faces.runs import facts_of
from shared_libs.service.faces.wanted import Body
from shared_libs.service.live import Asked, LiveRun, demand_of_run
from shared_libs.service.problems import Problem, problem_of
from shared_libs.service.routers.answers import check_fields, session_of
from shared_libs.service.routers.collections import about_tokens, asking, named, whole_number
from shared_libs.service.routers.decisions import go_on
from shared_libs.tools.retrieval import PASSAGES, RetrievalTool

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.server import ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

_log = logging.getLogger("shared_libs.service")

RETRIEVE_S = 20.0
"""Seconds a search may take."""

RETRIEVE = "retrieve_"
"""What the tool of a collection is called, before the collection's name."""

_QUERY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "The question, or the words to look for."},
        "document": {"type": "string", "description": "The source of one document, to look only there."},
        "passages": {"type": "integer", "minimum": 1, "maximum": 50, "description": "How many passages; 6 at first."},
    },
    "required": ["query"],
    "additionalProperties": False,
}

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

    Whose pages may ask it the door has decided, as for every route (`Door.admit`).
    """

    def __init__(self) -> None:
        self._manager: StreamableHTTPSessionManager | None = None
        self._living: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._over = asyncio.Event()

    async def answer(self, call: Call) -> None:
        """
        Answer a request.

        Raises:
            Problem: the MCP package is not installed, or does not fit.

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
                    with importing("mcp", "the MCP face"):
                        await load("mcp.server.streamable_http_manager")
                except MisuseError as error:
                    raise Problem("not_found", str(error)) from None
                manager, ready = _manager(), asyncio.Event()
                self._living = asyncio.get_running_loop().create_task(self._live(manager, ready))
                await ready.wait()
                self._manager = manager
            return self._manager

    async def _live(self, manager: StreamableHTTPSessionManager, ready: asyncio.Event) -> None:
        async with manager.run():
            ready.set()
            await self._over.wait()


def _manager() -> StreamableHTTPSessionManager:
    from mcp.server import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    server: Server[Any] = Server(
        "genai-factory",
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=list_documents,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )
    return StreamableHTTPSessionManager(server, stateless=True)


async def _list_tools(
    context: ServerRequestContext[Any, Any], _: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    import mcp_types as types

    call = call_of(context)
    tools = [
        types.Tool(
            name=name,
            title=entry.name,
            description=_about(entry),
            input_schema=_INPUT,
            output_schema=_told_of(name, entry),
        )
        for name, entry in _agents(call).items()
    ]
    tools += [
        types.Tool(
            name=_tool_name(f"{RETRIEVE}{name}"),
            title=f"Search {name}",
            description=f"Finds passages in the documents of the collection {name!r}, with their sources.",
            input_schema=_QUERY,
            annotations=types.ToolAnnotations(read_only_hint=True),
        )
        for name in await _collections(call)
    ]
    return types.ListToolsResult(tools=tools)


async def _call_tool(
    context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    import mcp_types as types

    call = call_of(context)
    given = params.arguments or {}
    try:
        if params.name not in _agents(call) and params.name.startswith(RETRIEVE):
            found = await _retrieved(call, params.name, given)
            return types.CallToolResult(
                content=[types.TextContent(text=msgspec.json.encode(found).decode())], structured_content=found
            )
        live = await _begun(call, params.name, given) if params.request_state is None else await _decided(call, params)
        result = await _followed(context, live)
    except Exception as error:  # noqa: BLE001 - what a tool fails with is told to the model that called it
        told = str(error) if isinstance(error, ToolError) else problem_of(error).detail
        return types.CallToolResult(content=[types.TextContent(text=told)], is_error=True)
    if result.status == "paused" and may_ask(context, call):
        return approvals_of(result)
    facts = facts_of(result)
    text = result.answer if result.status in ("answered", "partial") else facts.get("error")
    if result.status == "paused":
        waiting = ", ".join(action.tool for action in result.pending)
        text = f"This waits for a decision on {waiting}. Decide at POST /v1/runs/{result.run_id}/decisions."
    return types.CallToolResult(
        content=[types.TextContent(text=text or "")],
        structured_content={"answer": result.answer, "output": result.output_data, **facts},
        is_error=result.status in ("failed", "cancelled"),
    )


async def _retrieved(call: Call, tool: str, given: dict[str, Any]) -> dict[str, Any]:
    """
    Find passages in a collection.

    Raises:
        Problem: there is no such tool, or what is given is wrong.
        ToolError: nothing could be found out.

    """
    there = {_tool_name(f"{RETRIEVE}{name}"): name for name in await _collections(call)}
    if tool not in there:
        raise Problem("not_found", f"there is no tool {tool[:80]!r}; there are {', '.join(there) or 'no collections'}")
    collection = named(call, there[tool], "read")
    body = Body(given)
    check_fields(given, tuple(_QUERY["properties"]))
    query, count = body.text("query"), whole_number(given, ("passages",), PASSAGES)
    if not 1 <= count <= _QUERY["properties"]["passages"]["maximum"]:
        raise body.wrong("passages", "a number from 1 to 50")
    tokens = about_tokens([query])
    deadline = call.deadline(RETRIEVE_S, streams=False)
    price = None if collection.embedder is None else collection.embedder.price
    async with asking(call, "collections/retrieve", deadline, tokens, price) as grant:
        found = await RetrievalTool(collection, passages=count).execute(query, body.text_or("document") or None)
        grant.settle(Usage(tokens if collection.embedder else 0), None)
    return found


async def _begun(call: Call, name: str, arguments: dict[str, Any]) -> LiveRun:
    entry = _agents(call).get(name)
    if entry is None:
        raise Problem("not_found", f"there is no tool {name[:80]!r}; there are {', '.join(_agents(call)) or 'none'}")
    check_fields(arguments, tuple(_INPUT["properties"]))
    question, session = arguments.get("question"), arguments.get("session_id")
    if not isinstance(question, str) or not question.strip():
        raise Problem("invalid_request", "question is a text that is not empty")
    if session is not None and (not isinstance(session, str) or entry.agent.memory is None):
        raise Problem("invalid_request", f"{entry.name} has no memory to keep a session in")
    demand = demand_of_run(entry, call, call.deadline(entry.longest_s, streams=True))
    asked = Asked(question=question, session_id=session_of(call.caller, session))
    live = (
        durable_run(entry, asked, demand, call.service.queue)
        if wants_durable(entry, call)
        else LiveRun(entry, asked, demand, record=call.service.record(call.caller))
    )
    call.service.runs.begin(live)
    return live


async def _decided(call: Call, params: types.CallToolRequestParams) -> LiveRun:
    """Go on with a run as the person at the client has decided; whose run it is counts, not who names it."""
    call.caller.need("runs:decide")
    run_id, decisions = params.request_state or "", decisions_of(params.input_responses or {})
    if not decisions:
        raise ToolError(f"Nothing was decided. The run waits: decide at POST /v1/runs/{run_id[:80]}/decisions.")
    return await go_on(call, run_id, await call.service.queue.job(run_id, call.caller.team), decisions)


async def _followed(context: ServerRequestContext[Any, Any], live: LiveRun) -> AgentResult:
    """Tell how far a run is, and wait for its end; it ends with its client."""
    try:
        step = 0.0
        async for events in live.follow(live.events[-1].seq if live.events else -1):
            for said in filter(None, map(_progress, events)):
                step += 1
                await context.session.report_progress(step, None, said)
        return await live.result()
    finally:
        if not live.task.done():
            live.end("its client has gone")


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
    return {_tool_name(entry.name): entry for entry in visible if entry.kind == "agent"}


async def _collections(call: Call) -> list[str]:
    """The collections that the key may read; an outage of their stores hides no agent."""
    try:
        return [row.name for row in await call.service.library.visible(call.caller)]
    except RetrievalError:
        _log.warning("the collections cannot be listed", exc_info=True)
        return []


def _tool_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:128]


def _told_of(name: str, entry: Entry) -> dict[str, Any]:
    """What the result of an agent is: its answer, and its output in the shape of the agent, or null."""
    output: dict[str, Any] = {}
    if (shape := entry.agent.shape) is not None:
        # within another schema its references are still to itself
        output = {"anyOf": [{"$id": f"urn:genai-factory:output:{name}", **shape.schema}, {"type": "null"}]}
    return {
        "type": "object",
        "properties": {"answer": {"type": ["string", "null"]}, "status": {"type": "string"}, "output": output},
        "required": ["answer", "status", "output"],
    }


def _about(entry: Entry) -> str:
    """What the model of a client reads of an agent."""
    return entry.description or f"Asks the agent {entry.name!r}, in words."
