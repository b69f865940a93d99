"""
What a cassette holds: for each request to a model what was asked, and what came of it.

A request is kept in a normal form, so that two of them can be compared: plain data, the ids of tool calls numbered in
the order in which they appear, images by their digest, secrets hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.addresses import without_addresses
from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms.request import plain_options
from shared_libs.atomic.types import ImagePart, LLMResponse, Message, TextPart, Thinking, ToolCall, ToolSpec, Usage
from shared_libs.testing.cassettes.secrets import Secrets


class Plain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Data as it stands in the file; what is as usual is left out."""


class Call(Plain, frozen=True):
    """A tool call of the model; `malformed` is what it gave instead of a JSON object."""

    id: str
    tool: str
    input: dict[str, Any] = {}
    malformed: str | None = None


class Line(Plain, frozen=True):
    """A message of a conversation; `call` is the call whose result it is."""

    role: str
    name: str | None = None
    call: str | None = None
    error: bool = False
    thinking: tuple[Thinking, ...] = ()
    content: str | list[dict[str, Any]] = ""
    calls: tuple[Call, ...] = ()


class Tool(Plain, frozen=True):
    """What the model is told of a tool."""

    description: str
    parameters: dict[str, Any]


class Asked(Plain, frozen=True):
    """A request; `texts` are what embeddings are wanted of."""

    model: str
    tools: dict[str, Tool] = {}
    options: dict[str, Any] = {}
    messages: tuple[Line, ...] = ()
    texts: tuple[str, ...] = ()


class Failure(Plain, frozen=True):
    """
    A failed attempt, as the facts that its error states; `kind` is that of the error's class.

    `schema_refused` says that it showed the model to have no mode for structured output, and it is told in words since;
    `tools_refused` that it takes no tools, as well. `learnt` is that the adapter asked otherwise at once. `goes_on` is
    whether another model is asked, where that is not as the kind has it.
    """

    kind: str
    message: str
    status_code: int | None = None
    retryable: bool = False
    retry_after_s: float | None = None
    replay_safe: bool = True
    usage: Usage | None = None
    schema_refused: bool = False
    tools_refused: bool = False
    learnt: bool = False
    goes_on: bool | None = None


class Streamed(Plain, frozen=True):
    """What came of an answer piece by piece, where that is not the answer itself."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()


class Came(Plain, frozen=True):
    """
    What came of a request.

    `after_s` are the seconds from the request to its end. `given_up` says that nobody waited for the end. `pieces` are
    those of a stream, in order: the kind, how many characters of the text, and the second it came in.
    """

    after_s: float = 0.0
    given_up: bool = False
    failure: Failure | None = None
    thinking: tuple[Thinking, ...] = ()
    text: str = ""
    calls: tuple[Call, ...] = ()
    finish_reason: str = "stop"
    reported_model: str = ""
    usage: Usage | None = None
    streamed: Streamed | None = None
    pieces: str | None = None
    vectors: list[str] = []

    def line(self) -> Line:
        """The answer as it stands in the conversation from then on."""
        return Line(role="assistant", content=self.text, calls=self.calls, thinking=self.thinking)


class Entry(msgspec.Struct, frozen=True):
    """A request and what came of it."""

    asked: Asked
    came: Came


class Cassette(msgspec.Struct, frozen=True):
    """All requests of a run, and what came of them."""

    entries: tuple[Entry, ...]


class Numbers:
    """The ids of tool calls, numbered in the order in which they appear."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def __call__(self, id: str) -> str:
        """The number of an id."""
        return self._given.setdefault(id, f"call_{len(self._given) + 1}")


def asked(
    model: str,
    messages: Sequence[Message],
    tools: Iterable[ToolSpec],
    options: Mapping[str, Any],
    secrets: Secrets,
) -> tuple[Asked, Numbers]:
    """Bring a request to its normal form; the answer's calls are numbered on from there."""
    numbers = Numbers()
    lines = tuple(_line(message, numbers, secrets) for message in messages)
    told = {
        tool.name: Tool(
            description=secrets.hidden_text(tool.description), parameters=secrets.hidden_schema(tool.parameters)
        )
        for tool in tools
    }
    return Asked(model=model, tools=told, options=_options(options, secrets), messages=lines), numbers


