"""
The catalogue of faults: what a model's server can do to a client, each as plain data.

A fault is played in the format, and in the mode (stream or one document), that the client asked for; where it has no
counterpart in one mode, its docstring says what happens there instead. All times are seconds of the event loop's clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.types import ToolCall, Usage
from shared_libs.testing.faults.formats.base import Answer, WireFormat, ends_with_assistant, input_tokens, question_of
from shared_libs.testing.faults.wire import Play, chunked, document, head
from shared_libs.testing.faults.wire_cases import PATHS, answered, no_case, wire_cases


class Exchange(msgspec.Struct, frozen=True):
    """One request, as a fault sees it; `since_s` counts from the model's first request."""

    format: WireFormat
    model: str
    body: Mapping[str, Any]
    stream: bool
    since_s: float = 0.0

    def said(self, told: Healthy) -> Answer:
        """What a healthy model answers."""
        text = question_of(self.body) if told.text is None else told.text
        given = input_tokens(self.body)
        made = len(text.split()) + len(told.tool_calls)
        return Answer(self.model, text, told.tool_calls, Usage(given, made, 0, given + made))

    def answered(self, told: Healthy) -> Play:
        """A healthy answer on the wire."""
        answer = self.said(told)
        if self.stream:
            return self.streamed(self.format.events(answer, self.body))
        return document(self.format.whole(answer, self.body))

    def streamed(self, events: list[bytes]) -> Play:
        """These events as a stream that ends properly."""
        return chunked(events, self.format.stream_type)

    def events(self, told: Healthy) -> list[bytes]:
        """The events of a healthy stream."""
        return self.format.events(self.said(told), self.body)

    def whole(self, told: Healthy) -> bytes:
        """A healthy answer as one document."""
        return self.format.whole(self.said(told), self.body)

    def refused(self, status: int, code: str, message: str, **headers: str) -> Play:
        """A refusal as the format says it."""
        return document(self.format.error(status, code, message), status, headers=headers)


SAYINGS: Mapping[str, tuple[int, str, str]] = {
    "money": (429, "rate", "You have reached your monthly usage limit, please upgrade to continue."),
    "money_400": (400, "bad_request", "You have reached your specified API usage limits."),
    "wait": (429, "rate", "Rate limit reached, limit 10, used 10. Please try again in 2s."),
    "long_wait": (429, "rate", "Rate limit reached for tokens per day. Please try again in 14m24s."),
    "too_large": (429, "rate", "Request too large on tokens per min (TPM): Limit 30000, Requested 45000."),
    "too_long": (400, "bad_request", "Your request exceeded model token limit: 131072"),
    "key": (400, "bad_request", "API key not valid. Please pass a valid API key."),
    "filter": (400, "bad_request", "Content Exists Risk"),
    "call_not_made": (400, "bad_request", "Failed to call a function. Please adjust your prompt."),
    "no_tools": (400, "bad_request", "this model does not support tools"),
}
"""What servers say, by what it means: status, kind of error, words."""


def _tag(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag=_tag):
    """
    What a server does in answer to one request; subclass it for one of your own.

    Raises:
        MisuseError: a number is negative.

    """

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value < 0:
                raise MisuseError(f"{self.name}: {name} must not be negative, and is {value}")

    @property
    def name(self) -> str:
        """The fault's name in data: `rate_limited`."""
        return _tag(type(self).__name__)

    def play(self, exchange: Exchange) -> Play:
        """The bytes."""
        raise NotImplementedError


class Healthy(Fault, frozen=True):
    """No fault: `text` and `tool_calls`, whole or word by word. Without a text the user's last message is echoed."""

    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def play(self, exchange: Exchange) -> Play:
        """A healthy answer."""
        return exchange.answered(self)


