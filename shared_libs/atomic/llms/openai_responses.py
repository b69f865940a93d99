"""
Answers of OpenAI's Responses API as data: a whole one, or the events of a stream, to ours.

The conversation is sent whole with every request, and the server is asked to keep nothing. What a model reasoned comes
back as items that only it can read; they travel as `Thinking` of the assistant's message and go back to the model that
made them, each in front of the text or the call it led to.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from shared_libs.atomic.errors import MalformedResponse, StreamInterrupted
from shared_libs.atomic.llms.faults import error_event, no_answer, refused, says_error
from shared_libs.atomic.llms.finish import cut_off, told
from shared_libs.atomic.llms.given import is_opaque
from shared_libs.atomic.llms.lenient import objects_in, parsed
from shared_libs.atomic.llms.payload import decode
from shared_libs.atomic.llms.pieces import CALL_TYPES, SaidCall, Text
from shared_libs.atomic.llms.responses_request import PROVIDER
from shared_libs.atomic.llms.said_usage import SaidUsage
from shared_libs.atomic.types import (
    FinishReason,
    LLMChunk,
    LLMResponse,
    Thinking,
    ToolCall,
    Usage,
)

MAX_ITEMS = 10_000
"""The most items of one answer; a server that sends more is at fault."""

ENCRYPTED_REASONING = "reasoning.encrypted_content"
"""What a request includes to get reasoning it can hand back to a server that keeps nothing."""

_READ = frozenset({"message", "reasoning", "function_call"})
"""The items that mean something here; others, of tools that the server runs itself, are handed back to it."""
_END = b"[DONE]"
_PARAGRAPH = "\n\n"
_TEXT = frozenset({"response.output_text.delta", "response.refusal.delta"})
_SAID = frozenset({"response.output_text.done", "response.refusal.done"})
"""What repeats a part of the text, or is all that comes of it."""
_THINKING = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ARGUMENTS = "response.function_call_arguments."
_NEXT_THOUGHT = "response.reasoning_summary_part.added"
_LAST = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}
"""The last events, and the status of a response that does not tell its own."""


class _Item(SaidCall):
    """An item of the output; what is `Any` has another shape in items of other kinds."""

    type: str = ""
    id: str | None = None
    status: str | None = None
    content: Any = None
    phase: str | None = None
    summary: Any = None
    encrypted_content: str | None = None
    call_id: str | int | None = None

    @property
    def text(self) -> str:
        """What a message says, a refusal included."""
        return _joined(self.content)

    @property
    def thought(self) -> str:
        """What can be read of a reasoning item."""
        return _joined(self.summary, _PARAGRAPH) or _joined(self.content)


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    model: str | None = None
    output_text: str | None = None
    status: str | None = None
    output: list[_Item] | None = None
    usage: SaidUsage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None


class _Event(msgspec.Struct):
    """An event of a stream."""

    type: str = ""
    output_index: int | None = None
    item_id: str | None = None
    summary_index: int = 0
    arguments: Any = None
    name: str | None = None
    text: str | None = None
    item: _Item | None = None
    delta: Any = None
    response: _Response | None = None
    error: Any = None


_response_decoder = msgspec.json.Decoder(_Response)
_event_decoder = msgspec.json.Decoder(_Event)


def _bounded(items: int) -> None:
    if items > MAX_ITEMS:
        raise MalformedResponse(f"the answer has more than {MAX_ITEMS} items")


class ResponsesAnswer:
    """
    An answer of the Responses API.

    The last event repeats the whole answer, and is what counts. An answer whose last event contradicts what was already
    passed on is malformed.

    Args:
        secrets: what must not stand in an error's text.
        made_by: to whom its reasoning may go back.

    """

    def __init__(self, secrets: Iterable[str], made_by: list[str]) -> None:
        self._secrets = secrets
        self._made_by = made_by
        self._shown = Text()
        self._thought = Text()
        self._text = ""
        self._in_pieces = False
        self._opened: dict[int, _Item] = {}
        self._done: dict[int, _Item] = {}
        self._newest = -1
        self._places: dict[str, int] = {}
        self._arguments: dict[int, list[str]] = {}
        self._items: list[_Item] = []
        self._last = _Response()
        self._verbatim: list[dict[str, Any]] = []
        self.started = False
        self.complete = False
        self.ended = False

    def take(self, payload: bytes) -> list[LLMChunk]:
        """Add an event of the stream and return what is new; an empty text is only a sign of life."""
        if payload.startswith(_END):
            return []
        event = decode(_event_decoder, payload)
        if event.type == "error" or says_error(event.error):
            raise error_event(payload, self._secrets)
        if not event.type and (failed := refused(payload, self._secrets)) is not None:
            raise failed
        if event.type in _LAST and event.response is not None:
            told = event.response.status or ""
            self._keep(event.response, payload, "response")
            return self._finish(event.response, told if told in _LAST.values() else _LAST[event.type])
        if event.item is not None:
            return self._take_item(event, event.item)
        if event.type == _NEXT_THOUGHT and event.summary_index:
            return [LLMChunk("thinking", _PARAGRAPH)]
        if event.type.startswith(_ARGUMENTS):
            return self._take_arguments(event)
        if event.type in _SAID and event.text and not self._in_pieces:
            self.started = True
            return [LLMChunk("text", self._shown.add(event.text))]
        if not isinstance(event.delta, str) or not event.delta:
            return []
        self.started = True
        if event.type in _THINKING:
            return [LLMChunk("thinking", self._thought.add(event.delta))]
        if event.type in _TEXT:
            self._in_pieces = True
            return [LLMChunk("text", self._shown.add(event.delta))]
        return [LLMChunk("text")]

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""
        response = decode(_response_decoder, body)
        if says_error(response.error):
            raise error_event(body, self._secrets)
        if response.output is None:
            raise no_answer(body, self._secrets, "output")
        self._keep(response, body)
        return self._finish(response, response.status or "completed")

    def _keep(self, response: _Response, payload: bytes, *path: str) -> None:
        """Keep the output as it stands, where it has what only its server knows, or an order that means something."""
        items = response.output or []
        phases = sum(item.phase is not None for item in items)
        if (
            phases > 1
            or any(item.type not in _READ | CALL_TYPES for item in items)
            or is_opaque(str(payload, "latin-1"))
        ):
            raw = parsed(payload)
            for step in path:
                raw = raw[step]
            self._verbatim = [item for item in objects_in(raw.get("output") or []) if item.get("type")]

    def _take_item(self, event: _Event, item: _Item) -> list[LLMChunk]:
        self.started = True
        item.type = "function_call" if item.type in CALL_TYPES else item.type
        index = self._index_of(event)
        if event.type == "response.output_item.done":
            self._done[index] = item
        else:
            self._opened[index] = item
        self._newest = max(self._newest, index)
        self._places.setdefault(item.id or "", index)
        _bounded(len(self._opened))
        return [LLMChunk("text")]

    def _take_arguments(self, event: _Event) -> list[LLMChunk]:
        """Take a piece of a call's arguments, or all of them."""
        self.started = True
        index = self._index_of(event)
        if event.type.endswith(".done") and event.arguments is not None:
            self._arguments[index] = [_arguments(event.arguments)]
        elif isinstance(event.delta, str):
            self._arguments.setdefault(index, []).append(event.delta)
        return [LLMChunk("text")]

    def _index_of(self, event: _Event) -> int:
        """Where an event belongs in the output: by its index, by its item, else to the newest."""
        if event.output_index is not None:
            return event.output_index
        id = event.item_id or (event.item and event.item.id)  # noqa: A001 - the field's own word
        if id and id in self._places:
            return self._places[id]
        new = event.item is not None and event.type == "response.output_item.added"
        return self._newest + new

    def _finish(self, response: _Response, status: str) -> list[LLMChunk]:
        """Take the whole answer, and return what of it was not passed on yet."""
        if says_error(response.error) or status == "failed":
            told = response.error or {"code": "server_error", "message": "the response failed without a reason"}
            raise error_event(msgspec.json.encode({"error": told}), self._secrets)
        if status == "cancelled":
            raise StreamInterrupted("the response was cancelled at the provider")
        if status not in {"completed", "incomplete"}:
            raise MalformedResponse(f"the answer is not finished: its status is {status}")
        _bounded(len(response.output or ()))
        self._items = [item for item in response.output or () if item.type] or self._streamed_items()
        for item in self._items:
            item.type = "function_call" if item.type in CALL_TYPES else item.type
        if not self._items and response.output_text:
            self._items = [_Item(type="message", content=response.output_text)]
        new = self._not_shown_yet()
        response.status = status
        self._last = response
        self.started = self.complete = self.ended = True
        return new

    def _streamed_items(self) -> list[_Item]:
        """The output of a server that does not repeat it in the last event."""
        items = self._opened | self._done
        for index, pieces in self._arguments.items():
            item = items.get(index)
            if item is not None and item.type == "function_call" and not item.said:
                item.arguments = "".join(pieces)
        said = "".join(item.text for item in items.values() if item.type == "message")
        if self._shown and not said:
            items = {index: item for index, item in items.items() if item.type != "message"}
            return [_Item(type="message", content=[{"text": str(self._shown)}]), *(items[i] for i in sorted(items))]
        return [items[index] for index in sorted(items)]

    def _not_shown_yet(self) -> list[LLMChunk]:
        shown = str(self._shown)
        text = "".join(item.text for item in self._items if item.type == "message")
        calls = sum(item.type == "function_call" for item in self._items)
        opened = sum(item.type == "function_call" for item in (self._opened | self._done).values())
        if text.strip() == shown.strip() and shown:
            text = shown  # some servers trim what they repeat
        if not text.startswith(shown) or opened > calls:
            raise MalformedResponse("the end of the stream contradicts what was streamed")
        self._text = text
        thoughts = [] if self._thought else [item.thought for item in self._items if item.type == "reasoning"]
        new = [LLMChunk("thinking", thought) for thought in thoughts if thought]
        return [*new, LLMChunk("text", text[len(shown) :])]

    silence_s: float | None = None
    """Only the last event ends an answer, and repeats it."""

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return self._text or str(self._shown)

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""
        return self._last.usage.neutral() if self._last.usage else None

    def response(self) -> LLMResponse:
        """
        The whole answer.

        Raises:
            ContentFiltered: the provider's filter stopped it.

        """
        last, cut_short = self._last, self._last.status == "incomplete"
        why = last.incomplete_details.reason if last.incomplete_details else None
        calls: list[ToolCall] = []
        thinking: list[Thinking] = []
        waiting: list[_Item] = []
        for item in self._items:
            before = None
            if item.type == "reasoning":
                waiting.append(item)
            elif item.type == "function_call":
                calls.append(_call(item, cut=cut_short and item is self._items[-1]))
                before = calls[-1].id
            elif item.type == "message" and item.text:
                before = ""
                if item.phase:
                    thinking.append(self._kept("", {"phase": item.phase}))
            if before is not None:
                thinking += [self._thinking(reasoning, before) for reasoning in waiting]
                waiting = []
        if self._verbatim:
            thinking.append(self._kept("", {"items": self._verbatim}))
        # reasoning that led to nothing can be read, but not handed back
        thinking += [Thinking(item.thought, PROVIDER) for item in waiting]
        finish: FinishReason = cut_off(told(why)) if cut_short else "tool_calls" if calls else "stop"
        return LLMResponse(
            text=self._text,
            tool_calls=tuple(calls),
            thinking=tuple(block for block in thinking if block.text or block.data),
            usage=self.usage or Usage(),
            model=last.model or "",
            finish_reason=finish,
        )

    def _thinking(self, item: _Item, before: str) -> Thinking:
        """A reasoning item as it can go back: encrypted, or in plain words from a server that does not encrypt."""
        data = {"id": item.id, "summary": item.summary or [], "before": before}
        if item.id and item.encrypted_content:
            return self._kept(item.thought, data | {"encrypted_content": item.encrypted_content})
        if item.id and item.content:
            return self._kept(item.thought, data | {"content": item.content})
        return Thinking(item.thought, PROVIDER)

    def _kept(self, text: str, data: dict[str, Any]) -> Thinking:
        return Thinking(text, PROVIDER, data={"made_by": self._made_by, **data})


def _call(item: _Item, *, cut: bool) -> ToolCall:
    if not item.tool:
        raise MalformedResponse("the answer has a tool call without a name")
    id = str(item.call_id or item.id or "") or f"call_{uuid.uuid4().hex[:24]}"  # noqa: A001 - the field's own word
    arguments = _arguments(item.said)
    if item.status == "incomplete" or (cut and not arguments.strip()):
        return ToolCall(id, item.tool, malformed=arguments)
    return ToolCall.from_json(id, item.tool, arguments)


def _arguments(value: Any) -> str:
    """Arguments as JSON text; some servers send an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _joined(parts: Any, between: str = "") -> str:
    """The texts of the parts of a message, or of reasoning."""
    parts = [parts] if isinstance(parts, str | dict) else parts if isinstance(parts, list) else []
    texts = [part.get("text") or part.get("refusal") if isinstance(part, dict) else part for part in parts]
    return between.join(text for text in texts if isinstance(text, str))
