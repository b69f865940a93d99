"""
A plain ASGI endpoint: the hot path of every face.

It decides who asks, notices a client that has gone from the first byte on, and writes what goes wrong in the dialect
of the face. The handler gets a `Call`: the request read, the answer to write, and the service behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from shared_libs.atomic.deadline import Deadline
from shared_libs.service.callers import ANYONE, Caller
from shared_libs.service.deadlines import keep_alive_s, patience
from shared_libs.service.edge import ASGIApp, Exchange, Message, Receive, Scope, Send
from shared_libs.service.fair_queue import RANKS
from shared_libs.service.problems import PROBLEM_DETAILS, Dialect, Problem, problem_of
from shared_libs.service.rates import Rates
from shared_libs.service.streams import STREAM_DOC, EventStream, encode

if TYPE_CHECKING:
    from shared_libs.service.state import Service

Handler = Callable[["Call"], Awaitable[None]]

_Read = TypeVar("_Read")

MAX_PARAMETERS = 100
"""Of a query."""

ABORT = "factory.abort"
"""The extension of a scope by which a server lets a connection be broken off."""


GONE = "factory.gone"
"""The extension by which a server tells when the client has gone; without it somebody has to wait for that."""


class ClientGone(Exception):
    """The client has gone; nobody waits for an answer any more."""


class Call:
    """
    One request on the hot path.

    `caller` is who asks; `exchange` its id and the headers of the answer; `gone` whether the client has left, and
    `stays` whether the work goes on then.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.exchange: Exchange = scope["factory.exchange"]
        self.service: Service = scope["app"].state.service
        self.caller: Caller = ANYONE
        self.gone = False
        self.started = False
        self.stream: EventStream | None = None
        self.dialect: Dialect = PROBLEM_DETAILS
        self._receive = receive
        self._raw_send = send
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.stays = False

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, names in lower case; of several with one name the first."""
        return {str(name, "latin-1"): str(value, "latin-1") for name, value in reversed(self.scope["headers"])}

    @cached_property
    def query(self) -> Mapping[str, str]:
        """
        The parameters of the query.

        Raises:
            Problem: there are too many.

        """
        if not (text := str(self.scope["query_string"], "latin-1")):
            return {}
        try:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS))
        except ValueError:
            raise Problem("invalid_request", f"a query has at most {MAX_PARAMETERS} parameters") from None

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters of the route's path."""
        found: Mapping[str, str] = self.scope["path_params"]
        return found

    def is_said(self, name: str) -> bool:
        """
        Whether a parameter of the query says so; one without a value does.

        Raises:
            Problem: it is neither true nor false.

        """
        told = self.query.get(name, "false").lower()
        if told not in ("", "true", "1", "false", "0"):
            raise Problem("invalid_request", f"{name} is true or false", param=name)
        return told in ("", "true", "1")

    async def body(self) -> bytes:
        """
        Read the body, and watch from then on whether the client leaves.

        Raises:
            Problem: it is too large or too slow.
            ClientGone: the client left before its end.

        """
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        self.watch()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def watch(self) -> None:
        """Watch from now on whether the client leaves; reading the body does so too."""
        if (extension := self._extensions.get(GONE)) is not None:
            extension["tell"](self._left)
        else:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def json(self) -> dict[str, Any]:
        """
        Read the body as a JSON object.

        Raises:
            Problem: it is none, or out of bounds.
            ClientGone: the client left before its end.

        """
        return await self.decoded(await self.body())

    async def decoded(self, raw: bytes) -> dict[str, Any]:
        """
        Take a body, as it was read, as a JSON object.

        Raises:
            Problem: it is none, or is not said to be JSON.

        """
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Problem("unsupported_media_type", f"send application/json, not {kind[:60]!r}")
        data = await self.service.bodies.decoded(raw)
        if not isinstance(data, dict):
            raise Problem("invalid_request", "the body is a JSON object")
        return data

    async def apart(self, raw: bytes, read: Callable[[dict[str, Any]], _Read], data: dict[str, Any]) -> _Read:
        """Read what was decoded of a body, off the loop where that takes long."""
        return await self.service.bodies.apart(len(raw), read, data)

    def deadline(self, longest_s: float, *, streams: bool) -> Deadline:
        """
        Return when the answer has to be there, and tell it in the answer's headers.

        Args:
            longest_s: seconds that what is asked may take by its own definition.
            streams: whether the answer is a stream; then an SDK's read timeout is no bound.

        Raises:
            Problem: the client gave no positive number.

        """
        told = patience(self.headers, streams=streams)
        key_s, server_s = self.caller.max_timeout_s or longest_s, self.service.settings.max_timeout_s
        seconds = min(longest_s, key_s, server_s)
        source = "limits"
        if told.seconds is not None and told.seconds < seconds:
            seconds, source = told.seconds, told.source
        self.exchange.tell("x-factory-deadline", f"{seconds:.3f}")
        self.exchange.tell("x-factory-deadline-from", source)
        return Deadline(self.exchange.began_at + seconds)

    def tell_rates(self, rates: Rates) -> None:
        """Tell in the answer's headers what is left of the caller's limits."""
        for name, value in self.dialect.rates(rates):
            self.exchange.tell(name, value)

    @property
    def priority(self) -> str:
        """
        How important the client says it is; a key's own priority is the highest it gets.

        Raises:
            Problem: it says what nobody knows.

        """
        told = self.headers.get("x-priority", "default").lower()
        if told not in RANKS:
            raise Problem("invalid_request", f"X-Priority is one of {', '.join(RANKS)}", param="x-priority")
        return told

    def stays_when_gone(self, default: Literal["cancel", "continue"]) -> bool:
        """
        Whether the work goes on when the client leaves: the route's default, or what `X-On-Disconnect` says.

        Without, a client that leaves cancels the handler at once.

        Raises:
            Problem: the header says neither.

        """
        told = self.headers.get("x-on-disconnect", default).lower()
        if told not in ("cancel", "continue"):
            raise Problem("invalid_request", "X-On-Disconnect is `cancel` or `continue`", param="x-on-disconnect")
        self.stays = told == "continue"
        return self.stays

    def note(self, action: str, about: str, **more: Any) -> None:
        """Note in the audit log what the caller did; `more` are further fields of an `Entry`."""
        self.service.audit.note_request(self.scope, self.caller, action, about, **more)

    def events(self) -> EventStream:
        """Begin to answer with a stream of events."""
        self.stream = EventStream(self.send, keep_alive_s=keep_alive_s(self.headers), cut=self.cut)
        return self.stream

    async def reply(self, data: Any, *, status: int = 200, kind: str = "application/json") -> None:
        """Answer with JSON."""
        await self.reply_bytes(encode(data), status=status, kind=kind)

    async def reply_bytes(self, body: bytes, *, status: int = 200, kind: str = "application/json") -> None:
        """Answer with bytes."""
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def hand_over(self, app: ASGIApp) -> None:
        """Let another ASGI application read the request and answer it."""
        await app(self.scope, self._receive, self.send)

    async def send(self, message: Message) -> None:
        """Send an ASGI message."""
        self.started = True
        await self._raw_send(message)

    def abort(self) -> None:
        """Break the connection, so that nobody takes what was sent for a whole answer."""
        if (extension := self._extensions.get(ABORT)) is not None:
            extension["abort"]()

    def cut(self) -> None:
        """Break off with a client that does not read: for the work it is as if it had left."""
        self.abort()
        self._left()

    def stop_watching(self) -> None:
        """Look no more whether the client leaves."""
        if (extension := self._extensions.get(GONE)) is not None:
            extension["tell"](None)
        if self._watcher is not None:
            self._watcher.cancel()
        if self.stream is not None:
            self.stream.abandon()

    @property
    def _extensions(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.scope.get("extensions") or {}
        return found

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self.gone = True
        if self._task is not None:
            self._task.cancel()


class Endpoint:
    """
    Makes an ASGI application of a handler.

    Args:
        handler: gets the `Call`, and answers it.
        needs: the scope a key needs; what is asked in particular is checked by `Catalogue.find`.
        dialect: how problems are written; by default as problem details.
        doc: the operation in the OpenAPI document.

    """

    def __init__(
        self, handler: Handler, *, needs: str, dialect: Dialect = PROBLEM_DETAILS, doc: Mapping[str, Any] | None = None
    ) -> None:
        self.needs = needs
        self.doc = doc
        self._handler = handler
        self.dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        call = Call(scope, receive, send)
        call.dialect = self.dialect
        try:
            call.exchange.check()
            call.caller = await call.service.door.admit(scope, self.needs)
            await self._handler(call)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            if not call.gone:
                raise
        except Exception as error:  # noqa: BLE001 - whatever a handler meets is told in the dialect of its clients
            await self._refuse(call, problem_of(error))
        finally:
            call.stop_watching()

    async def _refuse(self, call: Call, problem: Problem) -> None:
        if call.started:
            call.abort()
            return
        for name, value in problem.headers():
            call.exchange.tell(name, value)
        call.tell_rates(problem.rates)
        if problem.kind.status == 408:
            call.exchange.tell("connection", "close")  # what else of the body comes is not waited for
        dialect = self.dialect
        body = dialect.body(problem, call.exchange.request_id)
        await call.reply(body, status=dialect.status(problem), kind=dialect.media_type)


def asked_for(name: str, schema: dict[str, Any], where: str = "query") -> dict[str, Any]:
    """Say what a parameter of a route's query, or of its path, may be."""
    return {"name": name, "in": where, "schema": schema} | ({"required": True} if where == "path" else {})


def told_of(
    tag: str,
    summary: str,
    answer: dict[str, Any],
    body: dict[str, Any] | None = None,
    *,
    streams: bool = False,
    parameters: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Say of a route what the OpenAPI document shows: `answer` and `body` are the schemas of what goes out and in."""
    content = {"application/json": {"schema": answer}} | (STREAM_DOC if streams else {})
    told = {
        "tags": [tag],
        "summary": summary,
        "parameters": [*parameters],
        "responses": {"200": {"description": summary, "content": content}},
    }
    if body is None:
        return told
    return told | {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}