class RateLimited(Fault, frozen=True):
    """429, with a `Retry-After` header where `retry_after_s` is given."""

    retry_after_s: float | None = None

    def play(self, exchange: Exchange) -> Play:
        """A refusal."""
        headers = {} if self.retry_after_s is None else {"Retry-After": f"{self.retry_after_s:g}"}
        return exchange.refused(429, "rate", "Too many requests.", **headers)


class ServerError(Fault, frozen=True):
    """A 5xx with the format's own error object."""

    status: int = 500

    def play(self, exchange: Exchange) -> Play:
        """A refusal."""
        return exchange.refused(self.status, "server", "The server had an error.")


class Unauthorized(Fault, frozen=True):
    """401 (no or a wrong key) or 403 (a key without the right)."""

    status: int = 401

    def play(self, exchange: Exchange) -> Play:
        """A refusal."""
        if self.status == 403:
            return exchange.refused(403, "permission", "This key may not use this model.")
        return exchange.refused(self.status, "key", "The API key is not valid.")


class ModelMissing(Fault, frozen=True):
    """404: the server does not know the model."""

    def play(self, exchange: Exchange) -> Play:
        """A refusal."""
        return exchange.refused(404, "model", f"model {exchange.model!r} not found")


class ContextTooLong(Fault, frozen=True):
    """400: the conversation does not fit the model's context."""

    def play(self, exchange: Exchange) -> Play:
        """A refusal."""
        return exchange.refused(400, "context", exchange.format.context_message())


class Refused(Fault, frozen=True):
    """
    A refusal that only its words tell, as real servers send it; `says` is one of `SAYINGS`.

    Raises:
        MisuseError: it is none of them.

    """

    says: str = "money"

    def __post_init__(self) -> None:
        if self.says not in SAYINGS:
            raise MisuseError(f"{self.name}: says is {self.says!r}; allowed: {', '.join(SAYINGS)}")

    def play(self, exchange: Exchange) -> Play:
        """A refusal."""
        return exchange.refused(*SAYINGS[self.says])


class FieldRefused(Fault, frozen=True):
    """400 while the request has a `field` that the server does not know, else a healthy answer."""

    field: str = "temperature"
    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """A refusal or a healthy answer."""
        if self.field in exchange.body:
            return exchange.refused(400, "bad_request", f"Unknown parameter: '{self.field}'.")
        return exchange.answered(self.answer)


class ContentFilter(Fault, frozen=True):
    """The filter refuses: with a 400, or, where the format has it so, by the reason why the answer ends."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """A refusal, or an answer that ends as one."""
        bodies = exchange.format.filtered(exchange.said(self.answer), exchange.body, stream=exchange.stream)
        if bodies is None:
            return exchange.refused(400, "filter", "The request was refused by the content filter.")
        return exchange.streamed(bodies) if exchange.stream else document(bodies[0])


class PrefillRejected(Fault, frozen=True):
    """400 for a conversation that ends with the assistant's own words, else a healthy answer."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """A refusal or a healthy answer."""
        if ends_with_assistant(exchange.body):
            return exchange.refused(400, "bad_request", "This model takes no prefill: end with a user message.")
        return exchange.answered(self.answer)


class HtmlPage(Fault, frozen=True):
    """A web page instead of an answer, as a proxy in between sends it."""

    status: int = 502

    def play(self, exchange: Exchange) -> Play:
        """A page."""
        page = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>Try again.</body></html>"
        return document(page, self.status, "text/html; charset=utf-8")


class ResetBeforeHeaders(Fault, frozen=True):
    """The connection is reset before a byte of the answer came."""

    def play(self, exchange: Exchange) -> Play:
        """A reset."""
        return Play((), "reset")


class Silence(Fault, frozen=True):
    """The request is taken and nothing ever comes."""

    def play(self, exchange: Exchange) -> Play:
        """Nothing."""
        return Play((), "hang")


class SlowFirstToken(Fault, frozen=True):
    """A healthy answer whose first token takes `delay_s`; the head of a stream comes at once."""

    delay_s: float = 12.0
    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """A late answer."""
        first, *rest = exchange.answered(self.answer).steps
        return Play((first, self.delay_s, *rest) if exchange.stream else (self.delay_s, first, *rest))


