"""How an MCP server is reached: as a process of ours (stdio), or at an address (streamable HTTP)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import anyio
import msgspec

from shared_libs.atomic.loading import importing
from shared_libs.tools.mcp_wire import Events, NoMessage, answer_in, is_of_a_session, messages

with importing("mcp", "an MCP server"):
    import httpx2
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.message import SessionMessage
    from mcp.types import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR

MAX_MESSAGE = 16 << 20
"""Bytes of one message of a server; a longer one is an error, and ends a stdio connection."""

TO_CLOSE_S = 1.0
"""Seconds a server gets to end by itself once its input is closed."""

STDERR_KEPT = 2_000
"""Characters of what a server wrote to its stderr last, for an error."""

_MAY_BE_JSON = ("", "text/plain", "application/octet-stream")
_NO_TOOLS = (INTERNAL_ERROR, PARSE_ERROR, INVALID_REQUEST, -32000)
"""Codes of an error that goes with a status 400 and is not said of a tool's arguments."""

_AT_ONCE = 50
"""Lines that are read before the loop has its turn: what is buffered is read without a wait."""

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_GUARD = Path(__file__).with_name("mcp_guard.py")


class Transport(Protocol):
    """A connection to be: entered once, it gives the two streams of the protocol."""

    ended: asyncio.Event
    """Set when the other side has gone."""

    refuses: bool
    """Whether it takes no message where it is, as servers of the transport before streamable HTTP do."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *_: object) -> None: ...

    def why(self) -> str:
        """What is known of its end or its silence, in words; may be empty."""

    def said(self, code: int) -> str:
        """What the answer with an error of this code said besides; may be empty."""

    def forgot(self, code: int, message: str) -> bool:
        """Whether an error says that the other side does not know the session any more."""


class StdioTransport:
    """
    A server process that is ended, with its children, when this is left or our own process dies.

    It sees no environment but a few harmless variables and what it is given. What it writes to stderr is kept for an
    error, and shown nowhere else.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: str | None) -> None:
        self._command = command
        self._env = env
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = -1
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr = ""
        self._noise = ""
        self.ended = asyncio.Event()
        self.refuses = False

    async def __aenter__(self) -> Any:
        theirs, self._lifeline = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_GUARD), str(theirs), *self._command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment() | dict(self._env),
                cwd=self._cwd,
                start_new_session=True,  # Ctrl-C at our terminal is not for it
                pass_fds=(theirs,),
                limit=MAX_MESSAGE,
            )
        except BaseException:
            self._cut()
            raise
        finally:
            os.close(theirs)
        into, heard = anyio.create_memory_object_stream[Any](0)
        # a message is taken at once, so that a cancellation need not wait for a server that does not read
        to_say, out_of = anyio.create_memory_object_stream[Any](256)
        loop = asyncio.get_running_loop()
        work = (self._read(into), self._write(out_of), self._listen())
        self._tasks = [loop.create_task(part) for part in work]
        return heard, to_say

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), TO_CLOSE_S)
        finally:
            self._cut()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), TO_CLOSE_S)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=TO_CLOSE_S)

    def why(self) -> str:
        """The exit code, the last of stderr, and what on stdout was no message."""
        code = None if self._process is None else self._process.returncode
        said = self._stderr.strip()
        parts = [f"exit code {code}"] if code is not None else []
        parts += [f"its stderr ends with: {said}"] if said else []
        parts += [f"its stdout has what is no message: {self._noise}"] if self._noise else []
        return "; ".join(parts)

    def said(self, code: int) -> str:
        """Nothing: an error is all there is."""
        del code
        return ""

    def forgot(self, code: int, message: str) -> bool:
        """Whether its words say so: what stands between us and a server may have begun another one."""
        del code
        return is_of_a_session(message)

    async def _read(self, into: Any) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async with into:
            try:
                for number in itertools.count(1):
                    if not (line := await self._line()):
                        break
                    if number % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                    try:
                        for message in messages(line):
                            await into.send(SessionMessage(message))
                    except NoMessage:  # servers print banners too
                        self._noise = self._noise or repr(line.decode(errors="replace").strip()[:200])
            except ValueError:
                self._noise = f"a line of more than {MAX_MESSAGE >> 20} MiB"
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # nobody listens any more
            finally:
                self.ended.set()  # before the stream is closed: who hears of that looks here

    async def _line(self) -> bytes:
        """Return the next line; an object that is laid out over lines, from `{` to `}` at their beginnings, as one."""
        assert self._process is not None
        assert self._process.stdout is not None
        read = self._process.stdout.readline
        line, laid_out = await read(), b""
        while line.rstrip() == b"{" or (laid_out and line[:1] in (b" ", b"\t", b"]")):
            laid_out += line
            if len(laid_out) > MAX_MESSAGE:
                raise ValueError
            line = await read()
        return laid_out + line if line.rstrip() == b"}" else line

    async def _write(self, out_of: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        async with out_of:
            async for item in out_of:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                try:
                    self._process.stdin.write(text.encode() + b"\n")
                    await self._process.stdin.drain()
                except (ConnectionError, RuntimeError):  # it has gone, or goes on without hearing anything
                    self.ended.set()
                    self._cut()
                    return

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(4096):
            self._stderr = (self._stderr + chunk.decode(errors="replace"))[-STDERR_KEPT:]

    def _cut(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


class HTTPTransport:
    """
    A server at an address. The last refusal is kept for an error.

    Args:
        url: where it is.
        headers: sent with every request.
        auth: signs the requests.
        by_events: as it was before streamable HTTP: answers come as events, and an event says where messages go to.

    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        auth: httpx2.Auth | None = None,
        *,
        by_events: bool = False,
    ) -> None:
        self._url = url
        self._by_events = by_events
        self._headers = headers
        self._auth = auth
        self._refusal = ""
        self._noise = ""
        self._in_doubt = False
        self._open = contextlib.AsyncExitStack()
        self.ended = asyncio.Event()
        self.refuses = False

    async def __aenter__(self) -> Any:
        async with contextlib.AsyncExitStack() as stack:
            # made in a thread, for it reads certificates from the disk
            client = await asyncio.to_thread(
                _Client,
                self.ended,
                # what is compressed would be counted before it is unpacked
                headers={"Accept-Encoding": "identity"} | dict(self._headers),
                timeout=httpx2.Timeout(30.0, read=None),  # each call has its own limit
                event_hooks={"response": [self._look]},
                auth=self._auth,
            )
            if self._by_events:
                given: Any = lambda **_: client  # noqa: E731 - it opens the client itself
                opened: Any = sse_client(self._url, httpx_client_factory=given)
            else:
                await stack.enter_async_context(client)
                opened = streamable_http_client(self._url, http_client=client, max_sse_event_size=MAX_MESSAGE)
            streams = await stack.enter_async_context(opened)
            self._open = stack.pop_all()
        return streams

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def why(self) -> str:
        """The last status that was an error."""
        return self._refusal

    def said(self, code: int) -> str:
        """The status, where the library made the error of a status; and what was no message."""
        noise, self._noise = self._noise, ""
        return "; ".join(filter(None, [self._refusal if code in (INTERNAL_ERROR, PARSE_ERROR) else "", noise]))

    def heard(self, noise: str) -> None:
        """Keep what a stream said that is no message."""
        self._noise = f"its stream has what is no message: {noise}"

    def forgot(self, code: int, message: str) -> bool:
        """Whether its words say so, or the status where the words are no tool's."""
        return is_of_a_session(message) or (self._in_doubt and code in _NO_TOOLS)

    async def _look(self, response: Any) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            self._refusal = "the answer is compressed, which was not asked for"
            raise httpx2.StreamError(self._refusal)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream" and response.status_code == 200:
            response.stream = _Stream(response.stream, self)
        asks = response.request.headers.get("content-type", "").startswith("application/json")
        if response.request.method != "POST" or not asks:  # a stream of news that is refused is no failure
            return
        self._note(response)
        refused = response.status_code >= 400
        if refused or "json" in kind or (kind in _MAY_BE_JSON and response.status_code == 200):
            response.headers["content-type"] = "application/json"
            asked = await response.request.aread()  # of one that was led elsewhere there is a stream alone
            response.stream = _Whole(response.stream, asked, refused=refused)

    def _note(self, response: Any) -> None:
        status = response.status_code
        self._refusal = f"HTTP {status} {response.reason_phrase}".rstrip() if status >= 400 else ""
        # a session that is not known any more: 404 by the specification, whatever the body, 410 and 400 by many servers
        of_a_session = "mcp-session-id" in response.request.headers
        self._in_doubt = of_a_session and status == 400
        self.refuses = not of_a_session and status in (400, 404, 405)
        if of_a_session and status in (404, 410):
            self.ended.set()


class _Client(httpx2.AsyncClient):
    """Tells when the other side cannot be reached: the library ends its streams then, and says no more."""

    def __init__(self, ended: asyncio.Event, **options: Any) -> None:
        super().__init__(**options)
        self._ended = ended

    async def send(self, request: Any, **options: Any) -> Any:
        """Send it, and tell where that is the end of the connection."""
        try:
            return await super().send(request, **options)
        except (httpx2.TransportError, httpx2.StreamError):
            if request.method == "POST":
                self._ended.set()
            raise


class _Whole(httpx2.AsyncByteStream):
    """The body of an answer, up to the limit of a message, as the one message of the protocol that it holds."""

    def __init__(self, stream: Any, asked: bytes, *, refused: bool) -> None:
        self._stream = stream
        self._asked = asked
        self._refused = refused

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = bytearray()
        async for chunk in self._stream:
            body += chunk
            if len(body) > MAX_MESSAGE:
                raise httpx2.StreamError(f"the answer is longer than {MAX_MESSAGE >> 20} MiB")
        identity = msgspec.json.decode(self._asked).get("id")
        yield bytes(body) if identity is None else answer_in(bytes(body), identity, refused=self._refused)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Stream(httpx2.AsyncByteStream):
    """A stream of messages, each as it can be read; of one that ends without an answer it is known what it said."""

    def __init__(self, stream: Any, transport: HTTPTransport) -> None:
        self._stream = stream
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        events = Events(MAX_MESSAGE)
        try:
            async for chunk in self._stream:
                if read := events.feed(chunk):
                    yield read
        except ValueError as error:
            raise httpx2.StreamError(str(error)) from error
        if read := events.end():
            yield read
        if events.noise:
            self._transport.heard(events.noise)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _environment() -> dict[str, str]:
    """What a server may know of ours: no keys; and programs installed beside our Python are found."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    paths = [passed.get("PATH", os.defpath), str(Path(sys.executable).parent)]
    return passed | {"PATH": os.pathsep.join(paths)}
