"""Chat completions as clients send them: https://platform.openai.com/docs/api-reference/chat/create."""

from __future__ import annotations

from typing import Any

from shared_libs.atomic.llms.chat_fields import schema_of
from shared_libs.atomic.types import Extra, ImagePart, Message, TextPart, ToolCall, ToolSpec
from shared_libs.service.faces.wanted import (
    CHAT_FIELDS_OF_AGENTS,
    LENGTH,
    Body,
    Bound,
    Content,
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

_OURS = frozenset({"model", "messages", "tools", "stream", "stream_options", "n", "progress"})
"""What is read here; everything else of a request is a field that goes on to the models of a chain."""

_TAKEN_BY_AGENTS = frozenset({*CHAT_FIELDS_OF_AGENTS, "response_format"})

_MEANS_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), 0),
    **dict.fromkeys(("logprobs", "store"), False),
    "temperature": 1,
    "top_p": 1,
    "top_logprobs": 0,
    "modalities": ["text"],
    "service_tier": "auto",
}
"""The API's defaults, which some clients always send; null is one of every field."""

_UNSUPPORTED = {
    "audio": "answers are text",
    "functions": "they are called `tools` now",
    "function_call": "it is called `tool_choice` now",
    "output_schema": "it is called `response_format`",
    "self": "it is nobody's field",
}

_WIRE = "openai"
_MESSAGE = frozenset({"role", "content", "tool_calls", "tool_call_id", "refusal", "function_call"})
_TEXT = frozenset({"type", "text", "refusal"})
_IMAGE = frozenset({"type", "image_url"})
_URL = frozenset({"url"})
_CALL = frozenset({"id", "type", "index", "function"})
_CALLED = frozenset({"name", "arguments"})
_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters"})
"""What is read of each object; what stands beside it goes on to models of this wire."""

_BOTH = (_WIRE, "responses")
_OF_OTHERS = {
    "cache_control": (_WIRE, "anthropic"),  # LiteLLM's and OpenRouter's word for it too
    "detail": _BOTH,
    "prompt_cache_breakpoint": _BOTH,
    "strict": _BOTH,
}
"""What further wires know of that, in the same words."""

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

BOUNDS = {
    "temperature": Bound(0, 2),
    "top_p": Bound(0, 1),
    "frequency_penalty": Bound(-2, 2),
    "presence_penalty": Bound(-2, 2),
    "max_tokens": LENGTH,
    "max_completion_tokens": LENGTH,
}
"""The numbers of a request."""


def read_chat(data: Any) -> Wanted:
    """
    Read a request.

    Raises:
        Problem: it is not valid, or wants what nobody here can do; names the field.

    """
    body = Body(data)
    model = body.text("model")
    _refuse_unsupported(body)
    body.check(BOUNDS)
    fields = {name: value for name, value in body.data.items() if name not in _OURS and value is not None}
    tools, ignored = tools_of(body, "function", _function)
    messages = read_messages(body)
    if isinstance(body.data.get("stream_options"), dict):
        body.inside("stream_options").rest(frozenset({"include_usage"}), {})
    tools, fields, unchosen = chosen(tools, fields, body.data.get("tool_choice"))
    ignored += unchosen
    return Wanted(
        model=model,
        messages=messages,
        tools=tools,
        fields=fields,
        stream=body.flag("stream"),
        schema=schema_of(fields),
        session_id=_session(body),
        ignored=ignored,
        beside=body.beside,
    )


def includes_usage(data: Any) -> bool:
    """Whether a stream is to end with the usage."""
    return Body(data.get("stream_options") or {}, "stream_options").flag("include_usage")


def for_agent(wanted: Wanted) -> Wanted:
    """
    Keep what an agent takes of the fields, and note what it ignores.

    Raises:
        Problem: it wants a form of answer that nobody here knows; a chain's models may.

    """
    form = wanted.fields.get("response_format")
    if form is not None and wanted.schema is None and not (isinstance(form, dict) and form.get("type") == "text"):
        told = "text, json_object, or json_schema with a schema"
        raise Problem("invalid_request", f"response_format has a type: {told}", param="response_format")
    ignored = [
        name
        for name, value in wanted.fields.items()
        if name not in _TAKEN_BY_AGENTS
        and _MEANS_NOTHING.get(name, ...) != value
        and not (name == "metadata" and value.keys() <= {"session_id"})
    ]
    beside = [part.extra for one in wanted.messages if one.role == "system" for part in (one, *_parts_of(one))]
    lost = dict.fromkeys(name for extra in beside for more in (extra or {}).values() for name in more)
    wanted.ignored = [*wanted.ignored, *ignored, *[f"system:{name}" for name in lost]]
    wanted.fields = {name: wanted.fields[name] for name in CHAT_FIELDS_OF_AGENTS if name in wanted.fields}
    wanted.own_fields = {}
    wanted.beside = {place: wires if "[]" in place else () for place, wires in wanted.beside.items()}
    return wanted


