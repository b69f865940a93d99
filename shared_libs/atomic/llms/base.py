"""The LLM port: `BaseLLMWrapper.async_chat` is the one way a model is asked, and it passes the whole onion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, final

import msgspec

from shared_libs.atomic.deadline import NEVER, Deadline, event_loop
from shared_libs.atomic.errors import LLMError, MisuseError, StreamInterrupted
from shared_libs.atomic.inbox import Inbox
from shared_libs.atomic.llms.fitting import fitted
from shared_libs.atomic.llms.lessons import TOLD_IN_WORDS, worth_again
from shared_libs.atomic.llms.names import model_named
from shared_libs.atomic.llms.request import InWords, Request, checked_options, checked_response, plain_options
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.llms.tool_schema import restored
from shared_libs.atomic.loading import load
from shared_libs.atomic.opening import closed, opened
from shared_libs.atomic.rescue import door
from shared_libs.atomic.resilience.attempt import ChunkSink, Listener, ModelCall, Watch
from shared_libs.atomic.resilience.chain import run_chain
from shared_libs.atomic.resilience.health import ModelHealth
from shared_libs.atomic.resilience.policy import Resilience
from shared_libs.atomic.resilience.shared_limiter import close_store
from shared_libs.atomic.scope import current_deadline, tell_outside
from shared_libs.atomic.supervise import GRACE_S, settle
from shared_libs.atomic.types import (
    HasSpec,
    LLMChunk,
    LLMResponse,
    Message,
    Price,
    Prompt,
    ToolCall,
    ToolSpec,
    Usage,
    as_messages,
    as_tool_specs,
    estimate_tokens,
)

if TYPE_CHECKING:
    import numpy as np

CALL_TIMEOUT_S = 600.0
"""How long a call may take, retries and fallbacks included, when nobody says: what the vendors' SDKs allow one try."""

T = TypeVar("T")
AnyTool = ToolSpec | HasSpec | Mapping[str, Any]


