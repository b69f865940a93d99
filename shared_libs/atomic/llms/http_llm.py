"""What the providers behind an HTTP API share: address, key, connections."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from shared_libs.atomic.errors import (
    AuthenticationFailed,
    LLMError,
    MalformedResponse,
    MisuseError,
    StreamInterrupted,
)
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.dialect import dialect_of
from shared_libs.atomic.llms.event_stream import AT_ONCE, END_WAIT_S, Completeness
from shared_libs.atomic.llms.framing import Doubles, streamed_events
from shared_libs.atomic.llms.given import maker
from shared_libs.atomic.llms.payload import values_in
from shared_libs.atomic.llms.tool_schema import named_tools, plain_tools, short_tools
from shared_libs.atomic.loading import load
from shared_libs.atomic.resilience.health import ModelHealth, health_of
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import LLMChunk, LLMResponse, Price, ToolSpec

if TYPE_CHECKING:
    from shared_libs.atomic.llms.event_stream import Answer, EventStream
    from shared_libs.atomic.llms.framing import Framing


MAX_STALE = 1000
"""How many pieces of reasoning that a server could not read are remembered."""

_OURS = f"{__name__.rpartition('.')[0]}."
"""Where the adapters stand that obey their cancellation."""

_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_ENDPOINT = re.compile(
    r"/(chat/completions|completions|embeddings|responses|v1/messages|messages|api/chat|api/embed|rerank)/*$"
)
"""What our own paths end in: an address that was copied whole would get it twice."""


class Connections(Protocol):
    """What carries requests to a server: `Wire`, or a client of the caller's."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never stand in an error's text."""

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a request and return the body of a successful answer."""

    def stream(
        self, path: str, body: bytes, framing: Framing | None = None
    ) -> AbstractAsyncContextManager[EventStream]:
        """Send a request and read its answer as it comes."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""


class HttpLLM(BaseLLMWrapper):
    """
    A model behind an HTTP API.

    Args:
        model: the model's name at the provider.
        api_key: the key; without one it comes from the environment when the first request is made.
        base_url: the address of the API; without one it comes from the environment, or is the provider's own.
        resilience: the policy; a fallback without one takes the primary's.
        fallbacks: the models to ask when this one has failed, in order.
        price: US dollars per million tokens; None means unknown, which is not zero.
        options: request fields sent with every call (`temperature`, `max_tokens`, ...); a call's own win.

    Raises:
        MisuseError: `base_url` is no HTTP address.

    """

    own_base_url: ClassVar[str]
    key_variable: ClassVar[str]
    base_url_variable: ClassVar[str]
    needs_key: ClassVar[bool] = True
    """Whether the provider's own address insists on a key."""

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        price: Price | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        model = self._checked_name(model)
        self.base_url = _checked(base_url or self._address_in_environment() or self.own_base_url)
        self._api_key = _checked_key(api_key)
        self._opened: Connections | None = None
        self._stale: deque[str] = deque(maxlen=MAX_STALE)
        self._made_by = maker(self.base_url, model)
        """Who makes what this model gives with its turns, and can read it again."""
        self._dialect = dialect_of(self.provider, self.base_url, model)
        self._last_tools: tuple[Any, list[dict[str, Any]]] = None, []
        if "schema-words" in self._dialect.traits:
            self.structured_output = False
        if "no-tools" in self._dialect.traits:
            self.native_tools = False
        super().__init__(model, resilience=resilience, fallbacks=fallbacks, price=price, options=options)
        self.obeys = type(self).__module__.startswith(_OURS)  # a subclass of a user's is foreign code

    def _told(self) -> list[str]:
        return [] if self.base_url == self.own_base_url else [f"base_url={self.base_url.partition('?')[0]!r}"]

    def _address_in_environment(self) -> str | None:
        return os.environ.get(self.base_url_variable)

    def _health(self) -> ModelHealth:
        return health_of(self.provider, self.base_url, self.model, repr(self._whose()))

    def _whose(self) -> object:
        """Whose requests these are, to their server: what their headers say, such as a key or an organisation."""
        try:
            return sorted(self._headers().items())
        except Exception:  # noqa: BLE001 - the request itself will say so
            return None

    def _wire(self) -> Connections:
        """
        The connections to the server.

        Raises:
            AuthenticationFailed: there is no key, and the provider's own API wants one.

        """
        if self._opened is None:
            self._opened = self._connect()
        return self._opened

    def _connect(self) -> Connections:
        from shared_libs.atomic.llms.wire import Wire

        return Wire(self.base_url, self._headers())

    def _headers(self) -> dict[str, str]:
        """The headers of every request."""
        raise NotImplementedError

    def _hint(self, error: LLMError) -> None:
        """Say which key was refused: it may come from the environment, or from the wrong variable."""
        if isinstance(error, AuthenticationFailed) and error.status_code == HTTPStatus.UNAUTHORIZED:
            if self._api_key:
                whose = f"with the api_key of this {self.provider} model"
            elif os.environ.get(self.key_variable):
                whose = f"with the key in {self.key_variable}"
            else:
                whose = f"without a key: neither api_key nor {self.key_variable} is set"
            error.args = (f"{error} (asked {self.base_url.partition('?')[0]} {whose})",)

    def _key(self) -> str | None:
        """The key, or None for a server that may need none."""
        key = (self._api_key or os.environ.get(self.key_variable) or "").strip()
        if not key and self.needs_key and self.base_url == self.own_base_url:
            raise AuthenticationFailed(f"there is no key for {self.base_url}: set {self.key_variable} or pass api_key")
        return key or None

    def _streams(self, tools: tuple[ToolSpec, ...]) -> bool:
        traits = self._dialect.traits
        return "whole-only" not in traits and not (tools and "whole-beside-tools" in traits)

    def _told_tools(
        self, tools: tuple[ToolSpec, ...], tell: Callable[[ToolSpec], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Tools as the server takes them; those of the last request are kept, for a run asks with the same ones."""
        traits, most = self._dialect.traits, self._dialect.tool_words
        asked = tools, frozenset(traits), most
        last, told = self._last_tools
        if asked != last:
            tools = plain_tools(tools) if "plain-schemas" in traits else tools
            tools = tools if most is None else short_tools(tools, most)
            told = [tell(tool) for tool in (named_tools(tools) if "portable-properties" in traits else tools)]
            self._last_tools = asked, told
        return told

    async def _ask(self, path: str, body: bytes, answer: Answer) -> LLMResponse:
        """Make one request and read its answer in one piece; one that came as a stream all the same is read as one."""
        try:
            whole = await self._wire().post(path, body)
            if not whole.startswith(b"{") and (events := streamed_events(whole)):
                for number, event in enumerate(events, 1):
                    _take(answer, event)
                    if number % AT_ONCE == 0:
                        await asyncio.sleep(0)
                _check_end(answer)
            else:
                _take_whole(answer, whole)
            return answer.response()
        except LLMError as error:
            error.usage, error.text = answer.usage, answer.text
            self._hint(error)
            raise

    async def _follow(
        self,
        path: str,
        body: bytes,
        answer: Answer,
        framing: Framing | None = None,
        *,
        learn: Callable[[LLMError], object] | None = None,
    ) -> AsyncGenerator[LLMChunk, None]:
        """Make one streamed request and pass on what comes, to its end; `learn` hears of a failure."""
        doubles = Doubles()
        try:
            async with self._wire().stream(path, body, framing) as events:
                async for payloads in events:
                    for chunk in _taken(answer, payloads, doubles):
                        yield chunk
                    if answer.ended:
                        events.end_within(END_WAIT_S, total_s=END_WAIT_S)
                    elif answer.complete:
                        events.end_within(answer.silence_s)
                if events.whole is not None:
                    for chunk in _take_whole(answer, events.whole):
                        yield chunk
            if events.broken and not answer.ended and answer.silence_s != Completeness.AFTER_THE_WORDS_S:
                raise StreamInterrupted("the connection broke off, and the answer may be longer")
            _check_end(answer)
            if doubles.all:
                raise MalformedResponse("every event of the stream came twice")
            response = answer.response()
        except LLMError as error:
            error.usage, error.text = answer.usage, answer.text
            self._hint(error)
            if learn is not None:
                learn(error)
            raise
        for call in response.tool_calls:
            yield LLMChunk("tool_call", tool_call=call)
        yield LLMChunk("finished", response=response)

    async def _open(self) -> None:
        await load("shared_libs.atomic.llms.wire")

    async def _close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()


class VendorLLM(HttpLLM):
    """
    A model whose vendor has an SDK, whose client may carry the requests.

    Args:
        client: sends everything, instead of `api_key` and `base_url`: for its authentication or its own HTTP transport.
            It costs more CPU a call. Whoever made it closes it.

    Raises:
        MisuseError: `base_url` is no HTTP address, or stands beside a client.

    """

    sdk: ClassVar[str]
    """The package of the vendor's client."""

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Any = None,
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        price: Price | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if client is not None:
            if api_key or base_url:
                raise MisuseError("the client has a key and an address of its own: pass either client, or the two")
            base_url = str(client.base_url)
        self._client = client
        super().__init__(
            model,
            api_key=api_key,
            base_url=base_url,
            resilience=resilience,
            fallbacks=fallbacks,
            price=price,
            options=options,
        )
        self.obeys = self.obeys and client is None

    async def _open(self) -> None:
        await (super()._open() if self._client is None else load("shared_libs.atomic.llms.sdk_client"))

    def _whose(self) -> object:
        if self._client is None:
            return super()._whose()
        held = getattr(self._client, "__dict__", {})
        # its key, organisation, account, own headers; of what gives it tokens, which one that is
        return [(name, it) for name, it in held.items() if isinstance(it, str | Mapping) or callable(it)]

    def _hint(self, error: LLMError) -> None:
        if self._client is None:  # the client's key is the client's
            super()._hint(error)

    def _connect(self) -> Connections:
        if self._client is None:
            return super()._connect()
        from shared_libs.atomic.llms.sdk_client import ClientWire

        return ClientWire(self._client, self.sdk)


def _taken(answer: Answer, payloads: list[bytes], doubles: Doubles) -> Iterator[LLMChunk]:
    """Add events to an answer and pass on what is new; where nothing is, that the server lives."""
    news = False
    for payload in payloads:
        doubles.see(payload)
        if not answer.ended:
            for chunk in _take(answer, payload):
                news = True
                yield chunk
    if not news:
        yield LLMChunk("text")


def _take(answer: Answer, payload: bytes) -> list[LLMChunk]:
    """Add an event to an answer; one that is several is taken as what it is."""
    try:
        return answer.take(payload)
    except MalformedResponse:
        if not (values := values_in(payload)):
            raise
        return [chunk for value in values for chunk in answer.take(value)]


def _take_whole(answer: Answer, body: bytes) -> list[LLMChunk]:
    """
    Take an answer that came in one piece; one whose pieces came as one is read as the stream that it is.

    Raises:
        MalformedResponse: it is none, or there are several.

    """
    if body.endswith((b"]", b"\n")) and (said := body.rstrip()).endswith(b"[DONE]"):
        body = said.removesuffix(b"[DONE]").rstrip().removesuffix(b"data:")  # a proxy ends all it passes on alike
    try:
        return answer.take_whole(body)
    except MalformedResponse:
        if not (values := values_in(body)):
            raise
        chunks = answer.take(values[0])
        if answer.ended or answer.complete:  # by its first piece: what follows is another answer
            raise
        chunks += [chunk for value in values[1:] for chunk in answer.take(value)]
        _check_end(answer)
        return chunks


def _check_end(answer: Answer) -> None:
    """Refuse an answer that nothing says is whole."""
    if not answer.started or not (answer.ended or answer.complete):
        raise StreamInterrupted("the stream ended without its end marker")


def _checked_key(api_key: str | None) -> str | None:
    if api_key is not None and not isinstance(api_key, str):
        raise MisuseError(f"api_key is a text, not a {type(api_key).__name__}")
    if (found := _VARIABLE.fullmatch(api_key or "")) is not None:
        raise MisuseError(f"api_key is the name of a variable, not its value; pass os.environ[{found[1]!r}]")
    return api_key


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise MisuseError(f"base_url {base_url!r} is no address: it is such as https://api.example.com/v1")
    if parts.username or parts.password:
        raise MisuseError("base_url must not hold a user or a password; pass api_key")
    if (found := _ENDPOINT.search(parts.path)) is not None:
        raise MisuseError(
            f"base_url {base_url!r} ends in {found[0]!r}, which is added to it; leave it out: "
            f"{base_url[: base_url.index(found[0])]}"
        )
    return base_url.rstrip("/")
