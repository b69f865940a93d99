"""Anthropic's messages as data: our messages to its requests, its answers and stream events to ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import ContentFiltered, MalformedResponse
from shared_libs.atomic.llms.faults import error_event
from shared_libs.atomic.llms.payload import decode, inline_image, portable_id, portable_name, portable_parameters
from shared_libs.atomic.types import (
    FinishReason,
    LLMChunk,
    LLMResponse,
    Message,
    TextPart,
    Thinking,
    ToolCall,
    ToolSpec,
    Usage,
)

PROVIDER = "anthropic"

_MAX_ID_CHARS = 64

_SAYS_WHAT_IT_IS = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
_BOUNDS = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)
"""What the API's grammar does not know (the vendor's SDK tells the same in descriptions)."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})

_FINISH: dict[str | None, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class _Block(msgspec.Struct):
    """A content block, whole or as it starts."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Delta(msgspec.Struct):
    """What is added to a block, or to the message itself."""

    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Reply(msgspec.Struct):
    """A whole answer, or one as it starts."""

    type: str = ""
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None


class _Event(msgspec.Struct):
    """An event of a stream."""

    type: str = ""
    index: int = 0
    message: _Reply | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_reply_decoder = msgspec.json.Decoder(_Reply)
_event_decoder = msgspec.json.Decoder(_Event)


def request_messages(messages: Sequence[Message]) -> tuple[str, list[dict[str, Any]]]:
    """
    The conversation as the API takes it: the system prompt, and the turns.

    Neighbours of one role become one turn, because the results of all calls of a turn belong into the next one.
    """
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            system.append(message.text)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _assistant_blocks(message) if role == "assistant" else _user_blocks(message)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return "\n\n".join(system), turns


def request_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the API takes it."""
    return {"name": tool.name, "description": tool.description, "input_schema": portable_parameters(tool.parameters)}


def tools_of(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools that the turns have called: the API wants to be told of them while they stand there."""
    names = {block["name"]: None for turn in turns for block in turn["content"] if block["type"] == "tool_use"}
    return [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]


class _Open(Exception):
    """A schema leaves open what the API insists on knowing."""


def closed_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """
    A JSON Schema as the API takes it, or None for one that it cannot keep, such as one of a free mapping.

    Objects are closed. The bounds that the API refuses are told in the descriptions; the answer is checked anyway.
    """
    try:
        return _closed(schema)
    except _Open:
        return None


def _closed(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict) or not node.keys() & _SAYS_WHAT_IT_IS:
        raise _Open
    closed: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for key, value in node.items():
        if key in {"properties", "$defs", "definitions"}:
            closed[key] = {name: _closed(inner) for name, inner in value.items()}
        elif key in {"anyOf", "oneOf", "allOf"}:
            closed["anyOf" if key == "oneOf" else key] = [_closed(inner) for inner in value]
        elif key == "items":
            closed[key] = _closed(value)
        elif key in _BOUNDS or (key == "minItems" and value > 1) or (key == "format" and value not in _FORMATS):
            told[key] = value
        elif "$ref" not in node or key == "$ref":
            closed[key] = value
    types = node.get("type", ())
    if "properties" in node or "object" in (types if isinstance(types, list) else [types]):
        if "properties" not in node or node.get("additionalProperties", False) is not False:
            raise _Open
        closed["additionalProperties"] = False
    if told:
        bounds = msgspec.json.encode(told).decode()
        closed["description"] = f"{closed['description']} {bounds}" if "description" in closed else bounds
    return closed


def _user_blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": portable_id(message.tool_call_id or "", _MAX_ID_CHARS),
            "content": message.text,
        }
        return [result | {"is_error": True}] if message.is_error else [result]
    if isinstance(message.content, str):
        return _text_blocks(message.content)
    blocks = []
    for part in message.content:
        if isinstance(part, TextPart):
            blocks += _text_blocks(part.text)
            continue
        inline = inline_image(part.url)
        source = {"type": "url", "url": part.url}
        if inline is not None:
            source = {"type": "base64", "media_type": part.media_type or inline[0], "data": inline[1]}
        blocks.append({"type": "image", "source": source})
    return blocks


def _assistant_blocks(message: Message) -> list[dict[str, Any]]:
    said = _text_blocks(message.text)
    for call in message.tool_calls:
        given = call.arguments if call.malformed is None else {"not_json": call.malformed}
        said.append(
            {
                "type": "tool_use",
                "id": portable_id(call.id, _MAX_ID_CHARS),
                "name": portable_name(call.name),
                "input": given,
            }
        )
    if not said:
        return []  # a turn must not end in thinking
    own = [block for block in message.thinking if block.provider == PROVIDER]
    return [
        {"type": "redacted_thinking", **block.data}
        if block.data
        else {"type": "thinking", "thinking": block.text, "signature": block.signature}
        for block in own
    ] + said


def _text_blocks(text: str) -> list[dict[str, Any]]:
    """The API refuses a text block without a visible character."""
    return [{"type": "text", "text": text}] if text.strip() else []


class _OpenBlock:
    """A content block whose pieces are still coming."""

    __slots__ = ("block", "pieces", "signature")

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.pieces = [block.text or block.thinking or ""]
        self.signature = block.signature or ""

    def call(self) -> ToolCall:
        block, raw = self.block, "".join(self.pieces)
        if not block.id or not block.name:
            raise MalformedResponse("the answer has a tool call without an id or a name")
        if not raw and isinstance(block.input, dict):
            return ToolCall(block.id, block.name, block.input)
        return ToolCall.from_json(block.id, block.name, raw)

    def thinking(self) -> Thinking:
        if self.block.type == "redacted_thinking":
            return Thinking("", PROVIDER, data={"data": self.block.data})
        return Thinking("".join(self.pieces), PROVIDER, self.signature)


class AnthropicAnswer:
    """An answer of the messages API; `secrets` must not stand in an error's text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = secrets
        self._blocks: dict[int, _OpenBlock] = {}
        self._model = ""
        self._usage = _Usage()
        self._stop_reason: str | None = None
        self._why = ""
        self.started = False
        self.complete = False
        self.ended = False

    def take(self, payload: bytes) -> list[LLMChunk]:
        """Add an event of the stream and return what is new; an empty text is only a sign of life."""
        event = decode(_event_decoder, payload)
        if event.type == "content_block_delta" and event.delta is not None:
            return self._add(event.index, event.delta)
        if event.type == "content_block_start" and event.content_block is not None:
            return self._open(event.index, event.content_block)
        if event.type == "message_start" and event.message is not None:
            self.started = True
            self._model = event.message.model or ""
            self._count(event.message.usage)
        elif event.type == "message_delta":
            self._count(event.usage)
            if event.delta is not None and event.delta.stop_reason:
                self._stop(event.delta.stop_reason, event.delta.stop_details)
                return [LLMChunk("text")]
        elif event.type == "message_stop":
            self.ended = True
        elif event.type == "error":
            raise error_event(payload, self._secrets)
        return []

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""
        reply = decode(_reply_decoder, body)
        if reply.type == "error":
            raise error_event(body, self._secrets)
        if reply.content is None:
            raise MalformedResponse("the answer has no content")
        self._model = reply.model or ""
        self._count(reply.usage)
        new = [chunk for index, block in enumerate(reply.content) for chunk in self._open(index, block)]
        self._stop(reply.stop_reason or "end_turn", reply.stop_details)
        self.started = self.ended = True
        return new

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""
        usage = _neutral(self._usage)
        return usage if usage.total_tokens else None

    def response(self) -> LLMResponse:
        """
        The whole answer.

        Raises:
            LLMError: the provider refused in the middle.

        """
        if self._stop_reason == "refusal":
            raise ContentFiltered(f"the provider's filter refused: {self._why or 'no reason is given'}")
        opened = [self._blocks[index] for index in sorted(self._blocks)]
        calls = tuple(block.call() for block in opened if block.block.type == "tool_use")
        finish = _FINISH.get(self._stop_reason, "stop")
        return LLMResponse(
            text="".join("".join(block.pieces) for block in opened if block.block.type == "text"),
            tool_calls=calls,
            thinking=tuple(block.thinking() for block in opened if block.block.type.endswith("thinking")),
            usage=self.usage or Usage(),
            model=self._model,
            finish_reason="tool_calls" if calls and finish == "stop" else finish,
        )

    def _open(self, index: int, block: _Block) -> list[LLMChunk]:
        self._blocks[index] = _OpenBlock(block)
        if block.thinking:
            return [LLMChunk("thinking", block.thinking)]
        return [LLMChunk("text", block.text or "")]

    def _add(self, index: int, delta: _Delta) -> list[LLMChunk]:
        block = self._blocks.get(index)
        if block is None:
            raise MalformedResponse(f"the stream adds to content block {index}, which has not started")
        block.signature += delta.signature or ""
        piece = delta.text or delta.thinking or delta.partial_json
        if not piece:
            return []
        block.pieces.append(piece)
        if delta.thinking:
            return [LLMChunk("thinking", piece)]
        return [LLMChunk("text", delta.text or "")]

    def _stop(self, reason: str, details: _StopDetails | None) -> None:
        self._stop_reason, self.complete = reason, True
        self._why = (details and details.explanation) or ""

    def _count(self, usage: _Usage | None) -> None:
        """Take the newest count of each kind; the API counts up."""
        for name in usage.__struct_fields__ if usage else ():
            value = getattr(usage, name)
            if value is not None:
                setattr(self._usage, name, value)


def _neutral(usage: _Usage) -> Usage:
    """The API counts what was read from its cache, and what was written to it, apart from the rest."""
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    given = (usage.input_tokens or 0) + cached + written
    made = usage.output_tokens or 0
    return Usage(given, made, cached, given + made, written)