class BaseLLMWrapper:
    """
    A model, with its fallbacks, behind retry, breaker and timeouts.

    A provider implements one attempt of `_chat`, and of `_stream` and `_embed` where it can; it raises the subclass of
    `LLMError` that says what happened, and leaves every decision to the onion. The public methods are final. Wrappers
    may be built outside a running loop and shared by many runs at once.

    Args:
        model: the model's name at the provider.
        resilience: the policy, or a dict of its keys; a fallback without one takes the primary's.
        fallbacks: the models to ask when this one has failed, in order; "provider/model" names one.
        price: US dollars per million tokens; None means unknown, which is not zero.
        options: request fields sent with every call (`temperature`, `max_tokens`, ...); a call's own win.

    """

    provider: ClassVar[str] = "custom"
    wire: str = "openai"
    """What its requests are written in: `openai` is chat completions."""
    native_tools: bool = True
    """Whether the model takes tool definitions; without, or once it has refused them, an agent speaks text with it."""
    structured_output: bool = False
    """Whether `_chat` and `_stream` take an `OutputSchema` as `output_schema`, or tell it in words themselves."""
    context_window: int | None = None
    """How many tokens the model takes, where that is told: a conversation too long for it is not sent to a smaller."""
    english_first: bool = False
    """Whether its embeddings know English, and of other languages little."""
    obeys: bool = False
    """Whether a request is known to end when it is cancelled: then it needs no task of its own to be left behind."""
    rehearsal: ClassVar[bool] = False
    """Whether this is the labelled stand-in and not a model."""

    def __init__(
        self,
        model: str,
        *,
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        price: Price | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = self._checked_name(model)
        self.resilience = None if resilience is None else Resilience.of(resilience)
        self.fallbacks = _checked_fallbacks(fallbacks)
        self.price = price
        self.options = checked_options(options or {})
        self._chain: tuple[Resilience, list[tuple[BaseLLMWrapper, Resilience]]] | None = None
        self._limits_tokens = False
        self._is_open = False

    @classmethod
    def _checked_name(cls, model: Any) -> str:
        """Take the name of a model, before anything is looked up by it."""
        if not (isinstance(model, str) and model):
            raise MisuseError(f"{cls.__name__} needs the name of a model, not {model!r:.100}")
        return model

    def __repr__(self) -> str:
        told = [repr(self.model), *self._told()]
        if self.fallbacks:
            told.append(f"fallbacks=[{', '.join(map(repr, self.fallbacks))}]")
        return f"{type(self).__name__}({', '.join(told)})"

    def _told(self) -> list[str]:
        """What else tells this model from others, for `repr`; never a secret."""
        return []

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for method in ("async_generate", "async_chat", "async_stream", "async_embed", "async_rerank"):
            if method in vars(cls):
                raise MisuseError(f"{cls.__name__} overrides {method}, which is final; write `_{method[6:]}` instead")

    @final
    async def async_generate(self, prompt: Prompt, **options: Any) -> LLMResponse:
        """Answer a prompt (a question or messages); the same as `async_chat` without tools."""
        return await self.async_chat(prompt, **options)

    @final
    async def async_chat(
        self,
        messages: Prompt,
        tools: Iterable[AnyTool] = (),
        *,
        timeout: float | None = None,
        on_chunk: ChunkSink | None = None,
        stream: bool = True,
        output_schema: OutputSchema | type | Mapping[str, Any] | None = None,
        fit: bool = True,
        in_words: InWords | None = None,
        **options: Any,
    ) -> LLMResponse:
        """
        Ask the chain and return the whole answer.

        Args:
            messages: the conversation: our messages, dicts with `role` and `content`, or a question.
            tools: what the model may call.
            timeout: seconds for everything: waits, retries, fallbacks. The current deadline narrows it further; where
                there is neither, `CALL_TIMEOUT_S` holds.
            on_chunk: gets the chunks as they come, all but the "finished" one.
            stream: with `on_chunk`, whether to ask for a stream; else the answer comes in one piece.
            output_schema: a pydantic model, a dataclass, a TypedDict or a JSON Schema the answer has to fit; it is in
                `response.parsed`. A wrong answer is sent back once.
            fit: False asks for an answer of that shape, and leaves it as it came: the caller reads it.
            in_words: writes what a model that takes no tools is told, where the caller reads calls out of its text;
                else such a model refuses.
            options: request fields as the provider names them.

        Raises:
            LLMError: nobody answered; carries `attempts` and `causes`.
            MisuseError: the messages, tools, timeout or schema are not valid.

        """
        checked, specs = as_messages(messages), as_tool_specs(tools)
        if not checked:
            raise MisuseError("there is no message to answer")
        if options:
            checked_options(options)
        output = None if output_schema is None else OutputSchema.of(output_schema)
        request = Request(checked, specs, options, output, in_words)
        streaming = stream and on_chunk is not None

        routes = self._routes()
        about = estimate_tokens(checked) if self._limits_tokens else 0
        send = partial(_send, request, streaming)
        call = ModelCall(send, _deadline(timeout), Listener(on_chunk), stream=streaming, about_tokens=about)
        response, model = await run_chain(routes, call)
        wrong_usd: float | None = 0.0
        if output is not None and fit and not response.tool_calls:
            first_usd, asked = _cost_usd(model, response.usage), request.messages
            response, model = await fitted(routes, request, output, call, (response, model))
            wrong_usd = 0.0 if request.messages is asked else first_usd
        cost_usd = _cost_usd(model, response.usage)
        answer = msgspec.structs.replace(
            response,
            attempts=tuple(call.attempts),
            provider=model.provider,
            requested_model=model.model,
            model=response.model or model.model,
            cost_usd=None if cost_usd is None or wrong_usd is None else wrong_usd + cost_usd,
        )
        tell_outside(answer)
        return answer

    @final
    async def async_stream(
        self, messages: Prompt, tools: Iterable[AnyTool] = (), *, timeout: float | None = None, **options: Any
    ) -> AsyncIterator[LLMChunk]:
        """
        Ask the chain and yield the answer as it comes; the last chunk is "finished".

        A "restarted" chunk says that what came before is void. Closing the iterator early cancels the request.

        Raises:
            LLMError: nobody answered to the end.

        """
        loop = event_loop()
        chunks: Inbox[LLMChunk] = Inbox()
        answer = loop.create_task(self.async_chat(messages, tools, timeout=timeout, on_chunk=chunks.put, **options))
        answer.add_done_callback(chunks.close)
        try:
            while some := await chunks.some():
                for chunk in some:
                    yield chunk
            yield LLMChunk("finished", response=answer.result())
        finally:
            # nobody listens any more: an error is not "never retrieved"
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            if not answer.done():
                answer.cancel()
                if (cancelled := await settle([answer], 2 * GRACE_S)) is not None:
                    raise cancelled

    @final
    @door
    async def async_embed(self, texts: Sequence[str], *, timeout: float | None = None, **options: Any) -> np.ndarray:
        """
        Return the embeddings of the texts: float32, shape (len(texts), dimensions), in their order.

        More texts than a server takes at once are cut into several requests, a few of them at a time.

        Only fallbacks with the same model are asked: vectors of two models cannot be compared.

        Raises:
            LLMError: nobody answered.
            MisuseError: `texts` is one string, or empty, or this provider has no embeddings.

        """
        if isinstance(texts, str) or not texts:
            raise MisuseError("async_embed takes a list of at least one text")
        routes = [route for route in self._routes() if route[0].model == self.model and route[0].embeds]
        if not routes:
            raise MisuseError(f"{type(self).__name__} has no embeddings")

        from shared_libs.atomic.llms.embedding import checked_embeddings, in_parts, only  # most wrappers never need it

        if options:
            checked_options(options)
        deadline = _deadline(timeout)

        await load("numpy")

        async def embed(part: Sequence[str]) -> np.ndarray:
            async def send(model: BaseLLMWrapper, _: Watch) -> np.ndarray:
                await model._ready()
                return checked_embeddings(await model._embed(list(part), **only(model, options)), part)

            vectors, _ = await run_chain(routes, ModelCall(send, deadline, Listener(), operation="embeddings"))
            return vectors

        def at_most() -> int | None:
            return min((most for model, _ in routes if (most := model.texts_at_once)), default=None)

        return await in_parts(texts, at_most, embed)

    @final
    @door
    async def async_rerank(
        self, query: str, texts: Sequence[str], *, timeout: float | None = None, **options: Any
    ) -> list[float]:
        """
        Return how well each text answers the query, in their order: more is better, on the model's own scale.

        Raises:
            LLMError: nobody answered.
            MisuseError: `texts` is one string, or empty, or this provider is no reranker.

        """
        if isinstance(texts, str) or not texts:
            raise MisuseError("async_rerank takes a list of at least one text")
        routes = [route for route in self._routes() if route[0].reranks]
        if not routes:
            raise MisuseError(f"{type(self).__name__} is no reranker")
        if options:
            checked_options(options)

        from shared_libs.atomic.llms.embedding import checked_scores  # most wrappers never need it

        async def send(model: BaseLLMWrapper, _: Watch) -> list[float]:
            await model._ready()
            return checked_scores(await model._rerank(query, list(texts), **model.options | options), len(texts))

        scores, _ = await run_chain(routes, ModelCall(send, _deadline(timeout), Listener(), operation="rerank"))
        return scores

    @property
    def reranks(self) -> bool:
        """Whether this provider is a reranker."""
        return type(self)._rerank is not BaseLLMWrapper._rerank  # noqa: SLF001 - its own method

    @property
    def embeds(self) -> bool:
        """Whether this provider has embeddings."""
        return type(self)._embed is not BaseLLMWrapper._embed  # noqa: SLF001 - its own method

    async def aopen(self) -> None:
        """
        Get ready what takes long, of this wrapper and its fallbacks, before a clock starts; optional, safe to repeat.

        The first request does it as well; nothing is asked of a model. Longer than `OPEN_S` is `DeadlineExceeded`.
        """
        await opened(self.model, self._ready())
        for fallback in self.fallbacks:
            await fallback.aopen()

    @property
    def texts_at_once(self) -> int | None:
        """How many texts `_embed` takes in one request; None: any number. More are split."""
        return None

    async def aclose(self) -> None:
        """Close its connections and its fallbacks', within `CLOSE_S`; using it afterwards opens them again."""
        await closed((self.model, self._close()), *((each.model, each.aclose()) for each in self.fallbacks))
        if self.resilience is not None and self.resilience.rate_limit is not None:
            await close_store(self.resilience.rate_limit)

    async def __aenter__(self) -> Self:
        await self.aopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        """Make one request."""
        raise NotImplementedError

    @door
    async def _stream(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any
    ) -> AsyncGenerator[LLMChunk, None]:
        """Make one streamed request; the last chunk is "finished". Without streaming the answer is one piece."""
        response = await self._chat(messages, tools, **options)
        if response.text:
            yield LLMChunk("text", response.text)
        for call in response.tool_calls:
            yield LLMChunk("tool_call", tool_call=call)
        yield LLMChunk("finished", response=response)

    def _streams(self, tools: tuple[ToolSpec, ...]) -> bool:
        """Whether an answer may be asked for as a stream."""
        return True

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        """Make one request for embeddings."""
        raise NotImplementedError

    async def _rerank(self, query: str, texts: list[str], **options: Any) -> list[float]:
        """Make one request for scores."""
        raise NotImplementedError

    def _fields_of_chat(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a chat completions request as this provider names them."""
        return dict(fields)

    async def _open(self) -> None:
        """Load what the provider's requests need."""

    async def _close(self) -> None:
        """Close the provider's own connections."""

    @cached_property
    def health(self) -> ModelHealth:
        """What the process knows of this model, as whoever pays for it meets it; settled at the first use."""
        return self._health()

    def _health(self) -> ModelHealth:
        """What the process knows of this model; a provider with a base URL shares it with its equals."""
        return ModelHealth(f"{self.provider} {self.model}")

    def _routes(self) -> list[tuple[BaseLLMWrapper, Resilience]]:
        """The chain, flat: every model with the policy that holds for it."""
        if self._chain is None:
            own = self.resilience or Resilience()
            theirs = [route for fallback in self.fallbacks for route in fallback._routes()]  # noqa: SLF001 - its family
            others = [(model, policy if model.resilience else own) for model, policy in theirs]
            self._chain = own, others
            self._limits_tokens = any(_limits_tokens(policy) for policy in (own, *(policy for _, policy in others)))
        return [(self, self._chain[0]), *self._chain[1]]  # kept without itself, or only the collector would free it

    @door
    async def _ready(self) -> None:
        if not self._is_open:
            await load("tenacity")  # what goes wrong first should not wait for it
            await self._open()
            self._is_open = True

    async def _send(self, request: Request, watch: Watch, *, stream: bool) -> LLMResponse:
        """Make one attempt; a model that refuses tools as such is told of them in words from then on."""
        if not self._is_open:
            await self._ready()
        if request.in_words is None:
            return await self._sent(request, request.messages, request.tools, watch, stream=stream)
        if not self.native_tools:
            told = request.in_words(request.messages, request.tools)
            answer = await self._sent(request, told, (), watch, stream=stream)
            return msgspec.structs.replace(answer, in_words=True)
        try:
            return await self._sent(request, request.messages, request.tools, watch, stream=stream)
        except LLMError as error:
            if error.of_tools:
                self.native_tools = False
                worth_again(error, TOLD_IN_WORDS)
            raise

    @door
    async def _sent(
        self, request: Request, messages: list[Message], tools: tuple[ToolSpec, ...], watch: Watch, *, stream: bool
    ) -> LLMResponse:
        options = self.options | request.options
        if "chat_fields" in options:
            own, told = options.pop("wire_fields", {}).get(self.wire), options.pop("chat_fields")
            options |= self._fields_of_chat(told) if own is None else own
        if request.output is not None and self.structured_output and tools == request.tools:
            options["output_schema"] = request.output
        elif request.output is not None:
            messages = request.output.instruct(messages, beside_tools=bool(request.tools))
        if watch.asks is not None:
            watch.asks(messages, tools, plain_options(options))
        if not stream or not self._streams(tools):
            watch.wait_for_all()
            answer = checked_response(await self._chat(messages, tools, **options), tools)
            watch.whole(answer.text)
            return answer
        finished: LLMResponse | None = None
        async with aclosing(self._stream(messages, tools, **options)) as chunks:
            async for chunk in chunks:
                kind = chunk.kind if type(chunk) is LLMChunk else ""
                if kind == "finished":
                    finished = chunk.response
                elif kind == "tool_call" and type(chunk.tool_call) is ToolCall:
                    watch.chunk(LLMChunk(kind, tool_call=restored(chunk.tool_call, tools)))
                else:
                    watch.chunk(chunk)
        if finished is None:
            raise StreamInterrupted("the stream ended without its end")
        return checked_response(finished, tools)


def _send(request: Request, stream: bool, model: BaseLLMWrapper, watch: Watch) -> Coroutine[Any, Any, LLMResponse]:
    return model._send(request, watch, stream=stream)  # noqa: SLF001 - its own


def _checked_fallbacks(given: Any) -> tuple[BaseLLMWrapper, ...]:
    """
    Take the fallbacks; a name is made a model.

    Raises:
        MisuseError: they are no list of models.

    """
    if isinstance(given, str | BaseLLMWrapper) or not isinstance(given, Iterable):
        raise MisuseError(f"fallbacks is a list of models, not {given!r:.100}; write fallbacks=[…]")
    models = tuple(model_named(one) if isinstance(one, str) else one for one in given)
    for one in models:
        if not isinstance(one, BaseLLMWrapper):
            raise MisuseError(
                f"a fallback is a model, or the name of one such as 'openai/gpt-5.4-mini', not {one!r:.100}"
            )
    return models


def _limits_tokens(policy: Resilience) -> bool:
    return policy.rate_limit is not None and policy.rate_limit.tokens_per_minute is not None


def _deadline(timeout: float | None) -> Deadline:
    """When a call has to be over: never is not an answer."""
    deadline = current_deadline()
    if timeout is None and deadline != NEVER:
        return deadline
    return min(deadline, Deadline.after(CALL_TIMEOUT_S if timeout is None else timeout))


def _cost_usd(model: BaseLLMWrapper, usage: Usage) -> float | None:
    """What tokens of a model cost, in US dollars; None where its price is unknown, or nobody counted the tokens."""
    price = model.price
    if price is None or ((price.input or price.output) and not (usage.input_tokens or usage.output_tokens)):
        return None
    return price.cost_usd(usage)
