"""Ollama's own chat API as data: our messages to its requests, its answers and stream lines to ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.errors import BadRequest
from shared_libs.atomic.json_schema import portable
from shared_libs.atomic.llms.faults import error_event, no_answer, refused, says_error
from shared_libs.atomic.llms.finish import finish_of, told
from shared_libs.atomic.llms.lenient import words_in
from shared_libs.atomic.llms.payload import decode, inline_image, portable_name
from shared_libs.atomic.llms.pieces import Calls, SaidCall, Text
from shared_libs.atomic.llms.said_usage import counted
from shared_libs.atomic.types import (
    ImagePart,
    LLMChunk,
    LLMResponse,
    Message,
    Thinking,
    ToolCall,
    ToolSpec,
    Usage,
)

PROVIDER = "ollama"


class _ToolCall(SaidCall):
    id: str | int | None = None


class _Message(msgspec.Struct):
    content: Any = None
    thinking: Any = None
    reasoning: Any = None
    tool_calls: list[_ToolCall] | None = None


class _Reply(msgspec.Struct):
    """A whole answer, or one line of a streamed one; the last line is `done`."""

    model: str | None = None
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Reply)


def request_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """
    The conversation as the API takes it.

    Raises:
        BadRequest: an image is not in the conversation itself; the server fetches none.

    """
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_request_message(message, names) for message in messages]


def _request_message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        said["tool_name"] = portable_name(message.name or names.get(call_id, ""))
        said["tool_call_id"] = call_id
    if message.tool_calls:
        said["tool_calls"] = [_request_call(call) for call in message.tool_calls]
    thinking = "".join(block.text for block in message.thinking if block.provider == PROVIDER)
    if thinking:
        said["thinking"] = thinking
    if not isinstance(message.content, str):
        images = [_image(part) for part in message.content if isinstance(part, ImagePart)]
        if images:
            said["images"] = images
    return said


def _request_call(call: ToolCall) -> dict[str, Any]:
    given = call.arguments if call.malformed is None else {"not_json": call.malformed}
    return {"id": call.id, "function": {"name": portable_name(call.name), "arguments": given}}


def _image(part: ImagePart) -> str:
    inline = inline_image(part.url)
    if inline is None:
        raise BadRequest("Ollama fetches no images: pass them as data: URLs in base64")
    return inline[1]


def request_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the API takes it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": portable(tool.parameters),
        },
    }


class OllamaAnswer:
    """An answer of the chat API; `secrets` must not stand in an error's text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = secrets
        self._text = Text()
        self._thinking = Text()
        self._calls = Calls()
        self._last = _Reply()
        self.started = False
        self.complete = False
        self.ended = False

    silence_s: float | None = None
    """Only its last line ends an answer."""

    def take(self, payload: bytes) -> list[LLMChunk]:
        """Add a line of the stream and return what is new; an empty text is only a sign of life."""
        reply = decode(_decoder, payload)
        if says_error(reply.error):
            raise error_event(payload, self._secrets)
        if reply.done:
            self._last, self.ended = reply, True
        message = reply.message
        if message is None:
            if not reply.done and (failed := refused(payload, self._secrets)) is not None:
                raise failed
            return []
        self.started = True
        new = []
        if thinking := words_in(message.thinking) or words_in(message.reasoning):
            new.append(LLMChunk("thinking", self._thinking.add(thinking)))
        if text := words_in(message.content):
            new.append(LLMChunk("text", self._text.add(text)))
        for call in message.tool_calls or ():
            id = "" if call.id is None else str(call.id)  # noqa: A001 - the field's own word
            self._calls.add(id=id, name=call.tool, arguments=call.said, whole=True)
            new.append(LLMChunk("text"))
        return new

    def take_whole(self, body: bytes) -> list[LLMChunk]:
        """Take an answer that came in one piece."""
        new = self.take(body)
        if not self.started or not self.ended:
            raise no_answer(body, self._secrets, "message, or is not done")
        return new

    @property
    def usage(self) -> Usage | None:
        """The tokens the server has told so far, if any."""
        usage = counted(self._last.prompt_eval_count, self._last.eval_count)
        return usage if usage.total_tokens else None

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return str(self._text)

    def response(self) -> LLMResponse:
        """
        The whole answer.

        Raises:
            LLMError: it ended for a reason that is none of an answer's.

        """
        last, thinking = self._last, str(self._thinking)
        finish = finish_of(told(last.done_reason), calls=bool(self._calls))
        return LLMResponse(
            text=self.text,
            tool_calls=self._calls.closed(),
            thinking=(Thinking(thinking, PROVIDER),) if thinking else (),
            usage=self.usage or Usage(),
            model=last.model or "",
            finish_reason=finish,
        )
