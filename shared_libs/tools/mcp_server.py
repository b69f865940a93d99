"""
One MCP server as we use it: connected on first use, shared by all calls, connected again after it broke.

A connection is entered and left by one task of its own, because the scopes of its library belong to the task that
entered them. Calls run in their own tasks, so that cancelling one tells the server (`notifications/cancelled`).
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.loading import importing
from shared_libs.atomic.scope import current_deadline
from shared_libs.tools.mcp_listing import name_of
from shared_libs.tools.mcp_messages import MAX_TOOLS, Mended
from shared_libs.tools.mcp_transport import TO_CLOSE_S, Transport

with importing("mcp", "an MCP server"):
    from mcp import Client, MCPError
    from mcp.client.subscriptions import ListenNotSupportedError
    from mcp.types import CONNECTION_CLOSED, ElicitResult, ToolListChangedNotification
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""How long a server that failed is left alone, in seconds; the wait doubles from the first to the longest."""

MAX_PAGES = 100
"""Pages of one list of tools."""

MAX_DATA = 4_000
"""Characters of what a server says beside an error."""

Elicit = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]
"""Answers a question of a server: its words and a JSON Schema, to an object that fits, or None to decline."""

_CLOSED = (CONNECTION_CLOSED, "Connection closed")
"""How the library says that a connection ended, and no more."""

TIMEOUT_KEY = "genai-factory/timeout-seconds"
"""The `_meta` key of a call that tells a server how long we wait."""

_log = logging.getLogger(__name__)


