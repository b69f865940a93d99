"""
A server on loopback that speaks the providers' formats and fails as it is told, for any client.

Raw sockets instead of an HTTP framework, because faults are about bytes. It runs on the event loop it is opened on,
also on one with a virtual clock.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.loading import importing
from shared_libs.testing.faults.catalogue import (
    AddressFault,
    ConnectionRefused,
    Exchange,
    Fault,
    Healthy,
    NameNotResolved,
    TlsFailure,
    UntrustedCertificate,
)
from shared_libs.testing.faults.formats import FORMATS
from shared_libs.testing.faults.wire import Play, document

_NO_SUCH_HOST = ".".join(["no-such-host"] * 20) + ".invalid"
_HANDSHAKE_FAILURE = bytes([21, 3, 3, 0, 2, 2, 40])
"""A TLS alert record: fatal, handshake_failure (RFC 8446, section 6)."""

_SECRET_HEADERS = {"authorization", "x-api-key", "api-key"}
_CLOSE_S = 5.0

ANY = "*"
"""The script of every model that has none of its own."""

Script = Fault | Sequence[Fault] | Callable[["SeenRequest"], Fault]
"""What a model does: always the same, or attempt by attempt and healthy from then on, or by the request."""


class UnexpectedRequest(FactoryError):
    """A fault server was asked for what it has no script for."""


class SeenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request as it came; `attempt` counts those of its model from 1, `at_s` is the loop's time.

    `fault` is the name of what it got. The values of headers that authenticate are left out.
    """

    format: str
    path: str
    model: str
    attempt: int
    stream: bool
    body: dict[str, Any]
    headers: dict[str, str]
    at_s: float
    fault: str = ""


Happening = SeenRequest | UnexpectedRequest


