"""Requests to Anthropic's messages API as data: our conversation, tools and schemas as it takes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from shared_libs.atomic.json_schema import portable
from shared_libs.atomic.llms.given import is_foreign, wire_ids
from shared_libs.atomic.llms.payload import inline_image, portable_id, portable_name
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec, with_extra

PROVIDER = "anthropic"

_MAX_ID_CHARS = 64
_PLAIN = frozenset({"type", "text"})
_NO_REASON = "The tool failed without a reason."
"""The API refuses a failure that says nothing."""

_SAYS_WHAT_IT_IS = frozenset({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"})
_BOUNDS = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)
"""What the API's grammar does not know (the vendor's SDK tells the same in descriptions)."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


def request_messages(
    messages: Sequence[Message], made_by: Sequence[str] = (), stale: Collection[str] = ()
) -> tuple[str | list[dict[str, Any]], list[dict[str, Any]]]:
    """
    The conversation as the API takes it: the system prompt and the turns.

    The prompt is blocks where there is more than its text.
    Neighbours of one role become one turn, because the results of all calls of a turn belong into the next one.

    Args:
        messages: the conversation.
        made_by: who is asked: thinking that tells another maker is left out.
        stale: signatures that it does not take back.

    """
    ids = wire_ids(messages, made_by, _MAX_ID_CHARS)
    used: set[str] = set()
    system: list[Message] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            system.append(message)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        for call in message.tool_calls:
            # some servers give each turn the same ids, which the API refuses
            if ids[call.id] in used:
                ids[call.id] = portable_id(f"{call.id} {len(used)}", _MAX_ID_CHARS)
            used.add(ids[call.id])
        blocks = _assistant_blocks(message, ids, made_by, stale) if role == "assistant" else _user_blocks(message, ids)
        if not blocks:
            continue
        if message.extra is not None:
            blocks[-1] = with_extra(blocks[-1], message.extra, PROVIDER)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    instructions = "\n\n".join([message.text for message in system])
    if not turns and instructions.strip():
        return "", [{"role": "user", "content": _text_blocks(instructions)}]  # it wants a turn, and others do not
    if turns and turns[-1]["role"] == "assistant" and (last := turns[-1]["content"][-1])["type"] == "text":
        turns[-1]["content"][-1] = last | {"text": last["text"].rstrip()}  # the API refuses blanks at the end
    blocks = [block for message in system for block in _system_blocks(message)]
    return blocks if any(block.keys() > _PLAIN for block in blocks) else instructions, turns


def request_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as the API takes it."""
    told = {"name": tool.name, "description": tool.description, "input_schema": portable(tool.parameters)}
    return with_extra(told, tool.extra, PROVIDER)


def tools_of(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools that the turns have called: the API wants to be told of them while they stand there."""
    names = {block["name"]: None for turn in turns for block in turn["content"] if block["type"] == "tool_use"}
    return [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]


class _Open(Exception):
    """A schema leaves open what the API insists on knowing."""


def closed_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """
    A JSON Schema as the API takes it, or None for one that it cannot keep, such as one of a free mapping.

    Objects are closed. The bounds that the API refuses are told in the descriptions; the answer is checked anyway.
    """
    try:
        return _closed(schema)
    except _Open:
        return None


def _closed(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict) or not node.keys() & _SAYS_WHAT_IT_IS:
        raise _Open
    closed: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for key, value in node.items():
        if key in {"properties", "$defs", "definitions"}:
            closed[key] = {name: _closed(inner) for name, inner in value.items()}
        elif key in {"anyOf", "oneOf", "allOf"}:
            closed["anyOf" if key == "oneOf" else key] = [_closed(inner) for inner in value]
        elif key == "items":
            closed[key] = _closed(value)
        elif key in _BOUNDS or (key == "minItems" and value > 1) or (key == "format" and value not in _FORMATS):
            told[key] = value
        elif "$ref" not in node or key == "$ref":
            closed[key] = value
    types = node.get("type", ())
    if "properties" in node or "object" in (types if isinstance(types, list) else [types]):
        if "properties" not in node or node.get("additionalProperties", False) is not False:
            raise _Open
        closed["additionalProperties"] = False
    if told:
        bounds = msgspec.json.encode(told).decode()
        closed["description"] = f"{closed['description']} {bounds}" if "description" in closed else bounds
    return closed


