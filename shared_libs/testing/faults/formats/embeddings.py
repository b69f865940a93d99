"""
The embeddings of OpenAI and Ollama, as their servers say them.

A text's vector is drawn from the text: the same text has the same vector always, and another one another.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping
from typing import Any

from shared_libs.testing.faults.formats.base import Answer, dumps
from shared_libs.testing.faults.formats.ollama_chat import OllamaChat
from shared_libs.testing.faults.formats.openai_errors import OpenAIErrors

DIMENSIONS = 8
"""Of a vector, where the request does not say so."""


class OpenAIEmbeddings(OpenAIErrors):
    """`POST /v1/embeddings`."""

    path = "/v1/embeddings"
    stream_type = "application/json"

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The vectors as one JSON document."""
        rows: list[Any] = _vectors(request)
        if request.get("encoding_format") == "base64":
            rows = [base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode() for row in rows]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        given = answer.usage.input_tokens
        usage = {"prompt_tokens": given, "total_tokens": given}
        return dumps({"object": "list", "data": data, "model": answer.model, "usage": usage})

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """There is no stream of vectors: all of them in one piece."""
        return [self.whole(answer, request)]

    def broken_event(self) -> bytes:
        """Something that is no JSON."""
        return b'{"data": ['

    def filtered(self, answer: Answer, request: Mapping[str, Any], *, stream: bool) -> list[bytes] | None:
        """A refusal, see `error`."""
        return None


class OllamaEmbeddings(OllamaChat):
    """`POST /api/embed`."""

    path = "/api/embed"
    stream_type = "application/json"
    streams_unasked = False

    def whole(self, answer: Answer, request: Mapping[str, Any]) -> bytes:
        """The vectors as one JSON document."""
        told = {"model": answer.model, "embeddings": _vectors(request), "total_duration": 1, "load_duration": 1}
        return dumps(told | {"prompt_eval_count": answer.usage.input_tokens})

    def events(self, answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
        """There is no stream of vectors: all of them in one piece."""
        return [self.whole(answer, request)]


def _vectors(request: Mapping[str, Any]) -> list[list[float]]:
    given = request.get("input")
    # a list of numbers is one text, told as its tokens
    texts = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
    size = request.get("dimensions")
    return [_vector(text, size if isinstance(size, int) else DIMENSIONS) for text in texts]


def _vector(text: Any, size: int) -> list[float]:
    drawn = struct.unpack(f"<{size}i", hashlib.shake_256(dumps(text)).digest(4 * size))
    length = math.hypot(*drawn)
    return [number / length for number in drawn]
