"""
How turns are written for a model and read from it: native tool calling, or ReAct as text.

The conversation itself is kept in one neutral form; a protocol only renders it and reads the answers, so a session may
move between models of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from shared_libs.agents import prompts
from shared_libs.agents.call_words import tool_named
from shared_libs.agents.react_text import begins_with_label, final_answer_start, read_react
from shared_libs.agents.reasoning import part
from shared_libs.agents.speech import BEFORE, NO_ANSWER, UNDECIDED
from shared_libs.agents.written_calls import (
    broken_call,
    calls_behind,
    may_be_calls,
    named_right,
    written_calls,
)
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.request import InWords
from shared_libs.atomic.types import LLMResponse, Message, ToolCall, ToolSpec

ProtocolName = Literal["auto", "native", "text"]


_LABELS = ("thought:", "action:", "final answer:")
"""How a turn begins of a model that was told of its tools in words."""


class Turn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the model did: it called tools, or it answered, or neither (`problem` tells it so; "": it only paused)."""

    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    problem: str | None = None


class TurnProtocol(Protocol):
    """One way of writing and reading turns."""

    name: str
    in_words: InWords | None
    """How a model of the chain is told that takes no tools, where it may be told otherwise than the others."""

    def write(
        self, instructions: str, conversation: Sequence[Message], tools: Sequence[ToolSpec], last_word: str | None
    ) -> tuple[list[Message], Sequence[ToolSpec]]:
        """Return what to send: the messages, and the tool definitions."""

    def read(self, response: LLMResponse, tools: Sequence[ToolSpec]) -> Turn:
        """Read the model's turn."""

    def answer_start(self, text: str, new: str | None = None) -> int | None:
        """Where in the text streamed so far the answer begins, or None; all but its end `new` is known to be before."""


class NativeProtocol:
    """The model takes tool definitions and returns tool calls; one of the chain that takes none is told in words."""

    name = "native"

    def __init__(self, in_words: InWords | None = None) -> None:
        self.in_words = in_words

    def write(
        self, instructions: str, conversation: Sequence[Message], tools: Sequence[ToolSpec], last_word: str | None
    ) -> tuple[list[Message], Sequence[ToolSpec]]:
        """Send the conversation as it is."""
        system = f"{instructions}\n\n{prompts.NATIVE}" if tools else instructions
        messages = [Message("system", system), *conversation]
        if last_word is None:
            return messages, tools
        return [*messages, Message("user", last_word)], ()

    def read(self, response: LLMResponse, tools: Sequence[ToolSpec]) -> Turn:
        """Text beside tool calls is the thought, text alone the answer; unless it is nothing but calls written out."""
        if response.in_words:
            return TextProtocol().read(response, tools)
        thinking, said = part(response.text)
        if response.tool_calls:
            return Turn(thought=said, calls=named_right(response.tool_calls, tools))
        if response.finish_reason == "pause":
            return Turn(thought=said, problem="")
        if calls := written_calls(said, tools):
            return Turn(calls=calls)
        if broken_call(said, tools):
            return Turn(thought=thinking, problem=prompts.BROKEN_CALL)
        labelled = said.lstrip().lower().startswith(_LABELS[:-1])
        if labelled or begins_with_label(said):
            found = read_react(said, tools)
            if found.calls and _known(found.calls, tools):
                return Turn(thought=found.thought, calls=found.calls)
            if labelled and found.answer is not None:
                return Turn(thought=found.thought, answer=found.answer)
        if said.strip():
            return Turn(thought=thinking, answer=said)
        if calls := calls_behind(thinking or _reasoned(response), tools):
            return Turn(calls=calls)
        return Turn(thought=thinking, problem=prompts.NO_ANSWER)

    def answer_start(self, text: str, new: str | None = None) -> int | None:
        """All text may be the answer, but for calls written out, and the label of a turn that has labels."""
        if text.startswith(BEFORE):  # only behind a label the answer was not found at once
            return final_answer_start(text, new)
        start = text.lstrip().lower()
        if start and any(label.startswith(start) or start.startswith(label) for label in _LABELS):
            if len(start) < len(_LABELS[-1]):
                return UNDECIDED
            return final_answer_start(text, new) if start.startswith(_LABELS[:-1]) else NO_ANSWER
        calls = may_be_calls(text)
        return UNDECIDED if calls is None else NO_ANSWER if calls else 0