def signatures(messages: Sequence[Message], made_by: Sequence[str]) -> list[str]:
    """The signatures of the thinking that goes back to who is asked."""
    blocks = [block for message in messages for block in message.thinking if block.provider == PROVIDER]
    return [block.signature for block in blocks if block.signature and not is_foreign(block, made_by)]


def thinks_on(turns: Sequence[dict[str, Any]]) -> bool:
    """Whether the API lets a model think: not in the middle of a turn that began without."""
    if len(turns) < 2 or turns[-1]["content"][0]["type"] != "tool_result":
        return True
    return bool(turns[-2]["content"][0]["type"].endswith("thinking"))


def _system_blocks(message: Message) -> list[dict[str, Any]]:
    blocks = _parts(message.content)
    return [*blocks[:-1], with_extra(blocks[-1], message.extra, PROVIDER)] if blocks else []


def _user_blocks(message: Message, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    if message.role == "tool":
        result: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": ids.get(message.tool_call_id or "")
            or portable_id(message.tool_call_id or "", _MAX_ID_CHARS),
            "content": message.text,
        }
        if not isinstance(message.content, str) and any(isinstance(part, ImagePart) for part in message.content):
            result["content"] = _parts(message.content)
        if message.is_error:
            result |= {"is_error": True, "content": result["content"] or _NO_REASON}
        return [result]
    return _parts(message.content)


def _parts(content: str | Sequence[TextPart | ImagePart]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return _text_blocks(content)
    blocks: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, TextPart):
            blocks += [with_extra(block, part.extra, PROVIDER) for block in _text_blocks(part.text)]
            continue
        inline = inline_image(part.url)
        source = {"type": "url", "url": part.url}
        if inline is not None:
            source = {"type": "base64", "media_type": part.media_type or inline[0], "data": inline[1]}
        blocks.append(with_extra({"type": "image", "source": source}, part.extra, PROVIDER))
    return blocks


def _assistant_blocks(
    message: Message, ids: Mapping[str, str], made_by: Sequence[str], stale: Collection[str]
) -> list[dict[str, Any]]:
    calls = [_request_call(call, ids[call.id]) for call in message.tool_calls]
    said = [*_text_blocks(message.text), *calls]
    own = [block for block in message.thinking if block.provider == PROVIDER and not is_foreign(block, made_by)]
    own = [block for block in own if not block.signature or block.signature not in stale]
    for block in own:
        content = (block.data or {}).get("content", ())
        if content and sum(part["type"] == "tool_use" for part in content) == len(calls):
            going = iter(calls)
            kept = [part for part in content if part.get("signature", "") not in stale]
            return [part | next(going) if part["type"] == "tool_use" else part for part in kept]
    if not said:
        return []  # a turn must not end in thinking
    return [
        {"type": "redacted_thinking", "data": block.data["data"]}
        if block.data and "data" in block.data
        else {"type": "thinking", "thinking": block.text, "signature": block.signature}
        for block in own
        if block.text or block.signature or block.data
    ] + said


def _request_call(call: ToolCall, id: str) -> dict[str, Any]:
    given = call.arguments if call.malformed is None else {"not_json": call.malformed}
    return {"type": "tool_use", "id": id, "name": portable_name(call.name), "input": given}


def _text_blocks(text: str) -> list[dict[str, Any]]:
    """The API refuses a text block without a visible character."""
    return [{"type": "text", "text": text}] if text.strip() else []