class FaultServer:
    """
    Answers in the formats of OpenAI, Anthropic and Ollama, with the faults scripted for each model.

    `requests` is the wire's ledger. Open it with `async with`; at the end it raises what went wrong on its side.

    Args:
        models: the model's name at the provider, and its script; `"*"`: every other model.
        host: the address to listen on.
        port: the port to listen on; 0: a free one.
        listener: told of each request, on the event loop.

    Raises:
        MisuseError: a script is not valid, or, when it is opened, the address cannot be listened on.
        UnexpectedRequest: at the end: a request was for another path or model, or was no request.

    """

    def __init__(
        self,
        models: Mapping[str, Script],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        listener: Callable[[Happening], None] | None = None,
    ) -> None:
        self._scripts = dict(models)
        for model, script in self._scripts.items():
            _check(model, script)
        self._host = host
        self._port = port
        self._listener = listener
        self._tls_ports: dict[type[Fault], int] = {}
        self.requests: list[SeenRequest] = []
        self.handshakes = 0
        """How many TLS handshakes were broken off, by either side."""
        self._certificate: ssl.SSLContext
        self._unexpected: dict[str, None] = {}  # each once, in order: clients repeat themselves
        self._servers: list[asyncio.Server] = []
        self._closed_port: socket.socket | None = None
        self._news = asyncio.Event()
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        try:
            server = await self._listen(self._talk, self._port)
        except OSError as error:
            why = error.strerror or error
            raise MisuseError(f"{self._host}:{self._port} cannot be listened on: {why}; name another port") from error
        self._port = server.sockets[0].getsockname()[1]
        kinds = {type(script) for script in self._scripts.values()}
        if TlsFailure in kinds:
            await self._listen_tls(TlsFailure, self._break_handshake)
        if UntrustedCertificate in kinds:
            self._certificate = await asyncio.to_thread(unknown_certificate)
            await self._listen_tls(UntrustedCertificate, self._talk_tls)
        if ConnectionRefused in kinds:
            self._closed_port = socket.socket()
            self._closed_port.bind((self._host, 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
        if self._unexpected and error is None:
            raise UnexpectedRequest("the fault server saw what it has no script for: " + "; ".join(self._unexpected))

    def url(self, format: str, model: str | None = None) -> str:
        """
        The base URL for a client.

        Args:
            format: whose API the client speaks: "openai", "anthropic", "ollama", or another of `FORMATS`.
            model: give it where the model's fault is one of the address.

        Raises:
            MisuseError: there is no such format or model.

        """
        if format not in FORMATS:
            raise MisuseError(f"format {format!r}: allowed are {', '.join(FORMATS)}")
        script = None if model is None else self._script_of(model)
        if model is not None and script is None:
            raise MisuseError(f"model {model!r} has no script; there are {', '.join(self._scripts)}")
        base = FORMATS[format].base
        if isinstance(script, NameNotResolved):
            return f"http://{_NO_SUCH_HOST}{base}"
        if isinstance(script, TlsFailure | UntrustedCertificate):
            return f"https://{self._host}:{self._tls_ports[type(script)]}{base}"
        if isinstance(script, ConnectionRefused) and self._closed_port is not None:
            return f"http://{self._host}:{self._closed_port.getsockname()[1]}{base}"
        return f"http://{self._host}:{self._port}{base}"

    def seen(self, model: str) -> list[SeenRequest]:
        """The requests for one model."""
        return [request for request in self.requests if request.model == model]

    async def until_asked(self, times: int) -> None:
        """Wait until so many requests have come."""
        await self._until(lambda: len(self.requests) >= times)

    async def until_left(self) -> None:
        """Wait until the clients have closed their connections."""
        await self._until(lambda: not self._talks)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._talks)

    async def aclose(self) -> None:
        """Stop listening, and break off what is going on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._closed_port is not None:
            self._closed_port.close()
            self._closed_port = None
        talks = dict(self._talks)
        for task, writer in talks.items():
            writer.transport.abort()
            task.cancel()
        if talks:
            await asyncio.wait(talks, timeout=_CLOSE_S)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._news.clear()
            await self._news.wait()

    async def _listen(
        self, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], port: int
    ) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._talks[task] = writer
            try:
                try:
                    await talk(reader, writer)
                finally:
                    writer.transport.close()
                    await writer.wait_closed()
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client went away, or the server is closed
            except Exception as error:  # noqa: BLE001 - a fault of one's own is foreign code: told at the end
                self._note(f"{type(error).__name__}: {error}")
            finally:
                del self._talks[task]
                self._news.set()

        server = await asyncio.start_server(accepted, self._host, port, backlog=1024)
        self._servers.append(server)
        return server

    async def _listen_tls(
        self, fault: type[Fault], talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
    ) -> None:
        server = await self._listen(talk, 0)
        self._tls_ports[fault] = server.sockets[0].getsockname()[1]

    async def _talk_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handshakes += 1
        await writer.start_tls(self._certificate)
        self.handshakes -= 1
        await self._talk(reader, writer)

    async def _break_handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        self.handshakes += 1
        writer.write(_HANDSHAKE_FAILURE)
        await writer.drain()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read_request(reader)) is not None:
            play = self._answer(*request)
            for step in play.steps:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await asyncio.sleep(step)
            if play.then == "hang":
                await reader.read()
            if play.then == "reset":
                _reset(writer)
            if play.then != "keep":
                return

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Play:
        name = next((name for name, known in FORMATS.items() if known.path == path.partition("?")[0]), None)
        if name is None or method != "POST":
            served = ", ".join(known.path for known in FORMATS.values())
            return self._refuse(404, f"{method} {path}; served are POST {served}")
        try:
            data = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._refuse(400, f"{method} {path} without a JSON object in it ({error})")
        model = data.get("model")
        script = self._script_of(model) if isinstance(model, str) else None
        if not isinstance(model, str) or script is None:
            return self._refuse(404, f"{method} {path} for model {model!r}; there are {', '.join(self._scripts)}")
        spoken = FORMATS[name]
        now = asyncio.get_running_loop().time()
        before = self.seen(model)
        request = SeenRequest(
            format=name,
            path=path,
            model=model,
            attempt=len(before) + 1,
            stream=bool(data.get("stream", spoken.streams_unasked)),
            body=data,
            headers=headers,
            at_s=now,
        )
        self.requests.append(request)
        self._news.set()
        fault = _fault_for(script, request)
        self.requests[-1] = msgspec.structs.replace(request, fault=fault.name)
        if self._listener is not None:
            self._listener(self.requests[-1])
        return fault.play(Exchange(spoken, model, data, request.stream, now - before[0].at_s if before else 0.0))

    def _script_of(self, model: str) -> Script | None:
        return self._scripts.get(model, self._scripts.get(ANY))

    def _refuse(self, status: int, what: str) -> Play:
        """Answer as a server does that has nothing there: a connection that breaks off looks like an outage."""
        self._note(what)
        said = {"message": f"the fault server has no script for {what}", "type": "not_served"}
        return document(msgspec.json.encode({"error": said}), status)

    def _note(self, what: str) -> None:
        self._unexpected[what] = None
        if self._listener is not None:
            self._listener(UnexpectedRequest(what))


def _check(model: str, script: Script) -> None:
    if isinstance(script, Fault) or (callable(script) and not isinstance(script, type)):
        return
    if not isinstance(script, Sequence):
        raise MisuseError(
            f"the script of model {model!r} is {script!r}: allowed are a fault such as Healthy(), a list of them, or a "
            "function of the request that gives one"
        )
    for fault in script:
        if not isinstance(fault, Fault):
            raise MisuseError(f"the script of model {model!r} holds {fault!r}, which is no fault such as Healthy()")
        if isinstance(fault, AddressFault):
            raise MisuseError(f"the script of model {model!r} holds {fault.name}, but {fault.alone}")


def _fault_for(script: Script, request: SeenRequest) -> Fault:
    if isinstance(script, Fault):
        return script
    if callable(script):
        return script(request)
    return script[request.attempt - 1] if request.attempt <= len(script) else Healthy()


def unknown_certificate() -> ssl.SSLContext:
    """
    A new certificate for loopback, of an authority that nobody knows.

    Raises:
        MisuseError: the library that makes it is missing.

    """
    with importing("trustme", "untrusted_certificate"):
        import trustme
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1", "localhost", "::1").configure_cert(context)
    return context


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset: what is on the way is lost."""
    plug = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
    """Read a request: method, path, headers and body; None when there is no further one."""
    try:
        top = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = top.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for name in _SECRET_HEADERS & set(headers):
        headers[name] = "[key]"
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return method, path, headers, body
