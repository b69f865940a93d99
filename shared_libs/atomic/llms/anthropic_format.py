"""Anthropic's messages as data: our messages to its requests, its answers and stream events to ours."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import MalformedResponse
from shared_libs.atomic.llms.event_stream import Completeness
from shared_libs.atomic.llms.faults import error_event, says_error
from shared_libs.atomic.llms.finish import finish_of, told
from shared_libs.atomic.llms.given import is_foreign, wire_ids
from shared_libs.atomic.llms.lenient import objects_in, parsed
from shared_libs.atomic.llms.payload import decode, inline_image, portable_id, portable_name, portable_parameters
from shared_libs.atomic.llms.pieces import CALL_TYPES, SaidCall, Text
from shared_libs.atomic.nearly_json import object_in
from shared_libs.atomic.types import (
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

MAX_BLOCKS = 10_000
"""The most content blocks of one answer; a server that sends more is at fault."""

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

_READ = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})
"""The content blocks that mean something here; others, of tools that the server runs itself, are handed back to it."""


class _Block(SaidCall):
    """A content block, whole or as it starts."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | int | None = None

    @property
    def kind(self) -> str:
        """Its type, in the API's own word."""
        return "tool_use" if self.type in CALL_TYPES else self.type or ("text" if self.text is not None else "")


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Delta(msgspec.Struct):
    """What is added to a block, or to the message itself."""

    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: Any = None
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
    content: list[_Block] | str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct):
    """An event of a stream."""

    type: str = ""
    index: int | None = None
    error: Any = None
    message: _Reply | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_reply_decoder = msgspec.json.Decoder(_Reply)
_event_decoder = msgspec.json.Decoder(_Event)


def request_messages(
    messages: Sequence[Message], made_by: Sequence[str] = (), stale: Collection[str] = ()
) -> tuple[str, list[dict[str, Any]]]:
    """
    The conversation as the API takes it: the system prompt, and the turns.

    Neighbours of one role become one turn, because the results of all calls of a turn belong into the next one.

    Args:
        messages: the conversation.
        made_by: who is asked: thinking that tells another maker is left out.
        stale: signatures that it does not take back.

    """
    ids = wire_ids(messages, made_by, _MAX_ID_CHARS)
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            system.append(message.text)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _assistant_blocks(message, ids, made_by, stale) if role == "assistant" else _user_blocks(message, ids)
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


def signatures(messages: Sequence[Message], made_by: Sequence[str]) -> list[str]:
    """The signatures of the thinking that goes back to who is asked."""
    blocks = [block for message in messages for block in message.thinking if block.provider == PROVIDER]
    return [block.signature for block in blocks if block.signature and not is_foreign(block, made_by)]


def thinks_on(turns: Sequence[dict[str, Any]]) -> bool:
    """Whether the API lets a model think: not in the middle of a turn that began without."""
    if len(turns) < 2 or turns[-1]["content"][0]["type"] != "tool_result":
        return True
    return bool(turns[-2]["content"][0]["type"].endswith("thinking"))


