"""OpenAI, and every server that speaks one of its APIs: vLLM, llama.cpp, LiteLLM, ..."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from shared_libs.atomic.errors import BadRequest, LLMError, MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.chat_fields import as_responses
from shared_libs.atomic.llms.chat_rules import conform, fit_tools, tools_of
from shared_libs.atomic.llms.embedding import read_embeddings
from shared_libs.atomic.llms.given import missed_in
from shared_libs.atomic.llms.http_llm import VendorLLM
from shared_libs.atomic.llms.lessons import learn, learn_how_many, worth_again
from shared_libs.atomic.llms.openai_format import OpenAIAnswer
from shared_libs.atomic.llms.openai_request import WIRE as CHAT_WIRE
from shared_libs.atomic.llms.openai_request import given_fields, request_messages, request_tool
from shared_libs.atomic.llms.openai_responses import ENCRYPTED_REASONING, ResponsesAnswer
from shared_libs.atomic.llms.payload import encode
from shared_libs.atomic.llms.responses_request import WIRE, reasoning_ids, request_items
from shared_libs.atomic.llms.responses_request import request_tool as responses_tool
from shared_libs.atomic.llms.strict_schema import strict_schema
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, Price, ToolSpec

if TYPE_CHECKING:
    import numpy as np
    from openai import AsyncOpenAI

    from shared_libs.atomic.llms.event_stream import Answer
    from shared_libs.atomic.llms.structured import OutputSchema

Api = Literal["chat", "responses"]

MAX_TEXTS = 2048
"""How many texts the API takes in one request for embeddings."""

_JSON_SCHEMA = {"type": "json_schema"}
_PATHS: dict[str, str] = {"chat": "/chat/completions", "responses": "/responses"}


class OpenAILLM(VendorLLM):
    """
    A model of OpenAI, or of any server that speaks its chat completions or its Responses API.

    `options` are the fields of the request as the API names them: `temperature`, `max_completion_tokens`,
    `tool_choice`, `response_format`, ... The key comes from `OPENAI_API_KEY`, the address from `OPENAI_BASE_URL`,
    organization and project from `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID`. Only OpenAI's own address insists on a key.

    Args:
        client: an `openai.AsyncOpenAI`, or `AsyncAzureOpenAI`, to send everything through instead.
        api: which of OpenAI's APIs is spoken: `chat`, chat completions, or `responses`, where a model keeps its
            reasoning from turn to turn. Options are then named as that API names them; only `max_tokens` is renamed.

    Raises:
        MisuseError: `base_url` is no HTTP address, stands beside a client, or `api` is neither.

    """

    provider = "openai"
    sdk = "openai"
    own_base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"
    base_url_variable = "OPENAI_BASE_URL"
    structured_output = True

    def __init__(  # noqa: PLR0913 - the model and eight keywords
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
        api: Api = "chat",
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        price: Price | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if api not in _PATHS:
            raise MisuseError(f"api {api!r} is none of OpenAI's; allowed: {', '.join(_PATHS)}")
        self._api, self.wire = api, CHAT_WIRE if api == "chat" else WIRE
        super().__init__(
            model,
            api_key=api_key,
            base_url=base_url,
            client=client,
            resilience=resilience,
            fallbacks=fallbacks,
            price=price,
            options=options,
        )

    def _headers(self) -> dict[str, str]:
        headers = {}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        for header, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
            if value := os.environ.get(variable):
                headers[header] = value
        return headers

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        request = self._request(messages, tools, options, stream="streams-only" in self._dialect.traits)
        try:
            return await self._ask(_PATHS[self._api], encode(request), self._answer())
        except LLMError as error:
            self._learn_from(error, request, messages, options)
            raise

    def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        request = self._request(messages, tools, options, stream=True)
        learns = partial(self._learn_from, request=request, messages=messages, options=options)
        return self._follow(_PATHS[self._api], encode(request), self._answer(), learn=learns)

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        request = {"model": self.model, "input": texts, "encoding_format": "base64", **options}
        self._dialect.fit(request)
        wire = self._wire()
        try:
            return read_embeddings(await wire.post("/embeddings", encode(request)), texts, wire.secrets)
        except LLMError as error:
            self._hint(error)
            learn_how_many(self._dialect, len(texts), error) or learn(self._dialect, request, error)
            raise

    def _fields_of_chat(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return dict(fields) if self._api == "chat" else as_responses(fields)

    @property
    def texts_at_once(self) -> int | None:
        """How many texts one request for embeddings may have."""
        return self._dialect.texts_at_once or MAX_TEXTS

    def _answer(self) -> Answer:
        secrets = self._wire().secrets
        return OpenAIAnswer(secrets, self._made_by) if self._api == "chat" else ResponsesAnswer(secrets, self._made_by)

    def _request(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any], *, stream: bool = False
    ) -> dict[str, Any]:
        output: OutputSchema | None = options.get("output_schema")
        form = None if output is None else self._form(output, beside_tools=bool(tools))
        if output is not None and (form is None or form["type"] == "json_object"):
            messages = output.instruct(messages, beside_tools=bool(tools))
        write = self._responses_request if self._api == "responses" else self._chat_request
        request = write(messages, tools, {name: value for name, value in options.items() if name != "output_schema"})
        if form is not None and self._api == "responses":
            request["text"] = request.get("text", {}) | {"format": form}
        elif form is not None:
            request["response_format"] = form
        if stream:
            request["stream"] = True
            if self._api == "chat":
                request.setdefault("stream_options", {"include_usage": True})
        else:
            request.pop("stream_options", None)  # OpenAI and vLLM refuse it then
        self._dialect.fit(request)
        return request

    def _chat_request(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any]
    ) -> dict[str, Any]:
        dialect = self._dialect
        told = request_messages(messages, self._made_by, dialect.not_returned, dialect.stand_ins)
        said = conform(told, dialect)
        request: dict[str, Any] = {"model": self.model, "messages": said, **options}
        if tools:
            request["tools"] = self._told_tools(tools, lambda tool: fit_tools([request_tool(tool)], dialect)[0])
        elif "tools-with-history" in self._dialect.traits and (called := tools_of(said)):
            request["tools"], request["tool_choice"] = called, "none"
        else:
            _leave_out_tools(request)
        return request

    def _responses_request(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any]
    ) -> dict[str, Any]:
        items = request_items(messages, self._made_by, self._stale)
        request: dict[str, Any] = {"model": self.model, "input": items, "store": False, **options}
        if tools:
            says_strict = "no-strict-tools" not in self._dialect.traits
            request["tools"] = self._told_tools(tools, partial(responses_tool, says_strict=says_strict))
        else:
            _leave_out_tools(request)
        if "max_tokens" in request:
            # what the other models of a chain call it
            request.setdefault("max_output_tokens", request.pop("max_tokens"))
        if "no-encrypted-reasoning" not in self._dialect.traits:
            request["include"] = list(dict.fromkeys([*request.get("include", ()), ENCRYPTED_REASONING]))
        return request

    def _form(self, output: OutputSchema, *, beside_tools: bool) -> dict[str, Any] | None:
        """A structured output as the API takes it, strict where the schema can be; None: it is told in words."""
        traits = self._dialect.traits
        if "schema-words" in traits or (beside_tools and "schema-beside-tools" not in traits):
            return None
        if "schema-object" in traits and self._api == "chat":
            return {"type": "json_object"}
        strict = None if "schema-loose" in traits else strict_schema(output.schema)
        form: dict[str, Any] = {"name": output.name, "schema": output.schema if strict is None else strict}
        if strict is not None:
            form["strict"] = True
        return {"type": "json_schema", **form} if self._api == "responses" else _JSON_SCHEMA | {"json_schema": form}

    def _learn_from(
        self, error: LLMError, request: dict[str, Any], messages: list[Message], options: dict[str, Any]
    ) -> None:
        """Ask otherwise from now on, where the server says what it does not take or cannot read."""
        of_reasoning = self._learn_of_reasoning if self._api == "responses" else self._learn_of_given
        if isinstance(error, BadRequest) and of_reasoning(error, messages):
            return
        learn(self._dialect, request, error, chat=self._api == "chat", schema="output_schema" in options)
        if "schema-words" in self._dialect.traits:
            self.structured_output = False

    def _learn_of_given(self, error: BadRequest, messages: list[Message]) -> bool:
        """Leave out what the server gave and does not take back; stand in for what it misses in calls of others."""
        said, dialect = str(error), self._dialect
        missed = missed_in(said)
        called = any(message.tool_calls for message in messages)
        if called and missed is not None and missed not in dialect.stand_ins:
            dialect.stand_ins.add(missed)
            lesson = f"{missed} is sent with every call"
        else:
            refused = {name for name in given_fields(messages, self._made_by) if name in said} - dialect.not_returned
            if missed is not None or not refused:
                return False
            dialect.not_returned |= refused
            lesson = f"{', '.join(sorted(refused))} is not sent back"
        dialect.note(lesson)
        worth_again(error, f"{lesson}, from now on")
        return True

    def _learn_of_reasoning(self, error: BadRequest, messages: list[Message]) -> bool:
        said, traits = str(error), self._dialect.traits
        if "ncrypted content is not supported" in said or ENCRYPTED_REASONING in said:
            if "no-encrypted-reasoning" in traits:
                return False
            traits.add("no-encrypted-reasoning")
            self._dialect.note("reasoning is not asked for in encrypted form")
            worth_again(error, "encrypted reasoning is left out from now on")
            return True
        sent = [item for item in reasoning_ids(messages, self._made_by) if item not in self._stale]
        if sent and any(word in said for word in ("ncrypted content", *sent)):
            self._stale.extend(sent)
            worth_again(error, "the reasoning it cannot read is left out from now on")
            return True
        return False


def _leave_out_tools(request: dict[str, Any]) -> None:
    """Without tools there is nothing to choose from, and some servers say so with a refusal."""
    for name in ("tool_choice", "parallel_tool_calls"):
        request.pop(name, None)
