"""
What MCP servers say, mended message by message on its way to the library, which takes a message whole or not at all.

A list of tools reaches the library as names only, a result as one text: what servers write into the rest is of many
kinds, and one odd part must not cost the others. The items themselves are kept here, for `mcp_listing` to read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import anyio
import msgspec
from mcp.shared.message import SessionMessage
from mcp.types import REQUEST_TIMEOUT, JSONRPCResponse

from shared_libs.tools.mcp_transport import TO_CLOSE_S, Transport
from shared_libs.tools.mcp_wire import as_json, error_of, unreadable

PAGE_KEY = "genai-factory/page"
"""The `_meta` key under which a list names the items that are kept for it."""

MAX_TOOLS = 2_000
"""Tools of one page that are looked at."""

DISCOVERY_S = 1.5
"""Seconds a server gets to answer `server/discover`, which older ones may pass over; then it is asked as they are."""

_HEADER_WORD = b"x-mcp-header"


class Mended:
    """A transport whose messages are mended."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._asked: dict[str, str] = {}
        self._pages: dict[str, list[Any]] = {}
        self._into: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Any:
        heard, to_say = await self._transport.__aenter__()
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

    def items(self, page: Any) -> list[Any]:
        """Hand over the items of a page of tools, as the server wrote them."""
        return self._pages.pop(str((page.meta or {}).get(PAGE_KEY)), [])

    def asks(self, message: Any) -> None:
        """Note a request, to know what its answer is of."""
        identity, method = getattr(message, "id", None), getattr(message, "method", None)
        if identity is None or method is None:
            return
        self._asked[str(identity)] = method
        if method == "server/discover":
            self._tasks.append(asyncio.get_running_loop().create_task(self._give_up_discovery(identity)))

    async def _pass_on(self, heard: Any) -> None:
        async with self._into, heard:
            try:
                async for item in heard:
                    await self._into.send(self._mended(item))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # nobody listens any more

    def _mended(self, item: Any) -> Any:
        if isinstance(item, Exception):
            if len(self._asked) != 1:
                return item
            (identity,) = self._asked  # whose answer it was is no question
            return SessionMessage(unreadable(identity, str(item)))
        message = item.message
        method = self._asked.pop(str(getattr(message, "id", None)), "") if not hasattr(message, "method") else ""
        if method == "tools/list" and isinstance(message, JSONRPCResponse):
            message.result = self._page(str(message.id), message.result)
        elif method == "tools/call" and isinstance(message, JSONRPCResponse):
            message.result = as_text(message.result)
        return item

    def _page(self, key: str, result: Mapping[str, Any]) -> dict[str, Any]:
        tools, cursor = result.get("tools"), result.get("nextCursor")
        items = tools if isinstance(tools, list) else []
        self._pages[key] = items[:MAX_TOOLS]
        kept = {word: value for word, value in result.items() if word not in ("tools", "nextCursor", "_meta")}
        if isinstance(cursor, str | int) and not isinstance(cursor, bool):
            kept["nextCursor"] = str(cursor)
        named = [item for item in items[:MAX_TOOLS] if isinstance(item, dict) and isinstance(item.get("name"), str)]
        return {**kept, "tools": [*map(_outline, named)], "_meta": {PAGE_KEY: key}}

    async def _give_up_discovery(self, identity: Any) -> None:
        await asyncio.sleep(DISCOVERY_S)
        if self._asked.pop(str(identity), None) is not None:
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


def as_text(result: Mapping[str, Any]) -> dict[str, Any]:
    """Make one text of what a tool returned: its texts, a note for what is none; else its structured content."""
    if "content" not in result and isinstance(result.get("inputRequests"), Mapping):
        return dict(result)  # no result yet: a question back
    blocks = result.get("content")
    parts = [_part(block) for block in (blocks if isinstance(blocks, list) else [blocks]) if block is not None]
    structured = result.get("structuredContent")
    if not parts and structured is not None:
        parts = [as_json(structured)]
    kept = {word: value for word, value in result.items() if word not in ("content", "structuredContent", "_meta")}
    return {**kept, "content": [{"type": "text", "text": "\n".join(parts)}], "isError": result.get("isError") is True}


def _part(block: Any) -> str:
    if not isinstance(block, Mapping):
        return block if isinstance(block, str) else as_json(block)
    kind, text = block.get("type", "text"), block.get("text")
    if isinstance(text, str):
        return text
    if kind == "resource_link":
        return f"[resource {block.get('uri')}: {block.get('title') or block.get('name') or ''}]"
    inner = block.get("resource")
    if kind == "resource" and isinstance(inner, Mapping):
        if isinstance(inner.get("text"), str):
            return f"[resource {inner.get('uri')}]\n{inner['text']}"
        size = _size(inner.get("blob"))
        return f"[resource {inner.get('uri')}, {inner.get('mimeType') or 'binary'}, {size}not shown]"
    kind = str(kind)[:40]
    if isinstance(block.get("data"), str):
        return f"[{kind}, {block.get('mimeType') or 'unknown'}, {_size(block['data'])}it is not shown]"
    return f"[{kind}, not shown]"


def _size(data: Any) -> str:
    return f"{len(data) * 3 // 4} bytes; " if isinstance(data, str) else ""


def _outline(item: dict[str, Any]) -> dict[str, Any]:
    """What the library has to see of a tool: its name, and the arguments that are sent as headers too."""
    schema = item.get("inputSchema")
    told = isinstance(schema, dict) and _HEADER_WORD in msgspec.json.encode(schema)
    return {"name": item["name"], "inputSchema": schema if told else {"type": "object"}}
