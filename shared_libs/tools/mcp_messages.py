"""
What MCP servers say, mended message by message on its way to the library, which takes a message whole or not at all.

A list of tools reaches the library as names only, a result as one text: what servers write into the rest is of many
kinds, and one odd part must not cost the others. The items themselves are kept here, for `mcp_listing` to read.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

import anyio
import msgspec

from shared_libs.atomic.json_schema import shown
from shared_libs.atomic.loading import importing
from shared_libs.tools.mcp_listing import name_of
from shared_libs.tools.mcp_transport import TO_CLOSE_S, Transport
from shared_libs.tools.mcp_wire import BARE, as_json, error_of, unreadable

with importing("mcp", "an MCP server"):
    from mcp.shared.message import SessionMessage
    from mcp.types import REQUEST_TIMEOUT, JSONRPCError, JSONRPCResponse
    from mcp_types.version import OLDEST_SUPPORTED_VERSION

MAX_ASKED = 2_000
"""Characters of a question that a tool asks back."""

LIST_CHANGED = "notifications/tools/list_changed"

PAGE_KEY = "genai-factory/page"
"""The `_meta` key under which a list names the items that are kept for it."""

MAX_TOOLS = 2_000
"""Tools of one page that are looked at."""

DISCOVERY_S = 1.5
"""Seconds a server gets to answer `server/discover`, which older ones may pass over; then it is asked as they are."""

_OF_A_RESULT = (
    "content",
    "structuredContent",
    "structured_content",
    "isError",
    "is_error",
    "_meta",
    "resultType",
    BARE,
)
_OF_A_QUESTION = ("inputRequests", "requestState", "_meta")
_QUESTIONS = ("elicitation/create", "sampling/createMessage", "roots/list")
_BESIDE = ("type", "annotations", "_meta")
_NO_TEXT = {"type": "text", "text": None}
_SAYS = ("text", "json", "content", "value", "markdown", "html", "data", "message")
"""Where blocks of kinds that are not specified hold what they say."""

_MEDIA = ("image", "audio", "video", "resource", "file")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_log = logging.getLogger(__name__)
_HEADER_WORD = b"x-mcp-header"


class Mended:
    """A transport whose messages are mended."""

    def __init__(self, transport: Transport, *, patient: bool = False) -> None:
        self._transport = transport
        self._patient = patient
        self.gave_up = False
        """Whether the first question was answered for the server, which may have been slow to start."""
        self._asked: dict[str, str] = {}
        self._pages: dict[str, list[Any]] = {}
        self._version = ""
        self._greeting: Any = None
        self._told_of_a_change = False
        self._into: Any = None
        self._to_say: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Any:
        heard, to_say = await self._transport.__aenter__()
        self._to_say = to_say
        self._into, out_of = anyio.create_memory_object_stream[Any](0)
        self._tasks = [asyncio.get_running_loop().create_task(self._pass_on(heard))]
        return out_of, _Saying(to_say, self)

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._transport.__aexit__(*error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=TO_CLOSE_S)
            self._into.close()

    @property
    def ended(self) -> asyncio.Event:
        """Set when the other side has gone."""
        return self._transport.ended

    def why(self) -> str:
        """What is known of its end or its silence, in words; may be empty."""
        return self._transport.why()

    def said(self, code: int) -> str:
        """What the answer with an error of this code said besides; may be empty."""
        return self._transport.said(code)

    def forgot(self, code: int, message: str) -> bool:
        """Whether an error says that the other side does not know the session any more."""
        return self._transport.forgot(code, message)

    def items(self, page: Any) -> list[Any]:
        """Hand over the items of a page of tools, as the server wrote them."""
        return self._pages.pop(str((page.meta or {}).get(PAGE_KEY)), [])

    def asks(self, message: Any) -> None:
        """Note a request, to know what its answer is of."""
        identity, method = getattr(message, "id", None), getattr(message, "method", None)
        if identity is None or method is None:
            return
        self._asked[str(identity)] = method
        if method == "initialize":
            self._version, self._greeting = str((message.params or {}).get("protocolVersion")), message
        if method == "server/discover" and not self._patient:
            self._tasks.append(asyncio.get_running_loop().create_task(self._give_up_discovery(identity)))

    async def _pass_on(self, heard: Any) -> None:
        async with self._into, heard:
            try:
                async for item in heard:
                    if self._is_too_new(item):
                        params = {**self._greeting.params, "protocolVersion": self._version}
                        await self._to_say.send(SessionMessage(self._greeting.model_copy(update={"params": params})))
                        continue
                    changed = getattr(getattr(item, "message", None), "method", "") == LIST_CHANGED
                    if not (changed and self._told_of_a_change):  # once is enough, until something else is said
                        await self._into.send(self._mended(item))
                    self._told_of_a_change = changed
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # nobody listens any more
            finally:
                self._transport.ended.set()

    def _is_too_new(self, item: Any) -> bool:
        """Whether the greeting is refused for its version: an older one, that the server names or all know, may do."""
        refusal = getattr(item, "message", None)
        if not isinstance(refusal, JSONRPCError) or self._asked.get(str(refusal.id)) != "initialize":
            return False
        said = f"{refusal.error.message} {as_json(refusal.error.data)}"
        named = [version for version in _DATE.findall(said) if OLDEST_SUPPORTED_VERSION <= version < self._version]
        if not named and ("version" not in said.lower() or self._version <= OLDEST_SUPPORTED_VERSION):
            return False
        self._version = max(named, default=OLDEST_SUPPORTED_VERSION)
        return True

    def _mended(self, item: Any) -> Any:
        if isinstance(item, Exception):
            if len(self._asked) != 1:
                return item
            (identity,) = self._asked  # whose answer it was is no question
            return SessionMessage(unreadable(identity, str(item)))
        message = item.message
        if isinstance(message, JSONRPCError) and message.id is None:
            message.id = self._meant()
        method = self._asked.pop(str(getattr(message, "id", None)), "") if not hasattr(message, "method") else ""
        if method == "tools/list" and isinstance(message, JSONRPCResponse):
            message.result = self._page(str(message.id), message.result)
        elif method == "tools/call" and isinstance(message, JSONRPCResponse):
            message.result = as_text(message.result, asks_back=not self._version)
        elif method in ("initialize", "server/discover") and isinstance(message, JSONRPCResponse):
            message.result = greeting(message.result, self._version)
        return item

    @property
    def refuses(self) -> bool:
        """Whether it takes no message where it is."""
        return self._transport.refuses

    @property
    def discovering(self) -> bool:
        """Whether the first question is open, which servers from before 2026-07-28 do not know."""
        return "server/discover" in self._asked.values()

    def _meant(self) -> Any:
        """The request that an error without an `id` is about, where that is no question."""
        calls = [identity for identity, method in self._asked.items() if method.startswith("tools/")] or [*self._asked]
        return None if len(calls) != 1 else int(calls[0]) if calls[0].isdecimal() else calls[0]

    def _page(self, key: str, result: Mapping[str, Any]) -> dict[str, Any]:
        tools = result.get("tools", result.get(BARE))
        cursor = result.get("nextCursor", result.get("next_cursor"))
        if isinstance(tools, Mapping):
            tools = [{"name": name, **tool} for name, tool in tools.items() if isinstance(tool, Mapping)]
        items = tools if isinstance(tools, list) else []
        self._pages[key] = items[:MAX_TOOLS]
        kept = {word: value for word, value in result.items() if word not in ("tools", "nextCursor", "_meta", BARE)}
        if isinstance(cursor, str | int | float) and not isinstance(cursor, bool):
            kept["nextCursor"] = str(cursor)
        elif cursor:
            _log.warning(
                "a list of MCP tools goes on behind %s, which is no cursor; what is there is taken", shown(cursor)
            )
        named = [item for item in items[:MAX_TOOLS] if name_of(item)]
        return {**kept, "tools": [*map(_outline, named)], "_meta": {PAGE_KEY: key}}

    async def _give_up_discovery(self, identity: Any) -> None:
        await asyncio.sleep(DISCOVERY_S)
        if self._asked.pop(str(identity), None) is not None:
            self.gave_up = True
            error = {"code": REQUEST_TIMEOUT, "message": "server/discover is not answered"}
            await self._into.send(SessionMessage(error_of(identity, error)))


class _Saying:
    """The stream of what is said; requests are noted on their way."""

    def __init__(self, stream: Any, noting: Mended) -> None:
        self._stream = stream
        self._noting = noting

    async def send(self, item: Any) -> None:
        self._noting.asks(item.message)
        await self._stream.send(item)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def as_text(result: Mapping[str, Any], *, asks_back: bool = False) -> dict[str, Any]:
    """
    Make one text of what a tool returned: its texts, a note for what is none; else its structured content.

    What is no end of the call is no result: a question goes on to the library where the session may ask back and it
    knows the kind; any other, and a task that goes on by itself, is told as an error.
    """
    if unfinished := _unfinished(result):
        if asks_back and _can_be_answered(result):
            return {word: result[word] for word in _OF_A_QUESTION if word in result} | {"resultType": "input_required"}
        return {
            "resultType": "complete",
            "content": [{"type": "text", "text": unfinished[:MAX_ASKED]}],
            "isError": True,
        }
    blocks = result.get("content", result.get(BARE))
    structured = result.get("structuredContent", result.get("structured_content"))
    is_error = _tells_an_error(result)
    parts = [_part(block) for block in _flat(blocks) if block is not None and block != _NO_TEXT]
    if structured is not None and (is_error or not any(parts)):  # an error's words seldom say its data once more
        said = as_json(structured)
        parts = [*filter(None, parts), *([said] if said not in parts else [])]
    other = {word: value for word, value in result.items() if word not in _OF_A_RESULT}
    if not parts and other and blocks is None:  # what a result is called in older versions, and by those who guess
        parts = [as_json(other)]
    if not parts and BARE in result:
        parts = [as_json(result[BARE])]
    kind = {"resultType": result.get("resultType", "complete")} if asks_back or "resultType" in result else {}
    return {**kind, "content": [{"type": "text", "text": "\n".join(parts)}], "isError": is_error}


def _unfinished(result: Mapping[str, Any]) -> str:
    """What to tell of a result that is no end of its call; empty for one that is."""
    asked, kind = result.get("inputRequests"), result.get("resultType")
    if kind == "input_required" or ("content" not in result and isinstance(asked, Mapping)):
        return f"it asks back, which this client does not answer: {as_json(asked or {})}"
    task = result.get("task")
    if kind == "task" or ("content" not in result and isinstance(task, Mapping) and "taskId" in task):
        return f"it goes on as a task, which this client does not follow: {as_json(task or {})}"
    return ""


def _can_be_answered(result: Mapping[str, Any]) -> bool:
    """Whether the library takes it for a question: some of the kinds it knows, or a state to come back with."""
    asked = result.get("inputRequests")
    if not asked:
        return isinstance(result.get("requestState"), str)
    return isinstance(asked, Mapping) and all(
        isinstance(one, Mapping) and one.get("method") in _QUESTIONS for one in asked.values()
    )


def _flat(blocks: Any) -> Iterator[Any]:
    for block in blocks if isinstance(blocks, list) else [blocks]:
        yield from block if isinstance(block, list) else (block,)


def _tells_an_error(result: Mapping[str, Any]) -> bool:
    told = result.get("isError", result.get("is_error"))
    return told is True or (isinstance(told, str) and told.lower() == "true") or (type(told) is int and told == 1)


def _part(block: Any) -> str:
    if not isinstance(block, Mapping):
        return block if isinstance(block, str) else as_json(block)
    kind, text = block.get("type", "text"), block.get("text")
    if isinstance(text, str):
        return text
    if kind == "resource_link":
        named = [block.get("title") or block.get("name"), block.get("description")]
        return f"[resource {block.get('uri')}: {', '.join(word for word in named if word and isinstance(word, str))}]"
    inner = block.get("resource")
    if kind == "resource" and isinstance(inner, Mapping):
        if isinstance(inner.get("text"), str):
            return f"[resource {inner.get('uri')}]\n{inner['text']}"
        size = _size(inner.get("blob"))
        return f"[resource {inner.get('uri')}, {inner.get('mimeType') or 'binary'}, {size}not shown]"
    kind = str(kind)[:40]
    is_media = any(word in kind for word in _MEDIA)
    if not is_media:
        said = next((block[word] for word in (*_SAYS, kind) if block.get(word) is not None), None)
        if said is not None and not ("mimeType" in block and isinstance(said, str)):
            return said if isinstance(said, str) else as_json(said)
    if isinstance(block.get("data"), str):
        return f"[{kind}, {block.get('mimeType') or 'unknown'}, {_size(block['data'])}it is not shown]"
    other = {word: value for word, value in block.items() if word not in _BESIDE and value is not None}
    if other and not is_media and "mimeType" not in block:
        return as_json(other)
    return f"[{kind}, not shown]"


def greeting(result: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """
    What a server says of itself at the beginning, as far as it is looked at.

    A version that is none, or from after the one that was asked for, is that one, and one from before the first is the
    first.
    """
    info, able = result.get("serverInfo"), result.get("capabilities")
    tools = able.get("tools") if isinstance(able, Mapping) else None
    kept = {word: value for word, value in result.items() if word not in ("serverInfo", "capabilities", "instructions")}
    if asked and "supportedVersions" not in result:
        said = result.get("protocolVersion")
        dated = isinstance(said, str) and _DATE.fullmatch(said) is not None
        kept["protocolVersion"] = max(min(str(said), asked), OLDEST_SUPPORTED_VERSION) if dated else asked
    named = {word: str(info.get(word) or "?") if isinstance(info, Mapping) else "?" for word in ("name", "version")}
    changes = isinstance(tools, Mapping) and tools.get("listChanged") is True
    return {**kept, "serverInfo": named, "capabilities": {"tools": {"listChanged": changes}}}


def _size(data: Any) -> str:
    return f"{len(data) * 3 // 4} bytes; " if isinstance(data, str) else ""


def _outline(item: dict[str, Any]) -> dict[str, Any]:
    """What the library has to see of a tool: its name, and the arguments that are sent as headers too."""
    schema = item.get("inputSchema")
    told = isinstance(schema, dict) and _HEADER_WORD in msgspec.json.encode(schema)
    return {"name": name_of(item), "inputSchema": schema if told else {"type": "object"}}