def _user_blocks(message: Message, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.role == "tool":
        result = {
            "type": "tool_result",
            "tool_use_id": ids.get(message.tool_call_id or "")
            or portable_id(message.tool_call_id or "", _MAX_ID_CHARS),
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


def _assistant_blocks(
    message: Message, ids: Mapping[str, str], made_by: Sequence[str], stale: Collection[str]
) -> list[dict[str, Any]]:
    calls = [_request_call(call, ids[call.id]) for call in message.tool_calls]
    said = [*_text_blocks(message.text), *calls]
    own = [block for block in message.thinking if block.provider == PROVIDER and not is_foreign(block, made_by)]
    own = [block for block in own if not block.signature or block.signature not in stale]
    for block in own:
        content = (block.data or {}).get("content", ())
        if content and sum(part["type"] == "tool_use" for part in content) == len(calls):
            going = iter(calls)
            return [next(going) if part["type"] == "tool_use" else part for part in content]
    if not said:
        return []  # a turn must not end in thinking
    return [
        {"type": "redacted_thinking", "data": block.data["data"]}
        if block.data and "data" in block.data
        else {"type": "thinking", "thinking": block.text, "signature": block.signature}
        for block in own
        if block.text or block.signature or block.data
    ] + said


def _request_call(call: ToolCall, id: str) -> dict[str, Any]:
    given = call.arguments if call.malformed is None else {"not_json": call.malformed}
    return {"type": "tool_use", "id": id, "name": portable_name(call.name), "input": given}


def _text_blocks(text: str) -> list[dict[str, Any]]:
    """The API refuses a text block without a visible character."""
    return [{"type": "text", "text": text}] if text.strip() else []


class _OpenBlock:
    """A content block whose pieces are still coming; `raw` is how it began, where only the server knows its kind."""

    __slots__ = ("block", "pieces", "raw", "signature")

    def __init__(self, block: _Block, raw: dict[str, Any] | None) -> None:
        self.block = block
        self.raw = raw
        self.pieces = [block.text or block.thinking or ""]
        self.signature = block.signature or ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def takes(self, delta: _Delta) -> bool:
        """Whether it is of the kind that a piece adds to."""
        if delta.partial_json is not None:
            return self.block.type not in {"text", "thinking", "redacted_thinking"}
        return self.block.type == ("text" if delta.text is not None else "thinking")

    def call(self, *, cut: bool) -> ToolCall:
        """The call; one behind which the answer was cut is whole only where its own text shows it."""
        block, raw = self.block, self.text
        if not block.tool:
            raise MalformedResponse("the answer has a tool call without a name")
        id = str(block.id or "") or f"call_{uuid.uuid4().hex[:24]}"  # noqa: A001 - the field's own word
        given = block.said
        if raw.strip() or not isinstance(given, dict):
            return ToolCall.from_json(id, block.tool, raw or (given if isinstance(given, str) else _json(given)))
        if cut:
            return ToolCall(id, block.tool, malformed=_json(given) if given else "")
        return ToolCall(id, block.tool, given)

    def verbatim(self) -> dict[str, Any]:
        """The block as it goes back."""
        block = self.block
        if block.type == "text":
            return {"type": "text", "text": self.text}
        if block.type == "thinking":
            return {"type": "thinking", "thinking": self.text, "signature": self.signature}
        if block.type == "redacted_thinking":
            return {"type": "redacted_thinking", "data": block.data}
        raw = self.raw or {"type": block.type, "id": block.id, "name": block.name, "input": block.input}
        return raw | {"input": object_in(self.text) or {}} if self.text else raw


class AnthropicAnswer:
    """
    An answer of the messages API.

    Args:
        secrets: what must not stand in an error's text.
        made_by: who makes it, and so may see its thinking again; nobody, if that is not told.

    """

    def __init__(self, secrets: Iterable[str], made_by: Sequence[str] = ()) -> None:
        self._secrets = secrets
        self._made_by = made_by
        self._blocks: list[_OpenBlock] = []
        self._at: dict[int, _OpenBlock] = {}
        self._model = ""
        self._usage = _Usage()
        self._reason = ""
        self._why = ""
        self._completeness = Completeness()
        self._shown = Text()
        self.started = False
        self.complete = False
        self.ended = False

    def take(self, payload: bytes) -> list[LLMChunk]:
        """Add an event of the stream and return what is new; an empty text is only a sign of life."""
        if payload.startswith(b"[DONE]"):
            return []
        event = decode(_event_decoder, payload)
        if event.type == "content_block_delta" and event.delta is not None:
            return self._add(event.index, event.delta)
        if event.type == "error" or says_error(event.error):
            raise error_event(payload, self._secrets)
        if event.type == "content_block_start" and event.content_block is not None:
            self.started = True
            raw = None if event.content_block.kind in _READ else parsed(payload)["content_block"]
            return self._open(event.index, event.content_block, raw)
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
        return []

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""
        reply = decode(_reply_decoder, body)
        if reply.type == "error" or says_error(reply.error):
            raise error_event(body, self._secrets)
        if reply.content is None:
            raise MalformedResponse("the answer has no content")
        self._model = reply.model or ""
        self._count(reply.usage)
        blocks = [_Block(type="text", text=reply.content)] if isinstance(reply.content, str) else reply.content
        raw = [None] * len(blocks) if all(b.kind in _READ for b in blocks) else objects_in(parsed(body)["content"])
        new = [chunk for block, one in zip(blocks, raw, strict=True) for chunk in self._open(None, block, one)]
        self._stop(reply.stop_reason or "end_turn", reply.stop_details)
        self.started = self.ended = True
        return new

    @property
    def silence_s(self) -> float | None:
        """For how long nothing may come until the answer counts as whole."""
        return self._completeness.silence_s

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""
        usage = _neutral(self._usage)
        return usage if usage.total_tokens else None

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return "".join(block.text for block in self._blocks if block.block.type == "text")

    def response(self) -> LLMResponse:
        """
        The whole answer.

        Raises:
            LLMError: the provider refused in the middle, or it ended for a reason that nobody knows.

        """
        opened = [block for block in self._blocks if block.block.type == "tool_use"]
        finish = finish_of(self._reason, calls=bool(opened), why=self._why)
        cut = finish == "length" and self._blocks[-1:] == opened[-1:]
        calls = tuple([block.call(cut=cut and block is opened[-1]) for block in opened])
        return LLMResponse(
            text=self.text,
            tool_calls=calls,
            thinking=tuple(self._thinking()),
            usage=self.usage or Usage(),
            model=self._model,
            finish_reason=finish,
        )

    def _thinking(self) -> Iterator[Thinking]:
        """The thinking, bound to who made it; and the whole turn, where it has more than can be told apart."""
        maker: dict[str, Any] = {"made_by": list(self._made_by)} if self._made_by else {}
        for opened in self._blocks:
            if opened.block.type == "redacted_thinking":
                yield Thinking("", PROVIDER, data={"data": opened.block.data, **maker})
            elif opened.block.type == "thinking":
                yield Thinking(opened.text, PROVIDER, opened.signature, maker or None)
        if maker and any(block.raw is not None for block in self._blocks):
            yield Thinking("", PROVIDER, data={"content": [block.verbatim() for block in self._blocks], **maker})

    def _open(self, index: int | None, block: _Block, raw: dict[str, Any] | None) -> list[LLMChunk]:
        """Begin a block; an index is where its pieces are said to go, and some servers give each the same."""
        if len(self._blocks) == MAX_BLOCKS:
            raise MalformedResponse(f"the answer has more than {MAX_BLOCKS} content blocks")
        block.type = block.kind
        opened = _OpenBlock(block, raw)
        self._blocks.append(opened)
        if index is not None:
            self._at[index] = opened
        self._completeness.see(words=True, reason=False)
        if block.thinking:
            return [LLMChunk("thinking", block.thinking)]
        return [LLMChunk("text", block.text or "" if block.type == "text" else "")]

    def _add(self, index: int | None, delta: _Delta) -> list[LLMChunk]:
        if not (delta.text or delta.thinking or delta.partial_json or delta.signature):
            return []
        block = self._block_for(index, delta)
        block.signature += delta.signature or ""
        if (piece := delta.partial_json) and not (delta.text or delta.thinking):
            self._completeness.see(words=True, reason=False)
            block.pieces.append(piece if isinstance(piece, str) else _json(piece))
            return [LLMChunk("text")]
        said = delta.text or delta.thinking
        if not said:
            return []
        self._completeness.see(words=True, reason=False)
        piece = self._shown.add(said)
        block.pieces.append(piece)
        return [LLMChunk("thinking" if delta.thinking else "text", piece)]

    def _block_for(self, index: int | None, delta: _Delta) -> _OpenBlock:
        """The block that a piece belongs to: the one at its index, or the newest of its kind."""
        at = None if index is None else self._at.get(index)
        if at is not None and at.takes(delta):
            return at
        if fitting := [block for block in self._blocks if block.takes(delta)]:
            return fitting[-1]
        if delta.text or delta.thinking:
            self._open(index, _Block(type="text" if delta.text else "thinking"), None)
            return self._blocks[-1]
        raise MalformedResponse(f"the stream adds to content block {index}, which has not started")

    def _stop(self, reason: str, details: _StopDetails | None) -> None:
        self._reason, self.complete = told(reason), True
        self._why = (details and details.explanation) or ""
        self._completeness.see(words=False, reason=True)

    def _count(self, usage: _Usage | None) -> None:
        """Take the newest count of each kind; the API counts up, and some servers send zeros at the end."""
        for name in usage.__struct_fields__ if usage else ():
            if value := getattr(usage, name):
                setattr(self._usage, name, value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _neutral(usage: _Usage) -> Usage:
    """The API counts what was read from its cache, and what was written to it, apart from the rest."""
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    given, made = (usage.input_tokens or 0) + cached + written, usage.output_tokens or 0
    return Usage(given, made, cached, given + made, written)