class Server:
    """
    A server, and at most one connection to it.

    Args:
        name: what it is called in errors.
        dial: makes a transport for a new connection; told whether to answers that come by events.
        secrets: texts that no error may show.
        elicit: gives what answers its questions back, asked at every new connection; None: they are declined.

    """

    def __init__(
        self,
        name: str,
        dial: Callable[[bool], Transport],
        secrets: Sequence[str],
        elicit: Callable[[], Elicit | None] = lambda: None,
    ) -> None:
        self.name = name
        self._dial = dial
        self._elicit = elicit
        self._secrets = sorted((secret for secret in secrets if len(secret) > 3), key=len, reverse=True)
        self._connection: _Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failures = 0
        self._not_before = 0.0
        self._older = self._by_events = self._patient = False

    def hide(self, secret: str) -> None:
        """Have a text masked in errors from now on."""
        self._secrets = sorted({*self._secrets, secret}, key=len, reverse=True)

    async def tools(self, limit_s: float) -> tuple[Any, Sequence[Any]]:
        """
        Return the list of tools, and a token that changes when the list may have.

        Raises:
            ToolError: there is no connection, and none within `limit_s` seconds; or the server did not answer well.

        """
        connection = await self._connected(limit_s)
        try:
            if connection.listed is None and connection.asked:
                self._refuse_too_early()
            connection.asked = True
            async with asyncio.timeout(_almost_all()):
                return await connection.tools()
        except ToolError:
            raise
        except TimeoutError as error:
            raise self._silent(connection, "list its tools") from error
        except Exception as error:
            raise await self._broken(connection, error, "listing its tools") from error

    async def call(self, tool: str, arguments: Mapping[str, Any], limit_s: float) -> Any:
        """
        Call a tool and return the server's result.

        Raises:
            ToolError: the server is not there, has gone, or refused.

        """
        connection = await self._connected(limit_s)
        left_s = current_deadline().narrowed(limit_s).remaining()
        try:
            result = await connection.client.call_tool(tool, dict(arguments), meta={TIMEOUT_KEY: round(left_s, 3)})
        except Exception as error:
            raise await self._broken(connection, error, f"the call of {tool}") from error
        self._failures = 0
        return result

    async def aclose(self) -> None:
        """End the connection, and a process of ours with it."""
        connection, self._connection = self._connection, None
        if connection is not None and self._loop is asyncio.get_running_loop():
            await connection.aclose()

    async def _connected(self, limit_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a connection ends with the loop it was made in
            self._connection, self._loop, self._not_before = None, loop, 0.0
        connection = self._connection
        if connection is None or connection.over:
            self._refuse_too_early()
            transport = self._dial(self._by_events)
            connection = _Connection(
                transport, limit_s, older=self._older, patient=self._patient, elicit=self._elicit()
            )
            self._connection = connection
        elif not connection.ready.done():
            self._refuse_too_early()
        done, _ = await asyncio.wait([connection.ready], timeout=_almost_all())
        if not done:
            raise self._silent(connection, "answer")
        if connection.ready.exception() is None:
            return connection
        if connection is self._connection:
            self._connection = None
            # servers from before 2026-07-28 may end at a question that they do not know, and those from before
            # streamable HTTP take no message at their address
            self._by_events = not self._older and connection.transport.refuses
            self._older = self._by_events or (not self._older and connection.transport.discovering)
            # one that knows no other beginning than that question was slow to start: it is asked with all our time
            self._patient = not self._patient and connection.refused_after_silence
            if not self._older and not self._patient:
                self._failed(at_once=False)
        if self._older or self._patient:
            return await self._connected(limit_s)
        raise ToolError(
            self._told(f"the MCP server {self.name} cannot be used", connection, connection.ready.exception())
        )

    async def _broken(self, connection: _Connection, error: Exception, during: str) -> ToolError:
        """Make an error of what went wrong, and give the connection up where it can no longer be used."""
        told = isinstance(error, MCPError) and connection.transport.forgot(error.code, str(error))
        if connection.over or told:  # the transport knows; codes alone do not tell, for tools use every one of them
            if connection is self._connection:
                self._connection = None
                self._failed(at_once=self._failures == 0)
            await connection.aclose()
            return ToolError(self._told(f"the MCP server {self.name} was lost during {during}", connection, error))
        if isinstance(error, MCPError):
            said = "; ".join(filter(None, (_reason(error), connection.transport.said(error.code))))
            return ToolError(self._hidden(f"the MCP server {self.name} refused {during}: {said}"))
        return ToolError(self._hidden(f"the MCP server {self.name} gave no valid answer to {during}: {error}"))

    def _silent(self, connection: _Connection, what: str) -> ToolError:
        """Note that nothing came in time; what is under way goes on, and may be there for the next run."""
        if self._not_before <= asyncio.get_running_loop().time():  # else another run has noted it
            self._failed(at_once=False)
        return ToolError(self._told(f"the MCP server {self.name} did not {what} in time", connection, None, ""))

    def _refuse_too_early(self) -> None:
        wait_s = self._not_before - asyncio.get_running_loop().time()
        if wait_s > 0:
            raise ToolError(f"the MCP server {self.name} has failed; it is tried again in {wait_s:.1f} s")

    def _failed(self, *, at_once: bool) -> None:
        wait_s = 0.0 if at_once else min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._not_before = asyncio.get_running_loop().time() + wait_s

    def _told(
        self,
        what: str,
        connection: _Connection,
        error: BaseException | None,
        otherwise: str = "it closed the connection",
    ) -> str:
        reasons = [reason for reason in (_reason(error), connection.transport.why()) if reason] or [otherwise]
        return self._hidden(f"{what}: {'; '.join(reasons)}".removesuffix(": "))

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Connection:
    """One connection, owned by one task from its first to its last step."""

    def __init__(
        self, transport: Transport, limit_s: float, *, older: bool, patient: bool, elicit: Elicit | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._mode: Literal["legacy", "auto"] = "legacy" if older else "auto"
        self.transport = Mended(transport, patient=patient)
        self.ready: asyncio.Future[None] = loop.create_future()
        self.client: Any = None
        self._limit_s = limit_s
        self._elicit = elicit
        self.listed: Sequence[Any] | None = None
        self.asked = False
        self._stop = asyncio.Event()
        # without the context of the run that happens to be first: it outlives that run
        self._owner = loop.create_task(self._own(), context=contextvars.Context())

    @property
    def over(self) -> bool:
        """Whether it can no longer be used."""
        return self._owner.done() or self._stop.is_set() or (self.ready.done() and self.transport.ended.is_set())

    @property
    def refused_after_silence(self) -> bool:
        """Whether it did not answer the first question at once, and refused the older one."""
        return self.transport.gave_up and _is_refusal(self.ready.exception())

    async def tools(self) -> tuple[Any, Sequence[Any]]:
        """List the tools, unless the list is known and has not changed."""
        if self.listed is None:
            listed: list[Any] = []
            cursor: str | None = None
            seen: set[str | None] = set()
            while cursor not in seen and len(seen) < MAX_PAGES and len(listed) < MAX_TOOLS:
                seen.add(cursor)
                try:
                    async with asyncio.timeout(None if cursor is None else current_deadline().remaining() / 2):
                        page = await self.client.list_tools(cursor=cursor)
                except (MCPError, TimeoutError) as error:
                    if cursor is None or self.over:
                        raise
                    why = str(error) or "its next page does not come"
                    _log.warning("a list of MCP tools breaks off: %s; %d tools of it are taken", why, len(listed))
                    break
                listed += self._offered(page)
                cursor = page.next_cursor
                if cursor is None or (not cursor and self.client.protocol_version not in MODERN_PROTOCOL_VERSIONS):
                    break
            else:
                many = f"has more than {MAX_PAGES} pages or {MAX_TOOLS} tools"
                why = "names a page again" if cursor in seen else many
                _log.warning("a list of MCP tools %s; %d tools of it are taken", why, len(listed))
            self.listed = listed
        return self.listed, self.listed

    def _offered(self, page: Any) -> Iterator[Any]:
        """The items of a page, but for those that the library may not call: their headers are none."""
        called = {tool.name for tool in page.tools}
        for item in self.transport.items(page):
            if (name := name_of(item)) and name not in called:
                _log.warning("the tool %s of an MCP server is left out: its x-mcp-header is none", name[:100])
            else:
                yield item

    async def aclose(self) -> None:
        """End it; whatever does not end in time is cancelled."""
        if self.ready.done():
            self._stop.set()
            await asyncio.wait([self._owner], timeout=3 * TO_CLOSE_S)
        if not self._owner.done():
            self._owner.cancel()
            await asyncio.wait([self._owner], timeout=3 * TO_CLOSE_S)

    async def _own(self) -> None:
        for name in ("mcp", "client"):  # what its library warns of is in our errors
            logging.getLogger(name).addHandler(logging.NullHandler())
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._limit_s):
                    answer: Any = None if self._elicit is None else self._answer
                    client = Client(
                        self.transport,
                        message_handler=self._hear,
                        cache=None,
                        mode=self._mode,
                        elicitation_callback=answer,
                    )
                    self.client = await stack.enter_async_context(client)
                self.ready.set_result(None)
                await self._until_over()
        except TimeoutError:
            self._fail(ToolError(f"it did not answer within {self._limit_s:g} s"))
        except asyncio.CancelledError:
            self._fail(ToolError("its connection was cancelled"))
            raise
        except BaseException as error:  # noqa: BLE001 - whatever ends a connection is told by the next call
            self._fail(error)

    async def _until_over(self) -> None:
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(self._stop.wait()), loop.create_task(self.transport.ended.wait())]
        listening = loop.create_task(self._listen())
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*waits, listening):
                task.cancel()
            await asyncio.wait([*waits, listening], timeout=TO_CLOSE_S)

    def _fail(self, error: BaseException) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # it was looked at, should nobody wait any more

    async def _answer(self, _: Any, asked: Any) -> ElicitResult:
        """Have a question back answered; one with an address to go to is declined, and so is what nobody answers."""
        schema: Any = getattr(asked, "requested_schema", None)
        try:
            given = None if self._elicit is None or schema is None else await self._elicit(asked.message, schema)
        except Exception:  # noqa: BLE001 - foreign code: a question that it cannot answer is declined
            _log.warning("a question of an MCP server is declined, since what answers it failed", exc_info=True)
            given = None
        if given is None:
            return ElicitResult(action="decline")
        fields = schema.get("properties", {}).items()
        usual = {name: field["default"] for name, field in fields if "default" in field}
        return ElicitResult(action="accept", content=usual | dict(given))

    async def _hear(self, message: Any) -> None:
        """What a server says unasked; before 2026-07-28 also that its list has changed."""
        if isinstance(message, ToolListChangedNotification):
            self.listed = None

    async def _listen(self) -> None:
        """Since 2026-07-28, news of the list come over a subscription of ours."""
        capability = self.client.server_capabilities.tools
        if capability is None or not capability.list_changed:
            return
        try:
            async with self.client.listen(tools_list_changed=True) as news:
                async for _ in news:
                    self.listed = None
        except ListenNotSupportedError:
            return
        except Exception as error:  # noqa: BLE001 - without news the list is asked for once more
            _log.debug("no news of a list of tools: %s", error)
        self.listed = None


def _almost_all() -> float | None:
    """What the current deadline leaves, less what it takes to say that it was not enough; None: no limit."""
    left_s = current_deadline().remaining()
    return None if math.isinf(left_s) else left_s - min(0.05, left_s / 10)


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the other side said no, and did not just end."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_refusal, error.exceptions))
    return isinstance(error, MCPError) and (error.code, str(error)) != _CLOSED


def _reason(error: BaseException | None) -> str:
    """The innermost reasons of an error, one behind the other; that a connection was closed is none."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(filter(None, map(_reason, error.exceptions))))
    if error is None or (isinstance(error, MCPError) and (error.code, str(error)) == _CLOSED):
        return ""
    text = str(error)
    if isinstance(error, MCPError) and error.error.data is not None:
        text = f"{text} {json.dumps(error.error.data, ensure_ascii=False, default=str)[:MAX_DATA]}"
    return text if text and isinstance(error, ToolError | MCPError) else f"{type(error).__name__}: {text}".rstrip(": ")
