"""
The messages of chat completions, brought to the strictest rules that servers were seen to have.

Always: neighbours of one role are one message, because chat templates of Mistral, Gemma and others insist on turns that
alternate; an assistant that said nothing is left out, and so are empty instructions and parts without a word; every
name fits `^[a-zA-Z0-9_-]{1,64}$`. By dialect: the rest.
"""

from __future__ import annotations

from typing import Any

from shared_libs.atomic.llms.dialect import Dialect
from shared_libs.atomic.llms.payload import id_of_nine, portable_name

BRIDGE = "I have the results."
"""What an assistant says between a tool's result and a user's message, where a server wants it to say something."""

_NO_IMAGE = "[an image was here; this model takes none]"

ChatMessage = dict[str, Any]

_PLAIN = frozenset({"role", "content"})
_NOTHING: ChatMessage = {"role": ""}


def conform(messages: list[ChatMessage], dialect: Dialect) -> list[ChatMessage]:
    """Bring messages, which are changed, to the rules."""
    kept: list[ChatMessage] = []
    traits, last = dialect.traits, _NOTHING
    for message in messages:
        before, now = last["role"], message["role"]
        if now == "tool" and not traits:
            kept.append(message)
            last = message
            continue
        if "name" in message:
            message["name"] = portable_name(message["name"])
        if "tool_calls" in message:
            for call in message["tool_calls"]:
                call["function"]["name"] = portable_name(call["function"]["name"])
        elif now == "assistant" and not message.get("content") and message.keys() <= _PLAIN:
            continue
        elif isinstance(message["content"], list):
            message["content"] = [part for part in message["content"] if part.get("text", True)] or ""
        if now == "system" and not message["content"] and len(messages) > 1:
            continue
        if traits:
            _fit(message, dialect, first=not kept)
            now = message["role"]
        if before == now and now != "tool" and last.keys() == _PLAIN == message.keys():
            last["content"] = _joined(last["content"], message["content"])
            continue
        if before == "tool" and now == "user" and "no-user-after-tool" in traits:
            kept.append({"role": "assistant", "content": BRIDGE})
        kept.append(message)
        last = message
    if "plain-content" in traits:
        _make_plain(kept)
    return kept


def fit_tools(tools: list[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
    """Bring tool definitions, which are changed, to the rules."""
    for tool in tools if dialect.traits else ():
        if "no-empty-parameters" in dialect.traits and not tool["function"]["parameters"].get("properties"):
            del tool["function"]["parameters"]
        if "no-strict-tools" in dialect.traits:
            tool["function"].pop("strict", None)
    return tools


def tools_of(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """The tools that a conversation has called, as far as it tells: for a server that wants to know what was called."""
    names = {call["function"]["name"]: None for message in messages for call in message.get("tool_calls", ())}
    nothing = {"description": "", "parameters": {"type": "object", "properties": {}}}  # each is asked for somewhere
    return [{"type": "function", "function": {"name": name, **nothing}} for name in names]


def _fit(message: ChatMessage, dialect: Dialect, *, first: bool) -> None:
    traits = dialect.traits
    if message["role"] == "system" and ("no-system" in traits or ("system-first" in traits and not first)):
        message["role"] = "user"
    if "no-null-content" in traits and message.get("content", "") is None:
        message["content"] = ""
    if "ids-of-nine" in traits:
        if "tool_call_id" in message:
            message["tool_call_id"] = id_of_nine(message["tool_call_id"])
        for call in message.get("tool_calls", ()):
            call["id"] = id_of_nine(call["id"])


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _make_plain(messages: list[ChatMessage]) -> None:
    """
    Write contents of several parts as one text; the images of earlier turns, which nobody can see any more, as a note.

    The newest user's images stay: what is asked about them must not be answered blindly.
    """
    newest = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=-1)
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list) and (index != newest or not has_images(message)):
            message["content"] = "\n".join(part.get("text", _NO_IMAGE) for part in content)


def has_images(message: ChatMessage) -> bool:
    """Whether a message has images."""
    content = message.get("content")
    return isinstance(content, list) and any("image_url" in part for part in content)
