"""Ollama's own API; its imitation of OpenAI's is spoken by `OpenAILLM`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.errors import LLMError
from shared_libs.atomic.llms.chat_fields import as_ollama
from shared_libs.atomic.llms.embedding import read_embeddings
from shared_libs.atomic.llms.framing import AnyFraming
from shared_libs.atomic.llms.http_llm import HttpLLM
from shared_libs.atomic.llms.lessons import learn, learn_how_many
from shared_libs.atomic.llms.ollama_format import OllamaAnswer, request_messages, request_tool
from shared_libs.atomic.llms.payload import encode
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, ToolSpec

if TYPE_CHECKING:
    import numpy as np

PORT = 11434

_REQUEST_FIELDS = {
    "dimensions",
    "format",
    "keep_alive",
    "logprobs",
    "options",
    "shift",
    "think",
    "top_logprobs",
    "truncate",
}


class OllamaLLM(HttpLLM):
    """
    A model of an Ollama server.

    `options` are the fields of the request (`think`, `keep_alive`, `format`, ...); every other one is a parameter of
    the model (`temperature`, `num_ctx`, `num_predict`, ...). The address comes from `OLLAMA_HOST`; the key, for a
    server that wants one, from `OLLAMA_API_KEY`.
    """

    provider = "ollama"
    wire = "ollama"
    own_base_url = f"http://127.0.0.1:{PORT}"
    key_variable = "OLLAMA_API_KEY"
    base_url_variable = "OLLAMA_HOST"
    needs_key = False
    structured_output = True

    def _address_in_environment(self) -> str | None:
        """`OLLAMA_HOST` is also where the server listens: it may lack the scheme, the port, or mean every address."""
        host = os.environ.get(self.base_url_variable)
        if not host:
            return None
        if "://" in host:
            return host
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        return f"http://{'127.0.0.1' if name in {'', '0.0.0.0'} else name}:{port or PORT}"  # noqa: S104 - not bound

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        request = self._request(messages, tools, options) | {"stream": False}
        try:
            return await self._ask("/api/chat", encode(request), OllamaAnswer(self._wire().secrets))
        except LLMError as error:
            learn(self._dialect, request, error, schema="output_schema" in options)
            raise

    def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        request = self._request(messages, tools, options) | {"stream": True}
        answer = OllamaAnswer(self._wire().secrets)
        learns = partial(learn, self._dialect, request, schema="output_schema" in options)
        return self._follow("/api/chat", encode(request), answer, AnyFraming(lines=True), learn=learns)

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        request = {"model": self.model, "input": texts, **_sorted_out(options)}
        self._dialect.fit(request)
        wire = self._wire()
        try:
            return read_embeddings(await wire.post("/api/embed", encode(request)), texts, wire.secrets)
        except LLMError as error:
            learn_how_many(self._dialect, len(texts), error) or learn(self._dialect, request, error)
            raise

    @property
    def texts_at_once(self) -> int | None:
        """How many texts one request for embeddings may have."""
        return self._dialect.texts_at_once

    def _fields_of_chat(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return as_ollama(fields)

    def _request(self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any]) -> dict[str, Any]:
        output = options.get("output_schema")
        in_words = bool(tools) or "schema-words" in self._dialect.traits
        if output is not None and in_words:
            # the grammar of a format would keep the model from calling a tool
            messages = output.instruct(messages, beside_tools=bool(tools))
        request: dict[str, Any] = {"model": self.model, "messages": request_messages(messages)}
        if tools:
            request["tools"] = self._told_tools(tools, request_tool)
        request.update(_sorted_out({name: value for name, value in options.items() if name != "output_schema"}))
        if output is not None and not in_words:
            request["format"] = output.schema
        self._dialect.fit(request)
        return request


def _sorted_out(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of the request, and under `options` the parameters of the model."""
    fields = {name: value for name, value in options.items() if name in _REQUEST_FIELDS}
    parameters = {name: value for name, value in options.items() if name not in _REQUEST_FIELDS}
    if parameters:
        fields["options"] = fields.get("options", {}) | parameters
    return fields