class Cut(Fault, frozen=True):
    """A healthy answer broken off `after_bytes` of its body (None: in the middle), by a close or by a reset."""

    after_bytes: int | None = None
    reset: bool = False
    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """The beginning of an answer."""
        return exchange.answered(self.answer).broken_off(self.after_bytes, "reset" if self.reset else "close")


class CleanCut(Fault, frozen=True):
    """A healthy answer broken off in its middle whose transfer ends properly, as a proxy does: HTTP sees no fault."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """Half an answer."""
        if not exchange.stream:
            whole = exchange.whole(self.answer)
            return document(whole[: len(whole) // 2])
        events = b"".join(exchange.events(self.answer))
        return exchange.streamed([events[: len(events) // 2]])


class Stall(Fault, frozen=True):
    """A healthy answer that stops `after_bytes` of its body (None: in the middle); the connection stays open."""

    after_bytes: int | None = None
    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """The beginning of an answer."""
        return exchange.answered(self.answer).broken_off(self.after_bytes, "hang")


class MalformedChunk(Fault, frozen=True):
    """An event in the middle of a stream that is no JSON; of a document, a chunk of the transfer without a size."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """An answer with something broken in it."""
        if not exchange.stream:
            whole = exchange.whole(self.answer)
            broken = b"%x\r\n%b\r\nno size\r\n" % (10, whole[:10])
            return Play((head(200, "application/json", None), broken, whole[10:]), "close")
        events = exchange.events(self.answer)
        events.insert(len(events) // 2, exchange.format.broken_event())
        return exchange.streamed(events)


class NoEndMarker(Fault, frozen=True):
    """A stream without its last event, properly closed; a document without the last, empty chunk of the transfer."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """An answer without its end."""
        if exchange.stream:
            return exchange.streamed(exchange.events(self.answer)[:-1])
        return chunked([exchange.whole(self.answer)], "application/json", ended=False)


class MalformedBody(Fault, frozen=True):
    """Status 200, and a document that is no JSON; instead of a stream, too."""

    def play(self, exchange: Exchange) -> Play:
        """Half a document."""
        return document(b'{"choices": [{"message": {"content": "lo')


class WrongShape(Fault, frozen=True):
    """Status 200, and JSON that is no answer; instead of a stream, too."""

    def play(self, exchange: Exchange) -> Play:
        """A document."""
        return document(b'{"status":"ok"}')


class EmptyAnswer(Fault, frozen=True):
    """Status 200 and nothing in it: a stream without events, a document of length 0."""

    def play(self, exchange: Exchange) -> Play:
        """Only a head."""
        return exchange.streamed([]) if exchange.stream else document(b"")


class DuplicateChunks(Fault, frozen=True):
    """A stream whose every event comes twice; a document that comes twice in one body."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """An answer, twice."""
        if exchange.stream:
            return exchange.streamed([event for event in exchange.events(self.answer) for _ in range(2)])
        return document(exchange.whole(self.answer) * 2)


class HugeChunk(Fault, frozen=True):
    """A healthy answer of `chars` characters in a single event."""

    chars: int = 1024 * 1024

    def play(self, exchange: Exchange) -> Play:
        """A long answer."""
        return exchange.answered(Healthy("x" * self.chars))


class Drip(Fault, frozen=True):
    """A healthy answer, its body one byte every `every_s`."""

    every_s: float = 1.0
    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """A slow answer."""
        return exchange.answered(self.answer).dripping(self.every_s)


class Garbage(Fault, frozen=True):
    """Bytes that are no HTTP."""

    def play(self, exchange: Exchange) -> Play:
        """Noise."""
        return Play((b"\x00\xff\x13 this is no HTTP\r\n\r\n",), "close")


class Flapping(Fault, frozen=True):
    """Down for `down_s`, up for `up_s`, and so on for `for_s` after the model's first request; healthy from then on."""

    down_s: float = 8.0
    up_s: float = 4.0
    for_s: float = 60.0
    status: int = 503

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.down_s + self.up_s:
            raise MisuseError("flapping: down_s and up_s must not both be 0")

    def play(self, exchange: Exchange) -> Play:
        """A refusal or a healthy answer, by the time."""
        down = exchange.since_s < self.for_s and exchange.since_s % (self.down_s + self.up_s) < self.down_s
        return (ServerError(self.status) if down else Healthy()).play(exchange)


