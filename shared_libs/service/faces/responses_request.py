"""OpenAI's Responses as clients send them: https://platform.openai.com/docs/api-reference/responses/create."""

from __future__ import annotations

from typing import Any

import msgspec

from shared_libs.atomic.llms.chat_fields import as_responses, schema_of
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec
from shared_libs.service.faces.openai_chat import image
from shared_libs.service.faces.responses_events import item_id
from shared_libs.service.faces.wanted import (
    LENGTH,
    Body,
    Bound,
    Turns,
    Wanted,
    chosen,
    joined,
    shown,
    together,
    tool_spec,
    tools_of,
)
from shared_libs.service.problems import Problem

_SAME = (
    *("temperature", "top_p", "parallel_tool_calls", "user", "service_tier", "safety_identifier", "moderation"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
"""Fields that chat completions call the same."""

_WIRE = "responses"
_OURS = frozenset(
    {
        *("model", "input", "instructions", "tools", "tool_choice", "stream", "background", "previous_response_id"),
        *("store", "metadata", "stream_options", "text", "reasoning"),
    }
)
"""What is done here, or has places of its own; everything else goes on to models of this very API."""
_MEANS_NOTHING: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("client_metadata", "context_management", "top_logprobs"), ()
)
"""What nobody could read in an answer."""

BOUNDS = {"temperature": Bound(0, 2), "top_p": Bound(0, 1), "max_output_tokens": LENGTH}
"""The numbers of a request."""

_TRANSLATED = frozenset({*_SAME, "max_output_tokens"})
"""What of that chat completions have a word for."""

_TEXT = frozenset({"format", "verbosity"})
_REASONING = frozenset({"effort"})
_MESSAGE = frozenset({"type", "role", "content", "id", "status"})
_PART = frozenset({"type", "text", "refusal", "image_url", "annotations", "logprobs"})
_CALL = frozenset({"type", "id", "call_id", "name", "arguments", "status"})
_RESULT = frozenset({"type", "id", "call_id", "output", "status"})
_TOOL = frozenset({"type", "name", "description", "parameters"})
_BOTH = ("openai", _WIRE)
_OF_OTHERS = dict.fromkeys(("detail", "prompt_cache_breakpoint", "strict"), _BOTH) | {"cache_control": ("anthropic",)}

_REFUSED = {
    "conversation": "answer to a response with previous_response_id",
    "prompt": "prompts are kept nowhere; send the input itself",
    "messages": "they are called `input`",
    "output_schema": "it is called `text.format`",
    "self": "it is nobody's field",
}

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text"})

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


class ResponseWanted(msgspec.Struct, kw_only=True):
    """
    A request for a response.

    Args:
        wanted: what is asked; its messages are those of this request.
        items: its input as items, each with an id, as they are listed.
        previous: the response that it answers to.
        store: whether the response can be had again.
        echo: the fields of the request that the response repeats.

    """

    wanted: Wanted
    items: list[dict[str, Any]]
    previous: str | None
    store: bool
    echo: dict[str, Any]


def read_response(data: Any, id: str) -> ResponseWanted:
    """
    Read a request.

    Args:
        data: the body.
        id: what the response is going to be called.

    Raises:
        Problem: it is not valid, or wants what nobody here can do; names the field.

    """
    body = Body(data)
    for name, why in _REFUSED.items():
        if body.data.get(name) is not None:
            raise Problem("unsupported_parameter", f"{name} is not supported: {why}", param=name)
    body.check(BOUNDS)
    tools, ignored = tools_of(body, "function", _function, named=True)
    store, background = body.data.get("store") is not False, body.flag("background")
    if background and not store:
        raise body.wrong("background", "for responses that are stored")
    items = _items(body, id)
    messages, left_out = read_items([Body(item, f"input[{index}]", body.beside) for index, item in enumerate(items)])
    if instructions := body.text_or("instructions"):
        messages.insert(0, Message("system", instructions))
    ignored += left_out
    own = _own(body)
    fields = _fields(body)
    tools, fields, unchosen = chosen(tools, fields, body.data.get("tool_choice"))
    ignored += unchosen
    session = body.object_or("metadata").get("session_id")
    wanted = Wanted(
        model=body.text("model"),
        messages=messages,
        tools=tools,
        fields=fields,
        stream=body.flag("stream"),
        schema=schema_of(fields),
        session_id=session if isinstance(session, str) and session else None,
        background=background,
        ignored=ignored,
        own_fields={_WIRE: as_responses(fields) | own},
        beside=body.beside,
    )
    previous = body.text_or("previous_response_id") or None
    return ResponseWanted(wanted=wanted, items=items, previous=previous, store=store, echo=_echo(body))


def read_items(items: list[Body]) -> tuple[list[Message], list[str]]:
    """
    Read items as a conversation; also returns what of them means nothing here.

    The calls of a turn stand behind its words as items of their own; here they are one message.

    Raises:
        Problem: an item is not valid.

    """
    messages = Turns()
    ignored: list[str] = []
    for item in items:
        kind = item.text_or("type", "message")
        if kind == "message":
            messages.add(_message(item))
        elif kind == "function_call":
            call = ToolCall.from_json(item.text("call_id"), item.text("name"), item.text_or("arguments"))
            item.rest(_CALL, {})
            if messages.last_role == "assistant":
                last = messages.take_back()
                messages.add(msgspec.structs.replace(last, tool_calls=(*last.tool_calls, call)))
            else:
                messages.add(Message("assistant", tool_calls=(call,)))
        elif kind == "function_call_output":
            output = item.data.get("output")
            parts = [TextPart(output)] if isinstance(output, str) else list(map(_part, item.objects("output")))
            messages.add_result(item.text("call_id"), parts, item.rest(_RESULT, _OF_OTHERS))
        elif kind not in ("reasoning", "mcp_call", "mcp_list_tools") or _thinks(item):  # those of the answers here
            ignored.append(f"input:{kind}")
    return messages.all(), ignored


def _items(body: Body, response_id: str) -> list[dict[str, Any]]:
    given = body.data.get("input")
    if isinstance(given, str) and given:
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not (given or body.data.get("previous_response_id")):
        raise body.wrong("input", "a text, or a list of at least one item")
    items = []
    for index, one in enumerate(given):
        if not isinstance(one, dict):
            raise body.wrong(f"input[{index}]", "an object")
        item = {"type": "message", **one}
        if item["type"] == "message" and isinstance(item.get("content"), str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            item["content"] = [{"type": part, "text": item["content"]}]
        kind = "msg" if item["type"] == "message" else "item"
        items.append({"id": item_id(kind, response_id, f"i{index:x}"), **item})
    return items


def _message(item: Body) -> Message:
    role = _ROLES.get(item.text("role"))
    if role is None:
        raise item.wrong("role", f"one of {', '.join(_ROLES)}")
    content = shown(list(map(_part, item.objects("content"))), images=role == "user")
    extra = item.rest(_MESSAGE, _OF_OTHERS, _WIRE)
    if role == "assistant":
        text, more = joined(content)
        return Message("assistant", text, extra=together(extra, more))
    return Message("system" if role == "system" else "user", content, extra=extra)


def _thinks(item: Body) -> bool:
    """Whether an item is a model's reasoning: those of the answers here have no more than a summary."""
    return bool(item.data.get("encrypted_content") or item.data.get("content"))


def _part(part: Body) -> TextPart | ImagePart:
    kind = part.text("type")
    extra = part.rest(_PART, _OF_OTHERS, _WIRE)
    if kind in _TEXTS:
        return TextPart(part.text_or("text"), extra)
    if kind == "refusal":
        return TextPart(part.text_or("refusal"), extra)
    if kind == "input_image":
        if extra is not None and "detail" in extra.get("openai", {}):
            beside = {name: value for name, value in extra["openai"].items() if name != "detail"}
            extra |= {"openai": beside | {"image_url": {"detail": extra["openai"]["detail"]}}}
        return image(part.text("image_url"), part.at("image_url"), extra)
    raise part.wrong("type", f"'input_text' or 'input_image'; {kind!r:.40} is not supported")


def _function(tool: Body) -> ToolSpec:
    extra = tool.rest(_TOOL, _OF_OTHERS)
    if extra is not None and "openai" in extra:
        extra["openai"] = {"function": extra["openai"]}
    return tool_spec(tool, "parameters", extra)


def _own(body: Body) -> dict[str, Any]:
    """The fields as this API names them, for models that speak it; those that no other has are noted."""
    if not isinstance(body.data.get("include", []), list | None):
        raise body.wrong("include", "a list")
    own = (body.rest(_OURS | _TRANSLATED, _MEANS_NOTHING, _WIRE) or {}).get(_WIRE, {})
    for name, read in (("text", _TEXT), ("reasoning", _REASONING)):
        if told := body.object_or(name):
            own[name] = told
            body.inside(name).rest(read, {}, _WIRE)
    return own


def _fields(body: Body) -> dict[str, Any]:
    """The fields, as chat completions name them."""
    data = body.data
    fields = {name: data[name] for name in _SAME if data.get(name) is not None}
    if data.get("max_output_tokens") is not None:
        fields["max_completion_tokens"] = data["max_output_tokens"]
    if (verbosity := body.object_or("text").get("verbosity")) is not None:
        fields["verbosity"] = verbosity
    effort = body.object_or("reasoning").get("effort")
    if isinstance(effort, str) and effort != "none":
        fields["reasoning_effort"] = effort
    form = body.object_or("text").get("format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        told = {name: value for name, value in form.items() if name != "type"}
        fields["response_format"] = {"type": "json_schema", "json_schema": told}
    elif isinstance(form, dict) and form.get("type") == "json_object":
        fields["response_format"] = {"type": "json_object"}
    return fields


def _echo(body: Body) -> dict[str, Any]:
    """What a response repeats of its request, with the API's defaults."""
    data = body.data
    return {
        "instructions": data.get("instructions"),
        "max_output_tokens": data.get("max_output_tokens"),
        "metadata": dict(body.object_or("metadata")),
        "parallel_tool_calls": data.get("parallel_tool_calls") is not False,
        "previous_response_id": data.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None} | dict(body.object_or("reasoning")),
        "service_tier": data.get("service_tier") or "default",
        "store": data.get("store") is not False,
        "temperature": 1.0 if data.get("temperature") is None else data["temperature"],
        "text": {"format": {"type": "text"}} | dict(body.object_or("text")),
        "tool_choice": data.get("tool_choice") or "auto",
        "tools": [one for one in data.get("tools") or [] if one.get("type") == "function"],
        "top_p": 1.0 if data.get("top_p") is None else data["top_p"],
        "truncation": data.get("truncation") or "disabled",
        "user": data.get("user"),
        "background": bool(data.get("background")),
    }
