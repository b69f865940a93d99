"""
What the OpenAPI document says of requests whose format is another vendor's: what each must have.

The whole of them is described by the vendors. Further fields are allowed everywhere, as their clients send them.
"""

from __future__ import annotations

from typing import Any


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(*of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": of[0] if len(of) == 1 else {"anyOf": list(of)}}


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
)
RESPONSE = _object("model", "input", model=_TEXT, input=_TEXT, stream=_FLAG, background=_FLAG)
MESSAGE = _object(
    "model",
    "messages",
    "max_tokens",
    model=_TEXT,
    messages=_list(_message("user", "assistant")),
    max_tokens={"type": "integer", "minimum": 1},
    stream=_FLAG,
)
COUNT = _object("model", "messages", model=_TEXT, messages=_list(_message("user", "assistant")))
_ONLY = {"description": "May be left out where there is one.", "type": ["string", "null"], "minLength": 1}
EMBEDDING = _object("input", model=_ONLY, input={"anyOf": [_TEXT, _list(_TEXT)]})
_DOCUMENTS = _list({"type": "string"}, _object("text", text={"type": "string"}))
RERANK = _object(
    "query",
    model=_ONLY,
    query=_TEXT,
    documents=_DOCUMENTS,
    texts={"description": "The documents, as text-embeddings-inference has them.", **_DOCUMENTS},
) | {"oneOf": [{"required": ["documents"]}, {"required": ["texts"]}]}
RPC = _object("jsonrpc", "method", jsonrpc={"const": "2.0"}, method={"type": "string"}, params={"type": "object"})
