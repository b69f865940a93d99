"""Anthropic's messages as clients send them: https://docs.anthropic.com/en/api/messages."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.types import Extra, ImagePart, Message, TextPart, Thinking, ToolCall, ToolSpec
from shared_libs.service.faces.openai_chat import image
from shared_libs.service.faces.wanted import LENGTH, Body, Bound, Wanted, joined, shown, together, tool_spec, tools_of

PROVIDER = "anthropic"

_OURS = frozenset({"model", "messages", "system", "tools", "stream"})
_OWN = frozenset(
    {
        *("max_tokens", "tool_choice", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "thinking"),
        *("output_config", "service_tier", "cache_control", "inference_geo"),
    }
)
"""What goes on to the vendor's models as it came; what wants a header of a beta beside it does not."""
_TRANSLATED = {"cache_control": (PROVIDER,), "inference_geo": (PROVIDER,), "service_tier": (PROVIDER,)}
"""What of that has no word in chat completions."""

_THINKING = frozenset({"type", "budget_tokens"})
_SHOWN = {"display": (PROVIDER,)}
_MESSAGE = frozenset({"role", "content"})
_TOOL = frozenset({"type", "name", "description", "input_schema"})
_BLOCK = frozenset(
    {
        *("type", "text", "source", "title", "context", "content", "tool_name", "tool_use_id", "is_error"),
        *("id", "name", "input", "thinking", "signature", "data"),
    }
)
_CARRIED = dict.fromkeys(("cache_control", "eager_input_streaming", "input_examples", "strict"), (PROVIDER,))
"""What stands beside, and goes on to the vendor's models."""

BOUNDS = {"max_tokens": LENGTH, "temperature": Bound(0, 1), "top_p": Bound(0, 1)}
"""The numbers of a request."""

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

_EFFORTS = ((2048, "low"), (12000, "medium"))
"""Up to how many tokens of thinking a budget is called what; a larger one is high."""

_EFFORT_WORDS = {"low": "low", "medium": "medium", "high": "high", "max": "xhigh", "xhigh": "xhigh"}

