"""Answers of Anthropic's messages API as data: a whole one, or the events of a stream, to ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import MalformedResponse
from shared_libs.atomic.llms.anthropic_request import PROVIDER
from shared_libs.atomic.llms.event_stream import Completeness
from shared_libs.atomic.llms.faults import error_event, no_answer, refused, says_error
from shared_libs.atomic.llms.finish import finish_of, told
from shared_libs.atomic.llms.given import beside
from shared_libs.atomic.llms.lenient import objects_in, parsed
from shared_libs.atomic.llms.payload import decode
from shared_libs.atomic.llms.pieces import CALL_FIELDS, CALL_TYPES, SaidCall, Text
from shared_libs.atomic.llms.said_usage import CacheCreation, counted
from shared_libs.atomic.nearly_json import object_in
from shared_libs.atomic.types import LLMChunk, LLMResponse, Thinking, ToolCall, Usage

MAX_BLOCKS = 10_000
"""The most content blocks of one answer; a server that sends more is at fault."""

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
    prompt_tokens: int | None = None  # imitators, as the next
    completion_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None


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
        if not event.type and (failed := refused(payload, self._secrets)) is not None:
            raise failed
        if event.type == "content_block_delta" and event.delta is not None:
            return self._add(event.index, event.delta)
        if event.type == "error" or says_error(event.error):
            raise error_event(payload, self._secrets)
        if event.type == "content_block_start" and event.content_block is not None:
            self.started = True
            return self._open(event.index, event.content_block, _raw(event.content_block, payload, "content_block"))
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
            raise no_answer(body, self._secrets, "content")
        self._model = reply.model or ""
        self._count(reply.usage)
        blocks = [_Block(type="text", text=reply.content)] if isinstance(reply.content, str) else reply.content
        plain = all(block.kind in _READ - {"tool_use"} for block in blocks)
        raw = [None] * len(blocks) if plain else objects_in(parsed(body)["content"])
        told = [(block, _of_its_own(block, one)) for block, one in zip(blocks, raw, strict=True)]
        new = [chunk for block, one in told for chunk in self._open(None, block, one)]
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
        if block.type == "redacted_thinking":
            return [LLMChunk("thinking", sealed=Thinking("", PROVIDER, data={"data": block.data}))]
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
        if not said:  # its signature comes behind the last piece of a thought
            return [LLMChunk("thinking", sealed=Thinking("", PROVIDER, block.signature))]
        self._completeness.see(words=True, reason=False)
        piece = self._shown.add(said)
        block.pieces.append(piece)
        return [LLMChunk("thinking" if delta.thinking else "text", piece)]

    def _block_for(self, index: int | None, delta: _Delta) -> _OpenBlock:
        """The block that a piece belongs to: the one at its index, or the newest of its kind."""
        at = None if index is None else self._at.get(index)
        if at is not None and at.takes(delta):
            return at
        newest = next((block for block in reversed(self._blocks) if block.takes(delta)), None)
        if newest is not None:
            return newest
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


def _raw(block: _Block, payload: bytes, name: str) -> dict[str, Any] | None:
    """A block as it stands, where it has what only its server knows."""
    return _of_its_own(block, parsed(payload)[name]) if block.kind not in _READ - {"tool_use"} else None


def _of_its_own(block: _Block, raw: dict[str, Any] | None) -> dict[str, Any] | None:
    if block.kind == "tool_use":
        return raw if beside(raw, CALL_FIELDS) else None
    return None if block.kind in _READ else raw


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _neutral(usage: _Usage) -> Usage:
    """The API counts what was read from its cache, and what was written to it, apart from the rest."""
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    given, made = usage.input_tokens or usage.prompt_tokens, usage.output_tokens or usage.completion_tokens
    hour = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    return counted(given, made, cached, written, apart=bool(usage.input_tokens or not usage.prompt_tokens), hour=hour)