def _parts_of(message: Message) -> tuple[TextPart | ImagePart, ...]:
    return () if isinstance(message.content, str) else message.content


def read_messages(body: Body) -> list[Message]:
    """
    Read the conversation.

    Raises:
        Problem: it is empty, or a message is not valid.

    """
    messages = Turns()
    for one in body.objects("messages"):
        _add_message(one, messages)
    if messages.last_role is None:
        raise body.wrong("messages", "a list of at least one message")
    return messages.all()


def _refuse_unsupported(body: Body) -> None:
    for name, why in _UNSUPPORTED.items():
        if body.data.get(name) is not None:
            raise _unsupported(name, why)
    if body.data.get("n") not in (None, 1):
        raise _unsupported("n", "one answer is given to a request")
    if body.data.get("modalities") not in (None, ["text"]):
        raise _unsupported("modalities", "answers are text")
    for name in ("logprobs", "top_logprobs"):
        if body.data.get(name):
            raise _unsupported(name, "answers have none")


def _unsupported(name: str, why: str) -> Problem:
    return Problem("unsupported_parameter", f"{name} is not supported: {why}", param=name)


def _add_message(body: Body, messages: Turns) -> None:
    role = _ROLES.get(body.text("role"))
    if role is None:
        raise body.wrong("role", f"one of {', '.join(_ROLES)}")
    if body.data.get("function_call") is not None:
        raise _unsupported(body.at("function_call"), "it is called `tool_calls` now")
    content = _content(body)
    body.text_or("name")
    extra = body.rest(_MESSAGE, _OF_OTHERS, _WIRE)
    if role == "assistant":
        given = body.objects("tool_calls")
        calls = tuple([_call(one) for one in given])
        if any(beside := [_beside_call(one) for one in given]):
            extra = together(extra, {_WIRE: {"tool_calls": beside}})
        if not calls and body.data.get("content") is None and body.data.get("refusal") is None:
            raise body.wrong("content", "a text or a list of parts, where there are no tool_calls")
        text, more = joined(content)
        extra = together(extra, more)
        if text and body.text_or("refusal"):
            body.note("refusal")
        messages.add(Message("assistant", text or body.text_or("refusal"), tool_calls=calls, extra=extra))
        return
    if body.data.get("content") is None:
        raise body.wrong("content", "a text or a list of parts")
    if role == "tool":
        messages.add_result(body.text("tool_call_id"), content, extra)
        return
    messages.add(Message("system" if role == "system" else "user", shown(content, images=role == "user"), extra=extra))


def _content(body: Body) -> Content:
    content = body.data.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return [_part(one) for one in body.objects("content")]


def _part(body: Body) -> TextPart | ImagePart:
    kind = body.text("type")
    if kind in ("text", "refusal"):
        return TextPart(body.text_or(kind), body.rest(_TEXT, _OF_OTHERS, _WIRE))
    if kind == "image_url":
        extra = body.rest(_IMAGE, _OF_OTHERS, _WIRE)
        if isinstance(told := body.data.get("image_url"), str):  # as Mistral has it
            return image(told, body.at("image_url"), extra)
        there = body.inside("image_url")
        return image(there.text("url"), there.at("url"), together(extra, _inside(there, "image_url", _URL)))
    raise body.wrong("type", f"'text' or 'image_url'; {kind!r:.40} is not supported")


def image(url: str, path: str, extra: Extra | None) -> ImagePart:
    """
    Take an image's address.

    Raises:
        Problem: it is neither on the web nor in the request itself.

    """
    if not url.startswith(("https://", "http://", "data:image/")):
        raise Problem("invalid_request", f"{path} is an https: URL, or data:image/…;base64,…", param=path)
    return ImagePart(url, extra=extra)


def _call(body: Body) -> ToolCall:
    if body.data.get("type", "function") != "function":
        raise body.wrong("type", "'function'")
    function = body.inside("function")
    return ToolCall.from_json(body.text("id"), function.text("name"), function.text_or("arguments"))


def _beside_call(body: Body) -> dict[str, Any]:
    """What its maker put beside a call, such as a signature that it wants to see again."""
    beside = together(body.rest(_CALL, {}, _WIRE), _inside(body.inside("function"), "function", _CALLED))
    return (beside or {}).get(_WIRE, {})


def _function(tool: Body) -> ToolSpec:
    function = tool.inside("function")
    beside = _inside(function, "function", _FUNCTION)
    return tool_spec(function, "parameters", together(tool.rest(_TOOL, _OF_OTHERS, _WIRE), beside))


def _inside(body: Body, name: str, read: frozenset[str]) -> Extra | None:
    """What stands beside the fields of an object that only this wire puts into another."""
    extra = body.rest(read, _OF_OTHERS, _WIRE)
    return extra and {wire: {name: more} if wire == _WIRE else more for wire, more in extra.items()}


def _session(body: Body) -> str | None:
    session = body.object_or("metadata").get("session_id")
    return session if isinstance(session, str) and session else None
