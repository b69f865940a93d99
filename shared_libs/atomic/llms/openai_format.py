"""OpenAI's chat completions as data: its answers and stream chunks as ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec

from shared_libs.atomic.errors import LLMError, MalformedResponse
from shared_libs.atomic.llms.event_stream import Completeness
from shared_libs.atomic.llms.faults import error_event, no_answer, refused, says_error
from shared_libs.atomic.llms.finish import finish_of, told
from shared_libs.atomic.llms.given import beside, is_opaque, keep, merged, needs_keeping
from shared_libs.atomic.llms.lenient import fitted, objects_in, parsed, words_in
from shared_libs.atomic.llms.openai_request import MAX_ID_CHARS
from shared_libs.atomic.llms.payload import decode
from shared_libs.atomic.llms.pieces import CALL_FIELDS, CALL_TYPES, Calls, SaidCall, Text
from shared_libs.atomic.llms.said_usage import SaidUsage, newest
from shared_libs.atomic.types import (
    LLMChunk,
    LLMResponse,
    Thinking,
    ToolCall,
    Usage,
)

PROVIDER = "openai"
_END = b"[DONE]"

_THINKING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought", "thinking_content")
"""Where servers put the reasoning that can be read; what came in one goes back in it."""
_THINKING_INSIDE = ("reasoning_details", "thinking_blocks")
"""Where it may stand among what goes back, and nowhere else."""
_THINKING_PARTS = frozenset({"thinking", "reasoning", "reasoning_text"})
_NO_TEXT = _THINKING_PARTS | CALL_TYPES
_FUNCTION_FIELDS = CALL_FIELDS | {"description"}


class _ToolCall(SaidCall, gc=False):
    index: int | None = None
    id: str | int | None = None


class _GoesBack(msgspec.Struct, gc=False):
    """
    The fields of a message that only the server that made them can read, and wants to see again.

    A further one is one line here.
    """

    reasoning_details: Any = None  # OpenRouter
    reasoning_opaque: Any = None  # GitHub Copilot
    reasoning_signature: Any = None
    thinking_blocks: Any = None  # LiteLLM, of Anthropic's models
    provider_specific_fields: Any = None  # LiteLLM
    extra_content: Any = None  # Gemini
    thought_signature: Any = None


_GOES_BACK = _GoesBack.__struct_fields__


class _Message(_GoesBack, gc=False):
    """A message, or a piece of one."""

    content: Any = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None
    thinking: Any = None
    thought: Any = None
    thinking_content: Any = None
    tool_calls: list[_ToolCall] | None = None
    tool_call: list[_ToolCall] | None = None
    function_call: SaidCall | None = None

    @property
    def calls(self) -> list[_ToolCall]:
        return self.tool_calls or self.tool_call or [_as_call(part) for part in self._parts(CALL_TYPES)]

    @property
    def text(self) -> str:
        content = self.content
        if isinstance(content, list):
            content = [part for part in content if _kind(part) not in _NO_TEXT]
        return words_in(content) or self.refusal or ""

    @property
    def thought_parts(self) -> str:
        """The reasoning among the parts of the content."""
        return words_in(self._parts(_THINKING_PARTS))

    def _parts(self, kinds: frozenset[str]) -> list[dict[str, Any]]:
        return [part for part in self.content if _kind(part) in kinds] if isinstance(self.content, list) else []


def _kind(part: Any) -> Any:
    """The type that a part of a content tells."""
    return part.get("type") if isinstance(part, dict) else None


def _as_call(part: dict[str, Any]) -> _ToolCall:
    return cast("_ToolCall", fitted(part, _ToolCall))


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    finish_reason: Any = None
    usage: SaidUsage | None = None
    error: Any = None


class _Groq(msgspec.Struct):
    usage: SaidUsage | None = None
    error: Any = None


class _Status(msgspec.Struct):
    status_code: int = 0


class _Completion(msgspec.Struct, gc=False):
    """A whole answer, or one chunk of a streamed one; `error` is what a server says after its status was 200."""

    model: str | None = None
    choices: list[_Choice] | None = None
    usage: SaidUsage | None = None
    error: Any = None
    object: str | None = None
    x_groq: _Groq | None = None
    timings: SaidUsage | None = None  # llama.cpp
    base_resp: _Status | None = None  # MiniMax


_decoder = msgspec.json.Decoder(_Completion)
_odd = attrgetter("error", "x_groq", "base_resp")
_NOTHING_ODD = _odd(_Completion())
_KNOWN = frozenset(_Message.__struct_fields__)
_rare = attrgetter(*_THINKING, *_GOES_BACK, "refusal", "tool_call", "function_call")
_NOTHING_RARE = _rare(_Message())
_thinking = attrgetter(*_THINKING, *_THINKING_INSIDE)
_NO_THINKING = _thinking(_Message())
"""What an answer or a message seldom has, looked at in one step: nearly every event is but a piece of text."""


class OpenAIAnswer:
    """
    An answer of chat completions.

    Args:
        secrets: what must not stand in an error's text.
        made_by: who makes it, and so may see again what it gives; nobody, if that is not told.

    """

    def __init__(self, secrets: Iterable[str], made_by: Sequence[str] = ()) -> None:
        self._secrets = secrets
        self._made_by = made_by
        self._text = Text()
        self._thinking = Text()
        self._thinking_fields: dict[str, None] = {}
        self._fields: dict[str, Any] = {}
        self._calls = Calls()
        self._beside = Calls()
        self._index: int | None = None
        self._model = ""
        self._usage: Usage | None = None
        self._reason = ""
        self._completeness = Completeness()
        self.started = False
        self.complete = False
        self.ended = False

    def take(self, payload: bytes) -> list[LLMChunk]:
        """
        Add an event of the stream and return what is new.

        A piece of a tool call, and the end, give an empty text: nothing to pass on, but the model is alive.
        """
        if payload[:6] == _END:
            self.ended = True
            return []
        try:
            return self._add(self._read(payload), payload)
        except MalformedResponse:
            if self.complete:  # the model has said all, and what a server says then in words of its own loses nothing
                return []
            raise

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""
        completion = self._read(body)
        choice = completion.choices[0] if completion.choices else None
        if choice is None or (choice.message or choice.delta or choice.text) is None:
            raise no_answer(body, self._secrets, "choices")
        self.ended = True
        return self._add(completion, body)

    def _read(self, payload: bytes) -> _Completion:
        completion = decode(_decoder, payload)
        if completion.object != "error" and _odd(completion) == _NOTHING_ODD:
            return completion
        failed = completion.base_resp is not None and completion.base_resp.status_code
        if failed or completion.object == "error" or says_error(completion.error):
            raise error_event(payload, self._secrets)
        if completion.x_groq is not None and says_error(completion.x_groq.error):
            raise self._error(completion.x_groq.error)
        return completion

    def _error(self, said: Any) -> LLMError:
        return error_event(msgspec.json.encode({"error": said}), self._secrets)

    def _add(self, chunk: _Completion, payload: bytes) -> list[LLMChunk]:
        self._model = chunk.model or self._model
        if (usage := chunk.usage or chunk.timings) is not None:
            self._count(usage)
        if chunk.x_groq is not None and chunk.x_groq.usage is not None:
            self._count(chunk.x_groq.usage)
        new: list[LLMChunk] = []
        if chunk.choices is None and chunk.usage is None and (error := refused(payload, self._secrets)) is not None:
            raise error
        for choice in chunk.choices or ():
            if choice.index != self._index and self._is_another(choice, chunk.choices or ()):
                continue
            if choice.usage is not None:
                self._count(choice.usage)
            if choice.error is not None and says_error(choice.error):
                raise self._error(choice.error)
            delta = choice.delta or choice.message
            if choice.delta is None and delta is not None and self.started:
                self._leave_out_what_was_told(delta)
            self.started = True
            if delta is not None:
                self._take(delta, payload, new, whole=choice.delta is None)
            elif choice.text:
                new.append(LLMChunk("text", self._text.add(choice.text)))
            reason = told(choice.finish_reason) if choice.finish_reason else ""
            if reason:
                self.complete = True
                self._reason = self._reason if reason == "stop" and self._reason else reason  # it says less than any
            if new or reason:
                self._completeness.see(words=bool(new), reason=bool(reason))
                new = new or [LLMChunk("text")]
        return new

    def _is_another(self, choice: _Choice, among: Sequence[_Choice]) -> bool:
        """Whether it is a second answer; its calls are kept, for GitHub Copilot puts those of the first one there."""
        self._index = min([one.index or 0 for one in among]) if self._index is None else self._index
        if (choice.index or 0) == self._index:
            return False
        said = choice.delta or choice.message
        for piece in said.calls if said is not None else ():
            self._beside.add(piece.index, "" if piece.id is None else str(piece.id), piece.tool, piece.said)
        return True

    def _leave_out_what_was_told(self, message: _Message) -> None:
        """A whole message behind pieces says all of it again (MiniMax); what is new in it is kept."""
        text = message.text
        if self._text and len(text) >= self._text.size and text.startswith(said := self.text):
            message.content = text.removeprefix(said)
        if self._thinking:
            for name in _THINKING:
                setattr(message, name, None)
        if len(message.calls) > len(self._calls):
            self._calls = Calls()
        elif self._calls:
            message.tool_calls = message.tool_call = message.function_call = None

    def _take(self, delta: _Message, payload: bytes, new: list[LLMChunk], *, whole: bool) -> None:
        """Take what a message, or a piece of one, says."""
        content = delta.content
        if _rare(delta) == _NOTHING_RARE and (content is None or isinstance(content, str)):
            if content:
                new.append(LLMChunk("text", self._text.add(content)))
            if whole or not content:
                self._keep_opaque(payload)
            if delta.tool_calls:
                self._take_calls(delta.tool_calls, payload, whole=whole)
                new.append(LLMChunk("text"))
        else:
            self._take_rare(delta, payload, new, whole=whole)

    def _take_rare(self, delta: _Message, payload: bytes, new: list[LLMChunk], *, whole: bool) -> None:
        thinks = isinstance(delta.content, list) or _thinking(delta) != _NO_THINKING
        if thinks and (thought := self._thought(delta)):
            new.append(LLMChunk("thinking", self._thinking.add(thought)))
        if text := delta.text:
            new.append(LLMChunk("text", self._text.add(text)))
        for name in _GOES_BACK:
            if (value := getattr(delta, name)) is not None:
                self._fields[name] = merged(self._fields.get(name), value)
                new.append(LLMChunk("text"))
        self._keep_opaque(payload)
        if calls := delta.calls:
            self._take_calls(calls, payload, whole=whole)
            new.append(LLMChunk("text"))
        elif (function := delta.function_call) is not None:
            self._calls.add(0, "", function.tool, function.said)
            new.append(LLMChunk("text"))

    def _thought(self, delta: _Message) -> str:
        """The reasoning of a message, or of a piece of one; a server that has it under two names says it once."""
        told = {name: thinking for name in _THINKING if (thinking := words_in(getattr(delta, name)))}
        self._thinking_fields.update(dict.fromkeys(told))
        inside = (words_in(getattr(delta, name)) for name in _THINKING_INSIDE)
        return next(iter(told.values()), "") or delta.thought_parts or next(filter(None, inside), "")

    def _take_calls(self, pieces: list[_ToolCall], payload: bytes, *, whole: bool) -> None:
        raw: list[Any] | None = None
        for position, piece in enumerate(pieces):
            name, id = piece.tool, "" if piece.id is None else str(piece.id)  # noqa: A001 - its word
            call = self._calls.add(piece.index, id, name, piece.said, position=position, whole=whole)
            if name or id or piece.said is None:  # Gemini gives a call's signature in a piece of its own
                raw = _raw_calls(payload, self._index) if raw is None else raw
                if position < len(raw):
                    call.given |= beside(raw[position], CALL_FIELDS)
                    if more := beside(raw[position].get("function"), _FUNCTION_FIELDS):
                        call.given["function"] = more

    def _keep_opaque(self, payload: bytes) -> None:
        """Keep the fields that nobody knows, and whose names say that they are to go back."""
        if _is_opaque(str(payload, "latin-1")):
            for name, value in beside(_raw_message(payload, self._index), _KNOWN).items():
                if _is_opaque(name):
                    self._fields[name] = merged(self._fields.get(name), value)

    def _count(self, usage: SaidUsage) -> None:
        counted = usage.neutral()
        self._usage = counted if self._usage is None else newest(self._usage, counted)

    @property
    def silence_s(self) -> float | None:
        """For how long nothing may come until the answer counts as whole."""
        return self._completeness.silence_s

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""
        return self._usage

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return str(self._text)

    def response(self) -> LLMResponse:
        """
        The whole answer.

        Raises:
            LLMError: the provider broke it off, or it ended for a reason that nobody knows.

        """
        finish = finish_of(self._reason, calls=bool(self._calls))
        calls = self._calls.closed(cut=finish == "length", said=bool(self._text))
        if finish == "tool_calls" and not calls:
            calls = self._beside.closed()
        if finish == "tool_calls" and not calls:
            if not self._text:
                raise MalformedResponse("the answer says that it calls tools, and has no call")
            finish = "stop"
        return LLMResponse(
            text=self.text,
            tool_calls=calls,
            thinking=self._kept(calls),
            usage=self.usage or Usage(),
            model=self._model,
            finish_reason=finish,
        )

    def _kept(self, calls: Sequence[ToolCall]) -> tuple[Thinking, ...]:
        """The reasoning, and what else is to go back to who gave it."""
        if not (calls or self._thinking or self._fields):
            return ()
        text, given = str(self._thinking), self._calls.given
        back = self._fields or any(given) or needs_keeping((call.id for call in calls), MAX_ID_CHARS)
        if not self._made_by or not (text or back):
            return (Thinking(text, PROVIDER),) if text else ()
        return (
            keep(text, PROVIDER, self._made_by, text_fields=self._thinking_fields, fields=self._fields, calls=given),
        )


def _is_opaque(told: str) -> bool:
    return is_opaque(told) or "encrypted" in told


def _raw_calls(payload: bytes, index: int | None) -> list[Any]:
    """The calls of an event as they stand, with the fields that only their server knows."""
    found = _raw_message(payload, index).get("tool_calls")
    return [] if found is None else objects_in(found)


def _raw_message(payload: bytes, index: int | None) -> dict[str, Any]:
    """The message of an event, or the piece of one, as it stands in the choice of that index."""
    try:
        for choice in parsed(payload)["choices"]:
            if (choice.get("index") or 0) == index:
                found = choice.get("delta") or choice.get("message")
                return found if isinstance(found, dict) else {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return {}
