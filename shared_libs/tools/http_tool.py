"""
The `http` tool: one request to a host the owner allows; the answer as text.

Where it may go is `http_guard`'s: every hop of a redirect is checked anew. Each call has connections of its own, so no
cookie, no connection and no name outlives it; the proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.page_text import decoded, readable
from shared_libs.atomic.propagation import trace_headers
from shared_libs.atomic.scope import current_deadline, current_scope
from shared_libs.atomic.secrets import names_a_secret
from shared_libs.atomic.threads import Threads
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.retrieval.plain_texts import charset_of
from shared_libs.tools.http_guard import AllowList, Pinned

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a name, for a port."""

MAX_REFUSAL = 2_000
"""Characters of an error answer that reach the model."""

_IDEMPOTENT = {"GET", "PUT", "DELETE"}
"""RFC 9110, 9.2.2: asking twice has the effect of asking once."""

_REDIRECTS = {301, 302, 303, 307, 308}
_ACCEPT = "text/html, application/json, text/*;q=0.9, */*;q=0.1"
_TEXT = re.compile(
    r"text/.*|application/(.*\+)?(json|xml|yaml)|application/(x-)?(ndjson|jsonl|javascript|ecmascript|yaml|toml|sql"
    r"|x-www-form-urlencoded|graphql.*)|image/svg\+xml|message/.*"
)
_UNKNOWN = {"", "application/octet-stream", "binary/octet-stream"}
_OURS = {"host", "connection", "content-length", "content-type", "transfer-encoding", "x-request-timeout"}