class WireCase(Fault, frozen=True):
    """
    What a real server sends, byte by byte, streamed or not as it did: a case of `cases/`, and which of its answers.

    Raises:
        MisuseError: there is no such case or answer.

    """

    case: str = "finish-first-chunk[nothing]"
    answer: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.case not in wire_cases():
            raise MisuseError(no_case(self.case))
        if self.answer >= len(wire_cases()[self.case]["server"]):
            raise MisuseError(f"{self.name}: {self.case} has no answer {self.answer}")

    @classmethod
    def answers(cls, case: str) -> list[WireCase]:
        """The answers of a case in their order, as a script; of a name without its brackets those of all its forms."""
        forms = [name for name in wire_cases() if name == case or name.startswith(f"{case}[")]
        if not forms:
            raise MisuseError(no_case(case))
        return [cls(name, number) for name in forms for number in range(len(wire_cases()[name]["server"]))]

    def play(self, exchange: Exchange) -> Play:
        """The bytes; a refusal of a request that is not of its API, or lacks what the case wants of it."""
        case = wire_cases()[self.case]
        api = case.get("api", "chat")
        if exchange.format.path not in PATHS[api]:
            return exchange.refused(400, "bad_request", f"{self.case} is a case of {PATHS[api][0]}")
        return answered(api, case["server"][self.answer], exchange.body, exchange.format.path)


class AddressFault(Fault, frozen=True):
    """A fault of the address: no request ever arrives. It is the whole script of a model, and shapes its URL."""

    @property
    def alone(self) -> str:
        """Why it stands alone, for an error."""
        return f"it is a fault of the address and must be the whole script: {type(self).__name__}()"

    def play(self, exchange: Exchange) -> Play:
        """Refuse: a request that has arrived is past it."""
        raise MisuseError(f"{self.name} cannot be played for model {exchange.model!r}: {self.alone}")


class ConnectionRefused(AddressFault, frozen=True):
    """The port is reserved, and nobody listens on it."""


class NameNotResolved(AddressFault, frozen=True):
    """The host's name is in `.invalid` and longer than DNS allows, so that the resolver refuses it without a query."""


class TlsFailure(AddressFault, frozen=True):
    """An https address whose server breaks the handshake off."""


class UntrustedCertificate(AddressFault, frozen=True):
    """An https address whose certificate nobody knows; a client that takes any gets a healthy answer."""

    answer: Healthy = Healthy()

    def play(self, exchange: Exchange) -> Play:
        """A healthy answer: the client did not look at the certificate."""
        return exchange.answered(self.answer)


CATALOGUE: Mapping[str, type[Fault]] = {
    _tag(kind.__name__): kind
    for kind in (
        *(Healthy, RateLimited, ServerError, Unauthorized, ModelMissing, ContextTooLong, ContentFilter),
        *(Refused, FieldRefused, WireCase),
        *(PrefillRejected, HtmlPage, ResetBeforeHeaders, Silence, SlowFirstToken, Cut, CleanCut, Stall),
        *(MalformedChunk, NoEndMarker, MalformedBody, WrongShape, EmptyAnswer, DuplicateChunks, HugeChunk, Drip),
        *(Garbage, Flapping, ConnectionRefused, NameNotResolved, TlsFailure, UntrustedCertificate),
    )
}
"""Every fault by its name."""