def asked_of_texts(
    model: str, texts: Iterable[str], options: Mapping[str, Any], secrets: Secrets
) -> tuple[Asked, Numbers]:
    """Bring a request for embeddings to its normal form."""
    hidden = tuple(secrets.hidden_text(text) for text in texts)
    return Asked(model=model, options=_options(options, secrets), texts=hidden), Numbers()


def answered(response: LLMResponse, numbers: Callable[[str], str], secrets: Secrets, after_s: float) -> Came:
    """Bring an answer to its normal form."""
    return Came(
        after_s=after_s,
        thinking=_thinking(response.thinking, secrets),
        text=secrets.hidden_text(response.text),
        calls=calls_of(response.tool_calls, numbers, secrets),
        finish_reason=response.finish_reason,
        reported_model=response.model,
        usage=None if response.usage == Usage() else response.usage,
    )


def failed(error: Exception, secrets: Secrets, base_url: str = "") -> Failure:
    """State an error's facts but not where; what is none of ours is an adapter's bug, told as the onion tells it."""
    if not isinstance(error, LLMError):
        text = f"the adapter failed: {type(error).__name__}: {error}"
        return Failure(kind=LLMError.kind, message=secrets.hidden_text(without_addresses(text, base_url)))
    return Failure(
        kind=error.kind,
        message=secrets.hidden_text(without_addresses(str(error), base_url)),
        status_code=error.status_code,
        retryable=error.retryable,
        retry_after_s=None if error.retry_after_s is None else float(error.retry_after_s),
        replay_safe=error.replay_safe,
        usage=error.usage,
        tools_refused=error.of_tools,
        learnt=error.learnt,
        goes_on=None if error.another_may_answer == type(error).another_may_answer else error.another_may_answer,
    )


def failure_of(
    kind: str,
    message: str,
    *,
    status_code: int | None,
    again: bool,
    retry_after_s: float | None,
    goes_on: bool,
    usage: Usage | None,
) -> Failure:
    """State a failure by what was seen of it: whether the model was asked `again`, or another one instead."""
    error = error_kind(kind)
    return Failure(
        kind=kind,
        message=message,
        status_code=status_code,
        retryable=again or error.default_retryable,
        retry_after_s=retry_after_s,
        usage=usage,
        goes_on=True if goes_on and not error.another_may_answer else None,
    )


def error_kind(kind: str) -> type[LLMError]:
    """Return the class of errors of a kind; of a kind of an adapter's own the base of all."""
    kinds: list[type[LLMError]] = [LLMError]
    for one in kinds:  # grows while it is walked
        kinds += [inner for inner in one.__subclasses__() if inner.__module__ == LLMError.__module__]
    return next((one for one in kinds if one.kind == kind), LLMError)


def calls_of(calls: Iterable[ToolCall], numbers: Callable[[str], str], secrets: Secrets) -> tuple[Call, ...]:
    """Bring tool calls to their normal form."""
    return tuple(
        Call(
            id=numbers(call.id),
            tool=call.name,
            input=secrets.hidden_data(msgspec.to_builtins(call.arguments)),
            malformed=None if call.malformed is None else secrets.hidden_text(call.malformed),
        )
        for call in calls
    )


def _line(message: Message, numbers: Numbers, secrets: Secrets) -> Line:
    content = message.content
    return Line(
        role=message.role,
        name=message.name,
        call=None if message.tool_call_id is None else numbers(message.tool_call_id),
        error=message.is_error,
        thinking=_thinking(message.thinking, secrets),
        content=secrets.hidden_text(content)
        if isinstance(content, str)
        else [_part(part, secrets) for part in content],
        calls=calls_of(message.tool_calls, numbers, secrets),
    )


def _part(part: TextPart | ImagePart, secrets: Secrets) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": secrets.hidden_text(part.text)}
    return {"image": secrets.hidden_text(part.place)}


def _thinking(blocks: Iterable[Thinking], secrets: Secrets) -> tuple[Thinking, ...]:
    return tuple(
        # a signature means something only whole, and is no secret of ours
        Thinking(secrets.hidden_text(block.text), block.provider, block.signature, msgspec.to_builtins(block.data))
        for block in blocks
    )


def _options(options: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    given = msgspec.to_builtins(dict(sorted(plain_options(options).items())), enc_hook=repr, str_keys=True)
    hidden: dict[str, Any] = secrets.hidden_data(given)
    return hidden
