"""OpenAI's chat completions as data: our messages to its requests, its answers and stream chunks to ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from shared_libs.atomic.errors import (
    ContentFiltered,
    LLMError,
    MalformedResponse,
    ProviderUnavailable,
    StreamInterrupted,
)
from shared_libs.atomic.llms.faults import error_event, no_answer
from shared_libs.atomic.llms.payload import decode, portable_id, portable_parameters
from shared_libs.atomic.types import (
    FinishReason,
    ImagePart,
    LLMChunk,
    LLMResponse,
    Message,
    Thinking,
    ToolCall,
    ToolSpec,
    Usage,
)

MAX_ID_CHARS = 40
"""The API refuses a longer id of a tool call."""

_END = b"[DONE]"

_FINISH: dict[str | None, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_BROKEN_OFF: dict[str | None, type[LLMError]] = {
    "content_filter": ContentFiltered,
    "error": ProviderUnavailable,
    "insufficient_system_resource": ProviderUnavailable,
    "abort": StreamInterrupted,
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    """A message, or a piece of one."""

    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None

    @property
    def text(self) -> str:
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text or "" for part in content if part.type == "text")
        return content or self.refusal or ""

    @property
    def thinking(self) -> str:
        return self.reasoning_content or self.reasoning or ""


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    error: Any = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None

    def neutral(self) -> Usage:
        given, made = self.prompt_tokens or 0, self.completion_tokens or 0
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        return Usage(given, made, cached or 0, self.total_tokens or given + made)


class _Completion(msgspec.Struct):
    """A whole answer, or one chunk of a streamed one; `error` is what a server says after its status was 200."""

    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None


_decoder = msgspec.json.Decoder(_Completion)


def request_message(message: Message) -> dict[str, Any]:
    """A message as the API takes it; reasoning is left out, it has no place for it."""
    if message.role == "tool":
        call_id = portable_id(message.tool_call_id or "", MAX_ID_CHARS)
        return {"role": "tool", "tool_call_id": call_id, "content": message.text}
    if message.role == "assistant":
        said: dict[str, Any] = {"role": "assistant", "content": message.text or None}
        if message.tool_calls:
            said["tool_calls"] = [_request_call(call) for call in message.tool_calls]
        elif not message.text:
            said["content"] = ""
        return said
    content: Any = message.content
    if not isinstance(content, str):
        content = [
            {"type": "image_url", "image_url": {"url": part.url}}
            if isinstance(part, ImagePart)
            else {"type": "text", "text": part.text}
            for part in content
        ]
    told = {"role": message.role, "content": content}
    if message.name:
        told["name"] = message.name
    return told


def _request_call(call: ToolCall) -> dict[str, Any]:
    # servers parse the arguments of past calls; what never was JSON is handed back as a JSON object that quotes it
    arguments = call.arguments if call.malformed is None else {"not_json": call.malformed}
    return {
        "id": portable_id(call.id, MAX_ID_CHARS),
        "type": "function",
        "function": {"name": call.name, "arguments": msgspec.json.encode(arguments).decode()},
    }


def request_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the API takes it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": portable_parameters(tool.parameters),
        },
    }


class _OpenCall:
    """A tool call whose arguments are still coming."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    def closed(self) -> ToolCall:
        if not self.name:
            raise MalformedResponse("the answer has a tool call without a name")
        return ToolCall.from_json(self.id or f"call_{uuid.uuid4().hex[:24]}", self.name, "".join(self.arguments))


class OpenAIAnswer:
    """An answer of chat completions; `secrets` must not stand in an error's text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = secrets
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, _OpenCall] = {}
        self._model = ""
        self._usage: _Usage | None = None
        self._finish_reason: str | None = None
        self.started = False
        self.complete = False
        self.ended = False

    def take(self, payload: bytes) -> list[LLMChunk]:
        """
        Add an event of the stream and return what is new.

        A piece of a tool call, and the end, give an empty text: nothing to pass on, but the model is alive.
        """
        if payload == _END:
            self.ended = True
            return []
        return self._add(self._read(payload))

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""
        completion = self._read(body)
        if not completion.choices or completion.choices[0].message is None:
            raise no_answer(body, self._secrets, "choices")
        self.ended = True
        return self._add(completion)

    def _read(self, payload: bytes) -> _Completion:
        completion = decode(_decoder, payload)
        inside = completion.choices and any(choice.error for choice in completion.choices)
        if completion.error or inside or completion.object == "error":
            raise error_event(payload, self._secrets)
        return completion

    def _add(self, chunk: _Completion) -> list[LLMChunk]:
        self._model = chunk.model or self._model
        self._usage = chunk.usage or self._usage
        new: list[LLMChunk] = []
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue
            self.started = True
            if choice.finish_reason:
                self._finish_reason, self.complete = choice.finish_reason, True
                new.append(LLMChunk("text"))
            delta = choice.delta or choice.message
            if delta is None:
                continue
            if thinking := delta.thinking:
                self._thinking.append(thinking)
                new.append(LLMChunk("thinking", thinking))
            if text := delta.text:
                self._text.append(text)
                new.append(LLMChunk("text", text))
            for position, piece in enumerate(delta.tool_calls or ()):
                self._take_call(piece, position)
                new.append(LLMChunk("text"))
        return new

    @property
    def usage(self) -> Usage | None:
        """The tokens the provider has told so far, if any."""
        return self._usage.neutral() if self._usage else None

    def response(self) -> LLMResponse:
        """
        The whole answer.

        Raises:
            LLMError: the provider broke it off.

        """
        reason = self._finish_reason
        if reason in _BROKEN_OFF:
            raise _BROKEN_OFF[reason](f"the provider broke the answer off ({reason})")
        calls = tuple(self._calls[index].closed() for index in sorted(self._calls))
        finish = _FINISH.get(reason, "stop")
        thinking = "".join(self._thinking)
        return LLMResponse(
            text="".join(self._text),
            tool_calls=calls,
            thinking=(Thinking(thinking, "openai"),) if thinking else (),
            usage=self.usage or Usage(),
            model=self._model,
            finish_reason="tool_calls" if calls and finish == "stop" else finish,
        )

    def _take_call(self, piece: _ToolCall, position: int) -> None:
        """
        Add a piece to the call it belongs to: by index, as OpenAI has it.

        Some servers leave the index out, or give each of several calls the same: then a new id with a new name is a
        new call.
        """
        function, last = piece.function, max(self._calls, default=-1)
        index = piece.index
        if index is None:
            index = last + 1 if function.name and piece.id else max(last, position)
        call = self._calls.get(index)
        if call is not None and function.name and piece.id and call.id not in {"", piece.id}:
            index, call = last + 1, None
        if call is None:
            call = self._calls[index] = _OpenCall()
        call.id = call.id or piece.id or ""
        call.name = call.name or function.name or ""
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if arguments:
            call.arguments.append(arguments)
