"""What is asked of every model of a chain, and the check of what an adapter gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from shared_libs.atomic.errors import MalformedResponse, MisuseError
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.llms.tool_schema import restored
from shared_libs.atomic.types import FinishReason, LLMResponse, Message, Thinking, ToolCall, ToolSpec, Usage
from shared_libs.atomic.whole import whole_text

_FINISH_REASONS = frozenset(get_args(FinishReason))
_COSTS = frozenset({float, int, type(None)})
_FIELDS: tuple[tuple[str, type], ...] = (
    ("text", str),
    ("tool_calls", tuple),
    ("thinking", tuple),
    ("usage", Usage),
    ("model", str),
)
_CALL_FIELDS: tuple[tuple[str, type], ...] = (("id", str), ("name", str), ("arguments", dict))


InWords = Callable[[Sequence[Message], Sequence[ToolSpec]], list[Message]]
"""Tells a conversation, and the tools of it, to a model that takes none: the caller reads calls out of its text."""


class Request:
    """What is asked of every model of a chain."""

    __slots__ = ("in_words", "messages", "options", "output", "tools")

    def __init__(
        self,
        messages: list[Message],
        tools: tuple[ToolSpec, ...],
        options: Mapping[str, Any],
        output: OutputSchema | None,
        in_words: InWords | None = None,
    ) -> None:
        self.in_words = in_words
        self.messages = messages
        self.tools = tools
        self.options = dict(options)
        self.output = output


_ARGUMENTS = {
    "messages": "pass them to async_chat",
    "tools": "pass them to the agent or to async_chat",
    "model": "it is the wrapper's first argument",
    "stream": "async_stream streams, and so does on_chunk",
    "timeout": "pass it to the call",
    "on_chunk": "pass it to async_chat",
    "output_schema": "pass it to the agent or to the call",
}
"""What `options` must not hold, and where it belongs."""


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Take the fields that are sent with a request, if none of them is an argument of the call itself.

    Raises:
        MisuseError: one is.

    """
    if wrong := sorted(_ARGUMENTS.keys() & options.keys()):
        told = "; ".join(f"`{name}`: {_ARGUMENTS[name]}" for name in wrong)
        raise MisuseError(f"options hold the fields of the request that are not told otherwise; {told}")
    return dict(options)


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a request as data: of an output schema its name and the schema itself."""
    return {
        name: {"name": value.name, "schema": value.schema} if isinstance(value, OutputSchema) else value
        for name, value in options.items()
    }


def checked_response(response: LLMResponse, tools: tuple[ToolSpec, ...] = ()) -> LLMResponse:
    """
    Take an adapter's answer if every field is what it is declared to be: an adapter is foreign code.

    Args:
        response: the answer.
        tools: what was offered; its calls have the parameters' own names then.

    Raises:
        MalformedResponse: it is not; names the field.

    """
    if type(response) is not LLMResponse or response.thinking or not _is_plain(response):
        _check(response)
    if not response.text.isascii() and (text := whole_text(response.text)) != response.text:
        response = msgspec.structs.replace(response, text=text)
    if response.tool_calls and tools:
        calls = tuple([restored(call, tools) for call in response.tool_calls])
        return msgspec.structs.replace(response, tool_calls=calls)
    return response


def _check(response: LLMResponse) -> None:
    if type(response) is not LLMResponse:
        raise MalformedResponse(f"the adapter gave {_kind(response)} where an LLMResponse belongs")
    for name, kind in _FIELDS:
        value = getattr(response, name)
        if type(value) is not kind:
            raise MalformedResponse(f"the adapter gave {_kind(value)} as `{name}`; it is a {kind.__name__}")
    if response.finish_reason not in _FINISH_REASONS:
        raise MalformedResponse(
            f"the adapter gave {response.finish_reason!r:.50} as `finish_reason`; it is one of "
            f"{', '.join(sorted(_FINISH_REASONS))}"
        )
    for name in Usage.__struct_fields__:
        if type(count := getattr(response.usage, name)) is not int:
            raise MalformedResponse(f"the adapter gave {_kind(count)} as `usage.{name}`; it is an int")
    if type(response.cost_usd) not in _COSTS:
        raise MalformedResponse(f"the adapter gave {_kind(response.cost_usd)} as `cost_usd`; it is a float or None")
    for call in response.tool_calls:
        _check_call(call)
    for block in response.thinking:
        if type(block) is not Thinking or type(block.text) is not str:
            raise MalformedResponse(f"the adapter gave {_kind(block)} in `thinking`; it is a Thinking with a text")


def _is_plain(response: LLMResponse) -> bool:
    """Whether it is right as nearly all are; what is wrong, and where, is looked for only where it is not."""
    if not (
        type(response.text) is str
        and type(response.tool_calls) is tuple
        and type(response.thinking) is tuple
        and type(response.usage) is Usage
        and type(response.usage.total_tokens) is int
        and type(response.cost_usd) in _COSTS
        and type(response.model) is str
        and response.finish_reason in _FINISH_REASONS
    ):
        return False
    for call in response.tool_calls:
        if not (
            type(call) is ToolCall
            and type(call.id) is str
            and type(call.name) is str
            and type(call.arguments) is dict
            and call.malformed is None
        ):
            return False
    return True


def _check_call(call: ToolCall) -> None:
    if type(call) is not ToolCall:
        raise MalformedResponse(f"the adapter gave {_kind(call)} in `tool_calls`; it is a ToolCall")
    for name, kind in _CALL_FIELDS:
        value = getattr(call, name)
        if type(value) is not kind:
            raise MalformedResponse(
                f"the adapter gave {_kind(value)} as `{name}` of a tool call; it is a {kind.__name__}"
            )
    if call.malformed is not None and type(call.malformed) is not str:
        raise MalformedResponse(f"the adapter gave {_kind(call.malformed)} as `malformed` of a tool call; it is a text")


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value is not None else "nothing"
