"""What a wire format has to say: where it is served, and how an answer, its stream and a refusal look in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shared_libs.atomic.types import ToolCall, Usage

_PIECES = re.compile(r"\S+\s*|\s+")


class Answer(msgspec.Struct, frozen=True):
    """An answer as it is to be told in some format."""

    model: str
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()

    @property
    def pieces(self) -> list[str]:
        """The text word by word, as it is streamed."""
        return _PIECES.findall(self.text)


class WireFormat(Protocol):
    """How a provider says things."""

    base: str
    """What stands between the server's address and the paths of the API, as a client's base URL has it."""
    path: str
    """The whole path of the API that is served."""
    stream_type: str
    """The content type of a stream."""
    streams_unasked: bool
    """Whether a request that does not say so wants a stream."""

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The answer as one JSON document."""

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """The answer as the events of a stream; the last one is its end marker."""

    def broken_event(self) -> bytes:
        """An event of a stream that is not what it says."""

    def error(self, status: int, code: str, message: str) -> bytes:
        """The body of a refusal; `code` is one of `CODES`."""

    def filtered(self, answer: Answer, request: Mapping[str, Any], *, stream: bool) -> list[bytes] | None:
        """What comes with status 200 when the filter refuses (a stream's events or one body); None: a refusal."""

    def context_message(self) -> str:
        """How the provider says that a conversation is too long."""


def dumps(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def server_sent(value: Any, event: str = "") -> bytes:
    """One server-sent event; bytes are sent as they are."""
    data = value if isinstance(value, bytes) else dumps(value)
    name = f"event: {event}\n".encode() if event else b""
    return b"%bdata: %b\n\n" % (name, data)


def question_of(request: Mapping[str, Any]) -> str:
    """The text of the user's last message."""
    asked = [message for message in _messages(request) if message.get("role") == "user"]
    return text_of(asked[-1].get("content")) if asked else ""


def ends_with_assistant(request: Mapping[str, Any]) -> bool:
    """Whether the last message is the assistant's own: a prefill."""
    messages = _messages(request)
    return bool(messages) and messages[-1].get("role") == "assistant"


def input_tokens(request: Mapping[str, Any]) -> int:
    """A count that grows with the conversation: its words."""
    return sum(len(text_of(message.get("content")).split()) for message in _messages(request))


def text_of(content: Any) -> str:
    """The text of a message, be it one string or parts."""
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def _messages(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conversation; what is to be embedded counts as said by the user."""
    given = request.get("messages", request.get("input"))
    messages = given if isinstance(given, list) else [given]
    said = [{"role": "user", "content": message} if isinstance(message, str) else message for message in messages]
    return [message for message in said if isinstance(message, Mapping)]