class HttpTool(BaseTool):
    """
    Requests a URL.

    Args:
        allow: the hosts that may be reached: [scheme://]host[:port], *.example.com, or * for every public host.
            An address that is not public has to be named itself, such as 127.0.0.1:8080.
        methods: the HTTP methods the model may use.
        headers: sent to the host the model names, never to another it redirects to; over https, unless the host in
            `allow` begins with http://. Their secrets are kept out of what the model sees.
        max_bytes: how much of an answer is read, counted after decompression.
        max_redirects: how many redirects are followed.
        resolver: resolves names; the system's, by default.

    Raises:
        MisuseError: an entry of `allow` is none, or a header cannot be sent.

    """

    name = "http"
    timeout_s = 20.0
    max_observation_chars = 20_000

    def __init__(
        self,
        *,
        allow: Sequence[str],
        methods: Sequence[Method] = ("GET",),
        headers: Mapping[str, str] | None = None,
        max_bytes: int = 1_000_000,
        max_redirects: int = 5,
        resolver: Resolve | None = None,
    ) -> None:
        self._allow = AllowList(allow)
        self._methods = tuple(methods)
        self._headers = dict(headers or {})
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._resolve = resolver or self._system_addresses
        self._helpers = Threads("http")
        if not self._methods or not set(self._methods) <= set(get_args(Method)):
            raise MisuseError(f"methods: give some of {', '.join(get_args(Method))}")
        if max_bytes < 1:
            raise MisuseError(f"max_bytes is a whole number from 1, not {max_bytes}")
        if max_redirects < 0:
            raise MisuseError(f"max_redirects is a whole number from 0, not {max_redirects}")
        self._check_headers()
        self._secrets = _secrets_of(self._headers)
        self.idempotent = set(self._methods) <= _IDEMPOTENT
        self.description = _described(self._allow, self._methods)
        self.parameters = _parameters(self._methods)

    async def execute(self, url: str, method: str | None = None, body: Any = None, offset: int = 0) -> str:
        """Send the request, follow its redirects, and return what the answer says."""
        method = method or self._methods[0]
        if offset and method != "GET":
            raise ToolError("offset is for GET: another method would act once more")
        if body is not None and method in ("GET", "DELETE"):
            raise ToolError(f"a {method} has no body; put what it asks for into the URL")
        try:
            return await self._told(await self._answer(method, self._allow.checked(url), body), method, offset)
        except ToolError as error:
            raise ToolError(self._hidden(str(error))) from None  # the cause may hold a secret

    async def aclose(self) -> None:
        """Let the threads end that resolve names and read pages."""
        self._helpers.close()
        await super().aclose()

    async def _answer(self, method: str, url: URL, body: Any) -> _Answer:
        limit = current_deadline().narrowed(self.timeout_s)
        origin = url.origin()
        if self._headers and url.scheme == "http" and not self._allow.written_with_http(url):
            raise ToolError("this tool sends headers of its owner, and those over https only; write https://…")
        pinned = Pinned()
        connector = aiohttp.TCPConnector(resolver=pinned, use_dns_cache=False, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline of the call is the one limit
        ) as session:
            session._retry_connection = False  # noqa: SLF001 - it would ask again by itself when a connection breaks
            for _ in range(self._max_redirects + 1):
                await self._pin(pinned, url)
                headers = self._request_headers(limit, with_own=url.origin() == origin)
                content = None if body is None else msgspec.json.encode(body)
                if content is not None:
                    headers["Content-Type"] = "application/json"
                if method != "GET" and (key := current_scope().key):
                    headers.setdefault("Idempotency-Key", key)  # sent again after a crash, it is the same request
                try:
                    async with session.request(
                        method, url, headers=headers, data=content, allow_redirects=False
                    ) as response:
                        target = response.headers.get("Location") if response.status in _REDIRECTS else None
                        if target is None:
                            return await self._read(response)
                        status = response.status
                except (aiohttp.ClientError, OSError) as error:
                    raise ToolError(f"no answer from {url.host}: {_why(error)}") from error
                url = self._next(url, target)
                method, body = self._redirected(method, body, status)
        raise ToolError(f"more than {self._max_redirects} redirects, the last one to {str(url)[:200]}")

    def _next(self, url: URL, target: str) -> URL:
        try:
            return self._allow.checked(url.join(URL(target.strip())))
        except (ToolError, ValueError) as error:
            raise ToolError(f"{url.host} redirects to where this tool may not go: {error}") from error

    def _redirected(self, method: str, body: Any, status: int) -> tuple[str, Any]:
        if status == 303 or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
        if method not in self._methods:
            raise ToolError(f"it was done, and redirects to a page to {method}; allowed: {', '.join(self._methods)}")
        return method, body

    async def _pin(self, pinned: Pinned, url: URL) -> None:
        host, port = url.raw_host or "", url.port or 0
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise ToolError(f"the name {host} cannot be resolved ({error.strerror or error})") from error
        if not found:
            raise ToolError(f"the name {host} has no address")
        self._allow.check_addresses(url, found)
        pinned.addresses[host] = found

    async def _system_addresses(self, host: str, port: int) -> list[str]:
        """In daemon threads: a lookup that hangs in asyncio's own would keep the process from ending."""
        job = self._helpers.submit(
            socket.getaddrinfo, {"host": host, "port": port, "type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
        )
        try:
            return [str(address[0]) for *_, address in await job.result()]
        finally:
            job.withdraw()

    def _request_headers(self, limit: Deadline, *, with_own: bool) -> dict[str, str]:
        left = {} if limit.at == math.inf else {"X-Request-Timeout": f"{limit.remaining():.3f}"}
        return (
            {"Accept": _ACCEPT, "User-Agent": "genai-factory"}
            | (trace_headers() | self._headers if with_own else {})
            | left
        )

    async def _read(self, response: aiohttp.ClientResponse) -> _Answer:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in _UNKNOWN and not _TEXT.fullmatch(kind):
            size = response.headers.get("Content-Length")
            raise ToolError(
                f"{response.status} {_phrase(response)}: {kind[:100]}{f' of {size} bytes' if size else ''} is no text; "
                "this tool reads HTML, JSON, XML and plain text"
            )
        pieces, read = [], 0
        while read <= self._max_bytes and (piece := await response.content.readany()):
            pieces.append(piece)
            read += len(piece)
        body = b"".join(pieces)
        if b"\0" in body[:1024] and not body.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ToolError("the answer is binary; this tool reads HTML, JSON, XML and plain text")
        return _Answer(
            response.status,
            _phrase(response),
            kind,
            response.charset,
            response.url,
            body[: self._max_bytes],
            read > self._max_bytes,
            response.headers.get("Retry-After", ""),
        )

    async def _told(self, answer: _Answer, method: str, offset: int) -> str:
        job = self._helpers.submit(answer.text, {})  # a large page takes long enough to hold the loop up
        try:
            text = self._hidden(await job.result())
        finally:
            job.withdraw()
        status = f"{answer.status} {answer.phrase}".rstrip()
        if not 200 <= answer.status < 300:
            wait = f" (Retry-After: {answer.retry_after[:50]})" if answer.retry_after else ""
            raise ToolError(f"{status}{wait} from {str(answer.url)[:500]}\n\n{text[:MAX_REFUSAL]}".rstrip())
        head = f"{status}, {answer.kind[:100] or 'no content type'}, {self._hidden(str(answer.url))[:500]}"
        room = max(self.max_observation_chars - len(head) - 250, 1)
        shown, notes = text[offset : offset + room] if method == "GET" else text, []
        if offset and not shown:
            raise ToolError(f"offset {offset} is past the end: the answer has {len(text)} characters")
        if offset + len(shown) < len(text):
            end = offset + len(shown)
            notes.append(f"[characters {offset} to {end} of {len(text)}; for the rest ask again with offset {end}]")
        if answer.cut:
            notes.append(f"[the answer is longer than {self._max_bytes} bytes; what is behind them was not read]")
        return "\n\n".join([head, *filter(None, [shown]), *notes])

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text

    def _check_headers(self) -> None:
        for name, value in self._headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
                raise MisuseError(
                    f"headers: {name!r} cannot be sent: it holds a line break or a sign no header may have"
                )
            if name.lower() in _OURS:
                raise MisuseError(f"headers: {name} is set by the tool itself")
        if self._headers and self._allow.any_host:
            raise MisuseError(
                "headers: with '*' in `allow` they would be sent to every host; name the hosts they are for"
            )


class _Answer(NamedTuple):
    status: int
    phrase: str
    kind: str
    charset: str | None
    url: URL
    body: bytes
    cut: bool
    retry_after: str

    def text(self) -> str:
        """The body as a model reads it. Takes a second for a million bytes of HTML."""
        is_html = self.kind in ("text/html", "application/xhtml+xml")
        guess = None
        if self.charset is None:
            with contextlib.suppress(MisuseError):  # it is not to be told: as browsers have it
                guess = charset_of(self.body, markup=is_html)
        text = decoded(self.body, self.charset or guess, is_html=is_html)
        text = readable(text, str(self.url)) if is_html else text
        return text if guess is None else f"{text}\n[no charset is given; it is read as {guess}, which is a guess]"


def _phrase(response: aiohttp.ClientResponse) -> str:
    """The words of a status; the usual ones, because a server may say anything there."""
    try:
        return HTTPStatus(response.status).phrase
    except ValueError:
        return ""


def _secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Every form in which an answer may repeat the secrets of the headers; the longest first."""
    found: set[str] = set()
    for name, value in headers.items():
        if names_a_secret(name):
            for part in (value, *value.split()[1:]):
                found |= {part, msgspec.json.encode(part).decode()[1:-1]}
                found |= {quote(part, safe=safe) for safe in ("", "/", "!$&'()*+,/:;=?@")}
    return sorted((text for text in found if len(text) >= 4), key=len, reverse=True)


def _described(allow: AllowList, methods: Sequence[str]) -> str:
    return (
        f"Requests a URL ({', '.join(methods)}) and returns the answer as text: pages without their markup, JSON as it "
        f"is. Allowed: {allow.words}."
    )


def _parameters(methods: Sequence[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {"url": {"type": "string", "description": "The whole URL, with http:// or https://."}}
    if len(methods) > 1:
        properties["method"] = {"type": "string", "enum": list(methods), "default": methods[0]}
    if set(methods) & {"POST", "PUT", "PATCH"}:
        properties["body"] = {"description": "The JSON to send with POST, PUT or PATCH."}
    if "GET" in methods:
        properties["offset"] = {
            "type": "integer",
            "minimum": 0,
            "description": "Where to go on in a long answer: the character to begin with.",
        }
    return {"type": "object", "properties": properties, "required": ["url"], "additionalProperties": False}


def _why(error: Any) -> str:
    """What a transport error says, without the layers around it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its TLS certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"cannot connect ({os.strerror(number) if number else error.os_error})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"the answer broke off or cannot be decoded ({error})"
    return str(error) or type(error).__name__
