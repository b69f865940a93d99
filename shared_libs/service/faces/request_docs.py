"""
What the OpenAPI document says of requests whose format is another vendor's: what each must have.

The whole of them is described by the vendors; the bounds are those that a request is read with. Further fields are
allowed everywhere, as their clients send them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared_libs.service.faces import anthropic_messages, openai_chat, responses_request, vectors
from shared_libs.service.faces.wanted import MOST_ITEMS, Bound


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(*of: dict[str, Any], most: int = MOST_ITEMS) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": of[0] if len(of) == 1 else {"anyOf": list(of)}}


def _numbers(bounds: Mapping[str, Bound]) -> dict[str, Any]:
    return {
        name: {"type": ["integer" if whole else "number", "null"], "minimum": least, "maximum": most}
        for name, (least, most, whole) in bounds.items()
    }


_TEXT = {"type": "string", "minLength": 1}
_FLAG = {"type": ["boolean", "null"]}
_PARTS = _list(_object("type", "text", type={"const": "text"}, text=_TEXT))
_CONTENT = {"anyOf": [_TEXT, _PARTS]}


def _message(*roles: str) -> dict[str, Any]:
    return _object("role", "content", role={"enum": list(roles)}, content=_CONTENT)


CHAT = _object(
    "model",
    "messages",
    model=_TEXT,
    messages=_list(_message("system", "developer", "user", "assistant")),
    stream=_FLAG,
    **_numbers(openai_chat.BOUNDS),
)
RESPONSE = _object(
    *("model", "input"),
    model=_TEXT,
    input=_TEXT,
    stream=_FLAG,
    background=_FLAG,
    **_numbers(responses_request.BOUNDS),
)
_ASKED = {"model": _TEXT, "messages": _list(_message("user", "assistant"))} | _numbers(anthropic_messages.BOUNDS)
MESSAGE = _object(
    *("model", "messages", "max_tokens"),
    **_ASKED | {"max_tokens": _ASKED["max_tokens"] | {"type": "integer"}},
    stream=_FLAG,
)
COUNT = _object("model", "messages", **_ASKED)
_ONLY = {"description": "May be left out where there is one.", "type": ["string", "null"], "minLength": 1}
EMBEDDING = _object(
    "input",
    model=_ONLY,
    input={"anyOf": [_TEXT, _list(_TEXT, most=vectors.MAX_TEXTS)]},
    encoding_format={"enum": [*vectors.FORMS, None]},
    **_numbers(vectors.SIZES),
)
_DOCUMENTS = _list({"type": "string"}, _object("text", text={"type": "string"}), most=vectors.MAX_TEXTS)
RERANK = _object(
    "query",
    model=_ONLY,
    query=_TEXT,
    documents=_DOCUMENTS,
    texts={"description": "The documents, as text-embeddings-inference has them.", **_DOCUMENTS},
    **_numbers(vectors.MOST_WANTED),
) | {"oneOf": [{"required": ["documents"]}, {"required": ["texts"]}]}
RPC = _object("jsonrpc", "method", jsonrpc={"const": "2.0"}, method={"type": "string"}, params={"type": "object"})
