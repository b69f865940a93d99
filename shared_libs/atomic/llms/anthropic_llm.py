"""Anthropic's messages API."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from shared_libs.atomic.errors import BadRequest, LLMError
from shared_libs.atomic.llms.anthropic_answer import AnthropicAnswer
from shared_libs.atomic.llms.anthropic_request import (
    closed_schema,
    request_messages,
    request_tool,
    signatures,
    thinks_on,
    tools_of,
)
from shared_libs.atomic.llms.chat_fields import as_anthropic
from shared_libs.atomic.llms.http_llm import VendorLLM
from shared_libs.atomic.llms.lessons import learn, worth_again
from shared_libs.atomic.llms.payload import encode
from shared_libs.atomic.patterns import late
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, ToolSpec

_UNREADABLE = late(r"signature|thinking`? blocks\b.{0,60}cannot be modified")
"""That thinking is not taken back as it was given."""

VERSION = "2023-06-01"
"""The version of the API that is spoken."""

MAX_TOKENS = 8192
"""`max_tokens` where the options have none: the API insists on one."""


class AnthropicLLM(VendorLLM):
    """
    A model of Anthropic.

    `options` are the fields of the request as the API names them: `max_tokens`, `temperature`, `thinking`,
    `tool_choice`, `cache_control` (`{"type": "ephemeral"}` caches the prompt), ... The key comes from
    `ANTHROPIC_API_KEY`, or as a bearer token from `ANTHROPIC_AUTH_TOKEN`; the address from `ANTHROPIC_BASE_URL`.
    Thinking blocks go back with their signatures, those of other providers are left out.

    `client` is an `anthropic.AsyncAnthropic`, or the one of Vertex. Bedrock's streams have a framing of their own that
    is not read: ask it with `stream=False`.
    """

    provider = "anthropic"
    wire = "anthropic"
    sdk = "anthropic"
    own_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    base_url_variable = "ANTHROPIC_BASE_URL"
    structured_output = True

    def _headers(self) -> dict[str, str]:
        headers = {"anthropic-version": VERSION}
        token = os.environ.get("ANTHROPIC_AUTH_TOKEN")
        if token and not self._api_key and not os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {token.strip()}"
        elif key := self._key():
            headers["x-api-key"] = key
        return headers

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        request = self._request(messages, tools, options)
        try:
            return await self._ask("/v1/messages", encode(request), self._answer())
        except LLMError as error:
            self._learn_from(error, request, messages, options)
            raise

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        request = self._request(messages, tools, options) | {"stream": True}
        answer = self._answer()
        try:
            async with aclosing(self._follow("/v1/messages", encode(request), answer)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except LLMError as error:
            self._learn_from(error, request, messages, options)
            raise

    def _fields_of_chat(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return as_anthropic(fields)

    def _request(self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any]) -> dict[str, Any]:
        output = options.get("output_schema")
        in_words = "schema-words" in self._dialect.traits
        schema = None if output is None or in_words else closed_schema(output.schema)
        if output is not None and schema is None:
            messages = output.instruct(messages, beside_tools=bool(tools))
        system, turns = request_messages(messages, self._made_by, self._stale)
        request: dict[str, Any] = {"model": self.model, "max_tokens": MAX_TOKENS, "messages": turns}
        if system:
            request["system"] = system
        request.update(options)
        request.pop("output_schema", None)
        if not thinks_on(turns):
            request.pop("thinking", None)
        if tools:
            request["tools"] = self._told_tools(tools, request_tool)
        elif called := tools_of(turns):
            request["tools"], request["tool_choice"] = called, {"type": "none"}
        else:
            request.pop("tool_choice", None)
        if schema is not None:
            form = {"type": "json_schema", "schema": schema}
            request["output_config"] = request.get("output_config", {}) | {"format": form}
        self._dialect.fit(request)
        return request

    def _answer(self) -> AnthropicAnswer:
        return AnthropicAnswer(self._wire().secrets, self._made_by)

    def _learn_from(
        self, error: LLMError, request: dict[str, Any], messages: list[Message], options: dict[str, Any]
    ) -> None:
        """Ask otherwise from now on, where the server says what it does not take or cannot read."""
        sent = [name for name in signatures(messages, self._made_by) if name not in self._stale]
        if sent and isinstance(error, BadRequest) and _UNREADABLE.search(str(error)):
            self._stale.extend(sent)
            worth_again(error, "the thinking it cannot read is left out from now on")
            return
        learn(self._dialect, request, error, schema="output_schema" in options)
        if "schema-words" in self._dialect.traits:
            self.structured_output = False