_HANDED_BACK = frozenset({"server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "container_upload"})
"""Blocks of tools that the vendor runs itself; nobody here can read them."""


def read_request(data: Any, *, counting: bool = False) -> Wanted:
    """
    Read a request.

    Args:
        data: the body.
        counting: whether it is only counted, and needs no `max_tokens`.

    Raises:
        Problem: it is not valid; names the field.

    """
    body = Body(data)
    model = body.text("model")
    if not counting and body.data.get("max_tokens") is None:
        raise body.wrong("max_tokens", "a number, which must be there")
    body.check(BOUNDS)
    tools, ignored = tools_of(body, "custom", _tool)
    own = {name: value for name, value in body.data.items() if name in _OWN and value is not None}
    body.rest(_OURS | (own.keys() - _TRANSLATED.keys()), _TRANSLATED)
    if body.object_or("thinking"):
        body.inside("thinking").rest(_THINKING, _SHOWN)
    messages = [Message("system", system)] if (system := _system(body)) else []
    for one in body.objects("messages"):
        one.rest(_MESSAGE, {})
        messages += _messages(one)
    if not any(message.role != "system" for message in messages):
        raise body.wrong("messages", "a list of at least one message")
    form = body.object_or("output_config").get("format")
    schema = form.get("schema") if isinstance(form, dict) else None
    return Wanted(
        model=model,
        messages=messages,
        tools=tools,
        fields=_fields(body, schema),
        stream=body.flag("stream"),
        schema=schema if isinstance(schema, dict) else None,
        ignored=ignored,
        own_fields={PROVIDER: own},
        beside=body.beside,
    )


def counted(data: Any) -> Wanted:
    """Read a request that is only counted, and needs no `max_tokens`; raises as `read_request` does."""
    return read_request(data, counting=True)


def wants_thinking(data: Any) -> bool:
    """Whether the answer is to tell how it was thought."""
    return Body(data).object_or("thinking").get("type") in ("enabled", "adaptive")


def _fields(body: Body, schema: Any) -> dict[str, Any]:
    """The fields, as chat completions name them."""
    data = body.data
    fields = {
        name: data[name] for name in ("max_tokens", "temperature", "top_p", "top_k") if data.get(name) is not None
    }
    if (stop := data.get("stop_sequences")) is not None:
        fields["stop"] = stop
    if isinstance(user := body.object_or("metadata").get("user_id"), str):
        fields["user"] = user
    if choice := body.object_or("tool_choice"):
        if choice.get("type") == "tool":
            fields["tool_choice"] = {"type": "function", "function": {"name": str(choice.get("name", ""))}}
        elif choice.get("type") in _CHOICES:
            fields["tool_choice"] = _CHOICES[choice["type"]]
        else:
            raise body.wrong("tool_choice.type", f"one of tool, {', '.join(_CHOICES)}")
        if choice.get("disable_parallel_tool_use"):
            fields["parallel_tool_calls"] = False
    effort = _EFFORT_WORDS.get(str(body.object_or("output_config").get("effort")))
    budget = body.object_or("thinking").get("budget_tokens")
    if effort is None and isinstance(budget, int):
        effort = next((word for most, word in _EFFORTS if budget <= most), "high")
    if effort is not None:
        fields["reasoning_effort"] = effort
    if isinstance(schema, dict):
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
    return fields


def _system(body: Body) -> str | tuple[TextPart | ImagePart, ...]:
    system = body.data.get("system")
    if system is None or isinstance(system, str):
        return system or ""
    return _words(body.objects("system"))


def _words(blocks: list[Body]) -> str | tuple[TextPart | ImagePart, ...]:
    return shown([TextPart(one.text_or("text"), one.rest(_BLOCK, _CARRIED)) for one in blocks], "\n\n")


def _tool(tool: Body) -> ToolSpec:
    return tool_spec(tool, "input_schema", tool.rest(_TOOL, _CARRIED))


def _messages(body: Body) -> list[Message]:
    role = body.text("role")
    if role not in ("user", "assistant", "system"):
        raise body.wrong("role", "'user' or 'assistant'")
    content = body.data.get("content")
    if isinstance(content, str):
        return [Message("user" if role == "user" else "assistant" if role == "assistant" else "system", content)]
    if not isinstance(content, list):
        raise body.wrong("content", "a text or a list of blocks")
    blocks = body.objects("content")
    if role == "assistant":
        return [_assistant(blocks)]
    if role == "system":
        return [Message("system", _words(blocks))]
    results: list[Message] = []
    parts: list[TextPart | ImagePart] = []
    for block in blocks:
        if block.text("type") == "tool_result":
            results.append(_result(block, parts))
        else:
            parts += _parts(block)
    said = shown(parts, "\n\n")
    return [*results, *([Message("user", said)] if said else [])]


def _result(block: Body, parts: list[TextPart | ImagePart]) -> Message:
    """A tool's result; its images stand in the message behind it, because only texts are results everywhere."""
    content = block.data.get("content")
    inner = [part for one in block.objects("content") for part in _parts(one)] if isinstance(content, list) else []
    text, beside = joined(content if isinstance(content, str) else inner, "\n")
    parts += [part for part in inner if isinstance(part, ImagePart)]
    extra = together(beside, block.rest(_BLOCK, _CARRIED))
    if block.flag("is_error"):
        block.note("is_error", PROVIDER)
    return Message("tool", text, tool_call_id=block.text("tool_use_id"), is_error=block.flag("is_error"), extra=extra)


def _parts(block: Body) -> list[TextPart | ImagePart]:
    """What a block shows: documents and what a search found are texts under their titles."""
    kind = block.text("type")
    extra = block.rest(_BLOCK, _CARRIED)
    if kind == "text":
        return [TextPart(block.text_or("text"), extra)]
    if kind == "image":
        source = block.inside("source")
        if source.text("type") == "url":
            return [image(source.text("url"), source.at("url"), extra)]
        media_type = source.text("media_type")
        return [image(f"data:{media_type};base64,{source.text('data')}", source.at("media_type"), extra)]
    if kind == "document":
        return _ending([*_title(block, "title", "context"), *_document(block.inside("source"))], extra)
    if kind == "search_result":
        return _ending([*_title(block, "title", "source"), *_inside(block)], extra)
    if kind == "tool_reference":  # what a search for tools found
        return [TextPart(block.text("tool_name"))]
    if kind in _HANDED_BACK:
        block.note(kind)
        return []
    raise block.wrong("type", f"'text', 'image', 'document' or 'tool_result'; {kind!r:.40} is not supported")


def _document(source: Body) -> list[TextPart | ImagePart]:
    kind = source.text("type")
    if kind == "text":
        return [TextPart(source.text_or("data"))]
    if kind == "content":
        return _inside(source)
    raise source.wrong("type", f"'text' or 'content'; documents of {kind!r:.40} are not read")


def _inside(block: Body) -> list[TextPart | ImagePart]:
    content = block.data.get("content")
    if isinstance(content, str):
        return [TextPart(content)]
    return [part for one in block.objects("content") for part in _parts(one)]


def _ending(parts: list[TextPart | ImagePart], extra: Extra | None) -> list[TextPart | ImagePart]:
    """Parts with what stood beside the block that they are of."""
    return [*parts[:-1], msgspec.structs.replace(parts[-1], extra=together(parts[-1].extra, extra))] if parts else []


def _title(block: Body, *names: str) -> list[TextPart | ImagePart]:
    told = [text for name in names if (text := block.text_or(name))]
    return [TextPart("\n".join(told))] if told else []


def _assistant(blocks: list[Body]) -> Message:
    texts: list[str] = []
    calls: list[ToolCall] = []
    thinking: list[Thinking] = []
    extra: Extra | None = None  # which the last block gets: a prompt is cached up to it
    for block in blocks:
        kind = block.text("type")
        extra = together(extra, block.rest(_BLOCK, _CARRIED))
        if kind == "text":
            texts.append(block.text_or("text"))
        elif kind == "tool_use":
            given = msgspec.json.encode(block.data.get("input"))
            calls.append(ToolCall.from_json(block.text("id"), block.text("name"), given))
        elif kind == "thinking" and block.text_or("signature"):  # without, no API takes it back
            block.note("thinking", PROVIDER)
            thinking.append(Thinking(block.text_or("thinking"), PROVIDER, block.text_or("signature")))
        elif kind == "redacted_thinking":
            block.note("data", PROVIDER)
            thinking.append(Thinking("", PROVIDER, data={"data": block.text("data")}))
        else:
            block.note(kind)
    return Message("assistant", "".join(texts), tool_calls=tuple(calls), thinking=tuple(thinking), extra=extra)