class TextProtocol:
    """The model writes Thought, Action, Action Input and Final Answer as text."""

    name = "text"
    in_words: InWords | None = None

    def write(
        self, instructions: str, conversation: Sequence[Message], tools: Sequence[ToolSpec], last_word: str | None
    ) -> tuple[list[Message], Sequence[ToolSpec]]:
        """Render calls and observations as text, and explain the format."""
        about_tools = f"\n\n{prompts.TEXT.format(tools=prompts.describe_tools(tools))}" if tools else ""
        messages = [Message("system", instructions + about_tools)]
        for message in conversation:
            rendered = _as_text(message)
            if message.role == "tool" and messages[-1].role == "user" and messages[-1].text.startswith("Observation:"):
                messages[-1] = Message("user", f"{messages[-1].text}\n{rendered.text}")
            else:
                messages.append(rendered)
        if last_word is not None:
            messages.append(Message("user", last_word + prompts.LAST_WORD_TEXT))
        return messages, ()

    def read(self, response: LLMResponse, tools: Sequence[ToolSpec]) -> Turn:
        """Find the labels, forgivingly."""
        thinking, said = part(response.text)
        if calls := named_right(response.tool_calls, tools) or written_calls(said, tools):
            return Turn(thought=said if response.tool_calls else "", calls=calls)
        if not said.strip() and (calls := calls_behind(thinking or _reasoned(response), tools)):
            return Turn(calls=calls)
        if broken_call(said, tools):
            return Turn(problem=prompts.BROKEN_CALL)
        found = read_react(said, tools)
        if not found.calls and found.answer is None:
            return Turn(thought=found.thought, problem=prompts.NO_ACTION)
        return Turn(thought=found.thought, calls=named_right(found.calls, tools), answer=found.answer)

    def answer_start(self, text: str, new: str | None = None) -> int | None:
        """The answer begins behind its label."""
        return final_answer_start(text, new)


def choose_protocol(name: ProtocolName, llm: BaseLLMWrapper) -> TurnProtocol:
    """Take the protocol asked for; "auto" goes by what the model can."""
    if not (llm.native_tools if name == "auto" else name == "native"):
        return TextProtocol()
    # a user's stand-in, as good as a model by its shape, need not know what is new
    return NativeProtocol(in_words if name == "auto" and isinstance(llm, BaseLLMWrapper) else None)


def in_words(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """Tell as text what was written for native tools."""
    system, *conversation = messages
    return TextProtocol().write(system.text.removesuffix(f"\n\n{prompts.NATIVE}"), conversation, tools, None)[0]


def _reasoned(response: LLMResponse) -> str:
    return "".join(block.text for block in response.thinking)


def _known(calls: Sequence[ToolCall], tools: Sequence[ToolSpec]) -> bool:
    return all(tool_named(call.name, tools) is not None and call.malformed is None for call in calls)


def _as_text(message: Message) -> Message:
    if message.role == "tool":
        # so marked, no line of a tool's can pass for a label of the format
        return Message("user", f"Observation: {prompts.LINE_OF_OBSERVATION.join(message.text.splitlines())}")
    if message.role == "assistant" and message.tool_calls:
        thought = [f"Thought: {message.text}"] if message.text else []
        actions = [f"Action: {call.name}\nAction Input: {call.arguments_json()}" for call in message.tool_calls]
        return Message("assistant", "\n".join([*thought, *actions]))
    return message
