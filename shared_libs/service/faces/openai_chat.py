"""Chat completions as clients send them: https://platform.openai.com/docs/api-reference/chat/create."""

from __future__ import annotations

from typing import Any

from shared_libs.atomic.llms.chat_fields import schema_of
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec
from shared_libs.service.faces.wanted import CHAT_FIELDS_OF_AGENTS, Body, Turns, Wanted, chosen, tool_spec, tools_of
from shared_libs.service.problems import Problem

_OURS = frozenset({"model", "messages", "tools", "stream", "stream_options", "n"})
"""What is read here; everything else of a request is a field that goes on to the models of a chain."""

_TAKEN_BY_AGENTS = frozenset({*CHAT_FIELDS_OF_AGENTS, "response_format", "metadata", "user", "service_tier"})

_MEANS_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), 0),
    **dict.fromkeys(("logprobs", "store"), False),
    "temperature": 1,
    "top_p": 1,
    "top_logprobs": 0,
    "modalities": ["text"],
}
"""The API's defaults, which some clients always send; null is one of every field."""

_UNSUPPORTED = {
    "audio": "answers are text",
    "functions": "they are called `tools` now",
    "function_call": "it is called `tool_choice` now",
}

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

_BOUNDS = {"temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2)}


def read_chat(data: Any) -> Wanted:
    """
    Read a request.

    Raises:
        Problem: it is not valid, or wants what nobody here can do; names the field.

    """
    body = Body(data)
    model = body.text("model")
    _refuse_unsupported(body)
    for name, (least, most) in _BOUNDS.items():
        body.number_or_none(name, least, most)
    for name in ("max_tokens", "max_completion_tokens"):
        body.number_or_none(name, 1, 2**31, whole=True)
    fields = {name: value for name, value in body.data.items() if name not in _OURS and value is not None}
    tools, ignored = tools_of(body, "function", _function)
    tools, fields, unchosen = chosen(tools, fields, body.data.get("tool_choice"))
    ignored += unchosen
    return Wanted(
        model=model,
        messages=read_messages(body),
        tools=tools,
        fields=fields,
        stream=body.flag("stream"),
        schema=schema_of(fields),
        session_id=_session(body),
        ignored=ignored,
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
        if name not in _TAKEN_BY_AGENTS and _MEANS_NOTHING.get(name, ...) != value
    ]
    wanted.ignored = [*wanted.ignored, *ignored]
    wanted.fields = {name: wanted.fields[name] for name in CHAT_FIELDS_OF_AGENTS if name in wanted.fields}
    return wanted


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
    content = _content(body, role)
    if role == "assistant":
        calls = tuple([_call(one) for one in body.objects("tool_calls")])
        if not calls and body.data.get("content") is None and body.data.get("refusal") is None:
            raise body.wrong("content", "a text or a list of parts, where there are no tool_calls")
        messages.add(Message("assistant", content or body.text_or("refusal"), tool_calls=calls))
        return
    if body.data.get("content") is None:
        raise body.wrong("content", "a text or a list of parts")
    if role == "tool":
        parts = (TextPart(content),) if isinstance(content, str) else content
        messages.add_result(Message("tool", tool_call_id=body.text("tool_call_id")), parts)
        return
    messages.add(Message("system" if role == "system" else "user", content, name=body.text_or("name") or None))


def _content(body: Body, role: str) -> str | tuple[TextPart | ImagePart, ...]:
    content = body.data.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(one) for one in body.objects("content")]
    if role in ("user", "tool") and any(isinstance(part, ImagePart) for part in parts):
        return tuple(parts)
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _part(body: Body) -> TextPart | ImagePart:
    kind = body.text("type")
    if kind in ("text", "refusal"):
        return TextPart(body.text_or(kind))
    if kind == "image_url":
        if isinstance(told := body.data.get("image_url"), str):  # as Mistral has it
            return image(told, body.at("image_url"))
        return image(Body(told, body.at("image_url")).text("url"), body.at("image_url.url"))
    raise body.wrong("type", f"'text' or 'image_url'; {kind!r:.40} is not supported")


def image(url: str, path: str) -> ImagePart:
    """
    Take an image's address.

    Raises:
        Problem: it is neither on the web nor in the request itself.

    """
    if not url.startswith(("https://", "http://", "data:image/")):
        raise Problem("invalid_request", f"{path} is an https: URL, or data:image/…;base64,…", param=path)
    return ImagePart(url)


def _call(body: Body) -> ToolCall:
    if body.data.get("type", "function") != "function":
        raise body.wrong("type", "'function'")
    function = Body(body.data.get("function"), body.at("function"))
    return ToolCall.from_json(body.text("id"), function.text("name"), function.text_or("arguments"))


def _function(tool: Body) -> ToolSpec:
    return tool_spec(Body(tool.data.get("function"), tool.at("function")), "parameters")


def _session(body: Body) -> str | None:
    session = body.object_or("metadata").get("session_id")
    return session if isinstance(session, str) and session else None
